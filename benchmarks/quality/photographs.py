"""How well a network does on photographs: restored pictures and depth on stores of measured or simulated pairs.

    python benchmarks/quality/photographs.py --checkpoint any-lens --lens lens.toml real.zarr other.zarr --out scores.json

Every sample of every split goes through `predict_photograph`, as `dfd-predict` does it, with the lens of the store or
the given one. Beside the network: doing nothing, the best constant depth of each store, and the best that the local
contrast can do (depth as a rising or falling function of it, whichever fits, by isotonic regression on the truth of the
same picture: looking at the answer). Means over samples; `improved`: share of the samples that are nearer to the sharp
picture afterwards. `true_side_abs_rel`, `true_side_rank`: of depth by the width of the blur alone, on the side that the
truth names: what knowing the side of the focus would give. `sparsification`: AbsRel of the 50 % of pixels that the network
is surest of over AbsRel of all.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity

import dfd_train
from defocus_sim import Lens
from defocus_sim.blur.light import linear_to_srgb
from defocus_sim.errors import DefocusSimError
from dfd_train.prediction.photograph import predict_photograph


def psnr(seen, truth):
    return float(-10 * np.log10(max(np.mean((seen.astype(np.float64) - truth) ** 2), 1e-9) / 255**2))


def ssim(seen, truth):
    return structural_similarity(
        seen, truth, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )


def rank_correlation(a, b):
    ranks = [np.argsort(np.argsort(x)).astype(np.float64) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def isotonic(order, values):
    """The rising step function of `order` nearest to `values`, by pooling neighbours that fall."""
    index = np.argsort(order, kind="stable")
    # Groups of pixels, so that pooling in Python takes no time.
    blocks = [[float(chunk.mean()), len(chunk)] for chunk in np.array_split(values[index], 200)]
    pooled, sizes = [], []
    for mean, count in blocks:
        pooled.append([mean, count])
        sizes.append(1)
        while len(pooled) > 1 and pooled[-2][0] > pooled[-1][0]:
            (m1, c1), (m2, c2) = pooled[-2:]
            pooled[-2:] = [[(m1 * c1 + m2 * c2) / (c1 + c2), c1 + c2]]
            sizes[-2:] = [sum(sizes[-2:])]
    steps = np.repeat([mean for mean, _ in pooled], sizes)
    out = np.empty_like(values)
    for chunk, mean in zip(np.array_split(index, 200), steps, strict=True):
        out[chunk] = mean
    return out


def contrast_of(image):
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.GaussianBlur(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), (0, 0), 8)


def by_contrast(image, depth, valid):
    """AbsRel of the best rising or falling function of the local contrast, fitted to the truth itself."""
    contrast = contrast_of(image)[valid]
    log_depth = np.log(depth[valid]).astype(np.float64)
    return min(
        float(np.mean(np.abs(np.exp(isotonic(sign * contrast, log_depth)) / depth[valid] - 1))) for sign in (1, -1)
    )


def depth_on_side(coc_px, near, lens):
    """Depth by the width of the blur before the focus (`near`) or beyond it, at most 20 times the focus distance."""
    share = coc_px / lens.coc_at_infinity_px(coc_px.shape[1])
    return lens.focus_distance_m / np.maximum(1 - np.where(near, -share, share), 0.05)


def scores_of(net, item, lens, told):
    image, sharp = (item[name].numpy() for name in ("defocused", "aif"))
    depth = item["depth_m"].numpy().astype(np.float32)
    made = predict_photograph(net, image, lens=lens, told=told)
    row = {"scale": made.scale}
    if made.found.aif is not None:
        row |= {"psnr": psnr(made.found.aif, sharp), "input_psnr": psnr(image, sharp)}
        row |= {"ssim": ssim(made.found.aif, sharp), "input_ssim": ssim(image, sharp)}
        row["sharp_stays_db"] = psnr(predict_photograph(net, sharp, lens=lens, told=told).found.aif, sharp)
    valid = depth > 0
    if made.found.depth_m is not None and valid.mean() > 0.05:
        found = made.found.depth_m[valid]
        ratio = found / depth[valid]
        row["abs_rel"] = float(np.mean(np.abs(ratio - 1)))
        row["rmse"] = float(np.sqrt(np.mean((found - depth[valid]) ** 2)))
        row["delta1"] = float(np.mean(np.maximum(ratio, 1 / ratio) < 1.25))
        row["rank"] = rank_correlation(found[::7], depth[valid][::7])
        row["contrast_abs_rel"] = by_contrast(image, depth, valid)
        near = depth < lens.focus_distance_m
        if made.found.coc_px is not None:
            by_width = depth_on_side(made.found.coc_px, near, lens)[valid]
            row["true_side_abs_rel"] = float(np.mean(np.abs(by_width / depth[valid] - 1)))
            row["true_side_rank"] = rank_correlation(by_width[::7], depth[valid][::7])
        for side, chosen in (("near", near), ("far", ~near)):
            if (chosen & valid).sum() > 200:
                other = made.found.depth_m < lens.focus_distance_m
                row[f"{side}_side_right"] = float(np.mean((other == near)[chosen & valid]))
        if made.found.depth_sigma_m is not None:
            relative = (made.found.depth_sigma_m[valid]) / found
            sure = relative <= np.median(relative)
            row["sparsification"] = float(np.mean(np.abs(ratio[sure] - 1)) / max(row["abs_rel"], 1e-9))
            within = np.abs(found - depth[valid]) <= made.found.depth_sigma_m[valid]
            row["within_sigma"] = float(within.mean())
    return row, depth[valid]


def traced(path):
    """A path-traced scene (linear light, see the data's README) as the one item of a store, and its lens."""
    scene = np.load(path)
    pictures = {}
    for name, key in (("defocused", "defocus_u16"), ("aif", "aif_u16")):
        light = np.clip(scene[key] * np.float32(scene["scale"]), 0, 1)
        pictures[name] = torch.from_numpy(np.rint(linear_to_srgb(light) * 255).astype(np.uint8))
    lens = Lens(
        focus_distance_m=float(scene["focus_distance_m"]),
        aperture_mm=float(scene["aperture_diameter_m"]) * 1e3,
        focal_length_px=float(scene["fx_px"]),
        sensor_distance="infinity",
    )
    return pictures | {"depth_m": torch.from_numpy(scene["depth"].astype(np.float32)), "name": Path(path).stem}, lens


def items_of(path, limit):
    """(item, its lens) of every sample, or of so many of each split."""
    if str(path).endswith(".npz"):
        yield traced(path)
        return
    for split in ("train", "val", "test"):
        try:
            dataset = dfd_train.ShardDataset(path, split)
        except DefocusSimError:
            # A store has the splits that it has.
            continue
        for index in range(0, len(dataset), 1 if limit is None else max(1, len(dataset) // limit)):
            yield dataset[index], dataset.lens(index)


def score_store(net, path, lens, told, limit):
    rows, depths = [], []
    for item, own in items_of(path, limit):
        row, depth = scores_of(net, item, lens or own, told)
        rows.append(row | {"name": item["name"]})
        depths.append(depth[:: max(1, len(depth) // 2000)])
    every = np.concatenate(depths)
    means = {
        name: float(np.mean([row[name] for row in rows if name in row]))
        for name in {key for row in rows for key in row} - {"name"}
    }
    candidates = np.quantile(every, np.linspace(0.05, 0.95, 91)) if len(every) else []
    if len(candidates):
        means["constant_abs_rel"] = min(
            float(np.mean([np.mean(np.abs(c / d - 1)) for d in depths if len(d)])) for c in candidates
        )
    if "psnr" in means:
        means["gain_db"] = means["psnr"] - means["input_psnr"]
        means["improved"] = float(np.mean([row["psnr"] > row["input_psnr"] for row in rows]))
        means["least_sharp_stays_db"] = min(row["sharp_stays_db"] for row in rows)
    return {"samples": len(rows), "mean": dict(sorted(means.items())), "each": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", help="shard stores, or path-traced scenes (.npz)")
    parser.add_argument("--checkpoint", default="any-lens")
    parser.add_argument("--lens", type=Path, help="of all stores, instead of their own")
    parser.add_argument("--untold", action="store_true", help="do not tell the network the lens")
    parser.add_argument("--limit", type=int, help="samples of each split at most")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    net = dfd_train.load(args.checkpoint)
    lens = None if args.lens is None else Lens.load(args.lens)
    began = time.perf_counter()
    results = {Path(store).name: score_store(net, store, lens, not args.untold, args.limit) for store in args.stores}
    for name, result in results.items():
        told = ", ".join(f"{key} {value:.4g}" for key, value in result["mean"].items())
        print(f"{name} ({result['samples']} samples): {told}")
    if args.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        facts = {"command": " ".join(sys.argv), "commit": commit, "seconds": time.perf_counter() - began}
        args.out.write_text(json.dumps(facts | {"stores": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
