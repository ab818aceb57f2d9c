"""Every command, ended at random moments by random signals, then begun again: the bytes are those of an undisturbed run.

Each trial takes the next command, starts it anew, sends its whole process group SIGKILL, SIGTERM or SIGINT at a random
moment of its usual time, runs what the documents say goes on from there (`--resume`, `--overwrite`, or the same again),
and compares. Besides, an earlier store must be whole at every moment, under its name or beside it.

    python benchmarks/attack/kill.py [--trials 40] [--seed 1] [--command NAME] [--json FILE]
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
import faults  # noqa: E402 - found only now

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FOCUS = ",".join(f"{1 + i / 4:g}m" for i in range(6))
NYU = ("dfd-prepare", "nyu", "labelled.mat", "--splits", "splits.mat", "--focus", FOCUS, "--samples-per-shard", "2")
SMALL = ("dfd-prepare", "synthetic", "--count", "8", "--size", "64x48", "--samples-per-shard", "2")
TRAIN = ("--shards", "a.zarr", "--out", "run", "--recipe", "fast", "--model", "tiny", "--epochs", "3", "--crop", "48",
         "--batch-size", "2", "--no-tensorboard", "--seed", "3")  # fmt: skip

# What is ended, what goes on from there, and what it leaves.
COMMANDS = {
    "threads": ((*NYU, "--workers", "2", "--out", "out.zarr"), ("--resume",), "out.zarr"),
    "processes": ((*NYU, "--workers", "2", "--processes", "--out", "out.zarr"), ("--resume",), "out.zarr"),
    "overwrite": ((*NYU, "--workers", "2", "--out", "old.zarr", "--overwrite"), ("--overwrite",), "old.zarr"),
    "merge": (("dfd-prepare", "merge", "a.zarr", "b.zarr", "--out", "out.zarr", "--overwrite"), (), "out.zarr"),
    "train": (("dfd-train", *TRAIN), None, "run"),
    "eval": (("dfd-eval", "--shards", "a.zarr", "--checkpoint", "made", "--out", "report"), (), "report"),
    "predict": (("dfd-predict", "pictures", "--checkpoint", "made", "--out", "results"), (), "results"),
}


def run(folder, *words):
    """The finished process of an installed command."""
    command = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def required(folder, *words):
    ended = run(folder, *words)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(words)}: {ended.stderr[-1000:]}")


def prepare(folder, names):
    """What the commands read."""
    faults.write_nyu(folder / "labelled.mat", frames=3)
    faults.write_splits(folder / "splits.mat", train=[1, 2], test=[3])
    if {"merge", "train", "eval", "predict"} & set(names):
        required(folder, *SMALL, "--out", "a.zarr")
        required(folder, *SMALL, "--seed", "1", "--out", "b.zarr")
    if {"eval", "predict"} & set(names):
        words = ["made" if word == "run" else word for word in TRAIN]
        required(folder, "dfd-train", *words)
        import cv2
        import numpy as np

        (folder / "pictures").mkdir()
        for number in range(4):
            picture = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "pictures" / f"{number}.png"), picture)
    if "overwrite" in names:
        required(folder, *SMALL, "--out", "earlier.zarr")


def begin(folder, name):
    """The folder as it is before the command."""
    for path in folder.iterdir():
        if path.name.startswith(("out.", "old.", "run", "report", "results")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if name == "overwrite":
        shutil.copytree(folder / "earlier.zarr", folder / "old.zarr")


def result(folder, name):
    """What must be the same: bytes of files, or a checkpoint's tensors, without the times in logs."""
    place = folder / COMMANDS[name][2]
    if name == "train":
        from dfd_train.runs.checkpoint import load_checkpoint

        found = load_checkpoint(place)
        return {key: value.numpy().tobytes() for key, value in found.weights.items()} | {"step": found.step}
    files = faults.tree_bytes(place)
    if name == "eval":
        return {key: files[key] for key in ("per_image.csv", "report.md")}
    return files


def earlier_is_whole(folder, wanted):
    """Of `overwrite`: the earlier store or the new one, complete, under one of its names."""
    earlier = faults.tree_bytes(folder / "earlier.zarr")
    places = ("old.zarr", "old.zarr.replaced", "old.zarr.partial")
    return any(faults.tree_bytes(folder / place) in (earlier, wanted) for place in places)


def trial(folder, name, wanted, usual_s, chance):
    """End the command at a random moment and go on; what was found."""
    command, go_on, _ = COMMANDS[name]
    begin(folder, name)
    number, delay_s = chance.choice(SIGNALS), chance.uniform(0.02, 1) * usual_s
    words = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(delay_s)
    finished = process.poll() is not None
    if not finished:
        os.killpg(process.pid, number)
    error = process.communicate(timeout=600)[1]
    problems = ["Traceback"] if "Traceback" in error else []
    if name == "overwrite" and not earlier_is_whole(folder, wanted):
        problems.append("neither store is whole")
    if name == "train":
        resumable = (folder / "run" / "checkpoints").is_dir() and any((folder / "run/checkpoints").glob("step-*.json"))
        again = ("dfd-train", "--out", "run", "--resume") if resumable else (*command, "--overwrite")
    else:
        again = (*command, *(word for word in go_on if word not in command))
    ended = run(folder, *again)
    if ended.returncode:
        problems.append(ended.stderr[-300:])
    elif result(folder, name) != wanted:
        problems.append("DIFFERENT")
    return {
        "command": name,
        "signal": number.name,
        "delay_s": round(delay_s, 3),
        "finished": finished,
        "identical": not problems,
        "error": " / ".join(problems),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", choices=COMMANDS, action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chance, names = random.Random(options.seed), options.command or list(COMMANDS)
    trials = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, names)
        wanted, usual_s = {}, {}
        for name in names:
            begin(folder, name)
            began = time.monotonic()
            required(folder, *COMMANDS[name][0])
            usual_s[name], wanted[name] = time.monotonic() - began, result(folder, name)
        for number in range(options.trials):
            name = names[number % len(names)]
            trials.append(found := trial(folder, name, wanted[name], usual_s[name], chance))
            end = "after its end" if found["finished"] else f"{found['signal']} at {found['delay_s']:.2f} s"
            verdict = "identical" if found["identical"] else f"PROBLEM {found['error']}"
            print(f"{number:4} {name:10} {end:20} {verdict}", flush=True)
    same = sum(found["identical"] for found in trials)
    print(
        f"{same} of {len(trials)} byte-identical, {sum(not found['finished'] for found in trials)} of them ended early"
    )
    if options.json:
        facts = {
            "seed": options.seed,
            "usual_s": {name: round(seconds, 2) for name, seconds in usual_s.items()},
            "identical": same,
            "trials": trials,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("dfd-toolkit", "numpy", "zarr", "torch")},
        }
        options.json.write_text(json.dumps(facts, indent=1))
    sys.exit(same != len(trials))


if __name__ == "__main__":
    main()
