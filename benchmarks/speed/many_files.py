"""How the time of `dfd-prepare rgbd` grows with the number of pairs, which are as small as can be.

    python benchmarks/speed/many_files.py --counts 500,1000,2000,4000,8000 --plan 25000

`--plan`: only list, look at and identify so many pairs, which is what a conversion does before its first sample.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import Conversion, Workers, convert
from defocus_sim.datasets.rgbd_folder import RgbdFolderSource
from defocus_sim.lens import Lens

HW = (16, 24)


def write_pairs(folder: Path, count: int) -> None:
    """`00000.png` with `00000.depth.png`, 16-bit millimetres; 1,000 in a folder."""
    colour = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    depth = np.linspace(1000, 4000, HW[0] * HW[1], dtype=np.uint16).reshape(HW)
    encoded = [cv2.imencode(".png", array)[1].tobytes() for array in (colour, depth)]
    for number in range(count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        for suffix, content in zip((".png", ".depth.png"), encoded, strict=True):
            (place / f"{number:05d}{suffix}").write_bytes(content)


def main() -> None:
    """Print a table: pairs, seconds in all, of planning, and of CPU with writing the pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="500,1000,2000,4000,8000", help="pairs of each conversion")
    parser.add_argument("--plan", type=int, default=0, metavar="N", help="pairs that are planned only")
    parser.add_argument("--samples-per-shard", type=int, default=4)
    parser.add_argument("--processes", action="store_true")
    given = parser.parse_args()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}")
    print("pairs  seconds  of them for planning  of CPU")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        run(place, 50, given)  # compiles
        for count in (int(text) for text in given.counts.split(",")):
            own = time.process_time()
            result = run(place, count, given)
            own = time.process_time() - own
            print(f"{count:5}  {result.seconds:7.1f}  {result.planning_seconds:20.2f}  {own:7.1f}", flush=True)
        if given.plan:
            write_pairs(place / "plan", given.plan)
            began, began_own = time.monotonic(), time.process_time()
            source = RgbdFolderSource(root=place / "plan", depth_scale=0.001)
            settings = ConversionSettings(source=source, lens=Lens.preset("paper"))
            settings.to_json()
            samples = len(source.samples())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            seconds, own = time.monotonic() - began, time.process_time() - began_own
            print(f"{samples} pairs planned in {seconds:.1f} s ({own:.1f} s of CPU), {peak:.0f} MiB at most")


def run(place: Path, count: int, given: argparse.Namespace) -> Conversion:
    """Convert `count` pairs."""
    write_pairs(place / f"in{count}", count)
    settings = ConversionSettings(
        source=RgbdFolderSource(root=place / f"in{count}", depth_scale=0.001),
        lens=Lens.preset("paper"),
        samples_per_shard=given.samples_per_shard,
    )
    return convert(settings, place / f"{count}.zarr", workers=Workers(processes=given.processes))


if __name__ == "__main__":
    main()
