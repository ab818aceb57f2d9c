"""A picture and its depth file: what their headers say, whether they can belong together, the unit of the depth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.base import depth_with_holes
from defocus_sim.datasets.formats.depth_units import DepthKind
from defocus_sim.datasets.formats.images import (
    CHECKED_SUFFIXES,
    DepthHeader,
    colour_size,
    depth_header,
    read_colour,
    read_depth_units,
)
from defocus_sim.datasets.formats.pictures import whole_file
from defocus_sim.errors import SourceError

_MILLIMETRES = re.compile(r"(?:^|[._-])mm(?:[._-]|$)|depthmm$", re.IGNORECASE)
# Sizes that differ by rounding only still have the same aspect ratio.
_SAME_ASPECT = 0.01


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture and its depth file; `split` and `scene` where a CSV file says them."""

    name: str
    colour: Path
    depth: Path
    split: str | None = None
    scene: str | None = None


def metres_per_unit(path: Path, integer: bool, depth_scale: float | None, kind: DepthKind = "z") -> float:
    """Metres per unit of a depth file: `depth_scale`, or what its kind or name says; raises `SourceError` else.

    Of disparity it is px per unit, of inverse depth 1/m.
    """
    if depth_scale is not None:
        return depth_scale
    if not integer:
        return 1.0
    if kind in ("disparity", "inverse"):
        what = "px of disparity" if kind == "disparity" else "1/m"
        raise SourceError(f"{path.name} holds integers of an unknown unit: give {what} per unit (--depth-scale)")
    if _MILLIMETRES.search(path.stem):
        return 0.001
    raise SourceError(
        f"{path.name} holds integer depth of an unknown unit: give metres per unit (--depth-scale 0.001 for mm)"
    )


def read_depth_m(path: Path, depth_scale: float | None) -> NDArray[np.float32]:
    """(H, W) metres, 0 = hole, of a depth file whose numbers are z; raises `SourceError` as `metres_per_unit` does."""
    units = read_depth_units(path)
    scale = metres_per_unit(path, units.dtype.kind != "f", depth_scale)
    with np.errstate(over="ignore"):
        return depth_with_holes((units.astype(np.float64) * scale).astype(np.float32))


def look_at_colour(path: Path) -> tuple[int, int]:
    """Height and width of a picture that is whole; raises `SourceError` where it is not."""
    # Decoded before the header is looked at: Pillow warns of a damaged TIFF and goes on.
    if path.suffix.lower() not in CHECKED_SUFFIXES:
        read_colour(path)
    whole_file(path)
    return colour_size(path)


def look_at_depth(path: Path) -> DepthHeader:
    """What a depth map holds that is whole; raises `SourceError` where it is not."""
    if path.suffix.lower() not in CHECKED_SUFFIXES:
        read_depth_units(path)
    whole_file(path)
    return depth_header(path)


def aspects_differ(colour: Path, depth: Path, colour_hw: Sequence[int], depth_hw: Sequence[int]) -> str | None:
    """Why a depth map cannot belong to a picture, by their sizes, or None."""
    if abs(colour_hw[1] * depth_hw[0] / (colour_hw[0] * depth_hw[1]) - 1) <= _SAME_ASPECT:
        return None
    return (
        f"{colour.name} is {colour_hw[1]}x{colour_hw[0]} but {depth.name} is {depth_hw[1]}x{depth_hw[0]}: "
        "depth must cover the same view"
    )
