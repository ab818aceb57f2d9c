"""How blurred a picture is, measured at its edges: no network, no lens.

An edge blurred by a Gaussian of sigma has a gradient that falls by R = sqrt(sigma^2 + s^2) / sigma when the picture is
blurred once more by a known s; so sigma = s / sqrt(R^2 - 1) (Zhuo and Sim, "Defocus map estimation from a single image",
Pattern Recognition 44, 2011). On 10 of 81 real photographs at f/8 blurred by 2, 4 and 8 px the median over their edges is
2.0, 3.7 and 7.4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_train.prediction.predict import full_scale

# The second blur: small enough to leave neighbouring edges apart, large enough to tell 8 px from 4.
_SECOND_SIGMA_PX = 2.0
# An edge has a gradient in the upper fifth of the picture's and above what 8-bit noise gives, in levels of [0, 1].
_STRONGEST_SHARE, _LEAST_GRADIENT = 0.8, 0.012
# What a measured sigma is limited to; beyond it the second blur changes too little.
LARGEST_SIGMA_PX = 12.0
# An edge speaks for its surroundings as far as this.
_REACH_PX = 16.0


class EdgeBlur(NamedTuple):
    """Edges of a picture: `rows`, `columns` (N,), their `gradient` in 1/px and the `sigma_px` of their blur, float32."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    gradient: NDArray[np.float32]
    sigma_px: NDArray[np.float32]


def measure_edges(image: NDArray[np.float32]) -> EdgeBlur:
    """The edges of `image`, (H, W) or (H, W, 3) float32 in [0, 1], and how blurred each is."""
    grey = image if image.ndim == 2 else _f32(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    once = _gradient(grey)
    along_y, along_x = _gradient(_f32(cv2.GaussianBlur(grey, (0, 0), _SECOND_SIGMA_PX)))
    twice = np.hypot(along_y, along_x)
    around = np.pad(twice, 1, mode="edge")
    beside = np.where(
        np.abs(along_x) > np.abs(along_y),
        np.maximum(around[1:-1, :-2], around[1:-1, 2:]),
        np.maximum(around[:-2, 1:-1], around[2:, 1:-1]),
    )
    # A flat picture has no edges at all, whatever its strongest gradient.
    strong = max(float(np.quantile(twice, _STRONGEST_SHARE)), _LEAST_GRADIENT)
    rows, columns = np.nonzero((twice >= beside) & (twice > strong))
    ratio = np.hypot(*once)[rows, columns] / twice[rows, columns]
    least = np.sqrt(1 + (_SECOND_SIGMA_PX / LARGEST_SIGMA_PX) ** 2)
    sigma = _SECOND_SIGMA_PX / np.sqrt(np.maximum(ratio, least) ** 2 - 1)
    return EdgeBlur(rows, columns, _f32(twice[rows, columns]), _f32(sigma))


def local_sigma_px(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur around every pixel, (H, W) float32 sigma in px: a mean of the edges near it.

    The mean of 1/sigma^2, weighted by gradient and distance, as what looks blurred beside something sharp is a shadow or
    two edges taken for one. Where no edge is near, that of the whole picture; 0 in a picture without any edge, in which
    nothing is to be gained.
    """
    edges = measure_edges(image)
    if not edges.sigma_px.size:
        return np.zeros(image.shape[:2], np.float32)
    sharpness = edges.sigma_px**-2
    weights = np.zeros(image.shape[:2], np.float32)
    values = np.zeros_like(weights)
    weights[edges.rows, edges.columns] = edges.gradient
    values[edges.rows, edges.columns] = edges.gradient * sharpness
    weights, values = (_f32(cv2.GaussianBlur(a, (0, 0), _REACH_PX)) for a in (weights, values))
    everywhere = 1e-4 * edges.gradient.mean()
    whole = np.average(sharpness, weights=edges.gradient)
    return _f32(np.sqrt((weights + everywhere) / (values + everywhere * whole)))


def as_floating(image: NDArray[Any], scale: float = 1.0) -> NDArray[np.float32]:
    """`image` of any type that `predict` takes as (H, W, 3) float32 in [0, 1], its sides multiplied by `scale` <= 1."""
    white = np.float32(full_scale(image))
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    small: Any = image
    if (height, width) != image.shape[:2]:
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    unit = _f32(small) / white
    return np.repeat(unit[..., None], 3, axis=2) if unit.ndim == 2 else unit


def _gradient(grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Central differences along y and x."""
    step = np.array([[-0.5, 0, 0.5]], np.float32)
    return _f32(cv2.filter2D(grey, -1, step.T)), _f32(cv2.filter2D(grey, -1, step))


def _f32(array: Any) -> NDArray[np.float32]:
    """For the type checker: OpenCV's functions do not say what they return."""
    return np.asarray(array, np.float32)
