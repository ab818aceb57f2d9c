"""Depth out of OpenEXR files of every kind (tiles, every compression, several parts), by the reference library.

Which channel is depth, by its name: OpenEXR, "Technical Introduction", calls it `Z`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.formats.limits import check_decoded, require_regular
from defocus_sim.errors import SourceError

_MAGIC = b"\x76\x2f\x31\x01"
_SAYS_DEPTH = re.compile(r"depth|(?:^|[._ ])z$", re.IGNORECASE)
_UNREADABLE = (RuntimeError, ValueError, TypeError, KeyError, IndexError, OSError, MemoryError)


def exr_header(path: Path) -> tuple[int, int, bool]:
    """Height, width, and whether depth is integers; raises `SourceError` as `read_exr` does."""
    depth = read_exr(path)
    return depth.shape[0], depth.shape[1], depth.dtype.kind == "u"


def read_exr(path: Path) -> NDArray[Any]:
    """(H, W) float32 (uint32 where the file holds integers) of the depth channel, of the size of the display window.

    The depth channel is `Z`, else `depth`, else that of the one layer whose name says depth (`ViewLayer.Depth.Z`,
    "zdepth.R"), else the only `Z` of a layer that is no vector, else the only channel, or `R` where R, G and B are the
    same. What lies outside of the data window is 0, a hole. Raises `SourceError` naming the file where it is damaged, has
    no such channel, or several.
    """
    require_regular(path)
    planes, place = _read(path)
    name = _depth_channel(path, planes)
    plane = planes[name]
    plane = plane.astype(np.uint32 if plane.dtype.kind == "u" else np.float32, copy=False)
    return _in_display_window(plane, place[0], place[1])


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], tuple[tuple[int, ...], ...]]:
    """Every channel by its full name, and the data and the display window as (x0, y0, x1, y1)."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != _MAGIC:
                raise SourceError(f"{path} is not an OpenEXR file")
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from error
    try:
        import OpenEXR
    except ImportError as error:
        raise SourceError(f"{path} is OpenEXR, which takes the extra exr: pip install 'dfd-toolkit[exr]'") from error
    try:
        with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
            for part in file.parts:
                (x0, y0), (x1, y1) = part.header["dataWindow"]
                pixels = max(int(x1) - int(x0) + 1, 0) * max(int(y1) - int(y0) + 1, 0)
                check_decoded(path, pixels, 4 * max(len(part.header["channels"]), 1), path.stat().st_size)
        planes: dict[str, NDArray[Any]] = {}
        with OpenEXR.File(str(path), separate_channels=True) as file:
            if not file.parts:
                raise ValueError("no part of it can be read")
            windows = [
                tuple(_window(part.header[f"{kind}Window"]) for kind in ("data", "display")) for part in file.parts
            ]
            for part in file.parts:
                # A part's name tells several apart, as in `left.Z`.
                prefix = f"{part.name()}." if len(file.parts) > 1 and part.name() else ""
                for channel, content in part.channels.items():
                    if content.pixels is None or content.pixels.ndim != 2 or content.pixels.dtype.kind not in "fu":
                        raise ValueError(f"channel {channel} is no plane: deep data or damaged")
                    planes[prefix + channel if channel in planes or prefix else channel] = np.array(content.pixels)
    except _UNREADABLE as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} is truncated or damaged ({' '.join(str(error).split())[:120]})") from error
    if len(set(windows)) > 1:
        raise SourceError(f"{path} has parts of several sizes: save the one with depth alone")
    if not planes:
        raise SourceError(f"{path} has no channel")
    return planes, windows[0]


def _window(box: Any) -> tuple[int, ...]:
    return tuple(int(value) for corner in box for value in corner)


def _depth_channel(path: Path, planes: dict[str, NDArray[Any]]) -> str:
    """The name of the channel that is depth; raises `SourceError` where that cannot be told."""
    by_lower = {name.lower(): name for name in planes}
    named = ", ".join(planes)
    if "z" in by_lower and not {"x", "y"} <= set(by_lower):
        return by_lower["z"]
    if "depth" in by_lower:
        return by_lower["depth"]
    layers: dict[str, list[str]] = defaultdict(list)
    for name in planes:
        layers[name.rpartition(".")[0]].append(name)
    # By the last word of the layer; a part's or a view's own name says nothing.
    deep = [layer for layer in layers if layer and _SAYS_DEPTH.search(layer.rpartition(".")[2])]
    vectors = {layer for layer, names in layers.items() if {"x", "y"} <= {n.rpartition(".")[2].lower() for n in names}}
    candidates = [name for layer in deep if layer not in vectors for name in _of_layer(planes, layers[layer])]
    if not candidates:
        candidates = [n for n in planes if n.lower().endswith((".z", ".depth")) and n.rpartition(".")[0] not in vectors]
    if not candidates:
        candidates = _of_layer(planes, list(planes))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise SourceError(f"{path} has several channels that may be depth: {', '.join(candidates)!a}; keep one of them")
    raise SourceError(f"{path} has channels {named!a}: none of them is known as depth (Z, depth, or a layer called so)")


def _of_layer(planes: dict[str, NDArray[Any]], names: list[str]) -> list[str]:
    """The channel of a layer that holds one number a pixel; none where it holds several."""
    names = [name for name in names if name.rpartition(".")[2].lower() not in ("a", "alpha")]
    leaves = {name.rpartition(".")[2].lower(): name for name in names}
    if "z" in leaves and not {"x", "y"} <= set(leaves):
        return [leaves["z"]]
    if len(leaves) == 3 and {"r", "g", "b"} == set(leaves):
        red = planes[leaves["r"]]
        same = all(np.array_equal(red, planes[leaves[c]], equal_nan=red.dtype.kind == "f") for c in "gb")
        return [leaves["r"]] if same else []
    return names if len(names) == 1 else []


def _in_display_window(plane: NDArray[Any], data: tuple[int, ...], display: tuple[int, ...]) -> NDArray[Any]:
    """`plane` of the data window laid into the display window, which the colour picture of the same view has."""
    left, top, right, bottom = (pick(a, b) for pick, a, b in zip((max, max, min, min), data, display, strict=True))
    if data == display or right < left or bottom < top:
        return np.ascontiguousarray(plane)
    height, width = display[3] - display[1] + 1, display[2] - display[0] + 1
    if height * width > 64 * plane.size:
        return np.ascontiguousarray(plane)
    out = np.zeros((height, width), plane.dtype)
    part = plane[top - data[1] : bottom - data[1] + 1, left - data[0] : right - data[0] + 1]
    out[top - display[1] : bottom - display[1] + 1, left - display[0] : right - display[0] + 1] = part
    return out
