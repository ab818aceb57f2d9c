"""Where weights for every lens fail: one kind of picture after the other, with numbers and something to look at.

    python benchmarks/quality/where_it_fails.py --checkpoint any-lens --out scores.json --picture failures.jpg

Procedural scenes of kinds that no training of this toolkit draws with these seeds, taken by one lens in discs, layers and
linear light, then spoilt in one way each: not at all, more noise, motion of the camera, lamps before the lens that
become balls of light, a strong JPEG, nothing out of focus. "flat" and "detailed" are the third of the first kind's pixels
with least and most contrast. Means over the scenes: gain of the restored picture over its input, AbsRel and rank
correlation of the depth, and how like itself a sharp picture comes back.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from photographs import contrast_of, psnr, rank_correlation
from PIL import Image

import dfd_train
from defocus_sim import Lens, defocus
from defocus_sim.blur.light import linear_to_srgb, srgb_to_linear
from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.pictures.depth_colours import depth_colours
from dfd_train.prediction.photograph import predict_photograph

SEED, SIZE_WH = 90210, (640, 480)
CELL_W = 240


def taken(aif, depth_m, lens):
    return defocus(aif, depth_m, lens, mode="layered", psf="disc", linear_light=True)


def with_lamps(aif, rng):
    """Small lamps, brighter than white once they are spread: balls of light where they are out of focus."""
    out = aif.copy()
    for _ in range(25):
        y, x = rng.integers(4, aif.shape[0] - 4), rng.integers(4, aif.shape[1] - 4)
        cv2.circle(out, (int(x), int(y)), 2, (255, 255, 255), -1)
    return out


def moved(image, length_px=9, angle_deg=30.0):
    kernel = np.zeros((length_px, length_px), np.float32)
    middle = length_px // 2
    dx, dy = (round(f(np.radians(angle_deg)) * middle) for f in (np.cos, np.sin))
    cv2.line(kernel, (middle - dx, middle - dy), (middle + dx, middle + dy), 1.0)
    light = cv2.filter2D(srgb_to_linear(image.astype(np.float32) / 255), -1, kernel / kernel.sum())
    return np.rint(linear_to_srgb(np.clip(light, 0, 1)) * 255).astype(np.uint8)


def compressed(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def kinds_of(aif, depth_m, lens, rng):
    """Of each kind the picture taken, and the sharp one that is wanted."""
    plain = taken(aif, depth_m, lens)
    lamps = with_lamps(aif, rng)
    # Light beyond white is what makes a ball of it: scattered in linear light, each lamp sixteen times as bright.
    bright = srgb_to_linear(lamps.astype(np.float32) / 255)
    only = np.where((lamps != aif).any(2, keepdims=True), bright, 0).astype(np.float32)
    balls = srgb_to_linear(taken(lamps, depth_m, lens).astype(np.float32) / 255)
    balls = balls + defocus(only, depth_m, lens, mode="layered", psf="disc") * 15
    noise = rng.normal(0, 8, aif.shape)
    return {
        "as trained": (plain, aif),
        "strong noise (8 levels)": (np.clip(plain + noise, 0, 255).round().astype(np.uint8), aif),
        "strong JPEG (quality 30)": (compressed(plain, 30), aif),
        "camera moved (9 px), no defocus": (moved(aif), aif),
        "balls of light": (np.rint(linear_to_srgb(np.clip(balls, 0, 1)) * 255).astype(np.uint8), lamps),
        "nothing out of focus": (aif, aif),
    }


def scores_of(found, seen, wanted, depth_m):
    row = {}
    if found.aif is not None and seen is wanted:
        row |= {"stays_db": psnr(found.aif, wanted)}
    elif found.aif is not None:
        row |= {"input_psnr": psnr(seen, wanted), "gain_db": psnr(found.aif, wanted) - psnr(seen, wanted)}
    if found.depth_m is not None:
        relative = np.abs(found.depth_m / depth_m - 1)
        row |= {"abs_rel": float(relative.mean())}
        row |= {"rank": rank_correlation(found.depth_m.ravel()[::7], depth_m.ravel()[::7])}
    return row


def cells(seen, found, depth_m):
    near, far = (float(v) for v in np.percentile(depth_m, (1, 99)))
    depths = [depth_colours(d, near, far) for d in (found.depth_m, depth_m) if d is not None]
    wide = [seen, *([] if found.aif is None else [found.aif]), *depths]
    return np.hstack([cv2.resize(p, (CELL_W, CELL_W * 3 // 4), interpolation=cv2.INTER_AREA) for p in wide])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="any-lens")
    parser.add_argument("--count", type=int, default=20, help="scenes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path, help="of one scene: taken, restored, depth, true depth, by kind")
    parser.add_argument("--shown", type=int, default=4, help="number of the scene in the picture")
    args = parser.parse_args()
    net = dfd_train.load(args.checkpoint, device="cpu")
    rows, strips = {}, []
    source = SyntheticSource(count=args.count, size_wh=SIZE_WH, scenes="varied", scale="room", seed=SEED)
    with source.open() as reader:
        for index in range(args.count):
            frame = reader.read(index)
            rng = np.random.default_rng([SEED, index])
            focus = float(np.quantile(frame.depth_m, 0.25))
            lens = Lens(focal_length_mm=35, f_number=2.0, focus_distance_m=focus, sensor_width_mm=36)
            for kind, (seen, wanted) in kinds_of(frame.aif, frame.depth_m, lens, rng).items():
                found = predict_photograph(net, seen, lens=lens).found
                rows.setdefault(kind, []).append(scores_of(found, seen, wanted, frame.depth_m))
                if index == args.shown:
                    strips.append(cells(seen, found, frame.depth_m))
                if kind == "as trained" and found.depth_m is not None:
                    relative, contrast = np.abs(found.depth_m / frame.depth_m - 1), contrast_of(frame.aif)
                    low, high = np.quantile(contrast, (1 / 3, 2 / 3))
                    rows.setdefault("  flat third", []).append({"abs_rel": float(relative[contrast <= low].mean())})
                    rows.setdefault("  detailed third", []).append(
                        {"abs_rel": float(relative[contrast >= high].mean())}
                    )
    means = {kind: {n: float(np.mean([r[n] for r in of])) for n in of[0]} for kind, of in rows.items()}
    for kind, mean in means.items():
        print(f"{kind:34s}" + "  ".join(f"{name} {value:.3f}" for name, value in mean.items()))
    if args.picture:
        Image.fromarray(np.vstack(strips)).save(args.picture, quality=88)
    if args.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        facts = {"command": " ".join(sys.argv), "commit": commit, "torch": torch.__version__, "scenes": args.count}
        args.out.write_text(json.dumps(facts | {"means": means, "each": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
