"""Lengths with units, as people write them: `4.48cm`, `70mm`, `5.6um`, `2m`; apertures as `f/1.56`, sizes as `320x240`."""

from __future__ import annotations

import math
import re

from defocus_sim.errors import UnitError

METRES_PER_UNIT = {"um": 1e-6, "µm": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "in": 0.0254, "ft": 0.3048}
UNITS_TEXT = "um, mm, cm, m, in, ft"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LENGTH = re.compile(rf"\s*({_NUMBER})\s*([a-zA-Zµμ]*)\s*")
_SIZE = re.compile(r"\s*(\d{1,9})\s*(?:[xX×]\s*(\d{1,9})\s*)?")
_F_NUMBER = re.compile(rf"\s*[fF]\s*/\s*({_NUMBER})\s*")


def parse_length_m(text: str) -> float:
    """A length with its unit, as on a command line, in metres.

    Parameters
    ----------
    text
        Such as `1.5m`, `50 mm`, `4um`.

    Returns
    -------
    float
        Metres, > 0.

    Raises
    ------
    UnitError
        For a bare number, an unknown unit, or a length that is not positive.
    """
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r} is not a length: write a number and a unit ({UNITS_TEXT}), for example 4.48cm")
    number, unit = match.group(1), match.group(2).replace("μ", "µ")
    if not unit:
        raise UnitError(f"{text!r} has no unit: write one of {UNITS_TEXT}, for example 4.48cm")
    if unit not in METRES_PER_UNIT:
        raise UnitError(f"{text!r} has the unknown unit {unit!r}: use one of {UNITS_TEXT}")
    length_m = float(number) * METRES_PER_UNIT[unit]
    if not (math.isfinite(length_m) and length_m > 0):
        raise UnitError(f"{text!r} must be a finite length above 0")
    return length_m


def parse_f_number(text: str) -> float | None:
    """N of `f/N`.

    Parameters
    ----------
    text
        Such as `f/2.8`.

    Returns
    -------
    float | None
        N, or None where `text` is not written so.

    Raises
    ------
    UnitError
        Where N is not positive.
    """
    match = _F_NUMBER.fullmatch(text)
    if match is None:
        return None
    f_number = float(match.group(1))
    if not (math.isfinite(f_number) and f_number > 0):
        raise UnitError(f"{text!r} must be a finite f-number above 0")
    return f_number


def parse_size_hw(text: str, *, square: bool = True) -> tuple[int, int]:
    """A size in pixels, width first as cameras say it.

    Parameters
    ----------
    text
        Such as "320x240".
    square
        Whether one number stands for both sides.

    Returns
    -------
    tuple[int, int]
        (height, width): (240, 320).

    Raises
    ------
    UnitError
        For anything else.
    """
    match = _SIZE.fullmatch(text)
    sides = () if match is None else tuple(int(side) for side in match.groups() if side is not None)
    if 0 in sides or len(sides) < (1 if square else 2):
        one = "or one number for both, " if square else ""
        raise UnitError(f"{text!r} is not a size: write width x height in pixels, {one}for example 320x240")
    return sides[-1], sides[0]


def size_text(hw: tuple[int, ...]) -> str:
    """A size in pixels as people read it, width first as cameras say it.

    Parameters
    ----------
    hw
        (height, width): (240, 320).

    Returns
    -------
    str
        "320x240".
    """
    return "x".join(str(side) for side in reversed(hw))


def format_bytes(count: float) -> str:
    """Bytes in decimal units, for people.

    Parameters
    ----------
    count
        Number of bytes.

    Returns
    -------
    str
        Text such as `12.3 MB`.
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
