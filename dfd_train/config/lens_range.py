"""Lenses to draw from while training: ranges of a camera's numbers, and of what a camera does after its lens."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from defocus_sim.errors import DefocusSimError
from defocus_sim.units import parse_length_m
from dfd_train.errors import ConfigError

PSFS = ("gaussian", "disc", "both")
LIGHTS = ("srgb", "linear", "both")
# Of every number that is not told otherwise; what is beyond is no camera's, and blurs nothing or all that there is.
_LEAST, _MOST = 1e-3, 1e6
_MOST_OF = {
    "sigma_per_coc": 1.0,
    "focus_blur_px": 100.0,
    # A camera's own softness; wider is defocus.
    "softness_px": 1.5,
    "noise": 255.0,
    "denoise": 255.0,
    "tone": 4.0,
    "exposure": 100.0,
    "sharpen": 100.0,
}


@dataclass(frozen=True, kw_only=True)
class LensRange:
    """What the lens of each training sample is drawn from, each pair (least, most).

    `focus_m`: metres; a focus distance is drawn by its logarithm. `f_number`, `focal_length_mm`, `sensor_width_mm` (across
    the whole frame): by their logarithms; the focus is kept beyond twice the focal length. `most_coc_px`: the aperture is
    closed until 98 % of a frame's pixels have a CoC within this many px; drawn by its logarithm. `near_depths`: share of
    the samples whose focus is the depth of one of their pixels instead, times 0.7 to 1.4: of the nearer ones more often, as
    people focus on what is in front (a quarter of the frame is nearer in the median). `sigma_per_coc`, `focus_blur_px`: as
    in `Lens`. `psf`: "gaussian", "disc" or "both", `light`: "srgb", "linear" or "both", each with equal chance.
    `layered`: share of the samples that are blurred in layers, so that what is near covers what is behind it as it does in
    a camera, which is how a picture tells near from far; the others are gathered. `softness_px`: sigma of a blur that the
    camera leaves on everything, sharp or not, which the target has as well: photographs are softer than renderings.
    `noise`: standard deviation in grey levels of 255. `demosaic`: share of the samples that are seen through a Bayer mosaic
    and made whole again, which also leaves grains of noise instead of single pixels. `denoise`: the grey levels of
    contrast that a filter takes for noise. `sharpen`: weight of an unsharp mask. `jpeg`: quality, 100 =
    none. `tone`: of samples blurred in linear light, the power of sRGB's light that a pixel stands for, drawn by its
    logarithm: cameras draw curves of their own. `exposure`: of samples blurred in linear light, the factor on the light of
    the scene, drawn by its logarithm; what is brighter than white is blurred as bright as it is, then clipped.
    `clean`: share of the samples whose noise, demosaicing, noise reduction and JPEG are to be undone, too.

    Softness and, but for those samples, everything from noise to JPEG are not to be undone: the target has them as well.

    Raises `ConfigError` for an impossible value.
    """

    focus_m: tuple[float, float] = (0.6, 12.0)
    f_number: tuple[float, float] = (1.2, 5.6)
    focal_length_mm: tuple[float, float] = (24.0, 85.0)
    sensor_width_mm: tuple[float, float] = (36.0, 36.0)
    most_coc_px: tuple[float, float] = (1000.0, 1000.0)
    near_depths: float = 0.0
    sigma_per_coc: tuple[float, float] = (0.25, 0.25)
    focus_blur_px: tuple[float, float] = (0.0, 0.0)
    psf: str = "gaussian"
    light: str = "srgb"
    layered: float = 0.0
    softness_px: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    demosaic: float = 0.0
    denoise: tuple[float, float] = (0.0, 0.0)
    sharpen: tuple[float, float] = (0.0, 0.0)
    jpeg: tuple[float, float] = (100.0, 100.0)
    tone: tuple[float, float] = (1.0, 1.0)
    exposure: tuple[float, float] = (1.0, 1.0)
    clean: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("psf", PSFS), ("light", LIGHTS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"lens_range {name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                low, high = value
                may_be_zero = field.name in ("focus_blur_px", "softness_px", "noise", "denoise", "sharpen")
                least, most = 0.0 if may_be_zero else _LEAST, _MOST_OF.get(field.name, _MOST)
                if not least <= low <= high <= most:
                    raise ConfigError(
                        f"lens_range {field.name}={low:g}..{high:g} must rise, and lie between {least:g} and {most:g}"
                    )
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"lens_range {name}={getattr(self, name):g} must lie between 0 and 1")
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise ConfigError(f"lens_range jpeg={self.jpeg[0]:g}..{self.jpeg[1]:g} must lie between 1 and 100")

    @classmethod
    def parse(cls, text: str) -> LensRange:
        """From the command line's `focus=0.6m..12m,f_number=1.2..5.6,focal_length=24mm..85mm,psf=both`.

        Lengths take units; a single value stands for a range of one. Raises `ConfigError` naming the part.
        """
        given: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, equals, value = part.partition("=")
            name = name.strip().replace("-", "_")
            field = _FIELDS.get(name, name)
            if not equals or field not in {f.name for f in fields(cls)}:
                raise ConfigError(f"lens_range {part!r}: give NAME=LOW..HIGH with a name of {', '.join(_names(cls))}")
            if field in ("psf", "light"):
                given[field] = value.strip()
                continue
            try:
                numbers = [_number(name, end.strip()) for end in re.split(r"\.\.", value)]
            except (ValueError, DefocusSimError) as error:
                raise ConfigError(f"lens_range {part!r}: {error}") from error
            if len(numbers) > (1 if field in _SHARES else 2):
                raise ConfigError(f"lens_range {part!r}: give {'one number' if field in _SHARES else 'LOW..HIGH'}")
            if field in _SHARES:
                given[field] = numbers[0]
            else:
                given[field] = (numbers[0], numbers[-1])
        return cls(**given)


# One number each instead of a range.
_SHARES = ("near_depths", "layered", "demosaic", "clean")
# Names of the command line that have a unit in their value instead of in the name.
_FIELDS = {"focus": "focus_m", "focal_length": "focal_length_mm", "sensor_width": "sensor_width_mm"}


def _names(cls: type[LensRange]) -> list[str]:
    short = {field: name for name, field in _FIELDS.items()}
    return [short.get(f.name, f.name) for f in fields(cls)]


def _number(name: str, text: str) -> float:
    if name in _FIELDS:
        return parse_length_m(text) * (1.0 if name == "focus" else 1e3)
    return float(text.removeprefix("f/")) if name == "f_number" else float(text)
