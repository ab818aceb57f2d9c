"""What a photograph's EXIF says about its lens: f-number, focal length, focus distance, size of a pixel on the sensor."""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

_EXIF_IFD = 0x8769
_MAKE, _MODEL, _ORIENTATION = 0x010F, 0x0110, 0x0112
_F_NUMBER, _APERTURE_APEX, _FOCAL_MM, _FOCAL_35MM = 0x829D, 0x9202, 0x920A, 0xA405
_SUBJECT_M, _ZOOM = 0x9206, 0xA404
_WIDTH_PX, _HEIGHT_PX = 0xA002, 0xA003
_PLANE_X, _PLANE_UNIT = 0xA20E, 0xA210
# Of focal-plane resolution, by the standard's numbers; 1, "none", is written by cameras that mean inches.
_UNIT_MM = {1: 25.4, 2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
# All ones in the numerator: the standard's infinity; a distance of kilometres is what some cameras write instead.
_INFINITE_NUMERATOR, _INFINITE_FROM_M = 0xFFFFFFFF, 5000.0
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, struct.error, ZeroDivisionError)
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
# Long side of the sensor in mm, by patterns of "make model"; the first that fits counts.
_SENSORS_MM: tuple[tuple[str, float], ...] = (
    (r"canon.*eos[- ]?(1d x|1ds|5d|5ds|6d|r[1358p]?\b|r5|r6|r8|rp|ra\b)", 36.0),
    (r"canon.*eos[- ]?1d", 27.9),
    (r"canon.*eos", 22.3),
    (r"nikon.*(d3[sx]?|d4s?|d5|d6|df|d6[01]0|d700|d750|d780|d8[015]0[ae]?|z ?[5-9](_?[23])?|z ?f)\s*$", 35.9),
    (r"nikon.*(d\d+|z ?30|z ?50|z ?fc)", 23.5),
    (r"sony.*(ilce-[179]|slt-a99|dslr-a[89]|zv-e1\b|dsc-rx1\b|dsc-rx1r)", 35.8),
    (r"sony.*(ilce-|slt-|dslr-|nex-|zv-e10)", 23.5),
    (r"sony.*dsc-rx100", 13.2),
    (r"fujifilm.*gfx", 43.8),
    (r"fujifilm.*(x-|x100|x70)", 23.6),
    (r"(olympus|om digital).*(e-|om-|pen)", 17.3),
    (r"panasonic.*(dc|dmc)-s", 35.6),
    (r"panasonic.*(dc|dmc)-g", 17.3),
    (r"(pentax|ricoh).*k-1\b", 35.9),
    (r"(pentax|ricoh).*(k-|gr)", 23.5),
    (r"leica.*(m9|m1[01]|m \(typ|q[23]?\b|sl)", 36.0),
)


@dataclass(frozen=True, kw_only=True)
class PhotoTags:
    """What EXIF says; None where it says nothing or something impossible.

    `camera`: make and model. `focus_distance_m`: metres, may be infinite. `taken_wh`: pixels (width, height) as the
    camera stored them. `pixel_mm`: pitch of those pixels on the sensor, by `pixel_source`. `orientation`: 1 to 8.
    """

    camera: str = ""
    f_number: float | None = None
    focal_length_mm: float | None = None
    equivalent_mm: float | None = None
    focus_distance_m: float | None = None
    taken_wh: tuple[int, int] | None = None
    pixel_mm: float | None = None
    pixel_source: str = ""
    orientation: int = 1


def read_tags(path: Path) -> PhotoTags:
    """The tags of the picture `path`; what is missing, damaged or impossible is None, a file without EXIF gives none."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged tags and goes on, while it opens the file as well.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                exif = image.getexif()
                tags: dict[int, Any] = {**dict(exif), **exif.get_ifd(_EXIF_IFD)}
                return tags_from(tags, image.size)
    except (*_UNREADABLE, Image.DecompressionBombError):
        return PhotoTags()


def tags_from(tags: Mapping[int, Any], stored_wh: tuple[int, int]) -> PhotoTags:
    """`PhotoTags` of raw EXIF values by tag number; `stored_wh`: size of the file's picture, before it is turned."""
    make, model = _text(tags.get(_MAKE)), _text(tags.get(_MODEL))
    # Most models begin with their maker's name.
    camera = model if make and model.lower().startswith(make.lower().split()[0]) else f"{make} {model}".strip()
    f_number = _within(tags.get(_F_NUMBER), 0.5, 128)
    if f_number is None and (apex := _within(tags.get(_APERTURE_APEX), 0.01, 14)) is not None:
        f_number = 2 ** (apex / 2)
    focal = _within(tags.get(_FOCAL_MM), 0.5, 3000)
    equivalent = _within(tags.get(_FOCAL_35MM), 4, 6000)
    if focal is not None and equivalent is not None and not 0.4 < equivalent / focal < 30:
        equivalent = None
    taken = _taken(tags, stored_wh)
    pixel, source = _pixel_mm(tags, camera, focal, equivalent, taken or stored_wh)
    return PhotoTags(
        camera=camera,
        f_number=f_number,
        focal_length_mm=focal,
        equivalent_mm=equivalent,
        focus_distance_m=_focus_m(tags.get(_SUBJECT_M), focal),
        taken_wh=taken,
        pixel_mm=pixel,
        pixel_source=source,
        orientation=int(_within(tags.get(_ORIENTATION), 1, 8) or 1),
    )


def _taken(tags: Mapping[int, Any], stored_wh: tuple[int, int]) -> tuple[int, int] | None:
    width, height = _within(tags.get(_WIDTH_PX), 16, 1e6), _within(tags.get(_HEIGHT_PX), 16, 1e6)
    if width is None or height is None:
        return None
    wide, tall = int(width), int(height)
    # A program that turned the pixels often leaves the sides as the camera wrote them.
    turned = abs(stored_wh[0] * wide - stored_wh[1] * tall) < 0.01 * stored_wh[1] * tall
    same = abs(stored_wh[0] * tall - stored_wh[1] * wide) < 0.01 * stored_wh[1] * wide
    return (tall, wide) if turned and not same else (wide, tall)


def _pixel_mm(
    tags: Mapping[int, Any], camera: str, focal: float | None, equivalent: float | None, taken_wh: tuple[int, int]
) -> tuple[float | None, str]:
    """Pitch of a pixel as taken, in mm, and where it is from.

    The focal-plane resolution is the finest source and the most often wrong: it counts where the 35 mm equivalent, which
    is rounded to whole millimetres, does not contradict it.
    """
    zoom = _within(tags.get(_ZOOM), 1, 100) or 1.0
    from_equivalent = None
    if focal is not None and equivalent is not None:
        from_equivalent = FULL_FRAME_DIAGONAL_MM * focal / equivalent / math.hypot(*taken_wh)
    resolution = _within(tags.get(_PLANE_X), 1e-3, 1e9)
    unit_mm = _UNIT_MM.get(int(_within(tags.get(_PLANE_UNIT), 1, 5) or 2), 25.4)
    if resolution is not None:
        from_plane = unit_mm / resolution / zoom
        believable = 2.0 <= from_plane * max(taken_wh) <= 70.0
        if from_equivalent is not None:
            believable = believable and abs(from_plane / from_equivalent - 1) < 0.1
        if believable:
            return from_plane, "focal-plane resolution"
    if from_equivalent is not None:
        return from_equivalent, "35 mm equivalent"
    for pattern, long_mm in _SENSORS_MM:
        if re.search(pattern, camera.lower()):
            return long_mm / max(taken_wh) / zoom, "table of cameras"
    return None, ""


def _focus_m(value: Any, focal_mm: float | None) -> float | None:
    if getattr(value, "numerator", None) == _INFINITE_NUMERATOR:
        return math.inf
    distance = _within(value, 1e-3, math.inf)
    if distance is None or distance * 1e3 <= (focal_mm or 0.0):
        return None
    return math.inf if distance >= _INFINITE_FROM_M else distance


def _within(value: Any, low: float, high: float) -> float | None:
    """`value` as a number if it is one between `low` and `high`; of several the first."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if low <= number <= high else None


def _text(value: Any) -> str:
    return " ".join(str(value).replace("\0", " ").split()) if isinstance(value, str) else ""
