"""A conversion of NYU frames end to end: ours against the same pipeline written plainly.

Plainly: h5py frame by frame, OpenCV with 32 levels of sigma, arrays of zarr-python with its own codecs, one sample a chunk
and 32 a shard, each shard written whole; on one thread, and on two (OpenCV's own). Ours: `convert` with its defaults on one
and on two threads. The same frames, crop, lens and arrays; runs take turns, elapsed time without the start of Python,
median and spread (lowest to highest). Then our time by stage. Printed as well: how much of all cores other processes took
meanwhile, which slows what uses two threads more than the rest.

    python benchmarks/speed/prepare.py [--mat labelled.mat] [--frames 240] [--rounds 3] [--json FILE]

Frames are those of `--mat` (the layout of nyu_depth_v2_labeled.mat), else procedural scenes written in that layout.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import h5py
import numpy as np
import zarr
from blur import opencv_levels
from scale import Elsewhere, write_frames

from defocus_sim import Lens
from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import Workers, convert
from defocus_sim.datasets.nyu import NyuSource
from defocus_sim.lens import coc_diameter_px, sigma_px
from defocus_sim.shards.store import open_store

ROWS, COLUMNS = slice(44, 471), slice(40, 601)


def plainly(path, out, lens, frames, threads):
    """What one writes in an afternoon."""
    cv2.setNumThreads(threads)
    shape = (frames, 427, 561)
    group = zarr.open_group(out, mode="w")
    layout = {"shards": (32, 427, 561, 3), "chunks": (1, 427, 561, 3), "dtype": "u1"}
    arrays = [group.create_array(name, shape=(*shape, 3), **layout) for name in ("defocused", "aif")]
    depths = group.create_array("depth_m", shape=shape, shards=(32, 427, 561), chunks=(1, 427, 561), dtype="f4")
    with h5py.File(path) as file:
        for start in range(0, frames, 32):
            # A shard is written whole: sample by sample, zarr would write every shard 32 times.
            batch = range(start, min(start + 32, frames))
            images, blurred, depth_m = [], [], []
            for frame in batch:
                image = file["images"][frame, :, COLUMNS, ROWS].transpose(2, 1, 0)
                depth = file["depths"][frame, COLUMNS, ROWS].T
                sigma = sigma_px(coc_diameter_px(depth, lens), lens).astype(np.float32)
                planes = (image / np.float32(255)).transpose(2, 0, 1)
                result = opencv_levels(planes, sigma, 32).transpose(1, 2, 0)
                blurred.append(np.clip(result * 255 + 0.5, 0, 255).astype(np.uint8))
                images.append(image)
                depth_m.append(depth)
            for array, content in zip((*arrays, depths), (blurred, images, depth_m), strict=True):
                array[start : batch.stop] = np.stack(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mat", type=Path)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.mat or write_frames(Path(folder) / "labelled.mat", options.frames)
        source, lens = NyuSource(path=path, splits=None), Lens.preset("paper")
        settings = ConversionSettings(source=source, lens=lens)
        frames, out = len(source.samples()), Path(folder) / "a.zarr"
        stages = {}

        def ours(threads):
            stages[threads] = convert(settings, out, workers=Workers(count=threads)).stage_seconds

        contenders = {
            "plain, 1 thread": lambda: plainly(path, out, lens, frames, 1),
            "plain, 2 threads": lambda: plainly(path, out, lens, frames, 2),
            "ours, 1 thread": lambda: ours(1),
            "ours, 2 threads": lambda: ours(2),
        }
        seconds, size = {name: [] for name in contenders}, {}
        elsewhere = {name: [] for name in contenders}
        # Once before: it compiles, and reads the source for its checksum.
        ours(1)
        for _ in range(options.rounds):
            for name, call in contenders.items():
                shutil.rmtree(out, ignore_errors=True)
                began = time.perf_counter()
                with Elsewhere() as others:
                    call()
                seconds[name].append(time.perf_counter() - began)
                elsewhere[name].append(others.share)
                size[name] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        assert sum(len(open_store(out).split(name)) for name in open_store(out).split_names) == frames
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{frames} frames of 561x427, {options.rounds} rounds")
    print(f"{'':18}{'seconds (spread)':>24}{'frames/s':>10}{'MB':>8}{'1 thread':>10}{'2 threads':>10}{'others':>8}")
    for name, values in seconds.items():
        spread = f"{median[name]:.2f} ({min(values):.2f}-{max(values):.2f})"
        ratios = [median[f"plain, {count}"] / median[name] for count in ("1 thread", "2 threads")]
        print(
            f"{name:18}{spread:>24}{frames / median[name]:10.1f}{size[name] / 1e6:8.0f}",
            *(f"{r:9.1f}x" for r in ratios),
            f"{statistics.median(elsewhere[name]):7.1%}",
        )
    print(f"ours, two threads against one: {median['ours, 1 thread'] / median['ours, 2 threads']:.2f}x")
    total = sum(stages[1].values())
    print("ours on one thread, milliseconds a frame and share of the work:")
    for stage, spent in stages[1].items():
        print(f"  {stage:8}{spent / frames * 1e3:8.2f}{spent / total:8.1%}")
    if options.json:
        facts = {
            "frames": frames,
            "seconds": seconds,
            "share_of_other_processes": elsewhere,
            "bytes": size,
            "stage_ms_a_frame": {stage: spent / frames * 1e3 for stage, spent in stages[1].items()},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": sys.version.split()[0],
            "versions": {name: version(name) for name in ("dfd-toolkit", "h5py", "opencv-python-headless", "zarr")},
        }
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
