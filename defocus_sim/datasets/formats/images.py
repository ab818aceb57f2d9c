"""Decoding of colour and depth pictures, and quick checks that a file is whole."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defocus_sim.datasets.formats.exr import exr_header, read_exr
from defocus_sim.datasets.formats.limits import check_picture, read_file, require_regular
from defocus_sim.datasets.formats.numpy_limits import check_numpy
from defocus_sim.datasets.formats.pgm import pgm_white, read_pgm
from defocus_sim.errors import SourceError

COLOUR_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
DEPTH_ONLY_SUFFIXES = frozenset({".npy", ".npz", ".exr", ".pfm", ".pgm"})
DEPTH_SUFFIXES = DEPTH_ONLY_SUFFIXES | {".png", ".tif", ".tiff"}
# Formats whose damage `check_whole` or the header shows; others have to be decoded to know.
CHECKED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".npy", ".npz", ".pfm"})
_NO_HEADER = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
# What NumPy raises for files that are no NumPy files, or damaged ones.
_NO_ARRAY = (OSError, ValueError, EOFError, KeyError, SyntaxError, MemoryError, tokenize.TokenError, zipfile.BadZipFile)
_ORIENTATION_TAG = 0x0112
_TURNED = range(5, 9)


def read_colour(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB of a picture, upright as its EXIF orientation says.

    Grey becomes three equal channels, CMYK is converted, 16 bit is reduced to 8, alpha is dropped. The largest value of a
    PPM or PGM is white. Raises `SourceError` naming the file where it is truncated, damaged, no
    picture, or holds floating point numbers.
    """
    data = _whole(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        stored = _decode(path, data, cv2.IMREAD_UNCHANGED)
        if stored.dtype not in (np.uint8, np.uint16):
            raise SourceError(f"{path} holds {stored.dtype} numbers: a colour picture has 8 or 16 bit")
    if data.startswith(b"P3") or (data.startswith(b"P6") and not _full_range(path, data)):
        return _pixmap(path, data)
    if data.startswith((b"P2", b"P5")):
        check_picture(path, data)
        grey = read_pgm(path, data)
        return np.repeat(np.rint(grey * (255 / pgm_white(data))).astype(np.uint8)[..., None], 3, axis=2)
    image = _decode(path, data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def colour_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from its header only; raises `SourceError` where there is none."""
    require_regular(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow decodes a whole PNG to look for an orientation behind its pixels, where nobody writes one.
            told = image.format != "PNG" or "exif" in image.info
            turned = told and image.getexif().get(_ORIENTATION_TAG, 1) in _TURNED
    except _NO_HEADER as error:
        raise SourceError(f"{path} is not a picture ({type(error).__name__})") from error
    return (width, height) if turned else (height, width)


def read_depth_units(path: Path) -> NDArray[Any]:
    """(H, W) depth in the file's own number type and unit.

    PNG, PGM, TIFF and PFM as they are stored; `.npy`; `.npz` with one array or one named `depth`; OpenEXR as in
    `read_exr`. Raises `SourceError` naming the file where it is damaged or has more than one channel.
    """
    suffix = path.suffix.lower()
    if suffix == ".exr":
        depth = read_exr(path)
    elif suffix in (".npy", ".npz"):
        depth = _read_numpy(path)
    else:
        data = _whole(path)
        if data.startswith((b"P2", b"P5")):
            check_picture(path, data)
            depth = read_pgm(path, data)
        else:
            depth = _float_map(path, data) if data.startswith(b"Pf") else _decode(path, data, cv2.IMREAD_UNCHANGED)
    if depth.ndim == 3 and 1 in (depth.shape[0], depth.shape[2]):
        depth = depth.squeeze(0 if depth.shape[0] == 1 else 2)
    if depth.ndim != 2 or depth.size == 0:
        raise SourceError(f"{path} has shape {depth.shape}: depth is one channel (H, W), not a coloured picture of it")
    if depth.dtype.kind not in "uif":
        raise SourceError(f"{path} holds {depth.dtype}: depth is integer or floating point numbers")
    return depth


class DepthHeader(NamedTuple):
    """Size of a depth file, and whether it holds integers."""

    height: int
    width: int
    integer: bool


def depth_header(path: Path) -> DepthHeader:
    """What a depth file holds, without decoding its pixels where the format allows.

    Raises `SourceError` where it is no such file or a coloured picture.
    """
    suffix = path.suffix.lower()
    if suffix == ".exr":
        return DepthHeader(*exr_header(path))
    if suffix in (".npy", ".npz", ".pfm"):
        depth = read_depth_units(path)
        return DepthHeader(depth.shape[0], depth.shape[1], integer=depth.dtype.kind != "f")
    require_regular(path)
    try:
        with Image.open(path) as image:
            (width, height), mode, channels = image.size, image.mode, len(image.getbands())
    except _NO_HEADER as error:
        raise SourceError(f"{path} is not a picture ({type(error).__name__})") from error
    if channels > 1 or mode == "P":
        raise SourceError(f"{path} is a coloured picture: depth is one channel of metric values")
    return DepthHeader(height, width, integer=mode != "F")


def resize_nearest(depth: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) of size `hw`: of every pixel the value of the cell that holds its centre. Nothing is averaged."""
    # OpenCV's nearest takes the cell of the pixel's corner, which shifts the map.
    rows = ((np.arange(hw[0]) + 0.5) * (depth.shape[0] / hw[0])).astype(np.intp)
    columns = ((np.arange(hw[1]) + 0.5) * (depth.shape[1] / hw[1])).astype(np.intp)
    return np.ascontiguousarray(depth[rows[:, None], columns])


def check_whole(path: Path) -> None:
    """Raises `SourceError` where the file is empty, a JPEG or PNG without its end, or a PNG with a wrong checksum."""
    _whole(path)


def _whole(path: Path) -> bytes:
    data = read_file(path)
    if not data:
        raise SourceError(f"{path} is empty")
    # Older decoders fill the missing part of a truncated picture with grey and say nothing.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise SourceError(f"{path} is truncated: the JPEG has no end")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data, path)
    return data


def _check_png(data: bytes, path: Path) -> None:
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        body = data[position + 4 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4:
            break
        if zlib.crc32(body) != int.from_bytes(checksum, "big"):
            raise SourceError(f"{path} is damaged: PNG chunk {body[:4]!r} has a wrong checksum")
        if body[:4] == b"IEND":
            return
        position += 12 + length
    raise SourceError(f"{path} is truncated: the PNG has no end")


def _decode(path: Path, data: bytes, flags: int) -> NDArray[Any]:
    """The decoded picture. OpenCV's own lines on stderr are kept back: the error says it all."""
    check_picture(path, data)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise SourceError(f"{path} cannot be decoded as a picture: it is damaged or of an unknown kind")
    return image


def _full_range(path: Path, data: bytes) -> bool:
    """Whether a binary PPM's largest value is that of its number type, which OpenCV takes every PPM to have."""
    header = b" ".join(line.partition(b"#")[0] for line in data[2:4096].splitlines()).split(maxsplit=3)
    if len(header) < 3 or not header[2].isdigit():
        raise SourceError(f"{path} is damaged: the PPM's header has no largest value")
    return int(header[2]) in (255, 65535)


def _pixmap(path: Path, data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) of a PPM whose largest value is white: Pillow scales by it, OpenCV does not, nor reads all that is text."""
    check_picture(path, data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"), np.uint8)
    except _NO_HEADER as error:
        raise SourceError(f"{path} cannot be decoded as a picture: {error}") from error


def _float_map(path: Path, data: bytes) -> NDArray[np.float32]:
    """(H, W) of a PFM as stored: OpenCV divides by the header's scale, of which only the sign says how to read."""
    check_picture(path, data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image, np.float32)
    except _NO_HEADER as error:
        raise SourceError(f"{path} cannot be decoded as a picture: {error}") from error


def _read_numpy(path: Path) -> NDArray[Any]:
    require_regular(path)
    try:
        # Opened here, so that it is closed where NumPy fails halfway.
        with path.open("rb") as stream:
            check_numpy(path, stream)
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            names = content.files
            if "depth" in names or len(names) == 1:
                return np.asarray(content["depth" if "depth" in names else names[0]])
    except (*_NO_ARRAY, zlib.error) as error:
        raise SourceError(f"{path} cannot be read as a NumPy file ({type(error).__name__})") from error
    raise SourceError(f"{path} holds {', '.join(names) or 'no array'}: one array, or one named 'depth', is wanted")
