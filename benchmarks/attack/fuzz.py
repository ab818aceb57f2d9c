"""Damaged input of every kind, by the thousand: a named error or success; no traceback, no hang, no gigabyte.

Each case is a pure function of (kind, seed, number) and runs in a process that may take 1 GiB more than it began with and
60 seconds a case, as a bug may end or stop it.

    python benchmarks/attack/fuzz.py --count 5000 --seed 1 --seed 2 [--json FILE]    # a table, and every failure
    python benchmarks/attack/fuzz.py --kind store --case 17 --seed 1                 # one case here, with its traceback
"""

import argparse
import json
import os
import platform
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
from fuzz_cases import Cases  # noqa: E402 - found only now

# Of every 50 cases; stores and resumed conversions take longest.
SHARE = {
    "labelled": 4, "splits": 3, "grid": 3, "colour": 6, "depth": 6, "photograph": 4, "store": 2, "manifest": 3, "state": 1,
    "checkpoint": 4, "notes": 4, "weights": 4, "lens": 2, "list": 4,
}  # fmt: skip
KINDS = tuple(SHARE)
SECONDS_A_CASE = 60
MEMORY_BYTES = 2**30


def prepared(kind, folder):
    """The cases of one kind, with their originals."""
    cases = Cases(Path(folder))
    if kind in ("store", "manifest", "state"):
        cases.prepare_stores()
    if kind in ("colour", "depth", "photograph"):
        cases.prepare_pictures()
    if kind in ("checkpoint", "notes"):
        cases.prepare_run()
    if kind == "weights":
        cases.prepare_weights()
    if kind == "list":
        cases.prepare_lists()
    return cases


def outcome(cases, kind, number, seed):
    """A word for how the case ended: the name of the error, "read", "memory", or "BUG ..." with the traceback."""
    from defocus_sim.errors import DefocusSimError
    from dfd_train.errors import DfdTrainError

    try:
        cases.run(kind, number, seed)
    except (DefocusSimError, DfdTrainError) as error:
        return type(error).__name__ if "\n" not in str(error) else f"BUG message of several lines: {error}"
    except MemoryError:
        return "memory " + traceback.format_exc(limit=-4)
    except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
        return "BUG " + traceback.format_exc(limit=-4)
    return "read"


def run_batch(kind, first, stop, folder, seed):
    """In the child process: announce and report each case on standard output."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cases = prepared(kind, folder)
    # What is imported and loaded once must not count as a case's: the first ones are run without a limit.
    for number in range(-3, 0):
        outcome(cases, kind, number, seed)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, now + MEMORY_BYTES))
    for number in range(first, stop):
        print(json.dumps(["begin", number]), flush=True)
        print(json.dumps(["end", number, outcome(cases, kind, number, seed)]), flush=True)


def fuzz(kind, count, folder, seed):
    """{case: outcome} of `count` cases; a dead or stuck child becomes an outcome."""
    results, first = {}, 0
    while first < count:
        place = Path(folder) / f"{kind}-{first}"
        place.mkdir(parents=True)
        command = [sys.executable, __file__, "--child", "--kind", kind, "--case", str(first), "--stop", str(count)]
        process = subprocess.Popen(
            [*command, "--folder", str(place), "--seed", str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = queue.Queue()
        reader = threading.Thread(target=lambda p=process, q=lines: [q.put(line) for line in p.stdout] + [q.put(None)])
        # Warnings of libraries would fill the pipe.
        errors = []
        listener = threading.Thread(target=lambda p=process, e=errors: e.extend(p.stderr))
        reader.start()
        listener.start()
        current, stuck = None, False
        while True:
            try:
                line = lines.get(timeout=SECONDS_A_CASE if current is not None else 300)
            except queue.Empty:
                stuck = True
                process.kill()
                continue
            if line is None:
                break
            if not line.startswith("["):
                # What a library says of a damaged file, as OpenEXR does.
                continue
            event, number, *facts = json.loads(line)
            current = number
            if event == "end":
                results[number] = facts[0]
        reader.join()
        listener.join()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        shutil.rmtree(place, ignore_errors=True)
        if process.returncode == 0:
            break
        if current is None:
            raise RuntimeError(f"the child did not begin: {''.join(errors)[-2000:]}")
        results.setdefault(current, "hang" if stuck else f"BUG process ended with {process.returncode}")
        first = current + 1
    return results


def counted(results):
    """How many were tried, read and refused by name; tracebacks (and deaths), hangs, and over 1 GiB."""
    texts = list(results.values())
    bugs, hangs, large = (sum(text.startswith(word) for text in texts) for word in ("BUG", "hang", "memory"))
    read = texts.count("read")
    return {
        "tried": len(texts), "read": read, "named": len(texts) - read - bugs - hangs - large, "tracebacks": bugs,
        "hangs": hangs, "over 1 GiB": large,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="cases for each seed, shared between the kinds")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--case", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stop", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seeds = options.seed or [1]
    if options.child:
        run_batch(options.kind, options.case, options.stop, options.folder, seeds[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.case is not None:
            print(outcome(prepared(options.kind, folder), options.kind, options.case, seeds[0]))
            return
        table, failed = [], []
        kinds = [options.kind] if options.kind else KINDS
        for seed in seeds:
            for kind in kinds:
                began = time.monotonic()
                share = SHARE[kind] / sum(SHARE[k] for k in kinds)
                results = fuzz(kind, round(options.count * share), Path(folder) / str(seed), seed)
                table.append(row := {"kind": kind, "seed": seed, **counted(results)})
                print(
                    *(f"{name} {value}" for name, value in row.items()), f"{time.monotonic() - began:.0f} s", flush=True
                )
                wrong = {n: text for n, text in results.items() if text.startswith(("BUG", "hang", "memory"))}
                failed += [f"{kind} --case {number} --seed {seed}: {text}" for number, text in wrong.items()]
    print("\n".join(failed))
    total = {name: sum(row[name] for row in table) for name in table[0] if name not in ("kind", "seed")}
    print("all:", *(f"{name} {value}" for name, value in total.items()))
    if options.json:
        names = ("dfd-toolkit", "numpy", "h5py", "opencv-python-headless", "torch")
        facts = {"rows": table, "all": total, "failed": failed, "python": platform.python_version()}
        options.json.write_text(json.dumps(facts | {"versions": {name: version(name) for name in names}}, indent=1))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
