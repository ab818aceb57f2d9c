"""The picture of the README: what a trained network makes of scenes that it has not seen.

    python docs/tools/make_restored.py --shards scenes.zarr --checkpoint run

writes docs/images/restored.jpg: for each of the chosen test samples the defocused input, the restored image, the predicted
and the true depth on one scale, and prints how good they are. docs/project/contributing.md has the commands of the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from defocus_sim.pictures.depth_colours import depth_colours, with_depth_bar
from defocus_sim.shards.store import open_store
from dfd_train.model.load import load_network
from dfd_train.prediction.predict import predict
from dfd_train.runs.checkpoint import load_checkpoint

OUT = Path(__file__).parent.parent / "images" / "restored.jpg"
GAP_PX, HEADER_PX = 8, 34


def psnr_db(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR of uint8 images."""
    return float(-10 * np.log10(np.mean((image.astype(np.float64) - truth) ** 2) / 255**2))


def main() -> None:
    """Draw the rows and say what they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 1, 2], help="indices in the test split")
    arguments = parser.parse_args()
    batch = open_store(arguments.shards).split("test").read(arguments.samples)
    checkpoint = load_checkpoint(arguments.checkpoint)
    model = load_network(checkpoint.config.model, checkpoint.evaluated)
    rows = []
    for blurred, sharp, true_m in zip(batch["defocused"], batch["aif"], batch["depth_m"], strict=True):
        found = predict(model, blurred)
        near_m, far_m = float(true_m[true_m > 0].min()), float(true_m.max())
        depths = [depth_colours(depth_m, near_m, far_m) for depth_m in (found.depth_m, true_m)]
        cells = [blurred, found.aif, depths[0], with_depth_bar(depths[1], near_m, far_m)]
        rows.append(
            np.concatenate([np.pad(c, ((0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255) for c in cells], 1)
        )
        rmse_m = float(np.sqrt(np.mean((found.depth_m - true_m)[true_m > 0] ** 2)))
        print(
            f"PSNR {psnr_db(blurred, sharp):.1f} -> {psnr_db(found.aif, sharp):.1f} dB, depth RMSE {rmse_m:.2f} m "
            f"in {near_m:.1f} to {far_m:.1f} m"
        )
    picture = np.concatenate(rows, axis=0)
    header = np.full((HEADER_PX, picture.shape[1], 3), 255, np.uint8)
    for i, title in enumerate(("defocused", "restored", "depth found", "true depth")):
        place = (2 + i * (batch["aif"].shape[2] + GAP_PX), 24)
        cv2.putText(header, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 20), 2, cv2.LINE_AA)
    cv2.imwrite(str(OUT), np.concatenate([header, picture])[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    print(f"docs/images/{OUT.name}: {picture.shape[1]}x{picture.shape[0] + HEADER_PX}")


if __name__ == "__main__":
    main()
