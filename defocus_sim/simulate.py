"""`defocus`: an all-in-focus image, its depth and a lens in; the defocused image out. The public edge of the blur."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defocus_sim.blur.gather import blocks_of_zeros, gather
from defocus_sim.blur.layered import layered_blur
from defocus_sim.blur.layers import disc_diameter_px
from defocus_sim.blur.light import F32, SensorNoise, darken_corners, linear_to_srgb, srgb_to_linear, to_uint8
from defocus_sim.blur.options import DEFAULT_TRUNCATE, IDENTITY_SIGMA_PX, Mode, Psf, Rendering
from defocus_sim.blur.pixel_format import coc_and_sigma, depth_counts, mirrored, quantised, usual_depths
from defocus_sim.blur.pyramid import gaussian_gather, gaussian_pixels
from defocus_sim.errors import DepthError, ImageError, RenderingError
from defocus_sim.kernels import compiling
from defocus_sim.lens import Lens, coc_at_infinity_px, coc_diameter_px, coc_limit_px, nearest_usable_m

# Nothing in an RGB-D data set is this far away at its nearest; a depth map in millimetres always is.
_MILLIMETRES_ABOVE_M = 200.0
# Wider ones are refused: a pixel of one reaches farther than the largest frame.
_WIDEST_COC_PX = 2**15
# To compile the kernels of a mode, on an idle core.
_COMPILING_S = {"gather": 7, "layered": 20}


def defocus(
    aif: NDArray[Any],
    depth_m: NDArray[Any],
    lens: Lens,
    *,
    mode: Mode = "gather",
    psf: Psf = "gaussian",
    linear_light: bool = False,
    truncate: float = DEFAULT_TRUNCATE,
    noise: SensorNoise | None = None,
    dither: bool = False,
    rng: np.random.Generator | None = None,
    nan: Literal["raise", "hole"] = "raise",
) -> NDArray[Any]:
    """Blur an all-in-focus image as `lens` would have seen it; returns an array like `aif` (same shape and dtype).

    `aif`: uint8, or float in [0, 1]; (H, W), (H, W, 1) or (H, W, 3) with `depth_m` (H, W), or a batch (B, H, W),
    (B, H, W, C) with `depth_m` (B, H, W). `depth_m`: float, metres, z-depth; 0 and +-infinity are holes: there the
    simulator takes the nearest valid depth, as where a depth is so near 0 that its circle of confusion is not finite.
    Circles wider than `lens.max_coc_px`, by default the frame's longer side, are taken for that wide. NaN is refused
    unless `nan="hole"`.
    The other options are those of `Rendering`; `rng` is needed for noise and dither.

    Raises `ImageError` (shape, dtype, range), `DepthError` (shape, dtype, negative, NaN, no valid pixel, millimetres),
    `LensError`, `RenderingError`.
    """
    rendering = Rendering(mode=mode, psf=psf, linear_light=linear_light, truncate=truncate, noise=noise, dither=dither)
    with compiling("the blur", _COMPILING_S[mode]):
        image, depth = np.asarray(aif), np.asarray(depth_m)
        _check_image(image)
        _check_depth(depth, image, nan)
        if (noise is not None or dither) and rng is None:
            raise RenderingError("noise and dither are random: pass rng=numpy.random.default_rng(seed)")
        if depth.ndim == 2:
            return _defocus_one(image, depth, lens, rendering, rng)
        return np.stack([_defocus_one(i, d, lens, rendering, rng) for i, d in zip(image, depth, strict=True)])


def compile_kernels(rendering: Rendering) -> None:
    """Have the kernels that `rendering` needs compiled, or loaded from numba's cache, now rather than at the first image.

    Seconds on a machine that never did it, a tenth of one otherwise; can be interrupted, unlike the same in a thread.
    """
    depth_m = np.ones((8, 8), F32)
    # Pixels so wide that a coarser grid pays, others, and a hole.
    depth_m[:, 4:], depth_m[0, 0] = 4, 0
    lens = Lens(aperture_mm=50, focal_length_mm=50, focus_distance_m=2, pixel_pitch_um=50, max_coc_px=math.inf)
    options = {**vars(rendering), "noise": None, "dither": False}
    for channels in (1, 3):
        defocus(np.zeros((8, 8, channels), np.uint8), depth_m, lens, **options)


def fill_holes(depth_m: NDArray[Any]) -> NDArray[np.float32]:
    """`depth_m` (H, W) as float32 with every hole (0 or non-finite) given the value of the nearest valid pixel.

    Raises `DepthError` where no pixel is valid.
    """
    depth = np.asarray(depth_m, F32)
    if usual_depths(depth, _MILLIMETRES_ABOVE_M) == depth.size:
        return depth
    holes = ~np.isfinite(depth) | (depth <= 0)
    if not holes.any():
        return depth
    if holes.all():
        raise DepthError(f"depth_m {depth.shape} has no valid pixel: every value is 0 or not finite")
    nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    filled: NDArray[np.float32] = depth[tuple(nearest)]
    return filled


def blur_maps(depth_m: NDArray[Any], lens: Lens) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed CoC diameter and Gaussian sigma, both (H, W) float32 px, of a depth map (H, W); holes are filled first."""
    height, width = np.shape(depth_m)
    coc, sigma = np.empty((height, width), F32), np.empty((height, width), F32)
    _fill_maps(depth_m, lens, coc, sigma)
    return coc, sigma


def _fill_maps(depth_m: NDArray[Any], lens: Lens, coc: NDArray[F32], sigma: NDArray[F32]) -> None:
    """`blur_maps` into given memory, see `planes.coc_and_sigma`."""
    height, width = np.shape(depth_m)
    filled = fill_holes(without_unusable(depth_m, lens))
    solved = lens.for_depth(filled)
    cap = coc_limit_px(solved, (height, width))
    _check_reach(filled, solved, cap)
    far, focus = coc_at_infinity_px(solved, filled.shape[1]), float(solved.focus_distance_m)
    per_coc, sharp = float(solved.sigma_per_coc), float(solved.sharp_below_px)
    coc_and_sigma(np.ascontiguousarray(filled), far, focus, float(cap), per_coc, sharp, coc, sigma)
    if solved.focus_blur_px > 0:
        own = sigma[: filled.shape[0], : filled.shape[1]]
        np.hypot(own, F32(solved.focus_blur_px), out=own)


def without_unusable(depth_m: NDArray[Any], lens: Lens) -> NDArray[Any]:
    """`depth_m` (H, W), metres, with 0 (a hole) where the CoC is not finite, see `nearest_usable_m`; mostly as it is."""
    # An aperture that is to be solved makes any CoC finite.
    if lens.solve_max_coc_px is not None:
        return depth_m
    nearest_m = nearest_usable_m(lens, np.shape(depth_m)[1])
    depth = np.asarray(depth_m, F32)
    unusable = (depth > 0) & (depth <= nearest_m)
    return np.where(unusable, F32(0), depth) if unusable.any() else depth_m


def _check_reach(filled: NDArray[F32], lens: Lens, cap: float) -> None:
    """Raise `DepthError` for a CoC that no memory holds, which needs a cap that was lifted."""
    if cap <= _WIDEST_COC_PX:
        return
    nearest = float(filled.min())
    widest = min(abs(float(coc_diameter_px([nearest], lens, width_px=filled.shape[1])[0])), cap)
    if widest > _WIDEST_COC_PX:
        raise DepthError(
            f"depth {nearest:g} m has a circle of confusion of {widest:.0f} px, which asks for too much memory: "
            f"limit it (max_coc_px), at most to {_WIDEST_COC_PX}"
        )


def _check_image(image: NDArray[Any]) -> None:
    if image.dtype == np.uint8:
        return
    if image.dtype.kind != "f":
        raise ImageError(f"aif is {image.dtype}: pass uint8, or float in [0, 1]")
    low, high = (float(image.min(initial=0)), float(image.max(initial=0)))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("aif has NaN or infinite values: a float image must lie in [0, 1]")
    if low < 0 or high > 1:
        hint = ": divide by 255" if high > 1 and low >= 0 and high <= 255 else ""
        raise ImageError(f"aif spans {low:g}..{high:g}, a float image must lie in [0, 1]{hint}")


def _check_depth(depth: NDArray[Any], image: NDArray[Any], nan: str) -> None:
    if depth.ndim not in (2, 3) or 0 in depth.shape:
        raise DepthError(f"depth_m has shape {depth.shape}: it must be (H, W) or (B, H, W), not empty")
    spatial, extra = image.shape[: depth.ndim], image.shape[depth.ndim :]
    if spatial != depth.shape or len(extra) > 1 or (extra and extra[0] not in (1, 3)):
        raise ImageError(
            f"aif {image.shape} does not fit depth_m {depth.shape}: "
            "they must agree in height and width, with 1 or 3 channels last"
        )
    if depth.dtype.kind != "f":
        raise DepthError(
            f"depth_m is {depth.dtype}: pass float metres (integer maps are mostly millimetres: divide by 1000)"
        )
    for index, one in enumerate(depth if depth.ndim == 3 else depth[None]):
        where = f" of image {index}" if depth.ndim == 3 else ""
        if usual_depths(one, _MILLIMETRES_ABOVE_M) == one.size:
            continue
        unknown, negative, valid, far = depth_counts(one, _MILLIMETRES_ABOVE_M)
        if unknown and nan == "raise":
            raise DepthError(
                f"depth_m{where} has {unknown} NaN pixels: mark holes with 0, or pass nan='hole' to take NaN for a hole"
            )
        if negative:
            raise DepthError(f"depth_m{where} reaches {np.nanmin(one):g}: a depth is positive, a hole is 0")
        if valid == 0:
            raise DepthError(f"depth_m{where} has no valid pixel: every value is 0 or not finite")
        if far > 0.99 * valid:
            nearest = np.quantile(one[np.isfinite(one) & (one > 0)], 0.01)
            raise DepthError(f"depth_m{where} begins at {nearest:g} m: these look like millimetres, divide by 1000")


def _defocus_one(
    image: NDArray[Any], depth: NDArray[Any], lens: Lens, rendering: Rendering, rng: np.random.Generator | None
) -> NDArray[Any]:
    gaussian = rendering.mode == "gather" and rendering.psf == "gaussian"
    if gaussian:
        coc, sigma = np.empty((1, depth.shape[1]), F32), blocks_of_zeros(*depth.shape)
        _fill_maps(depth, lens, coc, sigma)
    else:
        coc, sigma = blur_maps(depth, lens)
    untouched, even = sigma.max() < IDENTITY_SIGMA_PX, lens.corner_light == 1
    if untouched and even and rendering.noise is None and not rendering.dither:
        return image.copy()
    linear, bytes_in = rendering.linear_light, image.dtype == np.uint8
    levels = _linear_levels() if bytes_in and linear else None
    source: NDArray[Any] = np.atleast_3d(image) if bytes_in else _to_planes(image, linear)
    if gaussian and bytes_in and even and rendering.noise is None and not rendering.dither:
        return gaussian_pixels(source, sigma, truncate=rendering.truncate, levels=levels).reshape(image.shape)
    if gaussian:
        planes = gaussian_gather(source, sigma, truncate=rendering.truncate, levels=levels, keep=False)
    elif rendering.mode == "gather" and not untouched:
        planes = gather(source, sigma, disc_diameter_px(coc, lens.focus_blur_px), psf="disc", levels=levels)
    else:
        planes = mirrored(source, levels, (0, 0), depth.shape, "visible") if bytes_in else source
    if rendering.mode == "layered" and not untouched:
        planes = layered_blur(
            planes,
            coc,
            psf=rendering.psf,
            sigma_per_coc=lens.sigma_per_coc,
            sharp_below_px=lens.sharp_below_px,
            focus_blur_px=lens.focus_blur_px,
            truncate=rendering.truncate,
        )
    if not even:
        planes = darken_corners(planes, lens.corner_light, linear)
    if rendering.noise is not None and rng is not None:
        planes = rendering.noise.apply(planes, rng)
    if bytes_in and not rendering.dither:
        return quantised(planes, linear).reshape(image.shape)
    values = np.moveaxis(linear_to_srgb(planes) if linear else planes, 0, -1).reshape(image.shape)
    if bytes_in:
        return to_uint8(values, rng)
    result = np.clip(values, 0, 1).astype(image.dtype)
    if rendering.mode == "gather" and rendering.noise is None and even:
        # What is in focus is the input itself, also in float64 and across the round trip to linear light.
        sharp = sigma[: depth.shape[0], : depth.shape[1]] < IDENTITY_SIGMA_PX
        result[sharp] = image[sharp]
    return result


def _to_planes(image: NDArray[Any], linear: bool) -> NDArray[F32]:
    """(H, W) or (H, W, C) float as contiguous (C, H, W) float32 in [0, 1]."""
    channels_first = np.moveaxis(image if image.ndim == 3 else image[..., None], -1, 0)
    planes = np.ascontiguousarray(channels_first, dtype=F32)
    return srgb_to_linear(planes) if linear else planes


@functools.cache
def _linear_levels() -> NDArray[F32]:
    """The linear light of each of the 256 levels of a uint8 image."""
    return srgb_to_linear(np.arange(256, dtype=F32) / F32(255))
