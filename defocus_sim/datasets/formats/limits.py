"""What a file may ask for, decided from its header and its size before any memory is taken."""

from __future__ import annotations

import stat
import struct
import warnings
from pathlib import Path

from PIL import Image

from defocus_sim.errors import SourceError

# 134 million: 2^27. The sensors of cameras end below.
LARGEST_PIXELS = 1 << 27
LARGEST_BYTES = 1 << 30
LARGEST_FILE_BYTES = 1 << 31
# No format of pictures packs this tightly, except for a plain area, which is small then.
MOST_PACKED, ALWAYS_ALLOWED_BYTES = 3000, 1 << 26
# The limits below take the place of Pillow's warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_NO_HEADER = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TAGS = {256: "width", 257: "height", 258: "bits", 277: "samples", 322: "tile_width", 323: "tile_height"}


def require_regular(path: Path) -> None:
    """Raise `SourceError` for a pipe, a device, a folder or a file larger than 2 GiB; a missing one is left to `open`."""
    try:
        facts = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(facts.st_mode):
        raise SourceError(f"{path} is not a file: a pipe, a device or a folder")
    if facts.st_size > LARGEST_FILE_BYTES:
        raise SourceError(f"{path} has {facts.st_size} bytes: a picture has {LARGEST_FILE_BYTES} at most")


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most 2 GiB; raises `SourceError` naming it."""
    require_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from error


def check_decoded(path: Path, pixels: int, pixel_bytes: float, file_bytes: int) -> None:
    """Raise `SourceError` where a picture would have too many pixels, or more than its file can hold."""
    if pixels > LARGEST_PIXELS:
        raise SourceError(f"{path} declares {pixels} pixels: {LARGEST_PIXELS} are read at most")
    decoded = pixels * pixel_bytes
    if decoded > max(MOST_PACKED * file_bytes, ALWAYS_ALLOWED_BYTES) or decoded > LARGEST_BYTES:
        raise SourceError(
            f"{path} declares {decoded:.0f} bytes of pixels in a file of {file_bytes} bytes: it is refused"
        )


def check_picture(path: Path, data: bytes) -> None:
    """Raise `SourceError` where the header in `data` declares more than is allowed, or there is none."""
    if data[:4] in _TIFF_MAGIC:
        _check_tiff(path, data)
        return
    if data[:2] in (b"Pf", b"PF"):
        _check_pfm(path, data)
        return
    if data.startswith(b"\x89PNG") and len(data) > 26:
        width, height = struct.unpack_from(">II", data, 16)
        # 16 bit and four channels at most.
        check_decoded(path, width * height, 8 if data[24] == 16 else 4, len(data))
        return
    try:
        # By path: Pillow reads as much as the header needs.
        with Image.open(path) as image:
            (width, height), bands = image.size, len(image.getbands())
    except _NO_HEADER as error:
        raise SourceError(f"{path} cannot be decoded as a picture: it is damaged or of an unknown kind") from error
    check_decoded(path, width * height, bands, len(data))


def _check_pfm(path: Path, data: bytes) -> None:
    words = data[:256].split()
    try:
        width, height = int(words[1]), int(words[2])
    except (ValueError, IndexError) as error:
        raise SourceError(f"{path} cannot be decoded as a picture: its header is damaged") from error
    pixel_bytes = 12 if data[:2] == b"PF" else 4
    # Stored as they are.
    if width < 1 or height < 1 or width * height * pixel_bytes > len(data):
        raise SourceError(f"{path} declares {width}x{height} pixels, more than its {len(data)} bytes hold")


def _check_tiff(path: Path, data: bytes) -> None:
    try:
        found = _tiff_tags(data)
        width, height = found["width"], found["height"]
    except (struct.error, KeyError, ValueError) as error:
        raise SourceError(f"{path} cannot be decoded as a picture: its TIFF header is damaged") from error
    samples, bits = found.get("samples", 1), found.get("bits", 1)
    if samples > 64 or bits > 64:
        raise SourceError(f"{path} declares {samples} channels of {bits} bits: it is refused")
    pixel_bytes = samples * max(bits, 8) / 8
    check_decoded(path, width * height, pixel_bytes, len(data))
    tile = found.get("tile_width", 0) * found.get("tile_height", 0)
    if tile * pixel_bytes > max(4 * width * height * pixel_bytes, ALWAYS_ALLOWED_BYTES):
        raise SourceError(f"{path} declares tiles of {tile} pixels for {width}x{height}: it is refused")


def _tiff_tags(data: bytes) -> dict[str, int]:
    """Those of the first directory that decide on memory, TIFF and BigTIFF; of several values the largest."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:3] == b"+" or data[3:4] == b"+"
    (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)
    at += 8 if big else 2
    entry = f"{order}HHQ" if big else f"{order}HHI"
    place, step = (12, 20) if big else (8, 12)
    if count > len(data) // step:
        raise ValueError("more entries than the file holds")
    found: dict[str, int] = {}
    for start in range(at, at + count * step, step):
        tag, kind, values = struct.unpack_from(entry, data, start)
        if tag not in _TAGS:
            continue
        letter = {1: "B", 3: "H", 4: "I", 16: "Q"}[kind]
        size = struct.calcsize(f"={letter}") * values
        where = start + place
        if size > (8 if big else 4):
            (where,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, where)
        if values < 1 or size > len(data):
            raise ValueError("no value")
        found[_TAGS[tag]] = max(struct.unpack_from(f"{order}{values}{letter}", data, where))
    return found
