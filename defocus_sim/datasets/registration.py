"""Two photographs of one scene, one of them defocused: where they lie on each other, and how their exposures differ.

Both are made equally sharp first: otherwise a correlation follows the blur instead of the scene. Serial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.light import F32, corner_gain, linear_to_srgb, srgb_to_linear
from defocus_sim.errors import SourceError

Motion = Literal["affine", "shift", "none"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
# Of band-passed luminance made equally sharp. Measured on 81 real pairs: 0.97 and more; other scenes do not reach 0.4.
LEAST_CORRELATION = 0.8
# Of the longer side: what else lies on each other that far apart are two views of one room.
_FARTHEST_SHARE = 0.05
# Larger pictures are reduced to this for the search: a hundredth of a pixel needs no more.
_WORKING_SIDE_PX = 1024
# The shift first: an affine search that starts far off ends anywhere.
_MOTION_TYPES = {"affine": (cv2.MOTION_TRANSLATION, cv2.MOTION_AFFINE), "shift": (cv2.MOTION_TRANSLATION,), "none": ()}
_EXTRA_SIGMAS_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 13.0)
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 80, 1e-5)
# Less than this anywhere in the picture is not worth the softness that resampling costs.
_STILL_PX = 0.05
# Levels of 8 bits that are neither clipped nor noise.
_DARK, _BRIGHT = 10, 245
_RINGS = 12
# sRGB of the sharp picture from where, and up to where, it goes over from the gain into white; see `exposed_as`.
_SHOULDER = (0.9, 0.98)


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How the sharp picture lies on the defocused one.

    `affine`: (2, 3); pixel (x, y) of the defocused picture is at `affine @ (x, y, 1)` of the sharp one. `displacement_px`:
    the largest distance between the two over the frame. `correlation`: of the two, made equally sharp, 1 at best.
    """

    affine: NDArray[np.float64]
    displacement_px: float
    correlation: float


def register(defocused: NDArray[np.uint8], sharp: NDArray[np.uint8], motion: Motion = "affine") -> Registration:
    """Find `Registration` of two (H, W, 3) uint8 sRGB pictures of one size by maximising their correlation (ECC).

    `motion`: "affine", "shift", or "none", which only measures the correlation. Raises `SourceError` where there is
    nothing to register by, or where the two do not show the same scene.
    """
    height, width = defocused.shape[:2]
    scale = min(1.0, _WORKING_SIDE_PX / max(height, width))
    ours, theirs = (_luminance(picture, scale) for picture in (defocused, sharp))
    wide = max(ours.shape[1] / 40, 4.0)
    if min(float(_band(one, 1.0, wide).std()) for one in (ours, theirs)) < 1e-3:
        raise SourceError("a picture without any structure cannot be registered")
    warp = np.eye(2, 3, dtype=F32)
    if motion != "none":
        coarse = _band(ours, 2.0, wide), _band(theirs, 2.5, wide)
        window = cv2.createHanningWindow((ours.shape[1], ours.shape[0]), cv2.CV_32F)
        (dx, dy), _ = cv2.phaseCorrelate(*coarse, window)
        moved = np.array([[1, 0, dx], [0, 1, dy]], F32)
        if _correlation(coarse[0], _warped(coarse[1], moved)) > _correlation(*coarse):
            warp = moved
    ours_band = _band(ours, 1.0, wide)
    bands = [_band(theirs, float(np.hypot(1.0, extra)), wide) for extra in _EXTRA_SIGMAS_PX]
    scores = [_correlation(ours_band, _warped(band, warp)) for band in bands]
    best = bands[int(np.argmax(scores))]
    correlation = max(scores)
    for motion_type in _MOTION_TYPES[motion]:
        try:
            correlation, found = cv2.findTransformECC(
                ours_band, best, warp, motion_type, _CRITERIA, np.full(ours.shape, 255, np.uint8), 1
            )
            warp = np.asarray(found, F32)
        except cv2.error:
            # OpenCV's way to say that the two have nothing in common.
            correlation = min(correlation, 0.0)
    affine = _at_full_size(np.asarray(warp, np.float64), scale)
    displacement = _displacement(affine, height, width)
    if not (correlation >= LEAST_CORRELATION and displacement <= _FARTHEST_SHARE * max(height, width)):
        raise SourceError(
            f"the pictures do not register (correlation {correlation:.2f} at a displacement of {displacement:.0f} px; "
            f"{LEAST_CORRELATION:g} within {_FARTHEST_SHARE:.0%} of the width is needed): different scenes, or one moved"
        )
    return Registration(affine=affine, displacement_px=displacement, correlation=float(correlation))


def resample(picture: NDArray[np.uint8], registration: Registration) -> NDArray[F32]:
    """The sharp (H, W, 3) uint8 picture in the place of the defocused one, float32 sRGB in [0, 1] (Lanczos).

    A displacement below a twentieth of a pixel is left alone.
    """
    values = picture.astype(F32) / F32(255)
    if registration.displacement_px < _STILL_PX:
        return values
    moved = cv2.warpAffine(
        values,
        registration.affine,
        (picture.shape[1], picture.shape[0]),
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.clip(moved, 0, 1).astype(F32)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Linear light of the defocused picture over that of the sharp one.

    `gain`: of red, green, blue, in the middle. `corner_light`: in the corners over that in the middle, see
    `blur.light.corner_gain`.
    """

    gain: tuple[float, float, float]
    corner_light: float = 1.0


def exposure(defocused: NDArray[np.uint8], sharp: NDArray[F32], *, falloff: bool = False) -> Exposure:
    """Compare the light of a defocused (H, W, 3) uint8 picture and the sharp one in its place, float32 sRGB in [0, 1].

    Medians of the ratio over pixels that are neither dark nor clipped, of both after a strong blur, in which defocus does
    not count. `falloff`: fit the corners, too, over rings. Raises `SourceError` where no pixel is left.
    """
    height, width = defocused.shape[:2]
    sigma = max(width / 80, 2.0)
    ours = srgb_to_linear(defocused.astype(F32) / F32(255))
    theirs = srgb_to_linear(sharp)
    usable = np.ones((height, width), bool)
    for picture in (defocused, sharp * 255):
        usable &= (picture.max(axis=2) < _BRIGHT) & (picture.mean(axis=2) > _DARK)
    share = cv2.GaussianBlur(usable.astype(F32), (0, 0), sigma)
    # The same pixels weigh in both: a clipped lamp leaves neither its light nor its absence in its surroundings.
    weighed = [cv2.GaussianBlur(one * usable[..., None], (0, 0), sigma) for one in (ours, theirs)]
    counted = (share > 0.5) & (weighed[1].min(axis=2) > 1e-4)
    if counted.sum() < 100:
        raise SourceError("the exposures cannot be compared: everything is black or clipped")
    ratio = weighed[0][counted] / weighed[1][counted]
    square = (1 - corner_gain(height, width, 1e-6)[counted]).astype(np.float64)
    corner = _corner_light(ratio.mean(axis=1), square) if falloff else 1.0
    gain = np.median(ratio / (1 - (1 - corner) * square)[:, None], axis=0)
    return Exposure(gain=(float(gain[0]), float(gain[1]), float(gain[2])), corner_light=corner)


def exposed_as(sharp: NDArray[F32], found: Exposure) -> NDArray[np.uint8]:
    """The sharp picture, float32 sRGB, with the light of the defocused one: (H, W, 3) uint8.

    White stays white: what is clipped has the least light that it may have, and a gain below 1 would make it grey.
    """
    gain = np.array(found.gain, F32)
    if found.corner_light != 1:
        gain = corner_gain(sharp.shape[0], sharp.shape[1], found.corner_light)[..., None] * gain
    low, high = _SHOULDER
    share = np.clip((sharp - F32(low)) / F32(high - low), 0, 1)
    gain = np.where(gain < 1, gain + (1 - gain) * share * share * (3 - 2 * share), gain).astype(F32)
    return np.rint(linear_to_srgb(srgb_to_linear(sharp) * gain) * F32(255)).astype(np.uint8)


def _corner_light(ratio: NDArray[Any], square: NDArray[np.float64]) -> float:
    """The fall-off of `ratio` over the squared radius, from the medians of rings of equal area; at most 1."""
    rings = np.minimum((square * _RINGS).astype(int), _RINGS - 1)
    present = [ring for ring in range(_RINGS) if (rings == ring).sum() >= 50]
    if len(present) < 3:
        return 1.0
    middle = [float(square[rings == ring].mean()) for ring in present]
    height = [float(np.median(ratio[rings == ring])) for ring in present]
    slope, at_zero = np.polyfit(middle, height, 1)
    return float(np.clip(1 + slope / at_zero, 0.05, 1.0))


def _luminance(picture: NDArray[np.uint8], scale: float) -> NDArray[F32]:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(F32) / F32(255)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(F32)
    return grey


def _band(image: NDArray[F32], fine_px: float, wide_px: float) -> NDArray[F32]:
    fine = cv2.GaussianBlur(image, (0, 0), fine_px)
    return np.asarray(fine - cv2.GaussianBlur(fine, (0, 0), wide_px), F32)


def _warped(image: NDArray[F32], warp: NDArray[F32]) -> NDArray[F32]:
    size = image.shape[1], image.shape[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, warp, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101), F32)


def _correlation(one: NDArray[F32], other: NDArray[F32]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _at_full_size(warp: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """A warp between reduced pictures as one between the full ones; pixel centres are half a pixel off the corner."""
    if scale == 1:
        return warp
    full = warp.copy()
    half = np.array([0.5, 0.5])
    # centre' = A (s (p + 1/2) - 1/2) + t, and back.
    full[:, 2] = (warp[:, :2] @ (scale * half - half) + warp[:, 2] + half) / scale - half
    return full


def _displacement(affine: NDArray[np.float64], height: int, width: int) -> float:
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    return float(np.hypot(*(corners @ affine.T - corners[:, :2]).T).max())
