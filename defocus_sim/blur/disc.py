"""The disc that a thin lens makes of a point, on a grid of pixels; free of numba."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = np.float32
_DISC_TABLE_RADIUS_PX = 32.0


def disc_radius_px(coc_px: ArrayLike) -> NDArray[F32]:
    """Radius of the soft-rimmed pixel disc whose variance is that of a uniform disc of diameter |coc_px|.

    The kernel clip(r + 1/2 - d, 0, 1) on the pixel grid is wider than a hard disc of radius r; r is chosen so that its
    variance along each axis is coc^2/16 exactly. A coc of 0 gives 1/2, a single pixel. Any shape; float32.
    """
    radius, coc = disc_table()
    diameter = np.abs(np.asarray(coc_px, np.float64))
    # Beyond the table the rim is all there is to correct: variance (r^2 + 5/12)/4 for an ideal soft rim.
    beyond = np.sqrt(np.maximum(diameter**2 / 4 - 5 / 12, 0.25))
    return np.where(diameter < coc[-1], np.interp(diameter, coc, radius), beyond).astype(F32)


@functools.cache
def disc_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii and the CoC diameters (4 x the standard deviation of the discrete kernel) that they stand for."""
    radius = 0.5 + np.concatenate(
        [np.linspace(0, 1, 129)[:-1] ** 2, np.arange(1, 16 * (_DISC_TABLE_RADIUS_PX - 0.5)) / 16]
    )
    reach = np.arange(-int(_DISC_TABLE_RADIUS_PX) - 1, int(_DISC_TABLE_RADIUS_PX) + 2)
    squares = reach[:, None] ** 2 + reach[None, :] ** 2
    distance_sq, taps = np.unique(squares, return_counts=True)
    weight = np.clip(radius[:, None] + 0.5 - np.sqrt(distance_sq), 0, 1) * taps
    variance = (weight * distance_sq).sum(1) / weight.sum(1) / 2
    return radius, np.maximum.accumulate(4 * np.sqrt(variance))
