"""Option values as people write them: lengths with units, f-numbers, image sizes, lists of distances."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from defocus_sim.blur.light import SensorNoise
from defocus_sim.errors import RenderingError, UnitError
from defocus_sim.lens import NO_CAP, PRESET_ALIASES, PRESETS
from defocus_sim.units import parse_f_number, parse_length_m, parse_size_hw


@dataclass(frozen=True)
class Aperture:
    """`--aperture`: a diameter or an f-number, the other is None."""

    diameter_mm: float | None = None
    f_number: float | None = None


class _Text(click.ParamType):
    """A value parsed from text; the library's own message becomes the option's."""

    def parse(self, text: str) -> Any:
        raise UnitError(f"{text!r} cannot be read")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.ParamType.convert`."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except (UnitError, RenderingError) as error:
            self.fail(str(error), param, ctx)


class LengthParam(_Text):
    """A length, given in metres times `per_metre` (1000 for a value in mm)."""

    name = "length"

    def __init__(self, per_metre: float) -> None:
        self._per_metre = per_metre

    def parse(self, text: str) -> float:
        """`70mm` as 70.0 (with per_metre=1000)."""
        # Nine digits: what a person can have meant, without the rounding of the unit's factor (4.48 cm = 44.8 mm).
        return float(f"{parse_length_m(text) * self._per_metre:.9g}")


class LengthScale(float):
    """Metres per unit that were written as a length."""


class DepthScaleParam(_Text):
    """What a unit of a depth file is worth: a plain number, or a length with its unit."""

    name = "number or length"

    def parse(self, text: str) -> float:
        """`0.001` or `1mm`, which is the same."""
        try:
            return float(text)
        except ValueError:
            return LengthScale(LengthParam(1).parse(text))


class DepthInvalidParam(_Text):
    """Stored numbers that mean a hole, and `none`: no others are to be taken for one."""

    name = "numbers"

    def parse(self, text: str) -> tuple[tuple[float, ...], bool]:
        """`65535,-1` as those and True, `none` as nothing and False."""
        words = [word.strip().lower() for word in text.split(",")]
        try:
            return tuple(float(word) for word in words if word != "none"), "none" not in words
        except ValueError:
            raise UnitError(f"{text!r} is no list of numbers (65535,0), nor none") from None


class IntrinsicsParam(_Text):
    """fx, fy, cx, cy of a camera in px."""

    name = "FX,FY,CX,CY"

    def parse(self, text: str) -> tuple[float, ...]:
        """`525,525,319.5,239.5`."""
        try:
            values = tuple(float(word) for word in text.split(","))
        except ValueError:
            values = ()
        if len(values) != 4:
            raise UnitError(f"{text!r} is not FX,FY,CX,CY in px, for example 525,525,319.5,239.5")
        return values


class ApertureParam(_Text):
    """A diameter with its unit, or an f-number written `f/2.8`."""

    name = "length or f/N"

    def parse(self, text: str) -> Aperture:
        """`4.48cm` or `f/1.56`."""
        f_number = parse_f_number(text)
        return Aperture(f_number=f_number) if f_number else Aperture(diameter_mm=LengthParam(1e3).parse(text))


class DistancesParam(_Text):
    """One distance, or several with commas between, in metres."""

    name = "distances"

    def parse(self, text: str) -> tuple[float, ...]:
        """`2m` or `1m,2m,4m`."""
        return tuple(LengthParam(1).parse(part) for part in text.split(","))


class PresetParam(click.Choice[str]):
    """Name of a lens preset or `none`; earlier names are taken, but not shown."""

    name = "preset"

    def __init__(self) -> None:
        super().__init__([*PRESETS, "none"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Choice.convert`."""
        return value if value in PRESET_ALIASES else super().convert(value, param, ctx)


class NamesParam(_Text):
    """Names with commas between."""

    name = "names"

    def parse(self, text: str) -> tuple[str, ...]:
        """`both,depth`."""
        return tuple(part.strip() for part in text.split(","))


class NumbersParam(_Text):
    """Whole numbers from 0 with commas between."""

    name = "numbers"

    def parse(self, text: str) -> tuple[int, ...]:
        """`0` or `0,1,2`."""
        if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
            raise UnitError(f"{text!r} is no list of whole numbers, for example 0,1")
        return tuple(int(part) for part in text.split(","))


class PixelsParam(_Text):
    """A number of pixels, with or without `px`."""

    name = "pixels"

    def parse(self, text: str) -> float:
        """`20` or `20px`."""
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:px)?\s*", text)
        if match is None or float(match.group(1)) <= 0:
            raise UnitError(f"{text!r} is not a number of pixels above 0, for example 29px")
        return float(match.group(1))


class CocLimitParam(PixelsParam):
    """A number of pixels, or `none`, which is infinity."""

    def parse(self, text: str) -> float:
        """`20px` or `none`."""
        return math.inf if text.strip().lower() == NO_CAP else super().parse(text)


class SizeParam(_Text):
    """An image size as width x height; the value is (height, width). `square`: whether one number is enough.

    `word`: a text that is taken as it is.
    """

    name = "WxH"

    def __init__(self, square: bool = False, word: str | None = None) -> None:
        self._square = square
        self._word = word

    def parse(self, text: str) -> tuple[int, int] | str:
        """`320x240` as (240, 320)."""
        if text == self._word:
            return text
        return parse_size_hw(text, square=self._square)


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


class NoiseParam(_Text):
    """Sensor noise as `SHOT,READ`."""

    name = "SHOT,READ"

    def parse(self, text: str) -> SensorNoise:
        """`0.001,0.005`."""
        try:
            shot, read = (float(part) for part in text.split(","))
        except ValueError:
            raise UnitError(f"{text!r} is not a noise level: write SHOT,READ, for example 0.001,0.005") from None
        return SensorNoise(shot=shot, read=read)


@dataclass(frozen=True)
class FocusPoints:
    """`--refocus`: distances in metres, and pixels (x, y)."""

    distances_m: tuple[float, ...] = ()
    pixels: tuple[tuple[int, int], ...] = ()


class FocusParam(_Text):
    """Distances and pixels of the picture with commas between."""

    name = "distances or @X,Y"

    def parse(self, text: str) -> FocusPoints:
        """`1m,2m` or `@640,360` or both."""
        parts = re.findall(r"\s*(@[^,]*,[^,]*|[^,]+)\s*(?:,|$)", text)
        pixels = []
        for part in parts:
            if part.startswith("@"):
                match = re.fullmatch(r"@\s*(\d+)\s*,\s*(\d+)\s*", part)
                if match is None:
                    raise UnitError(f"{part!r} is not a pixel: write @X,Y, for example @640,360")
                pixels.append((int(match.group(1)), int(match.group(2))))
        distances = tuple(LengthParam(1).parse(part) for part in parts if not part.startswith("@"))
        if not parts:
            raise UnitError(f"{text!r} names nothing to focus on: write 1.5m, or a pixel as @640,360")
        return FocusPoints(distances, tuple(pixels))
