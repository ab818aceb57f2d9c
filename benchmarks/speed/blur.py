"""Per-pixel Gaussian blur of one 561x427 RGB image on one thread: ours against OpenCV with 16, 32 and 64 levels of sigma.

Case A: mean sigma 2.1, largest 6 px. Case B: mean 5.6, largest 16 px. Peers run in turn, each for at least 30 ms, so that
a busy machine slows all alike and nobody pays for what another has left in the cache; CPU time of a call, median of the
rounds and spread (10th to 90th percentile). Error against the float64 truth of the tests.
"Ours" is what `defocus()` does, on coarser grids where they pay; "direct" sums every tap. Then the direct kernel alone as a
share of the core's peak of fused multiply-adds, which is measured by a loop of nothing else; the whole `defocus()` with
bytes in and out against that kernel; the layered mode; and two threads on many images against one (elapsed time).

    python benchmarks/speed/blur.py [--rounds 15] [--json FILE]
"""

import argparse
import json
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from reference import gather_reference

from defocus_sim import Lens, defocus
from defocus_sim.blur.gather import gather, gaussian_kernel
from defocus_sim.blur.pixel_format import mirrored
from defocus_sim.blur.pyramid import gaussian_gather
from defocus_sim.blur.vectors.intrinsics import LANES, ROWS

HEIGHT, WIDTH = 427, 561
# As many as the kernel keeps in registers.
SUMS = 3 * ROWS
REFERENCE = "OpenCV, 32 levels"
LEAST_S = 0.03
# So many that the last, for which only one thread finds work, does not count.
IMAGES = 128
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


def multiply_add_peak():
    """A compiled `(turns, values)` that does `turns` x `SUMS` x LANES independent fused multiply-adds."""

    @intrinsic
    def turn(typing_context, turns, values):
        def generate(context, builder, signature, arguments):
            data = context.make_array(signature.args[1])(context, builder, arguments[1]).data
            vector, index = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)

            def place(k):
                return builder.bitcast(builder.gep(data, [ir.Constant(index, k * LANES)]), vector.as_pointer())

            factor, term = (builder.load(place(k), align=4) for k in (0, 1))
            before, loop = builder.block, builder.append_basic_block("turn")
            builder.branch(loop)
            builder.position_at_end(loop)
            count, sums = builder.phi(index), [builder.phi(vector) for _ in range(SUMS)]
            flags = ("contract",)
            grown = [builder.fadd(builder.fmul(one, factor, flags=flags), term, flags=flags) for one in sums]
            following = builder.add(count, ir.Constant(index, 1))
            for phi, first, later in (
                (count, ir.Constant(index, 0), following),
                *((o, term, g) for o, g in zip(sums, grown, strict=True)),
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(later, loop)
            after = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed("<", following, arguments[0]), loop, after)
            builder.position_at_end(after)
            for k, value in enumerate(grown):
                builder.store(value, place(k), align=4)
            return context.get_dummy_value()

        return types.void(turns, values), generate

    @numba.njit
    def run(turns, values):
        turn(turns, values)

    return run


def executed(sigma, truncate):
    """Fused multiply-adds of the kernel: every pixel of a block reaches as far as the one that reaches farthest."""
    radius = np.ceil(np.float32(truncate) * sigma)
    radius = np.pad(radius, ((0, -HEIGHT % ROWS), (0, -WIDTH % LANES)))
    reach = radius.reshape(radius.shape[0] // ROWS, ROWS, -1, LANES).max((1, 3))
    return float(((2 * reach + ROWS) * (reach + 1)).sum()) * ROWS * LANES * 3


def in_turn(calls, rounds, clock):
    """{name: milliseconds a call of each round}."""
    times = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            # Once more than is timed.
            call()
            started, count = clock(), 0
            while (taken := clock() - started) < LEAST_S or count == 0:
                call()
                count += 1
            # The first round compiles.
            if number:
                times[name].append(taken / count * 1e3)
    return times


def photographed(planes, sigma):
    """The image as bytes, and a depth map and a lens that give this very sigma: CoC = scale * (1 - S/x)."""
    image = (planes.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8, order="C")
    lens = Lens(aperture_mm=44.8, focal_length_px=1000, focus_distance_m=0.5)
    return image, (0.5 / (1 - 4 * sigma / (44.8e-3 * 1000 / 0.5))).astype(np.float32), lens


def whole(name, mean, largest, rounds):
    """The kernel against the peak, and what is around it."""
    planes, sigma = scene(mean, largest)
    image, depth_m, lens = photographed(planes, sigma)
    size = -(-HEIGHT // ROWS) * ROWS, -(-WIDTH // LANES) * LANES
    field, out = np.zeros(size, np.float32), np.empty((3, *size), np.float32)
    field[:HEIGHT, :WIDTH] = np.where(sigma < 0.1, 0, sigma)
    pad = int(np.ceil(4 * field.max()))
    # A copy: `defocus()` uses its memory again.
    padded, kernel = mirrored(planes, None, (pad, pad), size).copy(), gaussian_kernel(3)
    peak, values, turns = multiply_add_peak(), np.full(SUMS * LANES, 0.5, np.float32), 100_000
    calls = {
        "peak": lambda: peak(turns, values),
        "kernel": lambda: kernel(padded, pad, field, 4.0, out),
        "defocus()": lambda: defocus(image, depth_m, lens),
        "defocus(), linear light": lambda: defocus(image, depth_m, lens, linear_light=True),
        "defocus(), disc": lambda: defocus(image, depth_m, lens, psf="disc"),
        "defocus(), layered": lambda: defocus(image, depth_m, lens, mode="layered"),
    }
    median = {key: float(np.median(ms)) for key, ms in in_turn(calls, rounds, time.process_time).items()}
    peak_per_s = turns * SUMS * LANES / median.pop("peak") * 1e3
    share = executed(field[:HEIGHT, :WIDTH], 4.0) / median["kernel"] * 1e3 / peak_per_s

    print(
        f"\ncase {name}: direct kernel {median['kernel']:.1f} ms = {share:.0%} of {peak_per_s / 1e9:.1f} G multiply-adds/s"
    )
    for key, ms in median.items():
        print(f"{key:26s}{ms:8.1f} ms{ms / median['kernel']:8.2f} x the kernel")
    return {"ms": median, "peak_per_s": peak_per_s, "share_of_peak": share}


def two_threads(name, image, depth_m, lens, rounds):
    """Elapsed time of `IMAGES` on one and on two threads that keep the memory they free, as a conversion has them."""

    def images(count):
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda _: defocus(image, depth_m, lens), range(IMAGES)))

    calls = {count: lambda c=count: images(c) for count in (1, 2)}
    ms = in_turn(calls, rounds, time.perf_counter)
    ratios = np.array(ms[1]) / np.array(ms[2])
    low, high = np.percentile(ratios, (10, 90))
    print(
        f"case {name}, {IMAGES} images: {np.median(ms[1]):.0f} ms on one thread, {np.median(ms[2]):.0f} on two: "
        f"{np.median(ratios):.2f} x ({low:.2f}-{high:.2f})"
    )
    return {str(count): list(times) for count, times in ms.items()}


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
            "ours, 4 sigma (default)": lambda p=planes, s=sigma: gaussian_gather(p, s, keep=False),
            **{
                f"ours, {reach:g} sigma": lambda p=planes, s=sigma, r=reach: gaussian_gather(
                    p, s, truncate=r, keep=False
                )
                for reach in (3.5, 3.0)
            },
            "direct, 4 sigma": lambda p=planes, s=sigma: gather(p, s, 4 * s),
            **{f"OpenCV, {n} levels": lambda p=planes, s=sigma, n=n: opencv_levels(p, s, n) for n in (16, 32, 64)},
        }
        errors = {contender: call().transpose(1, 2, 0) - truth for contender, call in contenders.items()}
        times = in_turn(contenders, options.rounds, time.process_time)
        reference = np.array(times[REFERENCE])
        print(f"\ncase {name}: mean sigma {sigma.mean():.2f}, largest {sigma.max():.1f} px")
        print(f"{'':26s}{'ms':>8s}{'10-90 %':>16s}{'x as fast as 32 levels':>24s}{'PSNR dB':>9s}{'max error':>11s}")
        rows = {}
        for contender, ms in times.items():
            low, high = np.percentile(ms, (10, 90))
            psnr = -10 * np.log10(np.mean(errors[contender] ** 2))
            worst = np.abs(errors[contender]).max()
            spread = f"{low:.1f}-{high:.1f}"
            # Of each round on its own: they ran side by side.
            ratios = reference / np.array(ms)
            middle, least, most = np.percentile(ratios, (50, 10, 90))
            against = f"{middle:.1f} ({least:.1f}-{most:.1f})"
            print(f"{contender:26s}{np.median(ms):8.1f}{spread:>16s}{against:>24s}{psnr:9.1f}{worst:11.1e}")
            rows[contender] = {
                "ms": float(np.median(ms)),
                "ms_10_90": [float(low), float(high)],
                "against_opencv_32": ratios.tolist(),
                "psnr_db": float(psnr),
            }
        report["cases"][name] = {"contenders": rows}
        report["cases"][name] |= whole(name, mean, largest, options.rounds)
    print()
    for name, case in CASES.items():
        report["cases"][name]["threads_ms"] = two_threads(name, *photographed(*scene(*case)), options.rounds)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
