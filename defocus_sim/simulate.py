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
    """Blur an all-in-focus image as a lens would have seen it.

    Parameters
    ----------
    aif
        uint8, or float in [0, 1]; (H, W), (H, W, 1) or (H, W, 3), or a batch (B, H, W), (B, H, W, C).
    depth_m
        z-depth, float, metres; (H, W) or (B, H, W). 0 and +-infinity are holes: there the simulator takes the nearest valid
        depth, as where a depth is so near 0 that its circle of confusion is not finite.
    lens
        Circles wider than its `max_coc_px`, by default the frame's longer side, are taken for that wide.
    mode, psf, linear_light, truncate, noise, dither
        As for `Rendering`.
    rng
        Needed for noise and dither.
    nan
        "raise" refuses NaN in `depth_m`, "hole" takes it for a hole.

    Returns
    -------
    NDArray[Any]
        An array like `aif`, same shape and dtype.

    Raises
    ------
    ImageError
        For the shape, dtype or range of `aif`.
    DepthError
        For the shape or dtype of `depth_m`, negative or NaN values, no valid pixel, or what looks like millimetres.
    LensError, RenderingError
        For a lens or options that do not fit.

    References
    ----------
    Potmesil and Chakravarty, *A lens and aperture camera model for synthetic image generation*, 1981, for the circle of
    confusion; docs/reference/optics.md derives it and the layers.
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
    """A depth map with every hole given the value of the nearest valid pixel.

    Parameters
    ----------
    depth_m
        (H, W); 0 and what is not finite are holes.

    Returns
    -------
    NDArray[np.float32]
        (H, W) float32, may be `depth_m` itself.

    Raises
    ------
    DepthError
        Where no pixel is valid.
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
    """Signed CoC diameter and Gaussian sigma of a depth map, whose holes are filled first.

    Parameters
    ----------
    depth_m
        (H, W), metres, 0 = hole.
    lens
        See `Lens`.

    Returns
    -------
    tuple[NDArray[np.float32], NDArray[np.float32]]
        CoC and sigma, both (H, W) float32 px.

    Raises
    ------
    DepthError
        Where no pixel is valid, or a CoC is wider than any memory holds.
    """
    height, width = np.shape(depth_m)
    coc, sigma = np.empty((height, width), F32), np.empty((height, width), F32)
    _fill_maps(depth_m, lens, coc, sigma)
    return coc, sigma


def _fill_maps(depth_m: NDArray[Any], lens: Lens, coc: NDArray[F32], sigma: NDArray[F32]) -> None:
    """`blur_maps` into given memory, see `pixel_format.coc_and_sigma`."""
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
    blocks = rendering.mode == "gather" and rendering.psf == "gaussian"
    coc, sigma = _maps_in_blocks(depth, lens) if blocks else blur_maps(depth, lens)
    only_rounded = lens.corner_light == 1 and rendering.noise is None and not rendering.dither
    if sigma.max() < IDENTITY_SIGMA_PX:
        if only_rounded:
            return image.copy()
        planes = _planes(image, rendering.linear_light)
    elif rendering.mode == "layered":
        planes = _layered(image, coc, lens, rendering)
    elif rendering.psf == "disc":
        planes = _gather_disc(image, coc, sigma, lens, rendering)
    elif only_rounded and image.dtype == np.uint8:
        return _gather_gaussian_pixels(image, sigma, rendering)
    else:
        planes = _gather_gaussian(image, sigma, rendering)
    sharp = sigma[: depth.shape[0], : depth.shape[1]] < IDENTITY_SIGMA_PX
    return _as_taken(planes, image, sharp, lens, rendering, rng)


def _maps_in_blocks(depth_m: NDArray[Any], lens: Lens) -> tuple[NDArray[F32], NDArray[F32]]:
    """`blur_maps` for the Gaussian gather: sigma filled up to whole blocks, and of the CoC one row, which it needs not."""
    coc, sigma = np.empty((1, depth_m.shape[1]), F32), blocks_of_zeros(*depth_m.shape)
    _fill_maps(depth_m, lens, coc, sigma)
    return coc, sigma


def _gather_gaussian_pixels(image: NDArray[np.uint8], sigma: NDArray[F32], rendering: Rendering) -> NDArray[np.uint8]:
    """The Gaussian gather from bytes to bytes, strip by strip."""
    source, levels = _source(image, rendering.linear_light)
    return gaussian_pixels(source, sigma, truncate=rendering.truncate, levels=levels).reshape(image.shape)


def _gather_gaussian(image: NDArray[Any], sigma: NDArray[F32], rendering: Rendering) -> NDArray[F32]:
    """The Gaussian gather, (C, H, W); in memory that this thread's next call uses again."""
    source, levels = _source(image, rendering.linear_light)
    return gaussian_gather(source, sigma, truncate=rendering.truncate, levels=levels, keep=False)


def _gather_disc(
    image: NDArray[Any], coc: NDArray[F32], sigma: NDArray[F32], lens: Lens, rendering: Rendering
) -> NDArray[F32]:
    """Every pixel the mean over its own disc, (C, H, W)."""
    source, levels = _source(image, rendering.linear_light)
    return gather(source, sigma, disc_diameter_px(coc, lens.focus_blur_px), psf="disc", levels=levels)


def _layered(image: NDArray[Any], coc: NDArray[F32], lens: Lens, rendering: Rendering) -> NDArray[F32]:
    """Layers of depth, each blurred with what is behind it, from back to front, (C, H, W)."""
    return layered_blur(
        _planes(image, rendering.linear_light),
        coc,
        psf=rendering.psf,
        sigma_per_coc=lens.sigma_per_coc,
        sharp_below_px=lens.sharp_below_px,
        focus_blur_px=lens.focus_blur_px,
        truncate=rendering.truncate,
    )


def _as_taken(
    planes: NDArray[F32],
    image: NDArray[Any],
    sharp: NDArray[np.bool_],
    lens: Lens,
    rendering: Rendering,
    rng: np.random.Generator | None,
) -> NDArray[Any]:
    """What comes after the blur: fall-off to the corners, noise, sRGB, rounding; an array like `image`.

    `planes` (C, H, W) in the light of `rendering`. `sharp` (H, W): where the blur left `image` as it is.
    """
    linear, even = rendering.linear_light, lens.corner_light == 1
    if not even:
        planes = darken_corners(planes, lens.corner_light, linear)
    if rendering.noise is not None and rng is not None:
        planes = rendering.noise.apply(planes, rng)
    if image.dtype == np.uint8 and not rendering.dither:
        return quantised(planes, linear).reshape(image.shape)
    values = np.moveaxis(linear_to_srgb(planes) if linear else planes, 0, -1).reshape(image.shape)
    if image.dtype == np.uint8:
        return to_uint8(values, rng)
    result = np.clip(values, 0, 1).astype(image.dtype)
    if rendering.mode == "gather" and rendering.noise is None and even:
        # What is in focus is the input itself, also in float64 and across the round trip to linear light.
        result[sharp] = image[sharp]
    return result


def _source(image: NDArray[Any], linear: bool) -> tuple[NDArray[Any], NDArray[F32] | None]:
    """What a gather takes: bytes (H, W, C) as they are, with the linear light of their levels, or planes (C, H, W)."""
    if image.dtype == np.uint8:
        return np.atleast_3d(image), _linear_levels() if linear else None
    return _planes(image, linear), None


def _planes(image: NDArray[Any], linear: bool) -> NDArray[F32]:
    """(H, W) or (H, W, C) as contiguous (C, H, W) float32 in [0, 1], in linear light on demand."""
    if image.dtype == np.uint8:
        source, levels = _source(image, linear)
        return mirrored(source, levels, (0, 0), image.shape[:2], "visible")
    channels_first = np.moveaxis(image if image.ndim == 3 else image[..., None], -1, 0)
    planes = np.ascontiguousarray(channels_first, dtype=F32)
    return srgb_to_linear(planes) if linear else planes


@functools.cache
def _linear_levels() -> NDArray[F32]:
    """The linear light of each of the 256 levels of a uint8 image."""
    return srgb_to_linear(np.arange(256, dtype=F32) / F32(255))
