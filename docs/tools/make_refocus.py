"""The picture of docs/guide/predicting.md: `python docs/tools/make_refocus.py` writes docs/images/refocus.jpg.

One procedural scene, never seen by the camera that takes it here: all in focus, then refocused at three distances by
`dfd_train.prediction.refocus.refocus` under its true depth, the part around the sharpest depth step enlarged below each.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from defocus_sim import Lens
from defocus_sim.datasets.synthetic.source import SyntheticSource
from dfd_train.prediction.refocus import refocus

OUT = Path(__file__).parent.parent / "images" / "refocus.jpg"
SCENE_FRAME = 2
FOCUS_M = (1.3, 2.0, 5.0)
PATCH_PX, ZOOM, GAP_PX, LABEL_PX = 96, 5, 6, 26


def cell(image: np.ndarray, text: str, top: int, left: int) -> np.ndarray:
    """`image` under a line of text, above its patch at (top, left), enlarged."""
    patch = image[top : top + PATCH_PX * 3 // 4, left : left + PATCH_PX]
    large = cv2.resize(patch, (image.shape[1], image.shape[1] * 3 // 4), interpolation=cv2.INTER_NEAREST)
    line = np.full((LABEL_PX, image.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (4, LABEL_PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (20, 20, 20), 1, cv2.LINE_AA)
    gap = np.full((GAP_PX, image.shape[1], 3), 255, np.uint8)
    column = np.concatenate([line, image, gap, large])
    return np.concatenate([column, np.full((len(column), GAP_PX, 3), 255, np.uint8)], axis=1)


def steepest(depth_m: np.ndarray) -> tuple[int, int]:
    """Top left of the window with the most depth steps in inverse depth."""
    steps = np.abs(np.diff(1 / depth_m, axis=1, append=1 / depth_m[:, -1:])) > 0.2
    height, width = PATCH_PX * 3 // 4, PATCH_PX
    sums = cv2.boxFilter(
        steps.astype(np.float32), -1, (width, height), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    inside = sums[: depth_m.shape[0] - height, : depth_m.shape[1] - width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def main() -> None:
    """Draw it."""
    source = SyntheticSource(count=SCENE_FRAME + 1, size_wh=(480, 360))
    with source.open() as reader:
        frame = reader.read(SCENE_FRAME)
    lens = Lens(focus_distance_m=2.0, focal_length_mm=50.0, f_number=1.4, sensor_width_mm=36.0)
    top, left = steepest(frame.depth_m)
    cells = [cell(frame.aif, "all in focus", top, left)]
    for focus_m in FOCUS_M:
        seen = refocus(frame.aif, frame.depth_m, lens.at_focus(focus_m))
        cells.append(cell(np.asarray(seen), f"focused at {focus_m:g} m, f/1.4", top, left))
    picture = np.concatenate(cells, axis=1)
    cv2.imwrite(str(OUT), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(f"{OUT}: {picture.shape[1]}x{picture.shape[0]}")


if __name__ == "__main__":
    main()
