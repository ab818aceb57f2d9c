"""How well a sharp photograph, blurred by a known amount, agrees with the defocused one, over depth.

Pixels at one depth have one blur. The squared difference of the pictures (sRGB, what PSNR counts) over the amount of blur,
their *curve*, has its minimum there. Both pictures are seen through the same kernels as the simulator's gather, so that
the lens which is fitted to the curves is the one whose simulation agrees best. Patches without texture have flat curves
and say nothing: enough of the others are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.layers import disc_quarter_kernel
from defocus_sim.blur.light import F32, linear_to_srgb, srgb_to_linear
from defocus_sim.errors import CalibrationError

PATCH_PX = 24
# A disc has the variance of a Gaussian of a quarter of its diameter.
_DIAMETERS_PER_SIGMA = 4.0
# 1/depth within a patch may vary by this share of that in its middle.
_FLAT_SHARE = 0.06
# In logarithms of the squared difference: a patch whose curve spans less has no texture.
_LEAST_CONTRAST = 0.3
# Clipped in either picture, a pixel's light is not known, nor is what a blur makes of its surroundings.
_CLIPPED = 250
_CLIPPED_REACH_PX = 7
# Slices of 1/depth, of equal width, that one scene is cut into; farther out than these shares of its pixels lie none.
_SLICES = 128
_OUTERMOST = (0.001, 0.999)


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
    """Curves of slices of depth, R over all scenes, and where there was texture to see blur by.

    `gaussian`, `disc` (R, L): summed squared difference in levels of 8 bits over the `levels_px` (L,): sigma, and a quarter
    of the disc's diameter. `pixels`, `offset_per_m`, `scene` (R,): how many there are, their mean 1/depth, less that of
    the focus where that is known, and the index into `scenes`. `textured_per_m` (P,): 1/depth of every patch with texture;
    `textured_offset_per_m`: less that of the focus. `patches`: how many there were with depth, textured or not.
    `focus_per_m`: the median of the known ones, 0 where none is. `width_px`: of the photographs. `corner_light`: of the
    photographs of which it is known.
    """

    levels_px: NDArray[np.float64]
    gaussian: NDArray[np.float64]
    disc: NDArray[np.float64]
    pixels: NDArray[np.float64]
    offset_per_m: NDArray[np.float64]
    scene: NDArray[np.int64]
    textured_per_m: NDArray[np.float64]
    textured_offset_per_m: NDArray[np.float64]
    scenes: tuple[str, ...]
    patches: int
    focus_per_m: float
    width_px: int
    corner_light: tuple[float, ...] = ()


def blur_levels(largest_sigma_px: float) -> NDArray[np.float64]:
    """Amounts of blur to try: 0, then steps of a tenth of a pixel that widen by 12 % from 1 px on."""
    levels = [0.0, 0.15, *np.arange(0.2, 1.0, 0.1)]
    while levels[-1] < largest_sigma_px:
        levels.append(max(levels[-1] + 0.1, levels[-1] * 1.12))
    return np.array(levels)


def measure(photographs: Iterable[Photographs], *, largest_sigma_px: float = 8.0) -> Curves:
    """The curves of every slice of depth of every scene; see `Curves`.

    Raises `CalibrationError` where there is no photograph or no depth.
    """
    levels = blur_levels(largest_sigma_px)
    found: list[_Scene] = []
    scenes: dict[str, int] = {}
    patches, width = 0, 0
    corners: list[float] = []
    for one in photographs:
        width = one.sharp.shape[1]
        corners += [] if one.corner_light is None else [one.corner_light]
        index = scenes.setdefault(one.scene, len(scenes))
        made, seen = _measure_one(one, index, levels)
        patches += seen
        if made is not None:
            found.append(made)
    if not scenes:
        raise CalibrationError("there is no pair of photographs to measure")
    if patches == 0:
        raise CalibrationError(
            "no patch has one depth and is not clipped: a calibration needs photographs with metric depth"
        )
    known = [one.focus_per_m for one in found for _ in one.textured]
    offsets = [one.textured - one.focus_per_m for one in found]
    return Curves(
        levels_px=levels,
        gaussian=np.concatenate([one.gaussian for one in found]),
        disc=np.concatenate([one.disc for one in found]),
        pixels=np.concatenate([one.pixels for one in found]),
        offset_per_m=np.concatenate([one.per_m - one.focus_per_m for one in found]),
        scene=np.concatenate([np.full(len(one.per_m), one.index) for one in found]),
        textured_per_m=np.concatenate([one.textured for one in found]),
        textured_offset_per_m=np.concatenate(offsets),
        scenes=tuple(scenes),
        patches=patches,
        focus_per_m=float(np.median(known)) if known else 0.0,
        width_px=width,
        corner_light=tuple(corners),
    )


@dataclass(frozen=True)
class _Scene:
    """What one pair adds to `Curves`."""

    index: int
    focus_per_m: float
    gaussian: NDArray[np.float64]
    disc: NDArray[np.float64]
    pixels: NDArray[np.float64]
    per_m: NDArray[np.float64]
    textured: NDArray[np.float64]


def _measure_one(one: Photographs, index: int, levels: NDArray[np.float64]) -> tuple[_Scene | None, int]:
    """The curves of one pair, None where no pixel counts, and how many of its patches have depth and are not clipped."""
    unknown = np.maximum(one.defocused.max(axis=2), one.sharp.max(axis=2)) > _CLIPPED
    patch_per_m, flat = _flat_patches(one.depth_m)
    usable = flat & (_patch_means(unknown.astype(F32)) < 0.02)
    reach = np.ones((2 * _CLIPPED_REACH_PX + 1,) * 2, np.uint8)
    counted = (one.depth_m > 0) & (cv2.dilate(unknown.astype(np.uint8), reach) == 0)
    if not counted.any():
        return None, int(usable.sum())
    per_m = 1 / one.depth_m[counted].astype(np.float64)
    low, high = np.quantile(per_m, _OUTERMOST)
    inside = (per_m >= low) & (per_m <= high)
    counted[counted] = inside
    place = np.minimum(((per_m[inside] - low) / max(high - low, 1e-9) * _SLICES).astype(np.intp), _SLICES - 1)
    pixels = np.bincount(place, minlength=_SLICES).astype(np.float64)
    present = pixels > 0
    mean = np.bincount(place, weights=per_m[inside], minlength=_SLICES)[present] / pixels[present]
    ours, light = one.defocused.astype(F32), srgb_to_linear(one.sharp.astype(F32) / F32(255))
    curves: dict[str, list[NDArray[np.float64]]] = {"gaussian": [], "disc": []}
    patches: list[NDArray[np.float64]] = []
    for psf, rows in curves.items():
        for sigma in levels:
            seen = linear_to_srgb(_blurred(light, float(sigma), psf)) * F32(255)
            square = ((seen - ours) ** 2).sum(axis=2)
            rows.append(np.bincount(place, weights=square[counted], minlength=_SLICES)[present].astype(np.float64))
            if psf == "gaussian":
                patches.append(_patch_means(square)[usable])
    contrast = np.ptp(np.log(np.maximum(patches, 1e-3)), axis=0)
    return _Scene(
        index=index,
        focus_per_m=0.0 if one.focus_distance_m is None else 1 / one.focus_distance_m,
        gaussian=np.stack(curves["gaussian"], axis=1),
        disc=np.stack(curves["disc"], axis=1),
        pixels=pixels[present],
        per_m=mean,
        textured=patch_per_m[usable][contrast > _LEAST_CONTRAST],
    ), int(usable.sum())


def _blurred(light: NDArray[F32], sigma_px: float, psf: str) -> NDArray[F32]:
    if sigma_px == 0:
        return light
    if psf == "gaussian":
        return np.asarray(cv2.GaussianBlur(light, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), F32)
    quarter = disc_quarter_kernel(_DIAMETERS_PER_SIGMA * sigma_px)
    half = np.concatenate([quarter[:0:-1], quarter])
    kernel = np.concatenate([half[:, :0:-1], half], axis=1)
    return np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT), F32)


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
