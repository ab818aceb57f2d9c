"""Depth as colours: one map, one direction and one bar in every picture.

viridis, near bright and far dark, even in 1/distance as blur and perception are: half of the colours would otherwise be
the far wall. What is not known is grey, which no depth is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
# No colour of viridis is without a hue.
HOLE_RGB = (150, 150, 150)
DEPTH_MAP, ERROR_MAP = cv2.COLORMAP_VIRIDIS, cv2.COLORMAP_INFERNO
_PAPER, _INK = 255, 30
_BAR_PX, _TICKS, _LINE_PX = 10, 5, 14
_NEAREST_M = 1e-3


def depth_range_m(depth_m: NDArray[Any], shown: NDArray[np.bool_]) -> tuple[float, float]:
    """The nearest and the farthest depth of `depth_m` (H, W) where `shown`; (1, 2) where nothing is."""
    values = depth_m[shown]
    return (float(values.min()), float(values.max())) if values.size else (1.0, 2.0)


def depth_colours(depth_m: NDArray[Any], near_m: float, far_m: float, shown: NDArray[np.bool_] | None = None) -> RGB:
    """`depth_m` (H, W) metres as (H, W, 3) uint8 RGB from `near_m` (bright) to `far_m` (dark); grey where not `shown`.

    `shown`: None = where the depth is above 0.
    """
    shown = np.asarray(depth_m > 0) if shown is None else shown
    nearness = 1 / np.maximum(np.where(shown, depth_m, far_m), _NEAREST_M)
    return _coloured(nearness, 1 / max(far_m, _NEAREST_M), 1 / max(near_m, _NEAREST_M), shown, DEPTH_MAP)


def error_colours(error: NDArray[Any], largest: float, shown: NDArray[np.bool_]) -> RGB:
    """`error` (H, W) as (H, W, 3) uint8 RGB from 0 (dark) to `largest` (bright); grey where not `shown`."""
    return _coloured(error, 0.0, largest, shown, ERROR_MAP)


def with_depth_bar(picture: RGB, near_m: float, far_m: float) -> RGB:
    """`picture` (H, W, 3) with the bar of `depth_colours` on its right, marked in metres."""
    height = picture.shape[0]
    inverse = np.linspace(1 / max(near_m, _NEAREST_M), 1 / max(far_m, _NEAREST_M), height)[:, None]
    column = _coloured(inverse, inverse[-1, 0], inverse[0, 0], np.ones_like(inverse, bool), DEPTH_MAP)
    ticks = 1 / np.linspace(inverse[0, 0], inverse[-1, 0], _ticks(height))
    return _beside(picture, column, [f"{_digits(v)} m" for v in ticks])


def with_error_bar(picture: RGB, largest: float, unit: str = "m") -> RGB:
    """`picture` (H, W, 3) with the bar of `error_colours` on its right."""
    height = picture.shape[0]
    values = np.linspace(largest, 0, height)[:, None]
    column = _coloured(values, 0.0, largest, np.ones_like(values, bool), ERROR_MAP)
    return _beside(picture, column, [f"{_digits(v)} {unit}" for v in np.linspace(largest, 0, _ticks(height))])


def _coloured(values: NDArray[Any], low: float, high: float, shown: NDArray[np.bool_], colormap: int) -> RGB:
    share = np.clip((np.where(shown, values, low) - low) / max(high - low, 1e-9), 0, 1)
    picture = cv2.applyColorMap((share * 255).round().astype(np.uint8), colormap)[..., ::-1]
    return np.where(shown[..., None], picture, np.uint8(HOLE_RGB[0])).astype(np.uint8)


def _ticks(height: int) -> int:
    return max(2, min(_TICKS, height // _LINE_PX))


def _beside(picture: RGB, column: RGB, labels: Sequence[str]) -> RGB:
    """`picture`, then `column` (H, 1, 3) as a bar, then `labels` from its top to its bottom."""
    height = picture.shape[0]
    # The same for all numbers, so that pictures of one width stay so.
    wide = cv2.getTextSize("99.99 m", cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)[0][0]
    side = np.full((height, 4 + _BAR_PX + 4 + wide + 2, 3), _PAPER, np.uint8)
    side[:, 4 : 4 + _BAR_PX] = column
    for k, text in enumerate(labels):
        y = round(k * (height - 1) / max(len(labels) - 1, 1))
        side_y = min(max(y + 4, 9), height - 2)
        cv2.putText(side, text, (4 + _BAR_PX + 4, side_y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (_INK,) * 3, 1, cv2.LINE_AA)
    return np.concatenate([picture, side], axis=1)


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
