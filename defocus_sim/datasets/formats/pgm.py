"""Portable grey maps (PGM) as stored: picture readers rescale by the header's largest value, which spoils a depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import SourceError

# Magic, width, height, largest value; white space and comments between them, one white space before binary pixels.
_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADER = re.compile(
    rb"(P[25])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})(?:#[^\n\r]*[\n\r]|\s)"
)
_LARGEST = 65535


def read_pgm(path: Path, data: bytes) -> NDArray[Any]:
    """(H, W) uint8 or, where the largest value exceeds 255, uint16, of a text (P2) or binary (P5) grey map.

    Raises `SourceError` naming `path` where the header is none, pixels are missing, or one exceeds the largest value.
    """
    header = _HEADER.match(data)
    if header is None:
        raise SourceError(f"{path} is damaged: the PGM's header is not magic, width, height and largest value")
    width, height, largest = (int(number) for number in header.groups()[1:])
    if not (width and height and 0 < largest <= _LARGEST):
        raise SourceError(f"{path} is damaged: a PGM of {width}x{height} with the largest value {largest}")
    body, count = data[header.end() :], width * height
    kind = np.dtype(np.uint8 if largest < 256 else ">u2")
    if header[1] == b"P5":
        if len(body) < count * kind.itemsize:
            raise SourceError(
                f"{path} is truncated: {len(body)} of {count * kind.itemsize} bytes of its pixels are there"
            )
        values = np.frombuffer(body, kind, count)
    else:
        words = re.sub(rb"#[^\n\r]*", b"", body).split(maxsplit=count)[:count]
        if len(words) < count or not all(word.isdigit() for word in words):
            raise SourceError(f"{path} is damaged: not all of its {count} pixels are whole numbers")
        values = np.array([int(word) for word in words])
    if int(values.max()) > largest:
        raise SourceError(f"{path} is damaged: a pixel of {int(values.max())} exceeds the largest value {largest}")
    return values.astype(kind.newbyteorder("=")).reshape(height, width)


def pgm_white(data: bytes) -> int:
    """The largest value that the header of a grey map which `read_pgm` reads allows."""
    header = _HEADER.match(data)
    return int(header[4]) if header is not None else _LARGEST
