"""What a file may ask for, decided from its header and its size before any memory is taken."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image

from defocus_sim.datasets.formats.tiff import is_tiff, tiff_header
from defocus_sim.errors import SourceError

# 268 million: 2^28. The sensors of cameras and telephones end at 200 million.
LARGEST_PIXELS = 1 << 28
LARGEST_BYTES = 1 << 30
LARGEST_FILE_BYTES = 1 << 31
# No format of pictures packs this tightly, except for a plain area, which is small then.
MOST_PACKED, ALWAYS_ALLOWED_BYTES = 3000, 1 << 26
# The limits of this file take the place of Pillow's, which refuses a telephone's 200 megapixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, LARGEST_PIXELS)
# What Pillow raises for files that are none of its own, damaged ones, and those that are larger still.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
    struct.error, zlib.error, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


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
        raise SourceError(f"{path} is larger than {LARGEST_PIXELS // 10**6} megapixels: it declares {pixels} pixels")
    decoded = pixels * pixel_bytes
    if decoded > max(MOST_PACKED * file_bytes, ALWAYS_ALLOWED_BYTES) or decoded > LARGEST_BYTES:
        raise SourceError(
            f"{path} declares {decoded:.0f} bytes of pixels in a file of {file_bytes} bytes: it is refused"
        )


def check_picture(path: Path, data: bytes) -> None:
    """Raise `SourceError` where the header in `data` declares more than is allowed, or there is none."""
    if is_tiff(data):
        _check_tiff(path, data)
        return
    if data[:2] in (b"Pf", b"PF"):
        _check_pfm(path, data)
        return
    if data.startswith(b"\x89PNG") and len(data) > 26:
        width, height = struct.unpack_from(">II", data, 16)
        check_decoded(path, width * height, _PNG_CHANNELS.get(data[25], 4) * (2 if data[24] == 16 else 1), len(data))
        return
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            (width, height), bands = image.size, len(image.getbands())
    except UNREADABLE as error:
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
    header = tiff_header(path, data)
    if header.samples > 64 or header.bits > 64:
        raise SourceError(f"{path} declares {header.samples} channels of {header.bits} bits: it is refused")
    pixels, pixel_bytes = header.width * header.height, header.samples * max(header.bits, 8) / 8
    check_decoded(path, pixels, pixel_bytes, len(data))
    if header.tile_pixels * pixel_bytes > max(4 * pixels * pixel_bytes, ALWAYS_ALLOWED_BYTES):
        raise SourceError(
            f"{path} declares tiles of {header.tile_pixels} pixels for {header.width}x{header.height}: it is refused"
        )
