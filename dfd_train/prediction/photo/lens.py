"""The lens of a photograph: what EXIF says, what the user says instead, and what has to be assumed for the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defocus_sim.errors import LensError, parse_json
from defocus_sim.lens import PRESET_ALIASES, PRESETS, Lens
from dfd_train.errors import ConfigError
from dfd_train.prediction.photo.exif import FULL_FRAME_DIAGONAL_MM, PhotoTags

# What stands in for what nobody says: a usual lens, opened as one does for blur, at a distance of conversation.
ASSUMED_EQUIVALENT_MM, ASSUMED_F_NUMBER, ASSUMED_FOCUS_M = 35.0, 2.8, 2.0
# A lens focused farther than this, or at infinity, counts as focused no farther than where it blurs infinity by this share
# of the picture's width: nobody sees that, and depths reach down to a hundredth of the focus distance only.
_FAR_FOCUS_M = 100.0
_UNSEEN_BLUR = 1 / 5000
# Sides whose ratio differs by less are those of a picture that was resized, not cropped.
_SAME_SHAPE = 0.01
# How a value is told; where the sensor's width is from stands in the record only.
_SAID = {
    "camera": "{}",
    "lens": "lens {}",
    "f_number": "f/{}",
    "focal_length_mm": "focal length {} mm",
    "equivalent_mm": "{} mm on full frame",
    "sensor_width_mm": "sensor {} mm across",
    "focus_distance_m": "focus at {} m",
    "pixels": "pixels {}",
}


@dataclass(frozen=True, kw_only=True)
class LensChoice:
    """What the user says about the lens; each value given replaces what EXIF says.

    `lens`: a whole lens, EXIF is then not asked. `sensor_width_mm`: across the width of the upright picture.
    Raises `ConfigError` for a value that is not finite and above 0.
    """

    lens: Lens | None = None
    focus_distance_m: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None
    sensor_width_mm: float | None = None

    def __post_init__(self) -> None:
        for name in ("focus_distance_m", "f_number", "focal_length_mm", "sensor_width_mm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value:g} must be finite and above 0")


@dataclass(frozen=True, kw_only=True)
class PhotoLens:
    """The lens of one photograph, for its upright picture of `size_hw` pixels.

    `read`, `given`, `assumed`: values by name, from EXIF, from the user, from nowhere. `relative`: sentences on what is
    only relative because of that. `knows_focus`: whether the focus distance was read or given; without it depths are
    in units of it.
    """

    lens: Lens
    size_hw: tuple[int, int]
    read: dict[str, Any]
    given: dict[str, Any]
    assumed: dict[str, Any]
    relative: tuple[str, ...] = ()
    knows_focus: bool = True

    @property
    def equivalent_mm(self) -> float | None:
        """Focal length with the same diagonal field of view on 36 x 24 mm; None for a lens known in pixels only."""
        height, width = self.size_hw
        if self.lens.focal_length_mm is None:
            return None
        focal_px = self.lens.focal_length_mm * self.lens.sensor_distance_px(width) / (self.lens.sensor_distance_m * 1e3)
        return FULL_FRAME_DIAGONAL_MM * focal_px / math.hypot(height, width)

    def describe(self) -> str:
        """What was read, given and assumed, in one line."""
        parts = [
            f"{word} {', '.join(_said(name, value) for name, value in values.items() if name in _SAID)}"
            for word, values in (("read", self.read), ("given", self.given), ("assumed", self.assumed))
            if values
        ]
        return "lens: " + "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types, with every field of the lens; a focus at infinity is called "infinity"."""
        return {
            "lens": self.lens.to_json(),
            "read": {name: "infinity" if value == math.inf else value for name, value in self.read.items()},
            "given": self.given,
            "assumed": self.assumed,
            "relative": list(self.relative),
        }


def lens_of_photograph(tags: PhotoTags, stored_wh: tuple[int, int], choice: LensChoice) -> PhotoLens:
    """The lens of a photograph.

    Pixels that are fewer than the camera's in the same shape were resized: the field of view stays. In another shape
    they were cropped: the pixel's size stays.

    Parameters
    ----------
    tags
        Of its file.
    stored_wh
        Width and height of its pixels, before it is turned upright.
    choice
        What is said in place of the tags.

    Returns
    -------
    PhotoLens
        The lens, and where it is known from.

    Raises
    ------
    LensError
        For an impossible lens.
    """
    wide, tall = stored_wh if tags.orientation < 5 else stored_wh[::-1]
    if choice.lens is not None:
        return _whole_lens(choice.lens, (tall, wide), choice)
    read: dict[str, Any] = {}
    given: dict[str, Any] = {}
    assumed: dict[str, Any] = {}
    relative: list[str] = []

    def pick(name: str, mine: float | None, theirs: float | None, otherwise: float) -> float:
        for place, value in ((given, mine), (read, theirs)):
            if value is not None:
                place[name] = value
                return value
        assumed[name] = otherwise
        return otherwise

    if tags.camera:
        read["camera"] = tags.camera
    if tags.equivalent_mm is not None:
        read["equivalent_mm"] = tags.equivalent_mm
    sensor_mm = _sensor_width_mm(tags, stored_wh, (wide, tall), read, assumed)
    diagonal = math.hypot(wide, tall) / wide
    focal_mm = choice.focal_length_mm or tags.focal_length_mm
    width_mm = choice.sensor_width_mm or sensor_mm
    # One missing length follows from the other by the field of view, read or assumed.
    view = (tags.equivalent_mm or ASSUMED_EQUIVALENT_MM) / FULL_FRAME_DIAGONAL_MM
    if focal_mm is None:
        width_mm = width_mm or 36.0
        focal_mm = round(view * width_mm * diagonal, 2)
    elif width_mm is None:
        width_mm = round(focal_mm / view / diagonal, 3)
    focal_mm = pick("focal_length_mm", choice.focal_length_mm, tags.focal_length_mm, focal_mm)
    width_mm = pick("sensor_width_mm", choice.sensor_width_mm, sensor_mm, width_mm)
    f_number = pick("f_number", choice.f_number, tags.f_number, ASSUMED_F_NUMBER)
    focus_m = pick("focus_distance_m", choice.focus_distance_m, tags.focus_distance_m, ASSUMED_FOCUS_M)
    # CoC at infinity = aperture * focal length / (focus distance - focal length), by similar triangles.
    as_good_as_infinite_m = focal_mm / 1e3 * (1 + focal_mm / f_number / (_UNSEEN_BLUR * width_mm))
    if focus_m >= _FAR_FOCUS_M and focus_m > as_good_as_infinite_m:
        focus_m = as_good_as_infinite_m
        relative.append(f"focused at infinity, taken as {focus_m:.3g} m: depths beyond half of that are guesses")
    if "focus_distance_m" in assumed:
        # A macro lens of great length still has to stand before its subject.
        focus_m = assumed["focus_distance_m"] = max(ASSUMED_FOCUS_M, round(focal_mm * 0.02, 2))
        relative.append("no focus distance: depth is in units of it (--focus 1.5m makes it metres)")
    unsure = [name for name in ("f_number", "focal_length_mm", "sensor_width_mm") if name in assumed]
    if unsure:
        relative.append(f"{', '.join(unsure)} assumed: the order of depths holds, their spread does not")
    lens = Lens(
        focus_distance_m=focus_m, f_number=f_number, focal_length_mm=focal_mm, sensor_width_mm=width_mm, name="photograph"
    )  # fmt: skip
    return PhotoLens(
        lens=lens,
        size_hw=(tall, wide),
        read=read,
        given=given,
        assumed=assumed,
        relative=tuple(relative),
        knows_focus="focus_distance_m" not in assumed,
    )


def parse_lens(text: str) -> Lens:
    """A preset's name, a TOML file as `Lens.save` and dfd-calibrate write it, or the `NAME.json` of another photograph.

    Raises `ConfigError` or `LensError` naming the file or the presets.
    """
    if text in PRESETS or text in PRESET_ALIASES:
        return Lens.preset(text)
    path = Path(text)
    if not path.is_file():
        raise ConfigError(f"lens={text!r} is neither a file nor one of {', '.join(PRESETS)}")
    if path.suffix.lower() != ".json":
        return Lens.load(path)
    try:
        fields = parse_json(path.read_text())
        for room in ("photograph", "lens"):
            fields = fields.get(room, fields)
        return Lens(**fields)
    except (OSError, ValueError, TypeError, AttributeError, LensError) as error:
        raise ConfigError(f"{path} does not describe a lens: {' '.join(str(error).split())}") from error


def _whole_lens(lens: Lens, size_hw: tuple[int, int], choice: LensChoice) -> PhotoLens:
    if lens.solve_max_coc_px is not None:
        raise ConfigError(f"lens={lens.name!r} has no aperture of its own, it is solved for each picture: give another")
    names = ("focus_distance_m", "f_number", "focal_length_mm", "sensor_width_mm")
    changes = {name: value for name in names if (value := getattr(choice, name)) is not None}
    given = {"lens": lens.name, **changes}
    return PhotoLens(lens=lens.changed(**changes), size_hw=size_hw, read={}, given=given, assumed={})


def _sensor_width_mm(
    tags: PhotoTags, stored_wh: tuple[int, int], upright_wh: tuple[int, int], read: dict[str, Any], assumed: dict[str, Any]
) -> float | None:  # fmt: skip
    """Millimetres of sensor across the upright picture's width, after resizing and cropping."""
    if tags.pixel_mm is None:
        return None
    read["sensor_width_from"] = tags.pixel_source
    pixel_mm = tags.pixel_mm
    if tags.taken_wh is not None and tags.taken_wh != stored_wh:
        (wide, tall), (taken_wide, taken_tall) = stored_wh, tags.taken_wh
        if abs(wide * taken_tall / (tall * taken_wide) - 1) < _SAME_SHAPE:
            pixel_mm *= taken_wide / wide
            assumed["pixels"] = f"resized from {taken_wide}x{taken_tall}"
        elif wide <= taken_wide and tall <= taken_tall:
            assumed["pixels"] = f"cropped from {taken_wide}x{taken_tall}"
        else:
            # Larger than what the camera took, in another shape: cropped, then enlarged to fit the longer way.
            pixel_mm /= max(wide / taken_wide, tall / taken_tall)
            assumed["pixels"] = f"cropped and enlarged from {taken_wide}x{taken_tall}"
    return pixel_mm * upright_wh[0]


def _said(name: str, value: Any) -> str:
    if value == math.inf:
        return "focus at infinity"
    return _SAID[name].format(f"{value:.4g}" if isinstance(value, float) else value)
