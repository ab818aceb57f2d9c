"""Option values as people write them: lengths with units, f-numbers, image sizes, lists of distances."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from defocus_sim.blur.light import SensorNoise
from defocus_sim.errors import RenderingError, UnitError
from defocus_sim.lens import NO_CAP, PRESET_ALIASES, PRESETS
from defocus_sim.units import parse_f_number, parse_length_m, parse_size_hw

T = TypeVar("T")


@dataclass(frozen=True)
class Aperture:
    """`--aperture`: a diameter or an f-number, the other is None."""

    diameter_mm: float | None = None
    f_number: float | None = None


@dataclass(frozen=True)
class FocusPoints:
    """`--refocus`: distances in metres, and pixels (x, y)."""

    distances_m: tuple[float, ...] = ()
    pixels: tuple[tuple[int, int], ...] = ()


class TextParam(click.ParamType, Generic[T]):
    """A value that `parse` reads from text; what the library says is wrong with it becomes the option's message.

    `name`: what stands for it in the help where no metavar does.
    """

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name, self.parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.ParamType.convert`."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except (UnitError, RenderingError) as error:
            self.fail(str(error), param, ctx)


class SizeParam(TextParam[tuple[int, int] | str]):
    """An image size as width x height; the value is (height, width). `square`: whether one number is enough.

    `word`: a text that is taken as it is.
    """

    def __init__(self, square: bool = False, word: str | None = None) -> None:
        super().__init__("WxH", lambda text: text if text == word else parse_size_hw(text, square=square))


class LengthScale(float):
    """Metres per unit that were written as a length."""


def _length(text: str, per_metre: float = 1.0) -> float:
    """`70mm` as 70.0 (with per_metre=1000)."""
    # Nine digits: what a person can have meant, without the rounding of the unit's factor (4.48 cm = 44.8 mm).
    return float(f"{parse_length_m(text) * per_metre:.9g}")


def _depth_scale(text: str) -> float:
    """`0.001` or `1mm`, which is the same."""
    try:
        return float(text)
    except ValueError:
        return LengthScale(_length(text))


def _depth_invalid(text: str) -> tuple[tuple[float, ...], bool]:
    """`65535,-1` as those and True, `none` as nothing and False."""
    words = [word.strip().lower() for word in text.split(",")]
    try:
        return tuple(float(word) for word in words if word != "none"), "none" not in words
    except ValueError:
        raise UnitError(f"{text!r} is no list of numbers (65535,0), nor none") from None


def _intrinsics(text: str) -> tuple[float, ...]:
    """fx, fy, cx, cy in px: `525,525,319.5,239.5`."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        raise UnitError(f"{text!r} is not FX,FY,CX,CY in px, for example 525,525,319.5,239.5")
    return values


def _aperture(text: str) -> Aperture:
    """`4.48cm` or `f/1.56`."""
    f_number = parse_f_number(text)
    return Aperture(f_number=f_number) if f_number else Aperture(diameter_mm=_length(text, 1e3))


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 0: `0` or `0,1,2`."""
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise UnitError(f"{text!r} is no list of whole numbers, for example 0,1")
    return tuple(int(part) for part in text.split(","))


def _pixels(text: str) -> float:
    """`20` or `20px`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:px)?\s*", text)
    if match is None or float(match.group(1)) <= 0:
        raise UnitError(f"{text!r} is not a number of pixels above 0, for example 29px")
    return float(match.group(1))


def _noise(text: str) -> SensorNoise:
    """`0.001,0.005`."""
    try:
        shot, read = (float(part) for part in text.split(","))
    except ValueError:
        raise UnitError(f"{text!r} is not a noise level: write SHOT,READ, for example 0.001,0.005") from None
    return SensorNoise(shot=shot, read=read)


def _focus(text: str) -> FocusPoints:
    """Distances and pixels of the picture: `1m,2m` or `@640,360` or both."""
    parts = re.findall(r"\s*(@[^,]*,[^,]*|[^,]+)\s*(?:,|$)", text)
    pixels = []
    for part in parts:
        if part.startswith("@"):
            match = re.fullmatch(r"@\s*(\d+)\s*,\s*(\d+)\s*", part)
            if match is None:
                raise UnitError(f"{part!r} is not a pixel: write @X,Y, for example @640,360")
            pixels.append((int(match.group(1)), int(match.group(2))))
    distances = tuple(_length(part) for part in parts if not part.startswith("@"))
    if not parts:
        raise UnitError(f"{text!r} names nothing to focus on: write 1.5m, or a pixel as @640,360")
    return FocusPoints(distances, tuple(pixels))


LENGTH_M, LENGTH_MM, LENGTH_UM = (
    TextParam("length", partial(_length, per_metre=per_metre)) for per_metre in (1.0, 1e3, 1e6)
)
DISTANCES = TextParam("distances", lambda text: tuple(_length(part) for part in text.split(",")))
DEPTH_SCALE = TextParam("number or length", _depth_scale)
DEPTH_INVALID = TextParam("numbers", _depth_invalid)
INTRINSICS = TextParam("FX,FY,CX,CY", _intrinsics)
APERTURE = TextParam("length or f/N", _aperture)
NAMES = TextParam("names", lambda text: tuple(part.strip() for part in text.split(",")))
NUMBERS = TextParam("numbers", _numbers)
PIXELS = TextParam("pixels", _pixels)
COC_LIMIT = TextParam("pixels", lambda text: math.inf if text.strip().lower() == NO_CAP else _pixels(text))
NOISE = TextParam("SHOT,READ", _noise)
FOCUS = TextParam("distances or @X,Y", _focus)


class PresetParam(click.Choice[str]):
    """Name of a lens preset or `none`; earlier names are taken, but not shown."""

    name = "preset"

    def __init__(self) -> None:
        super().__init__([*PRESETS, "none"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Choice.convert`."""
        return value if value in PRESET_ALIASES else super().convert(value, param, ctx)


class OutputPath(click.Path):
    """A file or folder of this machine that is written; a URL would become a folder called `s3:`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Path.convert`."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(value)):
            self.fail(f"{value} is a URL: this is written to a local place, which can be copied there", param, ctx)
        return super().convert(value, param, ctx)


def not_an_input(out: Path | None, *inputs: str | Path | None) -> None:
    """Refuse, as a usage error, a file to write that is one of the files `inputs` that the command reads."""
    for place in inputs:
        if out is None or place is None:
            continue
        with suppress(OSError, ValueError):
            if os.path.samefile(out, place):
                raise click.UsageError(f"{out} is read by this command: write to another file")
