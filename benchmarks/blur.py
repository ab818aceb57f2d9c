"""Per-pixel Gaussian blur of one 427x561 RGB image on one thread: ours against OpenCV with 16, 32 and 64 levels of sigma.

Case A: mean sigma 2.1, largest 6 px. Case B: mean 5.6, largest 16 px. Peers run in turn, so that a busy machine slows all
alike; CPU time, median of the rounds and spread (10th to 90th percentile). Error against the float64 truth of the tests.

    python benchmarks/blur.py [--rounds 15] [--json FILE]
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import cv2
import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from reference import gather_reference

from defocus_sim.blur import gather
from defocus_sim.simd import LANES

HEIGHT, WIDTH = 427, 561
CASES = {"A": (2.1, 6.0), "B": (5.6, 16.0)}


def scene(mean, largest, seed=1):
    """A textured image in [0, 1], planar float32, and a smooth sigma map with the given mean and maximum."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH, 3), dtype=np.float32), (0, 0), 1)
    noise = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), 40)
    share = (noise - noise.min()) / np.ptp(noise)
    power = np.log(mean / largest) / np.log(np.median(share))
    for _ in range(40):
        power *= 1 + 0.5 * (np.mean(share**power) * largest / mean - 1)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), (largest * share**power).astype(np.float32)


def opencv_levels(planes, sigma, levels):
    """Blur the whole image with each of `levels` sigmas and take each pixel from its nearest."""
    image = np.ascontiguousarray(planes.transpose(1, 2, 0))
    steps = np.linspace(0, sigma.max(), levels)
    nearest = np.rint(sigma / sigma.max() * (levels - 1)).astype(np.int32)
    out = image.copy()
    for level in range(1, levels):
        mask = nearest == level
        if mask.any():
            out[mask] = cv2.GaussianBlur(image, (0, 0), steps[level], borderType=cv2.BORDER_REFLECT)[mask]
    return out.transpose(2, 0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    report = {
        "machine": f"{platform.processor() or platform.machine()}, {LANES} lanes",
        "versions": {"numba": numba.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
        "cases": {},
    }
    for name, (mean, largest) in CASES.items():
        planes, sigma = scene(mean, largest)
        truth = gather_reference(planes.transpose(1, 2, 0).astype(float), sigma.astype(float), truncate=6.0)
        contenders = {
            "ours, 3 sigma": lambda p=planes, s=sigma: gather(p, s, 4 * s, truncate=3.0),
            "ours, 4 sigma (default)": lambda p=planes, s=sigma: gather(p, s, 4 * s),
            **{f"OpenCV, {n} levels": lambda p=planes, s=sigma, n=n: opencv_levels(p, s, n) for n in (16, 32, 64)},
        }
        times = {contender: [] for contender in contenders}
        errors = {contender: call().transpose(1, 2, 0) - truth for contender, call in contenders.items()}
        for _ in range(options.rounds):
            for contender, call in contenders.items():
                started = time.process_time()
                call()
                times[contender].append((time.process_time() - started) * 1e3)
        base = np.median(times["ours, 4 sigma (default)"])
        print(f"\ncase {name}: mean sigma {sigma.mean():.2f}, largest {sigma.max():.1f} px")
        print(f"{'':26s}{'ms':>8s}{'10-90 %':>16s}{'ratio':>8s}{'PSNR dB':>9s}{'max error':>11s}")
        rows = {}
        for contender, ms in times.items():
            low, high = np.percentile(ms, (10, 90))
            psnr = -10 * np.log10(np.mean(errors[contender] ** 2))
            worst = np.abs(errors[contender]).max()
            spread = f"{low:.1f}-{high:.1f}"
            print(
                f"{contender:26s}{np.median(ms):8.1f}{spread:>16s}{np.median(ms) / base:8.1f}{psnr:9.1f}{worst:11.1e}"
            )
            rows[contender] = {
                "ms": float(np.median(ms)),
                "ms_10_90": [float(low), float(high)],
                "psnr_db": float(psnr),
            }
        report["cases"][name] = rows
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
