"""`predict_photograph`: any size, any blur: worked at the scale that a network has learned; what is sharp stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.lens import Lens, coc_diameter_px
from dfd_train.errors import ConfigError
from dfd_train.model.build import Model
from dfd_train.prediction.edge_blur import as_floating, local_sigma_px, measure_edges
from dfd_train.prediction.predict import SMALLEST_SIDE, Prediction, as_input, predict_raw, takes_lens
from dfd_train.prediction.tiling import Tiling

# The widest blur that networks of this toolkit have learned to take back.
LEARNED_SIGMA_PX = 4.0
# A scale chosen from the picture works on no more than this: more takes minutes on a laptop.
MOST_WORKED_PX = 4_000_000
# Edges of objects are sharper than those of shadows, which are many; three quarters of all are no wider than the blur.
_BLUR_SHARE = 0.75
# Where the search begins: at this longest side even the blur of a large picture is narrow.
_COARSEST_PX = 512
# Restoring sets in between these, in px as worked: measured sigmas, or the circle of confusion that a network predicts.
_SIGMA_FROM_PX, _SIGMA_FULL_PX = 1.0, 1.6
_COC_FROM_PX, _COC_FULL_PX = 0.5, 3.0
# What 95 % of the pixels are narrower blurred than, by what the network says: up to the first a picture is taken to be in
# focus, from the second on it is restored in full. In focus flat surfaces and fine texture are taken for blurred here and
# there, and what the network then changes much is harm.
_WIDE_SHARE = 0.95
_WIDE_FROM_PX, _WIDE_FULL_PX = 2.0, 5.0
# The root mean square of a change that is made all the same: 43 dB to the picture, 1.8 of 255 grey levels.
_SMALL_CHANGE = 10 ** (-43 / 20)


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A `Prediction` of a photograph at its own size.

    `scale`: at which share of that the network worked. `changed_share`: how much of what the network would change was
    changed, 1 = all of it; None without a restored picture.
    """

    found: Prediction
    scale: float
    changed_share: float | None


def predict_photograph(
    model: Model,
    image: NDArray[Any],
    *,
    lens: Lens | None = None,
    told: bool = True,
    scale: float | None = None,
    tiling: Tiling | None = None,
) -> Photograph:
    """Restore a picture and predict its depth at the scale at which its blur is no wider than what networks have learned.

    What the network changes at that scale is added to the full picture, weighted by how blurred it is there: what is sharp
    stays as it is. Of a picture that shows hardly any blur no more is changed than leaves it at 43 dB to itself. Depth is
    brought to the full size linearly.

    Parameters
    ----------
    model, image, lens, told, tiling
        As for `predict`.
    scale
        Share of the picture's sides to work at, in (0, 1]; None: chosen from the picture, see `choose_scale`.

    Returns
    -------
    Photograph
        The prediction, and how it was made.

    Raises
    ------
    ConfigError
        For an impossible scale; otherwise as `predict`.
    """
    if scale is None:
        scale = choose_scale(image)
    elif not 0 < scale <= 1:
        raise ConfigError(f"scale={scale:g} must be above 0 and at most 1")
    # A picture smaller than the network's deepest cell has nothing to tell.
    scale = min(max(scale, SMALLEST_SIDE / min(image.shape[:2])), 1.0)
    height, width = image.shape[:2]
    worked = as_floating(image, scale)
    shrunk = worked.shape[1] / width
    if lens is not None:
        lens = lens.resized((height, width), (worked.shape[0], worked.shape[1]))
    found = predict_raw(model, np.clip(worked, 0, 1), tiling=tiling, lens=lens, told=told)
    aif = share = None
    if found.aif is not None:
        coc_px = _coc_px(model, found, lens)
        change = (found.aif - worked) * _blurred_share(worked, coc_px)[..., None]
        share = 1.0 if coc_px is None else _changed_share(coc_px, change)
        aif = _changed(image, change * np.float32(share))
    depth, sigma, coc = (
        None if a is None else _enlarged(a, (height, width)) for a in (found.depth_m, found.depth_sigma_m, found.coc_px)
    )
    coc = None if coc is None else coc / np.float32(shrunk)
    found = Prediction(aif=aif, depth_m=depth, depth_sigma_m=sigma, coc_px=coc)
    return Photograph(found=found, scale=shrunk, changed_share=share)


def choose_scale(
    image: NDArray[Any], *, learned_sigma_px: float = LEARNED_SIGMA_PX, most_px: int = MOST_WORKED_PX
) -> float:
    """The largest scale in (0, 1] at which three quarters of the edges of `image` are blurred by less than learned.

    Measured from coarse to fine, as wide blur does not look like an edge at full size. At most `most_px` pixels.
    """
    height, width = image.shape[:2]
    limit = min(1.0, math.sqrt(most_px / (height * width)))
    scale = min(limit, _COARSEST_PX / max(height, width))
    while True:
        edges = measure_edges(as_floating(image, scale))
        sigma = float(np.quantile(edges.sigma_px, _BLUR_SHARE)) if edges.sigma_px.size else 0.0
        possible = scale * learned_sigma_px / max(sigma, 1e-3)
        if possible < 1.1 * scale or scale >= limit:
            return min(possible, scale)
        scale = min(limit, possible, scale * 2)


def _coc_px(model: Model, found: Prediction, lens: Lens | None) -> NDArray[np.float32] | None:
    """(H, W): the blur that a network answers itself, or by its depth where it is told the lens; None for another."""
    if found.coc_px is not None:
        return found.coc_px
    if lens is None or found.depth_m is None or not takes_lens(model):
        return None
    return np.abs(coc_diameter_px(found.depth_m, lens)).astype(np.float32)


def _blurred_share(worked: NDArray[np.float32], coc_px: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(H, W), 0 where the picture as worked is sharp, 1 where it is surely blurred: measured where no blur is said."""
    if coc_px is None:
        return _risen(local_sigma_px(worked), _SIGMA_FROM_PX, _SIGMA_FULL_PX)
    return _risen(coc_px, _COC_FROM_PX, _COC_FULL_PX)


def _changed_share(coc_px: NDArray[np.float32], change: NDArray[np.float32]) -> float:
    """How much of `change` (H, W, 3) is made: all of it where blur is wide or the change small."""
    wide = _risen(np.asarray(np.quantile(coc_px, _WIDE_SHARE)), _WIDE_FROM_PX, _WIDE_FULL_PX)
    size = math.sqrt(np.mean(np.square(change, dtype=np.float64)))
    return max(float(wide), min(1.0, _SMALL_CHANGE / max(size, 1e-9)))


def _risen(blur_px: NDArray[Any], low_px: float, high_px: float) -> NDArray[np.float32]:
    """A smooth step: 0 up to `low_px`, 1 from `high_px` on."""
    t = np.clip((blur_px - low_px) / (high_px - low_px), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _changed(image: NDArray[Any], change: NDArray[np.float32]) -> NDArray[Any]:
    """`image` with `change` (h, w, 3), enlarged to its size, added; where nothing changes exactly as it was."""
    full = as_floating(image)
    for channel in range(3):
        full[..., channel] += _enlarged(change[..., channel], image.shape[:2])
    return as_input(full, image)


def _enlarged(array: NDArray[np.float32], hw: tuple[int, ...]) -> NDArray[np.float32]:
    if array.shape == hw:
        return array
    return np.asarray(cv2.resize(array, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR), np.float32)
