"""Where the numbers of a depth file become metres of z: the one place for units, kinds, and numbers that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.formats.sentinels import marks_of_nothing, suspicions
from defocus_sim.errors import SourceError

DepthKind = Literal["z", "ray", "disparity", "inverse"]
DepthBits = Literal["stored", "rotated", "shifted", "swapped"]
# Nothing that a lens can tell from infinity lies beyond.
FARTHEST_M = 1e5


@dataclass(frozen=True, kw_only=True)
class DepthUnits:
    """What the numbers of depth files are.

    `kind`: "z" along the optical axis; "ray", the distance along the ray; "disparity" in px, z = f * b / (d + offset);
    "inverse", 1 / z. `invalid`: stored numbers that mean nothing was measured. `guess`: also take those that are known
    marks for it and lie far beyond the rest. `bits`: "rotated" by 3 as SUN RGB-D's, "shifted" by 3 as a Kinect's raw
    depth, or "swapped" bytes. `intrinsics`: fx, fy, cx, cy in px of the depth map. `baseline_m`, `disparity_offset_px`: of
    the stereo pair. Raises `SourceError` for values that cannot be, or that a kind lacks.
    """

    kind: DepthKind = "z"
    invalid: tuple[float, ...] = ()
    guess: bool = True
    bits: DepthBits = "stored"
    intrinsics: tuple[float, float, float, float] | None = None
    baseline_m: float | None = None
    disparity_offset_px: float = 0.0

    def __post_init__(self) -> None:
        """Check the options."""
        for name, value, known in (("kind", self.kind, DepthKind), ("bits", self.bits, DepthBits)):
            if value not in get_args(known):
                raise SourceError(f"depth {name} {value!r} is not known: choose one of {', '.join(get_args(known))}")
        if self.kind in ("ray", "disparity") and self.intrinsics is None:
            raise SourceError(f"depth of the kind {self.kind} needs the camera: --intrinsics FX,FY,CX,CY in px")
        if self.intrinsics is not None and not (
            len(self.intrinsics) == 4 and np.isfinite(self.intrinsics).all() and min(self.intrinsics[:2]) > 0
        ):
            raise SourceError(f"intrinsics={self.intrinsics} must be fx, fy, cx, cy in px, the first two above 0")
        if self.kind == "disparity" and not (self.baseline_m is not None and 0 < self.baseline_m < np.inf):
            raise SourceError("depth of the kind disparity needs the distance of the two cameras: --baseline LENGTH")

    def to_json(self) -> dict[str, Any]:
        """What is not as it would be without a word, for the manifest."""
        plain = DepthUnits()
        return {name: value for name, value in vars(self).items() if value != getattr(plain, name)}


class Metres(NamedTuple):
    """`depth_m`: (H, W) float32 z in metres, 0 = hole. `notes`: what was taken for a hole, and what looks odd."""

    depth_m: NDArray[np.float32]
    notes: tuple[str, ...]


def metres(stored: NDArray[Any], scale: float, units: DepthUnits, valid: NDArray[np.bool_] | None = None) -> Metres:
    """z in metres of the (H, W) numbers of a file, `scale` being what one unit is worth (m, px or 1/m).

    0, negative, non-finite numbers, those that `units` names as invalid, where `valid` is false, and z beyond 100 km
    are holes. Raises `SourceError` where the bytes are in the wrong order.
    """
    numbers = _unpacked(stored, units.bits)
    with np.errstate(invalid="ignore"):
        seen = np.isfinite(numbers) & (numbers > 0)
    for value in units.invalid:
        seen &= numbers.astype(np.float64) != float(
            np.asarray(value).astype(numbers.dtype if numbers.dtype.kind == "f" else float)
        )
    if valid is not None:
        if valid.shape != numbers.shape:
            raise SourceError(
                f"the mask is {valid.shape[1]}x{valid.shape[0]}, depth {numbers.shape[1]}x{numbers.shape[0]}"
            )
        seen &= valid
    notes: list[str] = []
    if units.guess:
        for value in marks_of_nothing(numbers, seen):
            seen &= numbers != value
            notes.append(f"depth of {float(value):g} is taken as a hole (--depth-invalid none keeps it)")
    notes += suspicions(numbers, seen, packed=units.bits == "stored")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        z = _z(numbers.astype(np.float64) * scale, units)
        seen &= (z > 0) & (z <= FARTHEST_M)
        return Metres(np.where(seen, z, 0).astype(np.float32), tuple(notes))


def _z(measured: NDArray[np.float64], units: DepthUnits) -> NDArray[np.float64]:
    if units.kind == "inverse":
        return 1 / measured
    if units.intrinsics is None:
        return measured
    fx, fy, cx, cy = units.intrinsics
    if units.kind == "disparity":
        return fx * (units.baseline_m or 0.0) / (measured + units.disparity_offset_px)
    if units.kind == "ray":
        rows, columns = np.ogrid[: measured.shape[0], : measured.shape[1]]
        return measured / np.sqrt(1 + ((columns - cx) / fx) ** 2 + ((rows - cy) / fy) ** 2)
    return measured


def _unpacked(stored: NDArray[Any], bits: DepthBits) -> NDArray[Any]:
    if bits == "stored":
        return stored
    if stored.dtype.kind not in "ui" or stored.dtype.itemsize != 2:
        raise SourceError(f"bits that are {bits} are those of 16-bit integers, not of {stored.dtype}")
    words = stored.view(np.uint16) if stored.dtype.isnative else stored.astype(np.uint16)
    if bits == "rotated":
        return (words >> np.uint16(3)) | (words << np.uint16(13))
    return words >> np.uint16(3) if bits == "shifted" else words.byteswap()
