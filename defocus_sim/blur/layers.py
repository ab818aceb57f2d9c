"""Planning of the layered blur, without any blurring: which layers there are, who belongs to them, and their kernels.

A layer is a signed CoC; a pixel lies *between* two neighbouring layers, so its place is one float: 3.25 means a quarter
of it in layer 4, the rest in layer 3. Layers come front to back, i.e. in ascending CoC.
"""

from dataclasses import dataclass

import numpy as np

from defocus_sim.blur.disc import disc_radius_px
from defocus_sim.blur.options import IDENTITY_SIGMA_PX

JUMP = 2.0  # layers apart that make a depth edge: 1 px of CoC near the focus, 2*(0.5 + 0.1|c|) px in general
_STEP_PX = 0.5  # layers are 0.5 + 0.1*|c| px of CoC apart: finer steps do not show, coarser ones band
_STEP_GROWTH = 0.1


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """Layers front to back.

    `centre_px` (K,) float64 ascending signed CoC; `step` (K,) int64 their number on the uniform scale (consecutive
    numbers are neighbours that share pixels; a gap is a depth that no pixel has).
    """

    centre_px: np.ndarray
    step: np.ndarray


def layer_coordinate(coc_px: np.ndarray) -> np.ndarray:
    """Signed CoC (px) -> the scale on which layers are 1 apart, in the dtype given: z(c) = sign(c)*ln(1 + .2|c|)/.1.

    It solves dz/dc = 1/(0.5 + 0.1|c|), z(0) = 0, so layer 0 is in focus whatever the scene.
    """
    return np.copysign(np.log1p(np.abs(coc_px) * (_STEP_GROWTH / _STEP_PX)) / _STEP_GROWTH, coc_px)


def plan_layers(coc_px: np.ndarray, coordinate: np.ndarray) -> LayerPlan:
    """The layers that pixels occupy, each moved to the mean CoC of its pixels (layer 0 stays at exactly 0).

    A fronto-parallel plane thus gets its own CoC to rounding instead of a mixture of two neighbours.
    """
    step = np.rint(coordinate).astype(np.int64).ravel()
    first = int(step.min())
    count = np.bincount(step - first)
    total = np.bincount(step - first, weights=coc_px.ravel())
    used = np.flatnonzero(count)
    centre = np.where(used + first == 0, 0.0, total[used] / count[used])
    return LayerPlan(centre_px=centre, step=used + first)


def place_pixels(coc_px: np.ndarray, coordinate: np.ndarray, plan: LayerPlan) -> np.ndarray:
    """The place of every pixel among the layers, (H,W) float32 in [0, K-1].

    The fraction is linear in CoC^2, so the mixture of the two kernels has the variance of the pixel's own. Only layers
    that are neighbours share a pixel: over a gap there is nothing to interpolate towards.
    """
    first = int(plan.step[0])
    index_of_step = np.zeros(int(plan.step[-1]) - first + 1, np.int64)
    index_of_step[plan.step - first] = np.arange(len(plan.step))
    own = index_of_step[np.rint(coordinate).astype(np.int64) - first]
    low = own - (coc_px < plan.centre_px[own])
    joined = np.append(np.diff(plan.step) == 1, False)
    low_square = plan.centre_px**2
    span = np.append(np.diff(low_square), 1.0)
    span[span == 0] = 1.0
    inside = np.maximum(low, 0)
    share = np.clip((coc_px.astype(np.float64) ** 2 - low_square[inside]) / span[inside], 0.0, 1.0)
    return np.where((low >= 0) & joined[inside], inside + share, own).astype(np.float32)


def disc_diameter_px(coc_px: np.ndarray, focus_blur_px: float) -> np.ndarray:
    """Diameter of the disc with the variance of a disc of diameter |coc| after a Gaussian of `focus_blur_px`."""
    return coc_px if focus_blur_px == 0 else np.hypot(coc_px, coc_px.dtype.type(4 * focus_blur_px))


def gaussian_half_kernel(sigma_px: float, truncate: float) -> np.ndarray:
    """Weights 0..R of the normalised 1-D Gaussian, float32, R = ceil(truncate*sigma); [1] below 0.1 px."""
    if sigma_px < IDENTITY_SIGMA_PX:
        return np.ones(1, np.float32)
    offsets = np.arange(int(np.ceil(truncate * sigma_px)) + 1)
    half = np.exp(-(offsets**2) / (2.0 * sigma_px**2))
    return (half / (half[0] + 2.0 * half[1:].sum())).astype(np.float32)


def disc_quarter_kernel(coc_px: float) -> np.ndarray:
    """Weights [dy, dx], 0..R each, of the normalised soft disc clip(r + .5 - d, 0, 1), float32.

    r = `disc_radius_px`, the same as the gather's. [[1]] below eps/4 = 0.1 px, where the disc is the identity.
    """
    if abs(coc_px) / 4.0 < IDENTITY_SIGMA_PX:
        return np.ones((1, 1), np.float32)
    radius = float(disc_radius_px(coc_px))
    offsets = np.arange(int(np.ceil(radius + 0.5)))
    kernel = np.clip(radius + 0.5 - np.hypot(offsets[:, None], offsets[None, :]), 0.0, 1.0)
    return (kernel / _full_sum(kernel)).astype(np.float32)


def _full_sum(quarter: np.ndarray) -> float:
    return float(quarter[0, 0] + 2 * (quarter[0, 1:].sum() + quarter[1:, 0].sum()) + 4 * quarter[1:, 1:].sum())
