"""Does a network read blur? Learning curves of the depth head on real frames, with and without defocus, by stem.

    python benchmarks/quality/reading_blur.py --store 8m=nyu96-8m.zarr --store 2m=nyu96-2m.zarr --out runs/reading-blur

Each arm is a store with a stem ("paper": the paper's with its N(0, 0.02) start; "highpass" and "blur" with He's) and
the defocused or the all-in-focus picture, once for each seed, trained by `dfd-train --recipe fast --heads depth` and
scored by `dfd-eval` on the test split. The stores hold the same frames, so the all-in-focus picture, which no focus
changes, is trained on once, from the first store, and drawn in every panel. A run that is there is kept, so the same
command goes on where it was stopped.
Writes curves.png, results.json (every run's val curve and test scores, with command and commit) and a table.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STEMS = {
    "paper": ("--stem", "paper", "--init", "paper"),
    "kaiming": ("--stem", "paper", "--init", "kaiming"),
    "highpass": ("--stem", "highpass", "--init", "kaiming"),
    "blur": ("--stem", "blur", "--init", "kaiming"),
}


SHARP = "all in focus"  # instead of a focus: the picture that is the same at every one


def dfd(command, *arguments):
    subprocess.run([sys.executable, "-m", f"dfd_cli.{command}", *map(str, arguments)], check=True)


def one_run(store, out, stem, picture, seed, args):
    report = out / "report" / "report.json"
    if not report.is_file():
        options = ["--recipe", "fast", "--heads", "depth", "--size", "native", "--model", args.model, "--seed", seed]
        options += ["--batch-size", args.batch_size, "--epochs", args.epochs, "--validate-every", args.validate_every]
        options += ["--validate-limit", 1000, "--no-tensorboard", "--cache", "ram", "--input", picture, *STEMS[stem]]
        dfd("train", "--shards", store, "--out", out, "--resume=auto", *options, *args.option)
        dfd("evaluate", "--shards", store, "--checkpoint", f"{out}@last", "--out", report.parent)
    with open(out / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val_rmse"]]
    return {
        "epoch": [int(row["epoch"]) for row in rows],
        "val_rmse": [float(row["val_rmse"]) for row in rows],
        "test": json.loads(report.read_text())["rows"],
    }


def draw(arms, out):
    focuses = sorted({focus for focus, *_ in arms} - {SHARP})
    figure = Figure(figsize=(5.5 * len(focuses), 4), layout="constrained")
    FigureCanvasAgg(figure)
    colours = dict(zip(STEMS, ("tab:gray", "tab:green", "tab:orange", "tab:blue"), strict=True))
    for place, focus in enumerate(focuses, 1):
        axes = figure.add_subplot(1, len(focuses), place)
        for (at, stem, picture), runs in arms.items():
            if at not in (focus, SHARP):
                continue
            curves = np.array([run["val_rmse"] for run in runs])
            style = "-" if picture == "defocused" else "--"
            mean = curves.mean(axis=0)
            axes.plot(runs[0]["epoch"], mean, style, color=colours[stem], label=f"{stem}, {picture}")
            axes.fill_between(runs[0]["epoch"], curves.min(0), curves.max(0), color=colours[stem], alpha=0.15)
        axes.set(title=f"focus {focus}", xlabel="epoch", ylabel="val RMSE (m), mean and range over seeds")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", required=True, metavar="FOCUS=STORE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stems", default="paper,blur")
    parser.add_argument("--inputs", default="defocused,aif")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--validate-every", type=int, default=1)
    parser.add_argument("--option", action="append", default=[], help="more of dfd-train's, such as --option=--gain=5")
    args = parser.parse_args()
    stores = dict(text.split("=", 1) for text in args.store)
    arms = {}
    # Seed by seed, so that what is there after a while is whole.
    places = [(focus, "defocused") for focus in stores if "defocused" in args.inputs]
    places += [(SHARP, "aif")] if "aif" in args.inputs else []
    for seed in map(int, args.seeds.split(",")):
        for focus, picture in places:
            store = stores.get(focus, next(iter(stores.values())))
            for stem in args.stems.split(","):
                place = args.out / f"{focus}-{stem}-{seed}".replace(" ", "-")
                result = one_run(store, place, stem, picture, seed, args)
                arms.setdefault((focus, stem, picture), []).append(result)
    draw(arms, args.out / "curves.png")
    lines = ["| focus | stem | input | test RMSE m, by seed | mean |", "|---|---|---|---|---|"]
    for (focus, stem, picture), runs in arms.items():
        scores = [run["test"]["prediction"]["rmse"] for run in runs]
        told = " ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {focus} | {stem} | {picture} | {told} | {np.mean(scores):.3f} |")
    print("\n".join(lines))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    content = {"command": " ".join(sys.argv), "commit": commit, "arms": {"-".join(k): v for k, v in arms.items()}}
    (args.out / "results.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
