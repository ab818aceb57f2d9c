"""Depth of a sensor, moved to the edges that its colour picture shows: a guided filter on 1/depth.

He, Sun and Tang, *Guided image filtering*, 2013, with the colour picture as guide. A depth camera sees edges a few pixels
off and frays them; within each window, the filter makes 1/depth a linear function of colour, so that its steps lie where
those of the picture do. On 1/depth, as blur is linear in it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.simulate import fill_holes

F32 = np.float32
RADIUS_PX = 16
# Of colour in [0, 1]: a window whose colours vary less than its root keeps the mean of its depths.
EPS = 1e-3
# The distinct entries of a symmetric 3x3 matrix.
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def guide_depth(
    depth_m: NDArray[np.float32], picture: NDArray[np.uint8], *, radius_px: int = RADIUS_PX, eps: float = EPS
) -> NDArray[np.float32]:
    """`depth_m` (H, W) float32, metres, 0 = hole, guided by `picture` (H, W, 3) uint8; holes are filled.

    What comes out lies between the nearest and the farthest of the depths that are there. `radius_px`: of the square
    windows. `eps`: variance of colour, of values in [0, 1], below which a window is only smoothed. Raises `DepthError`
    where no pixel is valid.
    """
    per_m = np.asarray(1 / fill_holes(depth_m), F32)
    guide = picture.astype(F32) / F32(255)
    channels = [np.ascontiguousarray(guide[..., i]) for i in range(3)]
    means = [_mean(one, radius_px) for one in channels]
    mean_per_m = _mean(per_m, radius_px)
    xx, xy, xz, yy, yz, zz = (
        _mean(channels[i] * channels[j], radius_px) - means[i] * means[j] + F32(eps if i == j else 0) for i, j in _PAIRS
    )
    x, y, z = (_mean(channels[i] * per_m, radius_px) - means[i] * mean_per_m for i in range(3))
    # The inverse of a symmetric matrix by its cofactors, for every pixel at once.
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    d, e, f = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    size = xx * a + xy * b + xz * c
    slopes = [(a * x + b * y + c * z) / size, (b * x + d * y + e * z) / size, (c * x + e * y + f * z) / size]
    level = mean_per_m - sum(slope * mean for slope, mean in zip(slopes, means, strict=True))
    guided = _mean(np.asarray(level, F32), radius_px)
    for slope, channel in zip(slopes, channels, strict=True):
        guided += _mean(slope, radius_px) * channel
    return np.asarray(1 / np.clip(guided, per_m.min(), per_m.max()), F32)


def _mean(values: NDArray[F32], radius_px: int) -> NDArray[F32]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), F32)
