"""What a flat surface does not show, taken from its surroundings that do: answers weighted by how sure they are."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
# Half of the window's side as a share of the picture's longer side.
REACH_SHARE = 1 / 30
# Contrast below which a surface counts as one, in grey levels of [0, 1].
_SAME_SURFACE = 0.1
# The least scale of an error that counts, in px: none is surer than that.
_LEAST_SCALE_PX = 0.1


def filled_by_certainty(answers: list[F32], scale_px: F32, picture: F32) -> list[F32]:
    """`answers`, each (H, W), averaged over their surroundings by weight 1/scale^2, along the edges of the picture.

    A guided filter (He et al. 2010) with weights: within each window the line of an answer over the grey level that fits
    best where the answers are sure. `scale_px` (H, W): scale of the error of the answers; `picture` (H, W) grey in [0, 1].
    """
    radius = max(1, round(REACH_SHARE * max(picture.shape)))
    weight: F32 = np.maximum(scale_px, np.float32(_LEAST_SCALE_PX)) ** np.float32(-2)
    total = _mean(weight, radius)

    def weighted(values: F32) -> F32:
        return np.asarray(_mean(np.asarray(weight * values, np.float32), radius) / total, np.float32)

    grey = weighted(picture)
    spread = weighted(np.square(picture)) - grey * grey + np.float32(_SAME_SURFACE**2)
    filled = []
    for answer in answers:
        level = weighted(answer)
        slope = np.asarray((weighted(np.multiply(picture, answer)) - grey * level) / spread, np.float32)
        offset = np.asarray(level - slope * grey, np.float32)
        filled.append(np.asarray(weighted(slope) * picture + weighted(offset), np.float32))
    return filled


def _mean(values: F32, radius: int) -> F32:
    side = 2 * radius + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)
