"""The simulator against a camera: sharp photographs, blurred by it, beside the defocused ones that were taken.

    python benchmarks/quality/real_lens.py real_pairs --out real_lens.json

`real_pairs`: folders f2.8, f8, depth (16 bit, mm) of one camera focused at one distance; every second scene calibrates,
the others are scored. PSNR in dB and SSIM against the f/2.8 photograph, after registration, within the border; means over
scenes.
Each variant is made by `defocus()` from the f/8 photograph as the registration left it (its light matched, corners too);
those of the fall-off from the same photograph with its own corners, gains of the middle alone matched. Depth is the
sensor's, or guided by the f/8 photograph (`dfd-prepare --guide-depth`); the calibration uses the latter.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from defocus_sim import Lens, defocus
from defocus_sim.blur.light import corner_gain, linear_to_srgb, srgb_to_linear
from defocus_sim.calibrate.curves import Photographs, blur_levels, measure
from defocus_sim.calibrate.fit import fit_lens
from defocus_sim.calibrate.report import fit_lines, fitted_lens
from defocus_sim.convert.guided_depth import guide_depth
from defocus_sim.datasets.pairs import PairsSource
from defocus_sim.simulate import fill_holes

WINDOW_PX = 15


def psnr(seen, truth):
    return -10 * np.log10(np.mean((seen.astype(np.float64) - truth) ** 2) / 255**2)


def ssim(seen, truth):
    return structural_similarity(
        seen, truth, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )


def gaussians(sharp):
    """The picture under every amount of blur, in linear light, as sRGB of 0..255."""
    light = srgb_to_linear(sharp.astype(np.float32) / 255)
    for sigma in blur_levels(6.0):
        seen = light if sigma == 0 else cv2.GaussianBlur(light, (0, 0), float(sigma), borderType=cv2.BORDER_REFLECT)
        yield np.rint(linear_to_srgb(seen) * 255).astype(np.uint8)


def best_gaussians(sharp, truth):
    """By looking at the answer: the best single Gaussian, and the best of each window around each pixel."""
    single, chosen, least = None, None, None
    for seen in gaussians(sharp):
        square = ((seen.astype(np.float32) - truth) ** 2).sum(axis=2)
        error = cv2.blur(square, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_REFLECT)
        if single is None or square.sum() < single[0]:
            single = square.sum(), seen
        if least is None:
            chosen, least = seen.copy(), error
        better = error < least
        chosen[better], least[better] = seen[better], error[better]
    return single[1], chosen


def with_own_corners(sharp, corner_light, border):
    """The f/8 photograph before its corners were matched; its middle is as bright as that of the defocused one."""
    height, width = (side + 2 * border for side in sharp.shape[:2])
    gain = corner_gain(height, width, corner_light)[border:-border, border:-border, None]
    return np.rint(linear_to_srgb(srgb_to_linear(sharp.astype(np.float32) / 255) / gain) * 255).astype(np.uint8)


def variants(sharp, depth_m, guided_m, lenses):
    for place, lens in lenses.items():
        for mode in ("gather", "layered"):
            guided = defocus(sharp, guided_m, lens, mode=mode, psf="disc", linear_light=True)
            yield f"{mode}, disc, linear, guided depth, {place}", guided
            for psf in ("gaussian", "disc"):
                for linear in (False, True):
                    seen = defocus(sharp, depth_m, lens, mode=mode, psf=psf, linear_light=linear)
                    yield f"{mode}, {psf}, {'linear' if linear else 'sRGB'}, {place}", seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--every", type=int, default=1, help="score every Nth of the scenes that do not calibrate")
    parser.add_argument("--limit", type=int, default=None, help="scored scenes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    started = time.monotonic()
    names = {"defocused": "f2.8", "sharp": "f8", "depth": "depth"}
    folders = {role: options.folder / name for role, name in names.items()}
    source = PairsSource(**folders, depth_scale=1e-3, falloff=True)
    calibration, scored = [], []
    with source.open() as reader:
        for index, sample in enumerate(source.samples()):
            frame = reader.read(index)
            if index % 2 == 0:
                calibration.append(
                    Photographs(
                        scene=sample.name,
                        defocused=frame.defocused,
                        sharp=frame.aif,
                        depth_m=np.where(frame.depth_m > 0, guide_depth(frame.depth_m, frame.aif), np.float32(0)),
                        corner_light=frame.found["corner_light"],
                    )
                )
            else:
                scored.append(frame)
    scored = scored[:: options.every][: options.limit]
    width = source.frame_hw()[1]
    published = source.stored_lens(Lens.preset("d3net-camera"))
    fit = fit_lens(measure(calibration))
    # Measured from the f/8 photographs: what they already have is not in it.
    calibrated = fitted_lens(fit, published)
    print("\n".join(fit_lines(fit, calibrated, published)))
    whole = tuple(side + 2 * source.border for side in source.frame_hw())
    with_falloff = calibrated.cropped(whole, source.frame_hw())
    calibrated = calibrated.changed(corner_light=1.0)
    paper = published.changed(sigma_per_coc=0.25)
    lenses = {
        "published lens": paper,
        "calibrated": calibrated,
    }
    print(f"{len(scored)} scenes of {width} px scored\n")
    scores: dict[str, list[tuple[float, float]]] = {}
    for done, frame in enumerate(scored, start=1):
        truth, depth_m = frame.defocused, fill_holes(frame.depth_m)
        guided_m = guide_depth(frame.depth_m, frame.aif)
        single, windows = best_gaussians(frame.aif, truth)
        pictures = [("sharp photograph", frame.aif)]
        pictures += [("best single Gaussian, peeking", single), ("best Gaussian per 15x15 window, peeking", windows)]
        own = with_own_corners(frame.aif, frame.found["corner_light"], source.border)
        for name, start, lens in (
            ("corners not matched", own, calibrated),
            ("corners by the lens's fall-off", own, with_falloff),
        ):
            made = defocus(start, depth_m, lens, psf="disc", linear_light=True)
            pictures.append((f"gather, disc, linear, {name}", made))
        for name, seen in [*pictures, *variants(frame.aif, depth_m, guided_m, lenses)]:
            scores.setdefault(name, []).append((psnr(seen, truth), ssim(seen, truth)))
        if options.out is not None:
            options.out.write_text(json.dumps(scores, indent=1))
        print(f"\r{done} of {len(scored)}", end="", file=sys.stderr, flush=True)
    print(f"{'':56} {'PSNR dB':>8} {'SSIM':>7}")
    for name, rows in scores.items():
        print(f"{name:56} {np.mean([r[0] for r in rows]):8.2f} {np.mean([r[1] for r in rows]):7.4f}")
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
