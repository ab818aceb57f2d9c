"""A conversion with two worker processes, killed (SIGKILL, the whole process group) at random moments and then resumed.

Each trial begins anew, is killed at a moment drawn between its first file and the usual end, is resumed, and must then
have every byte of an undisturbed run.

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

COMMAND = (
    *(str(Path(sys.executable).parent / "dfd-prepare"), "synthetic", "--count", "40", "--size", "320x240"),
    *("--test-fraction", "0.2", "--samples-per-shard", "2", "--processes", "--workers", "2"),
)
SHARDS = 20


def tree_bytes(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def start(out, *options):
    return subprocess.Popen(
        [*COMMAND, "--out", str(out), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def begun(process, out):
    """Waits for the first file of the conversion; the moment."""
    place = Path(f"{out}.partial")
    while process.poll() is None and not place.exists():
        time.sleep(0.002)
    return time.monotonic()


def trial(out, wanted, delay_s):
    """Kill after `delay_s`, resume; what was found."""
    process = start(out)
    begun(process, out)
    time.sleep(delay_s)
    finished = process.poll() is not None
    if not finished:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    place = Path(f"{out}.partial")
    markers = len(list(place.glob(".markers/t*-*.json")))
    stray = len(list(place.rglob("*.partial")))
    resumed = start(out, "--resume")
    error = resumed.communicate(timeout=300)[1].decode()
    same = resumed.returncode == 0 and tree_bytes(out) == wanted and not place.exists()
    return {
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
        process = start(out)
        first = begun(process, out)
        process.communicate()
        usual_s = time.monotonic() - first
        wanted = tree_bytes(out)
        print(f"{'trial':>5} {'killed after':>12} {'shards done':>11} {'stray files':>11}  result")
        for number in range(options.trials):
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(f"{out}.partial", ignore_errors=True)
            trials.append(found := trial(out, wanted, chance.uniform(0, usual_s)))
            result = "identical" if found["identical"] else f"DIFFERENT {found['error']}"
            done = "finished" if found["finished"] else f"{found['shards']} of {SHARDS}"
            print(f"{number:5} {found['delay_s']:10.3f} s {done:>11} {found['stray_files']:11}  {result}", flush=True)
    same = sum(found["identical"] for found in trials)
    print(f"{same} of {len(trials)} byte-identical after one resume; undisturbed: {usual_s:.1f} s after the first file")
    if options.json:
        facts = {
            "command": " ".join(["dfd-prepare", *COMMAND[1:]]),
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
