"""How well a sharp photograph, blurred by a known amount, agrees with the defocused one, patch by patch.

A patch at one depth has one blur. The mean squared difference of linear light over the amount of blur, its *curve*, has its
minimum there; a patch without texture has a flat curve and says nothing. Both pictures are seen through the same kernels
as the simulator's gather.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.layers import disc_quarter_kernel
from defocus_sim.blur.light import F32, srgb_to_linear
from defocus_sim.errors import CalibrationError

Psf = Literal["gaussian", "disc"]
PATCH_PX = 24
# A disc has the variance of a Gaussian of a quarter of its diameter.
_DIAMETERS_PER_SIGMA = 4.0
# 1/depth within a patch may vary by this share of that in its middle.
_FLAT_SHARE = 0.06
# In logarithms of the squared difference: a patch whose curve spans less has no texture.
LEAST_CONTRAST = 0.3
# One patch is worth no more than this: behind an occlusion edge or where something moved no blur fits.
_MOST_CONTRAST = 3.0
# Clipped in either picture, a pixel's light is not known.
_CLIPPED = 250


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """One scene: `defocused`, `sharp` (H, W, 3) uint8 sRGB of equal light, laid on each other; `depth_m` (H, W), 0 = hole.

    `focus_distance_m`: where it is known, as in a focal stack. `corner_light`: of the defocused picture over the
    sharp one as it was taken, where that was measured.
    """

    scene: str
    defocused: NDArray[np.uint8]
    sharp: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    focus_distance_m: float | None = None
    corner_light: float | None = None


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves of patches with texture. `per_m` (P,): 1/depth of each; `scene` (P,): index into `scenes`; `focus_per_m` (P,).

    `gaussian`, `disc` (P, L): logarithm of the mean squared difference over the `levels_px` (L,): sigma, and a quarter of
    the disc's diameter. `patches`: how many there were with depth, textured or not. `width_px`: of the photographs.
    `corner_light`: of the photographs of which it is known.
    """

    levels_px: NDArray[np.float64]
    per_m: NDArray[np.float64]
    focus_per_m: NDArray[np.float64]
    scene: NDArray[np.int64]
    gaussian: NDArray[np.float64]
    disc: NDArray[np.float64]
    scenes: tuple[str, ...]
    patches: int
    width_px: int
    corner_light: tuple[float, ...] = ()


def blur_levels(largest_sigma_px: float) -> NDArray[np.float64]:
    """Amounts of blur to try: 0, then steps of a tenth of a pixel that widen by 12 % from 1 px on."""
    levels = [0.0, 0.15, *np.arange(0.2, 1.0, 0.1)]
    while levels[-1] < largest_sigma_px:
        levels.append(max(levels[-1] + 0.1, levels[-1] * 1.12))
    return np.array(levels)


def measure(photographs: Iterable[Photographs], *, largest_sigma_px: float = 8.0) -> Curves:
    """The curves of every patch with depth and texture; see `Curves`.

    Raises `CalibrationError` where there is no photograph or no depth.
    """
    levels = blur_levels(largest_sigma_px)
    rows: list[tuple[NDArray[np.float64], ...]] = []
    scenes: dict[str, int] = {}
    patches, width = 0, 0
    corners: list[float] = []
    for one in photographs:
        width = one.sharp.shape[1]
        corners += [] if one.corner_light is None else [one.corner_light]
        index = scenes.setdefault(one.scene, len(scenes))
        per_m, chosen = _flat_patches(one.depth_m)
        usable = chosen & (_patch_means(_clipped(one)) < 0.02)
        patches += int(usable.sum())
        if not usable.any():
            continue
        ours, theirs = (srgb_to_linear(p.astype(F32) / F32(255)) for p in (one.defocused, one.sharp))
        curves = [np.stack([_patch_errors(ours, _blurred(theirs, s, psf))[usable] for s in levels], axis=1)
                  for psf in ("gaussian", "disc")]  # fmt: skip
        gaussian, disc = (np.log(np.maximum(curve, 1e-9)) for curve in curves)
        kept = np.ptp(gaussian, axis=1) > LEAST_CONTRAST
        count = int(kept.sum())
        focus = 0.0 if one.focus_distance_m is None else 1 / one.focus_distance_m
        rows.append(
            (per_m[usable][kept], np.full(count, focus), np.full(count, index, float), gaussian[kept], disc[kept])
        )
    if not scenes:
        raise CalibrationError("there is no pair of photographs to measure")
    if patches == 0:
        raise CalibrationError(
            "no patch has one depth and is not clipped: a calibration needs photographs with metric depth"
        )
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return Curves(
        levels_px=levels,
        per_m=columns[0],
        focus_per_m=columns[1],
        scene=columns[2].astype(np.int64),
        gaussian=_capped(columns[3]),
        disc=_capped(columns[4]),
        scenes=tuple(scenes),
        patches=patches,
        width_px=width,
        corner_light=tuple(corners),
    )


def _capped(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.minimum(curves - curves.min(axis=1, keepdims=True), _MOST_CONTRAST))


def _blurred(light: NDArray[F32], sigma_px: float, psf: str) -> NDArray[F32]:
    if sigma_px == 0:
        return light
    if psf == "gaussian":
        return np.asarray(cv2.GaussianBlur(light, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), F32)
    quarter = disc_quarter_kernel(_DIAMETERS_PER_SIGMA * sigma_px)
    half = np.concatenate([quarter[:0:-1], quarter])
    kernel = np.concatenate([half[:, :0:-1], half], axis=1)
    return np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT), F32)


def _clipped(one: Photographs) -> NDArray[F32]:
    return ((one.defocused.max(axis=2) > _CLIPPED) | (one.sharp.max(axis=2) > _CLIPPED)).astype(F32)


def _patch_errors(ours: NDArray[F32], theirs: NDArray[F32]) -> NDArray[np.float64]:
    return _patch_means(((ours - theirs) ** 2).sum(axis=2))


def _patch_means(values: NDArray[F32]) -> NDArray[np.float64]:
    """(H // PATCH, W // PATCH): the mean of each patch."""
    rows, columns = (side // PATCH_PX for side in values.shape)
    cut = values[: rows * PATCH_PX, : columns * PATCH_PX].astype(np.float64)
    return np.asarray(cut.reshape(rows, PATCH_PX, columns, PATCH_PX).mean(axis=(1, 3)))


def _flat_patches(depth_m: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """1/depth in the middle of each patch, and which patches are without holes and at one depth."""
    rows, columns = (side // PATCH_PX for side in depth_m.shape)
    cut = depth_m[: rows * PATCH_PX, : columns * PATCH_PX]
    cells = cut.reshape(rows, PATCH_PX, columns, PATCH_PX).swapaxes(1, 2).reshape(rows, columns, -1)
    whole = (cells > 0).all(axis=2)
    per_m = 1 / np.where(cells > 0, cells, np.float32(np.inf)).astype(np.float64)
    middle = np.median(per_m, axis=2)
    spread = np.quantile(per_m, 0.95, axis=2) - np.quantile(per_m, 0.05, axis=2)
    return middle, whole & (spread <= _FLAT_SHARE * middle)
