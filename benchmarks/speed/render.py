"""Procedural scenes a second on one core: rooms and varied, and where the time goes.

    python benchmarks/speed/render.py [--frames 24] [--size 480x360] [--json FILE]

CPU seconds of one thread, so that what else the machine does counts less; the first frame, which loads the compiled
kernels, is left out. `layout` is the drawing of scene, textures and outlines, `picture` the casting, shading and exposure.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np

from defocus_sim.datasets.synthetic.rendering.render import render
from defocus_sim.datasets.synthetic.scenes import SCALES, build_scene, focal_length_px
from defocus_sim.datasets.synthetic.varied import build_varied, draw_kind


def measure(scenes: str, hw: tuple[int, int], frames: int) -> dict[str, float]:
    """Frames a CPU second, and the CPU milliseconds of a frame by part."""
    layout = picture = 0.0
    for index in range(-1, frames):
        rng = np.random.default_rng([0, index + 1])
        scale = list(SCALES)[index % len(SCALES)]
        began = time.process_time()
        if scenes == "varied":
            scene = build_varied(rng, draw_kind(rng), scale, hw)
        else:
            scene = build_scene(rng, SCALES[scale], hw)
        drawn = time.process_time()
        render(scene, focal_length_px(hw), hw)
        if index >= 0:
            layout, picture = layout + drawn - began, picture + time.process_time() - drawn
    return {
        "frames_per_cpu_s": frames / (layout + picture),
        "layout_ms": 1e3 * layout / frames,
        "picture_ms": 1e3 * picture / frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", default="480x360", metavar="WxH")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    width, height = map(int, options.size.split("x"))
    print(f"{platform.processor() or platform.machine()}, NumPy {version('numpy')}, numba {version('numba')}")
    results = {scenes: measure(scenes, (height, width), options.frames) for scenes in ("rooms", "varied")}
    for scenes, found in results.items():
        print(
            f"{scenes:7} {found['frames_per_cpu_s']:5.2f} frames/CPU s  layout {found['layout_ms']:4.0f} ms  "
            f"picture {found['picture_ms']:4.0f} ms"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
