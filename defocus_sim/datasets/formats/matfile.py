"""One numeric array out of a MATLAB version 5 file (written by `save -v6`, `-v7` and older).

Not `scipy.io.loadmat`: on damaged files it can end the process (a segmentation fault; found by flipping bytes), and one
bad file among hundreds has to become an error that names it. Layout: MathWorks, "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.formats.limits import read_file
from defocus_sim.errors import SourceError

_HEADER_BYTES = 128
_MI_MATRIX, _MI_COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# mxDOUBLE_CLASS .. mxUINT64_CLASS: arrays of numbers; below are cells, structures, objects, text and sparse ones.
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX_FLAG = 0x0800
# Grids and lists of frames take kilobytes.
_LARGEST_BYTES = 1 << 26


def read_matrix(path: Path, name: str) -> NDArray[Any]:
    """Variable `name` of the file in its stored number type and MATLAB's order of axes.

    Raises `SourceError`, naming the file, where it is not a version 5 file, is truncated or damaged, has no such
    variable or holds something else than real numbers there.
    """
    data = read_file(path)
    try:
        return _find(data, name)
    except (ValueError, struct.error, zlib.error) as error:
        raise SourceError(f"{path}: {error}") from error


def _find(data: bytes, name: str) -> NDArray[Any]:
    order = _byte_order(data)
    seen = []
    for kind, body in _elements(data, _HEADER_BYTES, order):
        if kind == _MI_COMPRESSED:
            body = _inflate(body)
            (kind, body), *_ = _elements(body, 0, order)
        if kind != _MI_MATRIX:
            continue
        parts = _elements(body, 0, order)
        flags, dimensions, label = (next(parts, (0, b""))[1] for _ in range(3))
        seen.append(label.decode("latin-1").encode("unicode_escape").decode())
        if seen[-1] == name:
            return _array(name, flags, dimensions, next(parts, (0, b"")), order)
    raise ValueError(f"has no variable {name!r} (it holds {', '.join(seen) or 'nothing'})")


def _byte_order(data: bytes) -> str:
    if data.startswith(b"\x89HDF") or data[:20].startswith(b"MATLAB 7.3"):
        raise ValueError("is a MATLAB 7.3 (HDF5) file, version 5 is wanted")
    marks = {b"IM": "<", b"MI": ">"}
    if len(data) < _HEADER_BYTES or data[126:128] not in marks:
        raise ValueError("is not a MATLAB version 5 file")
    return marks[data[126:128]]


def _elements(data: bytes, start: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the data elements from byte `start` on."""
    while start + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        if kind >> 16:  # Up to four bytes are packed into the tag itself.
            kind, size, body, step = kind & 0xFFFF, kind >> 16, start + 4, 8
        else:
            body, step = start + 8, 8 + size + (-size % 8 if kind != _MI_COMPRESSED else 0)
        if body + size > len(data) or (step == 8 and body == start + 4 and size > 4):
            raise ValueError(
                f"is truncated or damaged: an element of {size} bytes begins at byte {start} of {len(data)}"
            )
        yield kind, data[body : body + size]
        start += step


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(body, _LARGEST_BYTES)
    if not inflater.eof:
        raise ValueError(f"is damaged: a compressed variable has no end (or exceeds {_LARGEST_BYTES >> 20} MB)")
    if len(content) < 8:
        raise ValueError("is damaged: a compressed variable is empty")
    return content


def _array(name: str, flags: bytes, dimensions: bytes, real: tuple[int, bytes], order: str) -> NDArray[Any]:
    if len(flags) != 8 or len(dimensions) < 8 or len(dimensions) % 4:
        raise ValueError(f"is damaged: variable {name!r} has no proper header")
    (word,) = struct.unpack_from(f"{order}I", flags)
    kind, content = real
    if word & 0xFF not in _NUMERIC_CLASSES or word & _COMPLEX_FLAG or kind not in _NUMBERS:
        raise ValueError(f"variable {name!r} is not an array of real numbers")
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    dtype = np.dtype(order + _NUMBERS[kind])
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"is damaged: variable {name!r} of shape {shape} has {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F").astype(dtype.newbyteorder("="))
