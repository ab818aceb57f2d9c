"""Masks of valid depth beside the depth files, as DIODE has them: `a_depth_mask.npy` for `a_depth.npy` and `a.png`."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.formats.images import read_depth_units
from defocus_sim.datasets.formats.numpy_limits import check_numpy
from defocus_sim.errors import SourceError, SourceMissingError

MASK_SUFFIXES = frozenset({".npy", ".png", ".tif", ".tiff", ".pgm"})
_ROLE = re.compile(r"(?:[._-]*(?:depth)?[._-]*(?:mask|valid|validity)$)|(?:^(?:mask|valid)[._-]+)", re.IGNORECASE)
_DEPTH = re.compile(r"[._-]+depth(?:[._-]?(?:mm|m))?$|^depth[._-]+", re.IGNORECASE)


def find_mask(folder: Path, depth: Path, depth_root: Path | None) -> Path:
    """The mask of a depth file: in `folder`, at the depth's place below `depth_root` or directly, of its name.

    Raises `SourceMissingError` where there is none.
    """
    places: list[Path] = []
    if depth_root is not None and depth.resolve().is_relative_to(depth_root.resolve()):
        places.append(folder / depth.resolve().relative_to(depth_root.resolve()).parent)
    places.append(folder)
    for place in places:
        if not place.is_dir():
            continue
        masks = _masks_in(place, place.stat().st_mtime_ns)
        for name in (depth.stem, _DEPTH.sub("", depth.stem)):
            found = [path for path in masks.get(name, []) if path.resolve() != depth.resolve()]
            if len(found) == 1:
                return found[0]
    raise SourceMissingError(f"{depth.name} has no mask of its name in {folder.name} (or several)")


@lru_cache(maxsize=4096)
def _masks_in(place: Path, changed_ns: int) -> dict[str, list[Path]]:
    """The masks of a folder by the names that they are for."""
    del changed_ns  # It is there for the cache to tell one state of a folder from another.
    named: dict[str, list[Path]] = {}
    for path in sorted(place.iterdir()):
        if path.suffix.lower() in MASK_SUFFIXES:
            bare = _ROLE.sub("", path.stem)
            for name in {path.stem, bare, _DEPTH.sub("", bare)}:
                named.setdefault(name, []).append(path)
    # What says that it is a mask goes before what lies beside it.
    return {name: [p for p in paths if is_mask(p.name)] or paths for name, paths in named.items()}


def is_mask(name: str) -> bool:
    """Whether a file's name says that it is a mask."""
    return bool(_ROLE.search(Path(name).stem))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) true where depth is valid: what is not 0. Raises `SourceError` naming a file that is no such map."""
    if path.suffix.lower() == ".npy":
        try:
            with path.open("rb") as stream:
                check_numpy(path, stream)
                mask = np.load(stream, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SourceError(f"{path} cannot be read as a NumPy file ({type(error).__name__})") from error
        if mask.ndim == 3 and mask.shape[2] == 1:
            mask = mask[..., 0]
        if mask.ndim != 2 or mask.dtype.kind not in "buif":
            raise SourceError(f"{path} has shape {mask.shape} of {mask.dtype}: a mask is one number a pixel")
    else:
        mask = read_depth_units(path)
    return np.nan_to_num(mask) != 0
