"""The circle of confusion (CoC) of a lens over depth, the blur's sigma, and the depth of field."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defocus_sim.errors import LensError
from defocus_sim.lens.thin_lens import Lens, relative_coc


def coc_diameter_m(depth_m: ArrayLike, lens: Lens) -> NDArray[np.float64]:
    """Signed CoC diameter on the sensor in metres, without the pixel cap: D * s/S * (x - S)/x.

    Parameters
    ----------
    depth_m
        Any shape, metres, > 0 (infinity is allowed).
    lens
        Its aperture D, focus distance S and sensor distance s are used.

    Returns
    -------
    NDArray[np.float64]
        Array of the shape of `depth_m`, negative nearer than focus.

    Raises
    ------
    LensError
        Where the lens is known in pixels only, or its aperture is still to be solved.
    """
    return (
        lens.aperture_diameter_m
        * lens.sensor_distance_m
        / lens.focus_distance_m
        * relative_coc(depth_m, lens.focus_distance_m)
    )


def coc_diameter_px(depth_m: ArrayLike, lens: Lens, *, width_px: int | None = None) -> NDArray[np.float64]:
    """Signed CoC diameter in px, limited to +-`lens.max_coc_px` where the lens has one.

    Parameters
    ----------
    depth_m
        Any shape, metres, > 0 (infinity is allowed).
    lens
        See `Lens`.
    width_px
        Width of the image being blurred, needed for a lens that is described by its sensor's width; default: the last axis
        of `depth_m` where that has two or more.

    Returns
    -------
    NDArray[np.float64]
        Array of the shape of `depth_m`, negative nearer than focus.

    Raises
    ------
    LensError
        Where the width is needed and not known, or the aperture is still to be solved.
    """
    return lens.coc_px(depth_m, width_px=width_px)


def coc_at_infinity_px(lens: Lens, width_px: int | None = None) -> float:
    """CoC diameter of an infinitely far point in px, without the cap: D * s_px / S.

    Parameters
    ----------
    lens, width_px
        As for `coc_diameter_px`.

    Returns
    -------
    float
        Diameter in px, positive.
    """
    return lens.coc_at_infinity_px(width_px)


def coc_limit_px(lens: Lens, size_hw: tuple[int, int]) -> float:
    """Largest |CoC| in px with which a frame is blurred.

    Parameters
    ----------
    lens
        Its `max_coc_px` is the limit where it has one.
    size_hw
        Height and width of the frame, whose longer side is the limit else.

    Returns
    -------
    float
        The limit in px.
    """
    return float(max(size_hw)) if lens.max_coc_px is None else lens.max_coc_px


def nearest_usable_m(lens: Lens, width_px: int | None = None) -> float:
    """Depth at and below which the CoC is no finite float32, so that the depth is taken for a hole.

    Parameters
    ----------
    lens, width_px
        As for `coc_diameter_px`.

    Returns
    -------
    float
        Depth in metres.
    """
    return lens.coc_at_infinity_px(width_px) * lens.focus_distance_m / float(np.finfo(np.float32).max)


def sigma_px(coc_px: ArrayLike, lens: Lens) -> NDArray[np.float64]:
    """Gaussian standard deviation in px of a (signed) CoC, see `Lens`: that of the defocus and that in focus, combined.

    Parameters
    ----------
    coc_px
        Any shape, px; its sign does not count.
    lens
        Its `sigma_per_coc`, `sharp_below_px` and `focus_blur_px` are used.

    Returns
    -------
    NDArray[np.float64]
        Array of the shape of `coc_px`, px, not negative.
    """
    own = lens.sigma_per_coc * np.maximum(np.abs(np.asarray(coc_px, np.float64)) - lens.sharp_below_px, 0.0)
    return own if lens.focus_blur_px == 0 else np.hypot(own, lens.focus_blur_px)


def depth_of_field_m(lens: Lens, *, coc_limit_px: float = 1.0, width_px: int | None = None) -> tuple[float, float]:
    """Nearest and farthest depth in metres whose |CoC| stays within a limit.

    Parameters
    ----------
    lens, width_px
        As for `coc_diameter_px`.
    coc_limit_px
        The limit, a diameter in px.

    Returns
    -------
    tuple[float, float]
        Near and far end in metres; the far one may be infinite.

    Raises
    ------
    LensError
        Where the limit is not above 0, or `coc_diameter_px` raises it.
    """
    if coc_limit_px <= 0:
        raise LensError(f"coc_limit_px={coc_limit_px:g} must be > 0")
    at_infinity = lens.coc_at_infinity_px(width_px)
    ratio = coc_limit_px / at_infinity
    near = lens.focus_distance_m / (1 + ratio)
    return near, (math.inf if ratio >= 1 else lens.focus_distance_m / (1 - ratio))
