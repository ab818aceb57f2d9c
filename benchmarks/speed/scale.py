"""One worker against two on realistic frames (561x427), and what 1000 frames take in bytes and files.

The runs take turns, so that a busy machine slows all alike; median and spread (lowest to highest). Whole conversions are
timed, without the start of Python; CPU seconds tell work from waiting. A round in which other processes took more than 3 %
of all cores is done again (three times as many rounds at most): they would take it from the two threads only. "2 apart" are
two processes that know nothing of each other, each converting all frames on one thread at the same time: what the
machine's caches, memory and clock leave of two cores. `--stages`
times the parts of one sample on one thread, and on two at once: what does not keep its speed there holds the interpreter's
lock or another.

    python benchmarks/speed/scale.py [--frames 96] [--rounds 5] [--mat labelled.mat] [--stages] [--json FILE]

Frames are those of `--mat` (the layout of nyu_depth_v2_labeled.mat), else procedural scenes written in that layout.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np

from defocus_sim import Lens, defocus
from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import Workers, convert
from defocus_sim.datasets.nyu import NyuSource
from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.shards.codec import encode_chunk
from defocus_sim.shards.layout import ARRAYS

SCENES = 8
MOST_ELSEWHERE = 0.03
KINDS = {
    "1 thread": Workers(count=1),
    "2 threads": Workers(count=2),
}
APART = "2 apart"


def write_frames(path, frames):
    """Procedural rooms, each shifted sideways a few times, with the axes and types of the labelled set."""
    source = SyntheticSource(count=SCENES, size_wh=(640, 480), scale="room")
    rng = np.random.default_rng(0)
    with source.open() as reader, h5py.File(path, "w") as file:
        images = file.create_dataset("images", (frames, 3, 640, 480), "u1", chunks=(1, 3, 80, 480), compression="gzip")
        depths = file.create_dataset("depths", (frames, 640, 480), "f4", chunks=(1, 80, 480), compression="gzip")
        scenes = [reader.read(i) for i in range(SCENES)]
        for i in range(frames):
            shift = 23 * (i // SCENES)
            # A sensor's noise: without it the pictures compress far better than photographs do.
            picture = np.roll(scenes[i % SCENES].aif, shift, axis=1) + rng.normal(0, 2, (480, 640, 3))
            images[i] = np.clip(picture, 0, 255).astype(np.uint8).transpose(2, 1, 0)
            depths[i] = np.roll(scenes[i % SCENES].depth_m, shift, axis=1).T
        # The sensor's own depth, which the labelled set has as well.
        file["rawDepths"] = depths
    return path


class Elsewhere:
    """A context; `share` is then the part of all cores' time that went to other processes. 0 where no /proc is."""

    def __enter__(self):
        self._began, self._cpu, self._all = time.perf_counter(), time.process_time(), self._everybody()
        return self

    def __exit__(self, *_):
        spent = self._everybody() - self._all - (time.process_time() - self._cpu)
        self.share = max(0.0, spent) / (time.perf_counter() - self._began) / os.cpu_count()

    def _everybody(self):
        try:
            user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except OSError:
            return 0.0
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def convert_alone(settings, out):
    shutil.rmtree(out, ignore_errors=True)
    convert(settings, out, workers=KINDS["1 thread"])


def seconds_apart(pool, settings, folder):
    """Of two processes that convert everything at the same time, half each: as if they had shared the work."""
    began = time.perf_counter()
    for done in [pool.submit(convert_alone, settings, Path(folder) / f"{i}.zarr") for i in range(2)]:
        done.result()
    return (time.perf_counter() - began) / 2


def stages(source, lens):
    """Milliseconds of each part of one sample: alone, and while a second thread does the same."""
    with source.open() as reader:
        frame = reader.read(0)
        blurred = defocus(frame.aif, frame.depth_m, lens)
    arrays = {"defocused": blurred, "aif": frame.aif, "depth_m": frame.depth_m}

    def read():
        with source.open() as reader:
            reader.read(1)

    parts = {
        "read": read,
        "blur": lambda: defocus(frame.aif, frame.depth_m, lens),
        "encode": lambda: [encode_chunk(arrays[n], spec.codec("fast")) for n, spec in ARRAYS.items()],
    }

    def timed(call, times, threads):
        barrier = threading.Barrier(threads + 1)

        def work():
            barrier.wait()
            for _ in range(times):
                call()

        pool = [threading.Thread(target=work) for _ in range(threads)]
        for thread in pool:
            thread.start()
        barrier.wait()
        began = time.perf_counter()
        for thread in pool:
            thread.join()
        return (time.perf_counter() - began) / times / threads * 1e3

    table = {}
    for name, call in parts.items():
        call()
        rounds = [(timed(call, 20, 1), timed(call, 20, 2)) for _ in range(5)]
        table[name] = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mat", type=Path)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    apart = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, apart:
        path = options.mat or write_frames(Path(folder) / "labelled.mat", options.frames)
        source = NyuSource(path=path)
        lens = Lens.preset("paper")
        settings = ConversionSettings(source=source, lens=lens)
        out = Path(folder) / "a.zarr"
        seconds, cpu = {kind: [] for kind in (*KINDS, APART)}, {kind: [] for kind in KINDS}
        again = 0
        # The first round compiles and fills the caches.
        for number in range(3 * options.rounds + 1):
            taken = {}
            with Elsewhere() as elsewhere:
                for kind, workers in KINDS.items():
                    shutil.rmtree(out, ignore_errors=True)
                    before = time.process_time()
                    result = convert(settings, out, workers=workers)
                    taken[kind] = result.seconds, time.process_time() - before
            both = seconds_apart(apart, settings, folder)
            if number and elsewhere.share > MOST_ELSEWHERE:
                again += 1
            elif number:
                for kind, (elapsed, used) in taken.items():
                    seconds[kind].append(elapsed)
                    cpu[kind].append(used)
                seconds[APART].append(both)
            if len(seconds["1 thread"]) == options.rounds:
                break
        if not seconds["1 thread"]:
            raise SystemExit(
                f"other processes took more than {MOST_ELSEWHERE:.0%} of the machine in each of {again} rounds"
            )
        sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        count = len(source.samples())
        shards = sum(1 for _ in result.store.records())
        parts = stages(source, lens) if options.stages else {}
    one = statistics.median(seconds["1 thread"])
    rounds = len(seconds["1 thread"])
    print(f"{count} frames of {source.frame_hw()[1]}x{source.frame_hw()[0]}, {rounds} rounds, {again} more disturbed")
    print(f"{'workers':12} {'seconds (spread)':>24} {'frames/s':>9} {'speed-up':>9} {'CPU seconds':>12}")
    for kind, values in seconds.items():
        median = statistics.median(values)
        spread = f"{median:.2f} ({min(values):.2f}-{max(values):.2f})"
        used = f"{statistics.median(cpu[kind]):12.2f}" if kind in cpu else ""
        print(f"{kind:12} {spread:>24} {count / median:9.1f} {one / median:9.2f} {used}")
    per_frame = sum(sizes) / count
    print(f"per 1000 frames: {per_frame / 1e6:.2f} GB; {shards} shard files hold {count} frames (32 a shard)")
    for name, (alone, both) in parts.items():
        print(f"{name:8} {alone:6.2f} ms a sample on one thread, {both:6.2f} on two: {alone / both:.2f}x")
    if options.json:
        facts = {
            "frames": count,
            "rounds": rounds,
            "disturbed_rounds": again,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "bytes_per_frame": per_frame,
            "stages_ms": parts,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("dfd-toolkit", "numpy", "numba", "distributed", "numcodecs")},
        }
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
