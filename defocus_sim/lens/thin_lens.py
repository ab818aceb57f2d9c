"""`Lens`: the camera as a few numbers, checked; what follows from them; and how one is changed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defocus_sim.errors import LensError
from defocus_sim.lens.files import read_fields, write_tables
from defocus_sim.lens.numbers import checked_number
from defocus_sim.lens.presets import PRESET_ALIASES, PRESETS, laid_over

# How JSON and the command line say `max_coc_px=math.inf`.
NO_CAP = "none"

SensorDistance = Literal["thin-lens", "infinity"]
# Lengths in pixels of the picture that is blurred; the pixel pitch beside them is one divided by pixels.
_IN_PIXELS = ("focal_length_px", "solve_max_coc_px", "max_coc_px", "sharp_below_px", "focus_blur_px")
# Fields that came after the first stores were written, and the value that changes nothing.
_LATER = {"focus_blur_px": 0.0, "corner_light": 1.0}
# Ends the name of a lens that `beyond` made.
_ADDED = ", added to a smaller aperture"


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A thin lens in front of a sensor. Any sufficient set of numbers describes it; a doubled or missing one is refused.

    Aperture, exactly one of: `aperture_mm` (diameter of the entrance pupil), `f_number` (needs `focal_length_mm`),
    `solve_max_coc_px` (the diameter is chosen for each image so that its largest CoC is this many px; see `for_depth`).
    Sensor, exactly one of: `sensor_width_mm` (across the width of the image that is blurred), `pixel_pitch_um`,
    `focal_length_px` (the lens-to-sensor distance in px, as camera calibrations give it; needs no other length).
    `focal_length_mm` is required unless `focal_length_px` makes it unnecessary.

    `focus_distance_m`: distance of sharp focus from the lens. `max_coc_px`: cap on the CoC diameter; None: the longer side
    of the frame that is blurred (a wider disc shows no more of it), infinity or "none": no cap.
    `sigma_per_coc`, `sharp_below_px`, `focus_blur_px`: Gaussian sigma = sqrt((sigma_per_coc * max(|coc_px| -
    sharp_below_px, 0))^2 + focus_blur_px^2); the last is the sigma that is there even in focus, in px of the image that is
    blurred. `corner_light`: light in the corners of the image as a share of that in its middle, (0, 1]; between them it
    falls with the square of the distance from the middle.
    `sensor_distance`: "thin-lens" (s = F*S/(S-F), default) or "infinity" (s = F, the literal reading of the paper's
    f = 0.07 m; 3.5 % smaller CoC at S = 2 m). `name`: of the preset, for the record.

    Raises `LensError` on construction, naming the value.
    """

    focus_distance_m: float
    aperture_mm: float | None = None
    f_number: float | None = None
    solve_max_coc_px: float | None = None
    focal_length_mm: float | None = None
    sensor_width_mm: float | None = None
    pixel_pitch_um: float | None = None
    focal_length_px: float | None = None
    max_coc_px: float | None = None
    sigma_per_coc: float = 0.25
    sharp_below_px: float = 0.0
    focus_blur_px: float = 0.0
    corner_light: float = 1.0
    sensor_distance: SensorDistance = "thin-lens"
    name: str = "custom"

    def __post_init__(self) -> None:
        """Check every field; see the class."""
        if self.max_coc_px == NO_CAP:
            object.__setattr__(self, "max_coc_px", math.inf)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and "None" not in str(field.type):
                raise LensError(f"{field.name} is missing: it must be a {field.type}")
            if field.name in ("name", "sensor_distance") or value is None:
                continue
            object.__setattr__(self, field.name, checked_number(field.name, value))
        if not isinstance(self.name, str):
            raise LensError(f"name={self.name!r} is not text")
        if self.corner_light > 1:
            raise LensError(f"corner_light={self.corner_light:g} must lie in (0, 1]: the share of the middle's light")
        self._exactly_one("the aperture", ("aperture_mm", "f_number", "solve_max_coc_px"))
        self._exactly_one("the sensor", ("sensor_width_mm", "pixel_pitch_um", "focal_length_px"))
        if self.sensor_distance not in ("thin-lens", "infinity"):
            raise LensError(f"sensor_distance={self.sensor_distance!r} must be 'thin-lens' or 'infinity'")
        if self.focal_length_mm is None:
            if self.focal_length_px is None:
                raise LensError("focal_length_mm is missing: give it, or focal_length_px instead of the sensor's size")
            if self.f_number is not None:
                raise LensError(f"f_number={self.f_number:g} needs focal_length_mm to give an aperture: add it")
        elif self.focus_distance_m * 1e3 <= self.focal_length_mm:
            raise LensError(
                f"focus_distance_m={self.focus_distance_m:g} must exceed the focal length {self.focal_length_mm / 1e3:g} m"
            )

    def _exactly_one(self, what: str, names: tuple[str, ...]) -> None:
        given = [f"{n}={getattr(self, n):g}" for n in names if getattr(self, n) is not None]
        if not given:
            raise LensError(f"{what} is missing: give one of {', '.join(names)}")
        if len(given) > 1:
            raise LensError(f"{what} is given more than once ({', '.join(given)}): keep one")

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Lens:
        """The preset `name` (a key of `PRESETS`) with `changes` laid over it.

        A change replaces the alternatives of its group: `preset("paper", f_number=2.0)` drops the preset's
        `aperture_mm`. Changes that are None are ignored. A preset that is changed in anything but the focus distance is
        named "<preset>, changed".
        """
        name = PRESET_ALIASES.get(name, name)
        if name not in PRESETS:
            raise LensError(f"preset {name!r} is not known: choose one of {', '.join(PRESETS)}")
        return cls(**laid_over(dict(PRESETS[name], name=name), changes, cls._names()))

    @classmethod
    def load(cls, path: str | Path) -> Lens:
        """The lens in the table `[lens]` of a TOML file, as `save` and `dfd-calibrate` write it.

        Raises `LensError` naming the file where it cannot be read, is no TOML, or describes no lens.
        """
        try:
            return cls(**read_fields(Path(path), cls._names()))
        except LensError as error:
            raise LensError(f"{path}: {error}") from error
        except TypeError:
            raise LensError(f"{path}: the table [lens] has no focus_distance_m") from None

    def save(self, path: str | Path, about: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
        """Write the lens as TOML for `load` and `--lens`; returns the path. `about`: further tables, for the record.

        Raises `LensError` where the file cannot be written.
        """
        return write_tables(Path(path), {"lens": self.to_json(), **(about or {})})

    def changed(self, **changes: Any) -> Lens:
        """This lens with `changes` laid over it, by the rules of `preset`."""
        own = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return type(self)(**laid_over(own, changes, self._names()))

    def beyond(self, *, aperture_mm: float | None = None, f_number: float | None = None) -> Lens:
        """The lens whose blur, added to a picture taken at a smaller aperture, gives the blur of this lens.

        The smaller aperture is given by exactly one argument, as diameter or f-number. Blurs add as variances, and both
        grow with their aperture in proportion, so the added one is that of the aperture sqrt(D^2 - D_small^2) at the same
        focus. The in-focus blur is left as it is: what was measured is already what the smaller aperture does not have.
        Raises `LensError` where the aperture is not the smaller one.
        """
        small = self.changed(aperture_mm=aperture_mm, f_number=f_number).aperture_diameter_m
        if (aperture_mm is None) == (f_number is None):
            raise LensError("the sharp picture's aperture is one diameter or one f-number: give exactly one")
        own = self.aperture_diameter_m
        if small >= own:
            raise LensError(
                f"the sharp picture's aperture {small * 1e3:.4g} mm must be smaller than the lens's {own * 1e3:.4g} mm"
            )
        name = self.name if self.name.endswith(_ADDED) else self.name + _ADDED
        return self.changed(aperture_mm=1e3 * math.sqrt(own**2 - small**2), name=name)

    @property
    def aperture_diameter_m(self) -> float:
        """Diameter of the entrance pupil, metres. Raises `LensError` while it is still to be solved for an image."""
        if self.aperture_mm is not None:
            return self.aperture_mm / 1e3
        if self.f_number is not None and self.focal_length_mm is not None:
            return self.focal_length_mm / self.f_number / 1e3
        raise LensError("the aperture depends on the image (solve_max_coc_px): call lens.for_depth(depth_m) first")

    @property
    def sensor_distance_m(self) -> float:
        """Lens-to-sensor distance s in metres: F*S/(S-F), or F with `sensor_distance="infinity"`."""
        if self.focal_length_mm is None:
            raise LensError("a lens described by focal_length_px alone has no length in metres: add focal_length_mm")
        focal_m = self.focal_length_mm / 1e3
        if self.sensor_distance == "infinity":
            return focal_m
        return focal_m * self.focus_distance_m / (self.focus_distance_m - focal_m)

    def sensor_distance_px(self, width_px: int | None = None) -> float:
        """Lens-to-sensor distance in px; `width_px` (of the image being blurred) is needed with `sensor_width_mm`."""
        if self.focal_length_px is not None:
            return self.focal_length_px
        if self.pixel_pitch_um is not None:
            return self.sensor_distance_m * 1e6 / self.pixel_pitch_um
        if width_px is None:
            raise LensError("sensor_width_mm needs the image's width in px: pass width_px")
        assert self.sensor_width_mm is not None  # noqa: S101 - __post_init__ left no other case
        return self.sensor_distance_m * 1e3 * width_px / self.sensor_width_mm

    def coc_at_infinity_px(self, width_px: int | None = None) -> float:
        """CoC diameter of an infinitely far point in px, without the cap: D * s_px / S; `width_px` as above."""
        return self.aperture_diameter_m * self.sensor_distance_px(width_px) / self.focus_distance_m

    def coc_px(self, depth_m: ArrayLike, *, width_px: int | None = None) -> NDArray[np.float64]:
        """Signed CoC diameter in px, negative nearer than the focus distance; see `coc_diameter_px`."""
        if self.sensor_width_mm is not None and width_px is None and np.ndim(depth_m) >= 2:
            width_px = int(np.shape(depth_m)[-1])
        coc = self.coc_at_infinity_px(width_px) * relative_coc(depth_m, self.focus_distance_m)
        return coc if self.max_coc_px is None else np.clip(coc, -self.max_coc_px, self.max_coc_px)

    def for_depth(self, depth_m: NDArray[Any], width_px: int | None = None) -> Lens:
        """This lens with its aperture solved for one image, or itself where there is nothing to solve.

        `depth_m`: metres, 0 or non-finite = hole, ignored. The largest |CoC| over the valid pixels becomes
        `solve_max_coc_px`. Raises `LensError` where nothing is out of focus.
        """
        if self.solve_max_coc_px is None:
            return self
        if width_px is None and depth_m.ndim >= 2:
            width_px = depth_m.shape[-1]
        unit = dataclasses.replace(self, solve_max_coc_px=None, aperture_mm=1.0, max_coc_px=None)
        depth = np.asarray(depth_m, np.float64)
        valid = depth[np.isfinite(depth) & (depth > 0)]
        largest = np.abs(unit.coc_px(valid, width_px=width_px)).max(initial=0.0)
        if largest <= 0:
            raise LensError(
                f"no valid depth lies off the focus distance {self.focus_distance_m:g} m: no aperture to solve for"
            )
        return dataclasses.replace(self, solve_max_coc_px=None, aperture_mm=float(self.solve_max_coc_px / largest))

    def cropped(self, full_hw: tuple[int, int], kept_hw: tuple[int, int]) -> Lens:
        """This lens for the middle `kept_hw` of a picture of `full_hw` (height, width in px) that it describes."""
        if full_hw == kept_hw:
            return self
        inner = (math.hypot(*kept_hw) / math.hypot(*full_hw)) ** 2
        return dataclasses.replace(
            self,
            sensor_width_mm=None if self.sensor_width_mm is None else self.sensor_width_mm * kept_hw[1] / full_hw[1],
            corner_light=1 - (1 - self.corner_light) * inner,
        )

    def resized(self, blurred_hw: tuple[int, int], frame_hw: tuple[int, int]) -> Lens:
        """This lens, of a picture of `blurred_hw` (height, width in px), in pixels of that picture resized to `frame_hw`.

        Every length in pixels is counted along x; where the resize changed the picture's shape, blur along y is wider by
        the ratio of the two scales, which a `Lens` does not hold (`dfd_train.optics.camera.camera_of` does).
        """
        share = frame_hw[1] / blurred_hw[1]
        if share == 1:
            return self
        scaled = {name: getattr(self, name) for name in _IN_PIXELS if getattr(self, name) is not None}
        pitch = None if self.pixel_pitch_um is None else self.pixel_pitch_um / share
        return dataclasses.replace(self, pixel_pitch_um=pitch, **{name: px * share for name, px in scaled.items()})

    @property
    def counts_pixels(self) -> bool:
        """Whether the lens is described by lengths in pixels, so that its blur depends on which frame they are of."""
        return self.pixel_pitch_um is not None or any(
            getattr(self, name) not in (None, 0, math.inf) for name in _IN_PIXELS
        )

    def at_focus(self, focus_distance_m: float) -> Lens:
        """The same camera focused elsewhere."""
        return dataclasses.replace(self, focus_distance_m=focus_distance_m)

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict of JSON types; `Lens(**lens.to_json())` is equal to the lens.

        What a lens of earlier versions did not have is left out where it changes nothing, so that checksums over the
        settings of a store stay what they were.
        """
        fields = {
            key: value for key, value in dataclasses.asdict(self).items() if key not in _LATER or _LATER[key] != value
        }
        # JSON has no infinity.
        return fields | {"max_coc_px": NO_CAP} if self.max_coc_px == math.inf else fields


def relative_coc(depth_m: ArrayLike, focus_distance_m: float) -> NDArray[np.float64]:
    """(x - S)/x at depth x: the CoC as a share of that at infinity."""
    # 1 - S/x instead of (x - S)/x: exact zero at x = S and well defined at infinity.
    return 1.0 - focus_distance_m / np.asarray(depth_m, np.float64)
