"""The camera: signed circle of confusion (CoC) in metres and pixels, blur sigma, presets. Nothing but arithmetic.

Thin lens (Nazir et al. 2023, eq. 8, with the lens-to-sensor distance spelled out): a point at depth x, seen by a lens of
focal length F and entrance pupil D that is focused at S, is imaged to a disc of diameter

    coc = D * s/S * (x - S)/x          s = F*S/(S - F)   (lens-to-sensor distance)

which is signed here: negative nearer than the focus distance, positive beyond it. In pixels the diameter is coc / pitch,
so only D, S and s/pitch, the lens-to-sensor distance *in pixels*, matter. `sigma = |coc| / 4`: a uniform disc of diameter
d has a standard deviation of exactly d/4 along each axis. A real lens also blurs a little where it is in focus; the two
add as variances.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from numpy.typing import ArrayLike, NDArray

from defocus_sim.errors import LensError, parse_toml

# How JSON and the command line say `max_coc_px=math.inf`.
NO_CAP = "none"

SensorDistance = Literal["thin-lens", "infinity"]
# Of any number of a lens in its unit; beyond, products of a few of them are no numbers any more.
_LEAST, _MOST = 1e-15, 1e15
# As the CoC is limited to the frame, so is the blur that is made of it, and the memory that the blur takes.
_MOST_OF = {"sigma_per_coc": 1.0, "focus_blur_px": 500.0}


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
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise LensError(f"{field.name}={value!r} is not a number")
            try:
                value = float(value)
            except OverflowError:
                raise LensError(f"{field.name} is a number of hundreds of digits, beyond every lens") from None
            if field.name in ("sharp_below_px", "focus_blur_px"):
                if not (math.isfinite(value) and value >= 0):
                    raise LensError(f"{field.name}={value:g} must be finite and >= 0")
            elif not (math.isfinite(value) and value > 0) and (field.name, value) != ("max_coc_px", math.inf):
                raise LensError(f"{field.name}={value:g} must be finite and > 0")
            if value and value != math.inf and not _LEAST <= value <= _MOST:
                raise LensError(f"{field.name}={value:g} is beyond every lens: give {_LEAST:g} to {_MOST:g}")
            if value > _MOST_OF.get(field.name, math.inf):
                raise LensError(f"{field.name}={value:g} must be at most {_MOST_OF[field.name]:g}")
            object.__setattr__(self, field.name, value)
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
    def preset(cls, name: str, **changes: Any) -> Lens:
        """The preset `name` (a key of `PRESETS`) with `changes` laid over it.

        A change replaces the alternatives of its group: `preset("paper", f_number=2.0)` drops the preset's
        `aperture_mm`. Changes that are None are ignored. A preset that is changed in anything but the focus distance is
        named "<preset>, changed".
        """
        name = PRESET_ALIASES.get(name, name)
        if name not in PRESETS:
            raise LensError(f"preset {name!r} is not known: choose one of {', '.join(PRESETS)}")
        return cls(**_laid_over(dict(PRESETS[name], name=name), changes))

    @classmethod
    def load(cls, path: str | Path) -> Lens:
        """The lens in the table `[lens]` of a TOML file, as `save` and `dfd-calibrate` write it.

        Raises `LensError` naming the file where it cannot be read, is no TOML, or describes no lens.
        """
        try:
            return cls(**_read_fields(Path(path), [field.name for field in dataclasses.fields(cls)]))
        except LensError as error:
            raise LensError(f"{path}: {error}") from error
        except TypeError:
            raise LensError(f"{path}: the table [lens] has no focus_distance_m") from None

    def save(self, path: str | Path, about: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
        """Write the lens as TOML for `load` and `--lens`; returns the path. `about`: further tables, for the record.

        Raises `LensError` where the file cannot be written.
        """
        return _write_tables(Path(path), {"lens": self.to_json(), **(about or {})})

    def changed(self, **changes: Any) -> Lens:
        """This lens with `changes` laid over it, by the rules of `preset`."""
        return type(self)(**_laid_over({k: v for k, v in dataclasses.asdict(self).items() if v is not None}, changes))

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
        name = self.name if self.name.endswith(ADDED) else self.name + ADDED
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

    def coc_px(self, depth_m: ArrayLike, *, width_px: int | None = None) -> NDArray[np.float64]:
        """`coc_diameter_px(depth_m, self)`: signed CoC diameter in px, negative nearer than the focus distance."""
        return coc_diameter_px(depth_m, self, width_px=width_px)

    def for_depth(self, depth_m: NDArray[Any], width_px: int | None = None) -> Lens:
        """This lens with its aperture solved for one image, or itself where there is nothing to solve.

        `depth_m`: metres, 0 or non-finite = hole, ignored. The largest |CoC| over the valid pixels becomes
        `solve_max_coc_px`. Raises `LensError` where nothing is out of focus.
        """
        if self.solve_max_coc_px is None:
            return self
        width = _width_px(depth_m, width_px)
        unit = dataclasses.replace(self, solve_max_coc_px=None, aperture_mm=1.0, max_coc_px=None)
        depth = np.asarray(depth_m, np.float64)
        largest = np.abs(coc_diameter_px(depth[np.isfinite(depth) & (depth > 0)], unit, width_px=width)).max(
            initial=0.0
        )
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


_ALTERNATIVES = (
    ("aperture_mm", "f_number", "solve_max_coc_px"),
    ("sensor_width_mm", "pixel_pitch_um", "focal_length_px"),
)

# Lengths in pixels of the picture that is blurred; the pixel pitch beside them is one divided by pixels.
_IN_PIXELS = ("focal_length_px", "solve_max_coc_px", "max_coc_px", "sharp_below_px", "focus_blur_px")

# Fields that came after the first stores were written, and the value that changes nothing.
_LATER = {"focus_blur_px": 0.0, "corner_light": 1.0}
# Ends the name of a lens that `beyond` made.
ADDED = ", added to a smaller aperture"

PRESETS: dict[str, dict[str, Any]] = {
    # The paper's lens; 36 mm and S are our choice (docs/reference/optics.md), as the paper names neither.
    "paper": {"focal_length_mm": 70.0, "aperture_mm": 44.8, "sensor_width_mm": 36.0, "focus_distance_m": 2.0},
    # The paper's lens for studies of depth: beyond every surface of an indoor room no two depths share a blur.
    "paper-far": {"focal_length_mm": 70.0, "aperture_mm": 44.8, "sensor_width_mm": 36.0, "focus_distance_m": 10.0},
    # SYNDOF: the aperture follows from the largest CoC; a CoC of one pixel or less is sharp.
    "syndof": {
        "focal_length_mm": 50.0,
        "solve_max_coc_px": 29.0,
        "sensor_width_mm": 36.0,
        "focus_distance_m": 2.0,
        "sharp_below_px": 1.0,
    },
    # D3-Net's simulation script. Its real photographs come from another camera: the next one.
    "d3net-script": {
        "focal_length_mm": 15.0,
        "f_number": 2.8,
        "pixel_pitch_um": 5.6,
        "focus_distance_m": 2.0,
        "sigma_per_coc": 0.3,
    },
    # Nikon D200 with a 35 mm lens, as published with D3-Net's real photographs; the script's 0.3 is what they show, too.
    "d3net-camera": {
        "focal_length_mm": 35.0,
        "f_number": 2.8,
        "sensor_width_mm": 23.6,
        "focus_distance_m": 1.7,
        "sigma_per_coc": 0.3,
    },
    # The geometry of the very picture: 519 px is the Kinect colour camera's calibrated lens-to-sensor distance.
    "kinect": {"focal_length_mm": 70.0, "aperture_mm": 44.8, "focal_length_px": 519.0, "focus_distance_m": 2.0},
}
# Earlier names that still work.
PRESET_ALIASES = {"d3net": "d3net-script"}


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
    return lens.aperture_diameter_m * lens.sensor_distance_m / lens.focus_distance_m * _relative(depth_m, lens)


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
    if lens.sensor_width_mm is not None:
        width_px = _width_px(depth_m, width_px)
    coc = coc_at_infinity_px(lens, width_px) * _relative(depth_m, lens)
    return coc if lens.max_coc_px is None else np.clip(coc, -lens.max_coc_px, lens.max_coc_px)


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
    return lens.aperture_diameter_m * lens.sensor_distance_px(width_px) / lens.focus_distance_m


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
    return coc_at_infinity_px(lens, width_px) * lens.focus_distance_m / float(np.finfo(np.float32).max)


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
    at_infinity = coc_at_infinity_px(lens, width_px)
    ratio = coc_limit_px / at_infinity
    near = lens.focus_distance_m / (1 + ratio)
    return near, (math.inf if ratio >= 1 else lens.focus_distance_m / (1 - ratio))


def _laid_over(settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` of a lens with `changes` that are not None; one replaces the alternatives of its group."""
    given = {key: value for key, value in changes.items() if value is not None}
    unknown = given.keys() - {field.name for field in dataclasses.fields(Lens)}
    if unknown:
        raise LensError(f"{', '.join(sorted(unknown))} is not a property of a lens")
    kept = dict(settings)
    for group in _ALTERNATIVES:
        if given.keys() & set(group):
            for key in group:
                kept.pop(key, None)
    changed = any(settings.get(k) != v for k, v in given.items() if k not in ("focus_distance_m", "name"))
    name = str(settings["name"])
    return kept | ({"name": f"{name.removesuffix(', changed')}, changed"} if changed else {}) | given


def _relative(depth_m: ArrayLike, lens: Lens) -> NDArray[np.float64]:
    # 1 - S/x instead of (x - S)/x: exact zero at x = S and well defined at infinity.
    return 1.0 - lens.focus_distance_m / np.asarray(depth_m, np.float64)


def _width_px(depth_m: ArrayLike, width_px: int | None) -> int | None:
    if width_px is None and np.ndim(depth_m) >= 2:
        return int(np.shape(depth_m)[-1])
    return width_px


def _read_fields(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The fields of the table `[lens]`; raises `LensError`, without the file's name, for anything that is no lens."""
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LensError(f"the lens cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except ValueError as error:
        raise LensError(f"not a TOML file ({error})") from error
    fields = content.get("lens")
    if not isinstance(fields, dict):
        raise LensError("there is no table [lens]: dfd-calibrate and Lens.save write one")
    unknown = sorted(fields.keys() - set(known))
    if unknown:
        raise LensError(f"{', '.join(unknown)} in [lens] is not a property of a lens")
    for key in ("name", "sensor_distance"):
        if not isinstance(fields.get(key, ""), str):
            raise LensError(f"{key}={fields[key]!r} in [lens] is not text")
    return fields


def _write_tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> Path:
    """`tables` of numbers, texts and lists of numbers as TOML, None left out; returns `path`. Raises `LensError`."""
    content = {name: {k: v for k, v in table.items() if v is not None} for name, table in tables.items()}
    try:
        path.write_text(tomli_w.dumps(content), encoding="utf-8")
    except OSError as error:
        raise LensError(f"the lens {path} cannot be written: {error.strerror}") from error
    return path
