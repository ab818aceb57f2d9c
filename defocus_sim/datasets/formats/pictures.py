"""Pictures as cameras, telephones and programs write them, upright: one decoder for the header and the pixels of each.

Pillow reads them all; OpenCV where Pillow would cut 16 bits to 8, and the TIFFs that Pillow does not know.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from defocus_sim.datasets.formats.limits import UNREADABLE, check_picture, read_file, require_regular
from defocus_sim.datasets.formats.pgm import pgm_white, read_pgm
from defocus_sim.datasets.formats.tiff import FLOAT, MIN_IS_WHITE, is_tiff, tiff_header
from defocus_sim.errors import SourceError

PICTURE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pnm", ".gif",
    ".avif", ".jp2", ".heic", ".heif", ".hif",
})  # fmt: skip
_ORIENTATION = 274
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The next marker in a JPEG's coded data: neither a stuffed 0xff, nor a restart, nor a filling byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff\x01]")
_ALONE = (*range(0xD0, 0xD8), 0x01)
# Where an orientation wants the rows and columns: (transpose first, flip rows, flip columns).
_TURNS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StoredPicture:
    """A decoded picture, upright. `pixels` (H, W, 3) uint8 or uint16 sRGB; of a grey one three equal channels.

    `alpha` (H, W) of the same type, or None. `grey`: the file has no colour. `profile`: its ICC colour profile.
    `notes`: what was done to it, for people. `orientation`: how its file says it is to be turned (1: not at all).
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    grey: bool = False
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    orientation: int = 1


def read_picture(path: Path) -> StoredPicture:
    """The picture in the file: JPEG, PNG, TIFF, WebP, BMP, PNM, GIF, AVIF, JPEG 2000 or HEIC, of 8 or 16 bit.

    The content decides, not the name. The orientation of EXIF (or of a TIFF) is applied; one in XMP only is not, as no
    viewer does. Alpha is kept apart, grey is repeated, CMYK and palettes are converted, of several pictures the first is
    taken. Raises `SourceError` naming a file that is missing, empty, truncated, no picture, larger than
    `limits.LARGEST_PIXELS`, or holds floating point numbers.
    """
    data = whole_file(path)
    if data.startswith((b"P2", b"P5")):
        return _grey_map(path, data)
    if data[4:8] == b"ftyp" and b"avif" not in data[:32]:
        _register_heif(path)
    check_picture(path, data)
    with opened(path, data) as image:
        bits = _bits(path, data, image)
        return _deep(path, data, image) if bits == 16 else _shallow(data, image)


def picture_header(path: Path) -> tuple[int, int, int]:
    """Height and width of the upright picture and its orientation, from the header only; raises `SourceError`."""
    with path.open("rb") if path.is_file() else io.BytesIO() as stream:
        if stream.read(2) in (b"II", b"MM"):
            data = read_file(path)
            if is_tiff(data):
                header = tiff_header(path, data)
                turned = header.orientation in range(5, 9)
                height, width = (header.width, header.height) if turned else (header.height, header.width)
                return height, width, header.orientation
    with opened(path) as image:
        width, height = image.size
        orientation = _orientation(path, image)
    return (width, height, orientation) if orientation >= 5 else (height, width, orientation)


def upright_pixels(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`pixels` (H, W, ...) turned and mirrored as EXIF `orientation` (1 to 8) asks for."""
    transpose, rows, columns = _TURNS.get(orientation, (False, False, False))
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


@contextmanager
def opened(path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """The picture as Pillow sees it; what goes wrong with it, here or in the block, is a `SourceError`."""
    start = data[:32] if data is not None else _start(path)
    if not start:
        raise SourceError(f"{path} is empty")
    if start[4:8] == b"ftyp" and b"avif" not in start and b"avis" not in start:
        _register_heif(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd tags and goes on.
            warnings.simplefilter("ignore")
            with Image.open(path if data is None else io.BytesIO(data)) as image:
                yield image
    except UNREADABLE as error:
        if isinstance(error, SourceError):
            raise
        # Pillow's own words name the buffer that the file was read into.
        named = isinstance(error, UnidentifiedImageError) or data is None
        reason = type(error).__name__ if named else " ".join(str(error).split())
        raise SourceError(
            f"{path} is not a readable picture: truncated, damaged or of an unknown kind ({reason[:120]})"
        ) from error


def decoded_by_opencv(path: Path, data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any]:
    """The picture as it is stored. OpenCV's own lines on stderr are kept back: the error says it all."""
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


def whole_file(path: Path) -> bytes:
    """The content of a file; raises `SourceError` where it is empty, or a JPEG or PNG that is cut short or damaged."""
    data = read_file(path)
    if not data:
        raise SourceError(f"{path} is empty")
    # Older decoders fill the missing part of a truncated picture with grey and say nothing.
    if data.startswith(b"\xff\xd8") and not _jpeg_ends(data):
        raise SourceError(f"{path} is truncated: the JPEG has no end")
    if data.startswith(_SIGNATURE):
        for name, at, length in _png_chunks(data):
            if zlib.crc32(data[at - 4 : at + length]) != int.from_bytes(data[at + length : at + length + 4], "big"):
                raise SourceError(f"{path} is damaged: PNG chunk {name!r} has a wrong checksum")
            if name == b"IEND":
                return data
        raise SourceError(f"{path} is truncated: the PNG has no end")
    return data


def png_chunk(data: bytes, wanted: bytes) -> bytes | None:
    """The content of a PNG's chunk, before its pixels or behind them."""
    return next((data[at : at + length] for name, at, length in _png_chunks(data) if name == wanted), None)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of each chunk that is whole."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if position + 12 + length > len(data):
            return
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length


def _jpeg_ends(data: bytes) -> bool:
    """Whether the first picture of a JPEG file has its end, whatever follows it (more pictures, a film)."""
    position = 2
    while position + 2 <= len(data):
        if data[position] != 0xFF:
            # Rubbish between segments, which decoders pass over.
            found = _MARKER.search(data, position)
            if found is None:
                return False
            position = found.start()
        kind = data[position + 1]
        if kind == 0xD9:
            return True
        if kind == 0xFF:
            position += 1
        elif kind in _ALONE:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if kind == 0xDA:
                found = _MARKER.search(data, position)
                if found is None:
                    return False
                position = found.start()
    return False


def _start(path: Path) -> bytes:
    require_regular(path)
    try:
        with path.open("rb") as stream:
            return stream.read(32)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from error


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise SourceError(f"{path} is HEIC, which takes the extra heic: pip install 'dfd-toolkit[heic]'") from error
    pillow_heif.register_heif_opener()


def _orientation(path: Path, image: Image.Image) -> int:
    """That of EXIF, from the header; a PNG's may lie behind its pixels."""
    raw: Any = image.info.get("exif")
    if raw is None and image.format == "PNG":
        raw = png_chunk(read_file(path), b"eXIf")
    return told_orientation(raw)


def told_orientation(raw: Any) -> int:
    """The orientation in EXIF bytes, 1 where there is none, a damaged one, or one that does not exist."""
    if not isinstance(raw, bytes):
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        value = exif.get(_ORIENTATION, 1)
    except (*UNREADABLE, struct.error):
        return 1
    return int(value) if value in _TURNS else 1


def _bits(path: Path, data: bytes, image: Image.Image) -> int:
    """Bits of a channel, of which Pillow shows eight only."""
    if image.format == "PNG":
        return data[24]
    if is_tiff(data):
        header = tiff_header(path, data)
        if header.sample_format == FLOAT or header.bits > 16:
            what = "floating point" if header.sample_format == FLOAT else f"{header.bits}-bit"
            raise SourceError(f"{path} holds {what} numbers: a colour picture has 8 or 16 bit")
        return header.bits
    if image.mode == "F":
        raise SourceError(f"{path} holds floating point numbers: a colour picture has 8 or 16 bit")
    return 8


def _grey_map(path: Path, data: bytes) -> StoredPicture:
    check_picture(path, data)
    stored = read_pgm(path, data)
    largest = np.iinfo(stored.dtype).max
    grey = np.rint(stored * (largest / pgm_white(data))).astype(stored.dtype)
    return StoredPicture(pixels=np.repeat(grey[..., None], 3, axis=2), grey=True)


def _shallow(data: bytes, image: Image.Image) -> StoredPicture:
    notes: list[str] = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.append("first of several pages")
    tiff = image.format == "TIFF"
    orientation = _known(image.tag_v2.get(_ORIENTATION, 1)) if tiff else 1  # type: ignore[attr-defined]
    # A TIFF is upright once it is decoded.
    image.load()
    if not tiff:
        orientation = told_orientation(png_chunk(data, b"eXIf") if image.format == "PNG" else image.info.get("exif"))
    profile = image.info.get("icc_profile")
    transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    grey = image.mode in ("L", "LA", "1") or image.mode.startswith("I")
    if not grey and image.mode not in ("RGB", "RGBA"):
        notes.append(f"{'palette' if image.mode == 'P' else image.mode} converted to RGB")
        profile = profile if image.mode == "P" else None
    if image.mode.startswith("I"):
        # Pillow's wide modes are of 16 bit here: it has no others for pictures.
        wide = np.asarray(image).clip(0, 65535).astype(np.uint16)
        stored: NDArray[Any] = np.repeat(wide[..., None], 3, axis=2)
    elif image.mode == "L" and not transparent:
        # Not by Pillow, whose RGB takes four bytes a pixel.
        stored = np.repeat(np.asarray(image)[..., None], 3, axis=2)
    else:
        stored = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    return _picture(stored if tiff else upright_pixels(stored, orientation), grey, profile, notes, orientation)


def _deep(path: Path, data: bytes, image: Image.Image) -> StoredPicture:
    """16-bit PNG and TIFF."""
    tiff = is_tiff(data)
    if tiff and tiff_header(path, data).planes and tiff_header(path, data).samples > 1:
        # Either decoder mixes up planes of 16 bit unless they are asked for as a picture of 8.
        shown = decoded_by_opencv(path, data, cv2.IMREAD_COLOR)[..., ::-1]
        return _picture(shown, False, None, ["planes of 16 bit reduced to 8"], tiff_header(path, data).orientation)
    grey = image.mode in ("L", "LA", "1") or image.mode.startswith("I")
    stored = decoded_by_opencv(path, data)
    if stored.dtype != np.uint16:
        raise SourceError(f"{path} cannot be decoded as a 16-bit {image.format}: it is of an unusual kind")
    orientation = _known(tiff_header(path, data).orientation) if tiff else told_orientation(png_chunk(data, b"eXIf"))
    if stored.ndim == 2:
        if tiff and tiff_header(path, data).photometric == MIN_IS_WHITE:
            stored = np.uint16(65535) - stored
        pixels = np.repeat(stored[..., None], 3, axis=2)
    else:
        pixels = stored[..., [2, 1, 0, *range(3, stored.shape[2])]]
    # OpenCV turns a TIFF upright itself, a PNG it does not.
    turned = pixels if tiff else upright_pixels(pixels, orientation)
    return _picture(turned, grey, image.info.get("icc_profile"), [], orientation)


def _known(orientation: Any) -> int:
    return int(orientation) if orientation in _TURNS else 1


def _picture(
    pixels: NDArray[Any], grey: bool, profile: bytes | None, notes: list[str], orientation: int
) -> StoredPicture:
    alpha = None
    if pixels.shape[2] == 4:
        alpha = np.ascontiguousarray(pixels[..., 3])
        # An opaque channel is kept as well: whoever asked for four channels gets four back.
        notes.append("alpha kept")
    colour = np.ascontiguousarray(pixels[..., :3])
    return StoredPicture(
        pixels=colour, alpha=alpha, grey=grey, profile=profile, notes=tuple(notes), orientation=orientation
    )
