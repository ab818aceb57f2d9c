"""A conversion with two worker processes, killed (SIGKILL, the whole process group) at random moments and then resumed.

Each trial begins anew, is killed a random moment after a random number of finished shards (also before the first and
while it is being finalised), is resumed, and must then have every byte of an undisturbed run.

    python benchmarks/kill.py [--trials 40] [--seed 1] [--json FILE]
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

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
import faults

# Two training frames and one test frame of 427x561, seen through twelve lenses: 36 samples.
FOCUS = ",".join(f"{1 + i / 4:g}m" for i in range(12))
COMMAND = ("dfd-prepare", "nyu", "labelled.mat", "--splits", "splits.mat", "--focus", FOCUS, "--samples-per-shard", "2")
WORKERS = ("--processes", "--workers", "2")
SHARDS = 18


def start(out, *options):
    return subprocess.Popen(
        [str(Path(sys.executable).parent / COMMAND[0]), *COMMAND[1:], "--out", str(out), *options],
        cwd=out.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finished_shards(out):
    return len(list(Path(f"{out}.partial").glob(".markers/t*-*.json")))


def trial(out, wanted, after, delay_s):
    """Kill `delay_s` after `after` shards are finished, resume; what was found."""
    process = start(out, *WORKERS)
    place = Path(f"{out}.partial")
    while process.poll() is None and not (place.exists() and finished_shards(out) >= after):
        time.sleep(0.002)
    time.sleep(delay_s)
    finished = process.poll() is not None
    if not finished:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    markers = finished_shards(out)
    stray = len(list(place.rglob("*.partial")))
    resumed = start(out, "--resume")
    error = resumed.communicate(timeout=300)[1].decode()
    same = resumed.returncode == 0 and faults.tree_bytes(out) == wanted and not place.exists()
    return {
        "after_shards": after,
        "delay_s": round(delay_s, 3),
        "finished": finished,
        "shards": markers,
        "stray_files": stray,
        "identical": same,
        "error": "" if resumed.returncode == 0 else error[-500:],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.zarr"
        faults.write_nyu(out.parent / "labelled.mat", frames=3)
        faults.write_splits(out.parent / "splits.mat", train=[1, 2], test=[3])
        process = start(out, *WORKERS)
        began = time.monotonic()
        process.communicate()
        usual_s = time.monotonic() - began
        wanted = faults.tree_bytes(out)
        print(f"{'trial':>5} {'killed after':>17} {'shards done':>11} {'stray files':>11}  result")
        for number in range(options.trials):
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(f"{out}.partial", ignore_errors=True)
            trials.append(found := trial(out, wanted, chance.randint(0, SHARDS), chance.uniform(0, 0.15)))
            result = "identical" if found["identical"] else f"DIFFERENT {found['error']}"
            done = "finished" if found["finished"] else f"{found['shards']} of {SHARDS}"
            moment = f"{found['after_shards']} + {found['delay_s']:.3f} s"
            print(f"{number:5} {moment:>17} {done:>11} {found['stray_files']:11}  {result}", flush=True)
    same = sum(found["identical"] for found in trials)
    print(f"{same} of {len(trials)} byte-identical after one resume; undisturbed: {usual_s:.1f} s")
    if options.json:
        facts = {
            "command": " ".join([*COMMAND, *WORKERS]),
            "seed": options.seed,
            "undisturbed_s": round(usual_s, 2),
            "identical": same,
            "trials": trials,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("dfd-toolkit", "numpy", "distributed", "zarr")},
        }
        options.json.write_text(json.dumps(facts, indent=1))
    sys.exit(same != len(trials))


if __name__ == "__main__":
    main()
