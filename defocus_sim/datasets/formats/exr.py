"""Depth out of OpenEXR files: single-part scan lines, uncompressed, RLE, ZIPS or ZIP (what renderers write for depth).

OpenCV's wheels are built without OpenEXR, or with it locked behind an environment variable. Layout: "OpenEXR File
Layout", openexr.com.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.formats.limits import LARGEST_BYTES, LARGEST_PIXELS, read_file
from defocus_sim.errors import SourceError

_MAGIC = b"\x76\x2f\x31\x01"
# Tiles, deep data, several parts.
_UNSUPPORTED_FLAGS = {0x200: "tiles", 0x800: "deep data", 0x1000: "several parts"}
_TYPES = {0: "<u4", 1: "<f2", 2: "<f4"}
_COMPRESSIONS = ("no", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_LINES_A_BLOCK = {0: 1, 1: 1, 2: 1, 3: 16}


@dataclass(frozen=True, kw_only=True)
class _Header:
    channels: tuple[tuple[str, np.dtype[Any]], ...]
    compression: int
    first_line: int
    height: int
    width: int
    end: int

    @property
    def line_bytes(self) -> int:
        return self.width * sum(dtype.itemsize for _, dtype in self.channels)


def exr_header(path: Path) -> tuple[int, int, bool]:
    """Height, width, and whether there are integers only, from the header; raises `SourceError` as `read_exr` does."""
    header, _ = _open(path)
    return header.height, header.width, all(dtype.kind == "u" for _, dtype in header.channels)


def read_exr(path: Path) -> NDArray[Any]:
    """(H, W) float32 (uint32 where the file holds integers) of the depth channel.

    The depth channel is the one named `Z`, `depth`, `Y` or `V` (or a layer's, as in `ViewLayer.Depth.Z`), the only
    one, or `R` where R, G and B are the same. Raises `SourceError` naming the file where it is damaged, of another
    layout, or has no such channel.
    """
    header, data = _open(path)
    try:
        planes = _planes(header, data)
    except (ValueError, struct.error, zlib.error) as error:
        raise SourceError(f"{path} is truncated or damaged ({error})") from error
    for wanted in ("z", "depth", "y", "v"):
        for name, plane in planes.items():
            if name.lower().rpartition(".")[2] == wanted:
                return plane
    if len(planes) == 1:
        return next(iter(planes.values()))
    if {"R", "G", "B"} <= set(planes) and all(np.array_equal(planes["R"], planes[c], equal_nan=True) for c in "GB"):
        return planes["R"]
    raise SourceError(f"{path} has channels {', '.join(planes)!a}: none of them is known as depth (Z, depth, Y, V)")


def _open(path: Path) -> tuple[_Header, bytes]:
    data = read_file(path)
    if not data.startswith(_MAGIC):
        raise SourceError(f"{path} is not an OpenEXR file")
    try:
        return _header(data), data
    except (ValueError, KeyError, struct.error) as error:
        raise SourceError(f"{path} cannot be read as OpenEXR ({error}): re-save it as scan lines with ZIP") from error


def _attributes(data: bytes) -> Iterator[tuple[str, bytes, int]]:
    position = 8
    while data[position : position + 1] not in (b"\0", b""):
        name_end = data.index(b"\0", position)
        type_end = data.index(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<i", data, type_end + 1)
        start = type_end + 5
        if size < 0 or start + size > len(data):
            raise ValueError("an attribute runs past the end")
        yield data[position:name_end].decode("latin-1"), data[start : start + size], start + size
        position = start + size


def _header(data: bytes) -> _Header:
    (version,) = struct.unpack_from("<I", data, 4)
    for flag, what in _UNSUPPORTED_FLAGS.items():
        if version & flag:
            raise ValueError(f"it has {what}")
    values, end = {}, 8
    for name, value, stop in _attributes(data):
        values[name], end = value, stop
    for name in ("channels", "compression", "dataWindow"):
        if name not in values:
            raise ValueError(f"no attribute {name}")
    compression = values["compression"][0] if values["compression"] else 0
    if compression not in _LINES_A_BLOCK:
        known = _COMPRESSIONS[compression] if compression < len(_COMPRESSIONS) else str(compression)
        raise ValueError(f"{known} compression")
    x0, y0, x1, y1 = struct.unpack("<4i", values["dataWindow"])
    height, width = y1 - y0 + 1, x1 - x0 + 1
    if height < 1 or width < 1 or height * width > LARGEST_PIXELS:
        raise ValueError(f"size {width}x{height}")
    channels = tuple(_channels(values["channels"]))
    return _Header(channels=channels, compression=compression, first_line=y0, height=height, width=width, end=end + 1)


def _channels(table: bytes) -> Iterator[tuple[str, np.dtype[Any]]]:
    position = 0
    while table[position : position + 1] != b"\0":
        end = table.index(b"\0", position)
        kind, _, x_step, y_step = struct.unpack_from("<iIii", table, end + 1)
        if (x_step, y_step) != (1, 1):
            raise ValueError("a subsampled channel")
        if kind not in _TYPES:
            raise ValueError(f"pixel type {kind}")
        yield table[position:end].decode("latin-1"), np.dtype(_TYPES[kind])
        position = end + 17


def _planes(header: _Header, data: bytes) -> dict[str, NDArray[Any]]:
    lines = _LINES_A_BLOCK[header.compression]
    blocks = math.ceil(header.height / lines)
    # zlib shrinks by a factor of 1032 at most: a larger picture cannot be in the file.
    if header.height * header.line_bytes > min(1100 * len(data), LARGEST_BYTES):
        raise ValueError(f"no {header.width}x{header.height} pixels in {len(data)} bytes")
    rows = np.zeros((header.height, header.line_bytes), np.uint8)
    wanted_tops = set(range(0, header.height, lines))
    for offset in struct.unpack_from(f"<{blocks}Q", data, header.end):
        if offset > len(data) - 8:
            raise ValueError(f"a block at byte {offset} of {len(data)}")
        y, size = struct.unpack_from("<ii", data, offset)
        top = y - header.first_line
        if top not in wanted_tops or size < 0 or offset + 8 + size > len(data):
            raise ValueError(f"a block of {size} bytes for line {y}")
        wanted_tops.remove(top)
        count = min(lines, header.height - top)
        wanted = count * header.line_bytes
        content = _unpack(data[offset + 8 : offset + 8 + size], header.compression, wanted)
        if len(content) != wanted:
            raise ValueError(f"a block of {len(content)} bytes where {wanted} are wanted")
        rows[top : top + count] = np.frombuffer(content, np.uint8).reshape(count, -1)
    planes: dict[str, NDArray[Any]] = {}
    start = 0
    for name, dtype in header.channels:
        stop = start + header.width * dtype.itemsize
        plane = np.ascontiguousarray(rows[:, start:stop]).view(dtype)
        planes[name] = plane.astype(np.uint32 if dtype.kind == "u" else np.float32)
        start = stop
    return planes


def _unpack(block: bytes, compression: int, wanted: int) -> bytes:
    # A block that compression would not make smaller is stored as it is.
    if compression == 0 or len(block) == wanted:
        return block
    if compression == 1:
        packed = _run_lengths(block)
    else:
        packed = zlib.decompressobj().decompress(block, wanted + 1)
    if len(packed) != wanted:
        return packed
    steps = np.frombuffer(packed, np.uint8).copy()
    steps[1:] -= 128
    values = np.cumsum(steps, dtype=np.uint8)
    out = np.empty(wanted, np.uint8)
    half = (wanted + 1) // 2
    out[0::2], out[1::2] = values[:half], values[half:]
    return out.tobytes()


def _run_lengths(block: bytes) -> bytes:
    out, position = bytearray(), 0
    while position < len(block):
        count = block[position]
        if count > 127:
            out += block[position + 1 : position + 1 + 256 - count]
            position += 1 + 256 - count
        else:
            out += block[position + 1 : position + 2] * (count + 1)
            position += 2
    return bytes(out)
