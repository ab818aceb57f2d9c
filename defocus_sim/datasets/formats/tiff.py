"""What the header of a TIFF says that decides on memory and on the meaning of its numbers: TIFF and BigTIFF."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

from defocus_sim.errors import SourceError

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Of the numbers of a sample; 4 is "undefined".
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
MIN_IS_WHITE, PALETTE = 0, 3
_TAGS = {
    254: "subfile", 256: "width", 257: "height", 258: "bits", 262: "photometric", 274: "orientation", 277: "samples",
    284: "planes",
    322: "tile_width", 323: "tile_height", 339: "sample_format", 42112: "gdal", 42113: "nodata",
}  # fmt: skip
_LETTERS = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}
_REDUCED = 1
_MOST_PAGES = 1000
_SCALE = re.compile(r'role="scale"[^>]*>\s*([-+.\deE]+)')


class TiffHeader(NamedTuple):
    """`bits`, `sample_format`, `photometric`, `orientation`: the tags. `pages`: pictures that are no smaller copies.
    `planes`: the channels are stored one after the other.

    `nodata`: the number that stands for a hole, and `scale`: what a unit is worth, where GDAL's tags say so.
    """

    width: int
    height: int
    bits: int
    samples: int
    sample_format: int
    photometric: int
    orientation: int
    pages: int
    planes: bool
    tile_pixels: int
    nodata: float | None
    scale: float


def is_tiff(data: bytes) -> bool:
    """Whether `data` begins as a TIFF."""
    return data[:4] in TIFF_MAGIC


def tiff_header(path: Path, data: bytes) -> TiffHeader:
    """The header of the first picture; raises `SourceError` naming the file where it is damaged."""
    try:
        found, pages = _directories(data)
        width, height = found["width"], found["height"]
    except (struct.error, KeyError, ValueError) as error:
        raise SourceError(f"{path} cannot be decoded as a picture: its TIFF header is damaged") from error
    scale = _SCALE.search(found.get("gdal", ""))
    return TiffHeader(
        width=width,
        height=height,
        bits=found.get("bits", 1),
        samples=found.get("samples", 1),
        sample_format=found.get("sample_format", UNSIGNED),
        photometric=found.get("photometric", 1),
        orientation=found.get("orientation", 1),
        pages=pages,
        planes=found.get("planes", 1) > 1,
        tile_pixels=found.get("tile_width", 0) * found.get("tile_height", 0),
        nodata=_number(found.get("nodata", "")),
        scale=(_number(scale[1]) if scale else None) or 1.0,
    )


def _directories(data: bytes) -> tuple[dict[str, Any], int]:
    """The tags of the first directory (of several values of one the largest), and the number of whole pictures."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:3] == b"+" or data[3:4] == b"+"
    offset, count_kind, step = ("Q", "Q", 20) if big else ("I", "H", 12)
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    first: dict[str, Any] | None = None
    seen: set[int] = set()
    pages = 0
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        try:
            (count,) = struct.unpack_from(order + count_kind, data, at)
            start = at + struct.calcsize("=" + count_kind)
            if count > len(data) // step:
                raise ValueError("more entries than the file holds")
            tags = _tags(data, start, count, order, big)
            (at,) = struct.unpack_from(order + offset, data, start + count * step)
        except (struct.error, KeyError, ValueError):
            if first is None:
                raise
            break
        pages += not tags.get("subfile", 0) & _REDUCED
        first = tags if first is None else first
    if first is None:
        raise ValueError("no directory")
    return first, pages


def _tags(data: bytes, start: int, count: int, order: str, big: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    entry, place, step, offset = ("HHQ", 12, 20, "Q") if big else ("HHI", 8, 12, "I")
    for at in range(start, start + count * step, step):
        tag, kind, values = struct.unpack_from(order + entry, data, at)
        if tag not in _TAGS:
            continue
        letter = _LETTERS[kind]
        size = struct.calcsize(f"={letter}") * values
        where = at + place
        if size > (8 if big else 4):
            (where,) = struct.unpack_from(order + offset, data, where)
        if values < 1 or size > len(data):
            raise ValueError("no value")
        content = struct.unpack_from(f"{order}{values}{letter}", data, where)
        found[_TAGS[tag]] = content[0].decode("latin-1").strip("\0 ") if letter == "s" else max(content)
        if isinstance(found[_TAGS[tag]], str) != (tag > 42000):
            raise ValueError("a tag of another type")
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
