"""One network for every lens beside a network for each lens alone, on lenses that the one has not seen.

    python benchmarks/quality/many_lenses.py --shards nyu.zarr --test 24mm.zarr --test 85mm.zarr --out runs/many-lenses

`--shards` gives the sharp frames and depths; each `--test` is a store of the same frames blurred by a lens of its own, of
which only the test split is used, to score. All networks learn the depth head with the same options, answering the
signed circle of confusion; blurred while training, by a lens from `--lens-range` or always by the one of a store. The
one for every lens is trained twice: told each sample's lens, and (unless `--told-only`) not told, where its answer in px
becomes metres by the lens all the same. A run that is there is kept, so the same command goes on where it was stopped.
Writes results.json (every score, with command and commit), many-lenses.png and a table; "ratio" is AbsRel over that of the
network for the lens alone.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import dfd_train

RANGE = "focus=0.8m..10m,f_number=1.2..5.6,focal_length=24mm..85mm"


def dfd(command, *arguments):
    subprocess.run([sys.executable, "-m", f"dfd_cli.{command}", *map(str, arguments)], check=True)


def train(args, name, lens_range, epochs, *more):
    out = args.out / name
    if not (out / "trained").is_file():
        options = ["--recipe", "fast", "--heads", "depth", "--predict", "coc", "--relative-depth", "--uncertainty"]
        options += ["--model", args.model, "--crop", args.crop, "--batch-size", args.batch_size, "--cache", "ram"]
        options += ["--no-tensorboard", "--validate-every", 0, "--lens-range", lens_range, *more, *args.option]
        dfd("train", "--shards", args.shards, "--out", out, "--epochs", epochs, "--resume=auto", *options)
        (out / "trained").touch()
    return out


def score(args, run, store):
    report = run / Path(store).stem / "report.json"
    if not report.is_file():
        dfd("evaluate", "--shards", store, "--checkpoint", f"{run}@last", "--out", report.parent)
    found = json.loads(report.read_text())
    kept = {"scores": found["rows"]["prediction"], "mean depth": found["rows"]["mean depth"]}
    return kept | {"uncertainty": found["uncertainty"], "by_side": found["by_side"]}


def f_number(lens):
    return lens.focal_length_mm / (1e3 * lens.aperture_diameter_m)


def only(lens):
    """The range that holds this lens alone."""
    focus, focal = f"focus={lens.focus_distance_m:.6g}m", f"focal_length={lens.focal_length_mm:.6g}mm"
    return f"{focus},{focal},f_number={f_number(lens):.6g},sensor_width={lens.sensor_width_mm:.6g}mm"


def draw(lenses, out):
    figure = Figure(figsize=(2.2 + 1.6 * len(lenses), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = {
        "mean depth": "tab:gray",
        "alone": "tab:green",
        "every lens, told": "tab:blue",
        "every lens, not told": "tab:cyan",
    }
    kinds = {kind: colour for kind, colour in colours.items() if kind in next(iter(lenses.values()))["abs_rel"]}
    for place, (kind, colour) in enumerate(kinds.items()):
        heights = [lens["abs_rel"][kind] for lens in lenses.values()]
        axes.bar([at + 0.2 * (place - 1.5) for at in range(len(lenses))], heights, 0.2, color=colour, label=kind)
    axes.set_xticks(range(len(lenses)), [name.replace(" focus", "\nfocus") for name in lenses])
    axes.set(ylabel="AbsRel of depth, test split")
    figure.legend(loc="outside upper center", ncols=len(kinds), fontsize="small")
    figure.savefig(out, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--test", action="append", required=True, metavar="STORE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lens-range", default=RANGE)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--crop", default="192")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=40, help="of the networks for every lens")
    parser.add_argument("--epochs-alone", type=int, help="of each network for one lens; default: as many")
    parser.add_argument("--told-only", action="store_true", help="no network that is not told its lens")
    parser.add_argument("--option", action="append", default=[], help="more of dfd-train's, such as --option=--seed=1")
    args = parser.parse_args()
    alone = args.epochs_alone or args.epochs
    every = {"every lens, told": train(args, "told", args.lens_range, args.epochs, "--lens-input")}
    if not args.told_only:
        every["every lens, not told"] = train(args, "not-told", args.lens_range, args.epochs)
    lenses = {}
    for store in args.test:
        lens = dfd_train.ShardDataset(store, "test").lens(0)
        name = f"{lens.focal_length_mm:g} mm f/{f_number(lens):.3g} focus {lens.focus_distance_m:g} m"
        runs = every | {"alone": train(args, f"alone-{Path(store).stem}", only(lens), alone)}
        scored = {kind: score(args, run, store) for kind, run in runs.items()}
        abs_rel = {kind: found["scores"]["abs_rel"] for kind, found in scored.items()}
        abs_rel["mean depth"] = scored["alone"]["mean depth"]["abs_rel"]
        lenses[name] = {"abs_rel": abs_rel, "runs": scored}
    print("| lens | mean depth | alone |" + "".join(f" {kind} | ratio |" for kind in every))
    print("|---" * (3 + 2 * len(every)) + "|")
    for name, lens in lenses.items():
        rel = lens["abs_rel"]
        told = [f"{rel[kind]:.3f} | {rel[kind] / rel['alone']:.2f}" for kind in every]
        print(f"| {name} | {rel['mean depth']:.3f} | {rel['alone']:.3f} | {' | '.join(told)} |")
    draw(lenses, args.out / "many-lenses.png")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    content = {"command": " ".join(sys.argv), "commit": commit, "lenses": lenses}
    (args.out / "results.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
