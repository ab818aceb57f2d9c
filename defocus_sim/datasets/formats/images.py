"""Colour and depth files as arrays, and quick checks that a file is whole."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.formats.exr import exr_header, read_exr
from defocus_sim.datasets.formats.limits import check_picture, require_regular
from defocus_sim.datasets.formats.numpy_limits import check_numpy
from defocus_sim.datasets.formats.pgm import read_pgm
from defocus_sim.datasets.formats.pictures import (
    PICTURE_SUFFIXES,
    decoded_by_opencv,
    opened,
    picture_header,
    png_chunk,
    read_picture,
    told_orientation,
    upright_pixels,
    whole_file,
)
from defocus_sim.datasets.formats.tiff import FLOAT, MIN_IS_WHITE, PALETTE, TiffHeader, is_tiff, tiff_header
from defocus_sim.errors import SourceError

COLOUR_SUFFIXES = PICTURE_SUFFIXES
DEPTH_ONLY_SUFFIXES = frozenset({".npy", ".npz", ".exr", ".pfm", ".pgm"})
DEPTH_SUFFIXES = DEPTH_ONLY_SUFFIXES | {".png", ".tif", ".tiff"}
# Formats whose damage `whole_file` or the header shows; others have to be decoded to know.
CHECKED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".npy", ".npz", ".pfm", ".exr"})
# What NumPy raises for files that are no NumPy files, or damaged ones.
_NO_ARRAY = (OSError, ValueError, EOFError, KeyError, SyntaxError, MemoryError, tokenize.TokenError, zipfile.BadZipFile)


def read_colour(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB of a picture, see `read_picture`: 16 bit is reduced to 8, alpha is dropped."""
    pixels = read_picture(path).pixels
    # In whole numbers: 65535 / 255 is 257.
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def colour_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from its header only; raises `SourceError` where there is none."""
    return picture_header(path)[:2]


def read_depth_units(path: Path) -> NDArray[Any]:
    """(H, W) depth in the file's own number type and unit, upright.

    PNG, PGM, TIFF and PFM as they are stored, whatever their header says about how to show them; `.npy`; `.npz` with one
    array or one named `depth`; OpenEXR as in `read_exr`. What a PNG calls transparent and a TIFF no data is 0, a hole.
    Raises `SourceError` naming the file where it is damaged, has more than one channel or, of a TIFF, several pictures.
    """
    suffix = path.suffix.lower()
    if suffix == ".exr":
        depth = read_exr(path)
    elif suffix in (".npy", ".npz"):
        depth = _read_numpy(path)
    else:
        data = whole_file(path)
        check_picture(path, data)
        depth = _decoded_depth(path, data)
    if depth.ndim == 3 and 1 in (depth.shape[0], depth.shape[2]):
        depth = depth.squeeze(0 if depth.shape[0] == 1 else 2)
    if depth.ndim != 2 or depth.size == 0:
        raise SourceError(f"{path} has shape {depth.shape}: depth is one channel (H, W), not a coloured picture of it")
    if depth.dtype.kind not in "uif":
        raise SourceError(f"{path} holds {depth.dtype}: depth is integer or floating point numbers")
    return depth


def _decoded_depth(path: Path, data: bytes) -> NDArray[Any]:
    if data.startswith((b"P2", b"P5")):
        return read_pgm(path, data)
    if is_tiff(data):
        return _tiff_depth(path, data, _depth_tiff(path, data))
    with opened(path, data) as image:
        if len(image.getbands()) > 1 or image.mode == "P":
            raise SourceError(f"{path} is a coloured picture: depth is one channel of metric values")
        image.load()
        bits = data[24] if image.format == "PNG" else 8
        depth = np.array(image.convert("L") if image.mode == "1" else image)
        if bits < 8:
            # Pillow stretches fewer bits to eight.
            depth = depth // np.uint8(255 // (2**bits - 1))
        if image.format != "PNG":
            return depth
        clear = png_chunk(data, b"tRNS")
        if clear is not None:
            depth = np.where(depth == int.from_bytes(clear[:2], "big"), 0, depth).astype(depth.dtype)
        return upright_pixels(depth, told_orientation(png_chunk(data, b"eXIf")))


def _depth_tiff(path: Path, data: bytes) -> TiffHeader:
    header = tiff_header(path, data)
    if header.samples > 1 or header.photometric == PALETTE:
        raise SourceError(f"{path} is a coloured picture: depth is one channel of metric values")
    if header.pages > 1:
        raise SourceError(f"{path} holds {header.pages} pictures, of which one can be depth: save it alone")
    if header.bits < 8 or (header.sample_format == FLOAT and header.bits < 32):
        what = "floating point numbers" if header.sample_format == FLOAT else "integers"
        raise SourceError(f"{path} holds {what} of {header.bits} bit, which are not read: save it with 32 bit")
    if header.scale != 1:
        raise SourceError(
            f"{path} says that its numbers are to be multiplied by {header.scale:g} (its tag SCALE): save them so, or "
            f"remove the tag and give --depth-scale"
        )
    return header


def _tiff_depth(path: Path, data: bytes, header: TiffHeader) -> NDArray[Any]:
    if header.bits == 8 and header.sample_format != 2:
        # OpenCV does not know small tiles of 8 bit.
        with opened(path, data) as image:
            depth = np.array(image)
    else:
        depth = decoded_by_opencv(path, data)
    if header.bits == 8 and header.photometric == MIN_IS_WHITE:
        # Both decoders turn black and white of 8 bit around, which is for showing it.
        depth = ~depth
    if header.nodata is not None and (depth.dtype.kind == "f" or header.nodata == int(header.nodata)):
        depth = np.where(depth.astype(np.float64) == np.float64(depth.dtype.type(0) + header.nodata), 0, depth).astype(
            depth.dtype
        )
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
    with opened(path) as image:
        mode, channels, kind = image.mode, len(image.getbands()), image.format
    if kind == "TIFF":
        data = whole_file(path)
        header = _depth_tiff(path, data)
        return DepthHeader(*picture_header(path)[:2], integer=header.sample_format != FLOAT)
    if channels > 1 or mode == "P":
        raise SourceError(f"{path} is a coloured picture: depth is one channel of metric values")
    return DepthHeader(*picture_header(path)[:2], integer=mode != "F")


def resize_nearest(depth: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) of size `hw`: of every pixel the value of the cell that holds its centre. Nothing is averaged."""
    # OpenCV's nearest takes the cell of the pixel's corner, which shifts the map.
    rows = ((np.arange(hw[0]) + 0.5) * (depth.shape[0] / hw[0])).astype(np.intp)
    columns = ((np.arange(hw[1]) + 0.5) * (depth.shape[1] / hw[1])).astype(np.intp)
    return np.ascontiguousarray(depth[rows[:, None], columns])


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
