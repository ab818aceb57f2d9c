"""Pictures of any usual kind in, pictures of the same depth out, and short films."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dfd_train.errors import PictureError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm"})
FILMS = ("gif", "mp4")
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _ORIENTATION = 258, 339, 274
_FLOAT_FORMAT = 3
# What Pillow raises on empty, truncated, foreign and oversized files.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
# Where an EXIF orientation wants the rows and columns: (transpose first, flip rows, flip columns).
_TURNS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture, upright. `pixels` (H, W, 3) uint8 or uint16 sRGB; of a grey one three equal channels.

    `alpha` (H, W) of the same type, or None. `grey`: the file had no colour. `profile`: its ICC colour profile.
    `notes`: what was done to it, for people ("CMYK converted to RGB").
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    grey: bool = False
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: Path) -> Picture:
    """The picture in the file `path`: JPEG, PNG, TIFF, WebP, BMP or PPM with 8 bit, PNG or TIFF with 16.

    The content decides, not the name. The EXIF orientation is applied. Alpha is kept apart, grey is repeated, CMYK and
    palettes are converted, of several pages the first is taken. Raises `PictureError` naming a file that is missing,
    empty, truncated, no picture, or holds floating point numbers.
    """
    try:
        # A pipe would wait for ever, a device has no end.
        if path.exists() and not path.is_file():
            raise PictureError(f"{path} is no file")
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise PictureError(f"{path} is empty (0 bytes)")
    try:
        # Pillow warns of large pictures and odd tags; the limit beyond which it refuses stands.
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            return _read_deep(path, data, image) if _bits(image, data) == 16 else _read_shallow(image)
    except _UNREADABLE as error:
        known = "" if isinstance(error, UnidentifiedImageError) else f" ({' '.join(str(error).split())})"
        raise PictureError(f"{path} is not a readable picture: truncated, damaged or of another kind{known}") from error


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a channel, of which Pillow shows eight only."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        if _FLOAT_FORMAT in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)) or image.mode == "F":
            raise ValueError("floating point numbers; save it with 8 or 16 bit")
        return int(max(np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 8))))
    return 16 if image.mode.startswith("I") else 8


def _read_shallow(image: Image.Image) -> Picture:
    notes: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first of several pages")
    profile = image.info.get("icc_profile")
    transparent = "A" in image.getbands() or "transparency" in image.info
    grey = image.mode in ("L", "LA", "1")
    if not grey and image.mode not in ("RGB", "RGBA"):
        notes.append(f"{'palette' if image.mode == 'P' else image.mode} converted to RGB")
        profile = profile if image.mode == "P" else None
    upright = ImageOps.exif_transpose(image)
    pixels = np.asarray(upright.convert("RGBA" if transparent else "RGB"))
    return _picture(pixels, grey, profile, notes)


def _read_deep(path: Path, data: bytes, image: Image.Image) -> Picture:
    """16-bit PNG and TIFF through OpenCV, as Pillow would cut them to 8."""
    grey = image.mode in ("L", "LA", "1") or image.mode.startswith("I")
    # OpenCV turns a TIFF upright itself, a PNG it does not.
    turn = 1 if image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        stored: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        stored = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if stored is None or stored.dtype != np.uint16:
        raise PictureError(f"{path} cannot be decoded as a 16-bit {image.format}: it is damaged or of an unusual kind")
    if stored.ndim == 2:
        pixels = np.repeat(stored[..., None], 3, axis=2)
    else:
        pixels = stored[..., [2, 1, 0, *range(3, stored.shape[2])]]
    return _picture(upright_pixels(pixels, turn), grey, image.info.get("icc_profile"), [])


def upright_pixels(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`pixels` (H, W, ...) turned and mirrored as EXIF `orientation` (1 to 8) asks for."""
    transpose, rows, columns = _TURNS.get(orientation, (False, False, False))
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def _picture(pixels: NDArray[Any], grey: bool, profile: bytes | None, notes: list[str]) -> Picture:
    alpha = None
    if pixels.shape[2] == 4:
        alpha = np.ascontiguousarray(pixels[..., 3])
        # An opaque channel is kept as well: whoever asked for four channels gets four back.
        notes.append("alpha kept")
    colour = np.ascontiguousarray(pixels[..., :3])
    return Picture(pixels=colour, alpha=alpha, grey=grey, profile=profile, notes=tuple(notes))


def png_bytes(pixels: NDArray[Any], *, like: Picture | None = None) -> bytes:
    """`pixels` (H, W) or (H, W, 3) RGB, uint8 or uint16, as PNG; grey, alpha and colour profile as those of `like`."""
    if like is not None and like.grey:
        pixels = np.rint(pixels.mean(axis=2)).astype(pixels.dtype)
        if like.alpha is not None:
            # PNG has grey with alpha, OpenCV's writer has not.
            pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]
    if like is not None and like.alpha is not None:
        pixels = np.concatenate([pixels, like.alpha[..., None]], axis=2)
    data: bytes = cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()
    if like is None or like.profile is None or like.grey:
        return data
    body = b"iCCPicc\0\0" + zlib.compress(like.profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    # Behind the signature (8 bytes) and the header chunk (25).
    return data[:33] + chunk + data[33:]


def gif_bytes(frames: Sequence[NDArray[np.uint8]], *, frame_ms: int = 80) -> bytes:
    """`frames` (H, W, 3) RGB of one size as a GIF that repeats for ever."""
    stream = io.BytesIO()
    # One palette for all, or the colours of what does not change would flicker.
    palette = Image.fromarray(np.concatenate(frames[:: max(len(frames) // 4, 1)])).quantize(256)
    first, *others = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for f in frames]
    first.save(stream, "GIF", save_all=True, append_images=others, duration=frame_ms, loop=0)
    return stream.getvalue()


def write_mp4(path: Path, frames: Sequence[NDArray[np.uint8]], *, frame_ms: int = 80) -> None:
    """Write `frames` (H, W, 3) RGB of one size as an MP4 (MPEG-4 part 2); an odd last row or column is cut off.

    Raises `PictureError` where it cannot be written.
    """
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 1000 / frame_ms, (width, height))
    try:
        if not writer.isOpened():
            raise PictureError(f"{path} cannot be written as MP4: no encoder, or the folder is not writable; use gif")
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[:height, :width, ::-1]))
    finally:
        writer.release()


def find_pictures(wanted: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files that `wanted` (files, folders, glob patterns) names, and one line for each entry that names none.

    Of a folder the pictures directly inside, by their suffix; a file is taken whatever its name. Every file once.
    """
    files: dict[Path, None] = {}
    problems = []
    for text in wanted:
        try:
            found, problem = _found(text)
        except (OSError, ValueError) as error:
            # A name that is too long or has a NUL, a folder that may not be read.
            found, problem = [], f"{text[:200]} cannot be looked up: {getattr(error, 'strerror', None) or error}"
        problems += [problem] if problem else []
        files |= dict.fromkeys(found)
    return list(files), problems


def _found(text: str) -> tuple[list[Path], str]:
    """Files that `text` names, and what is wrong where there is none."""
    path = Path(text)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        return found, "" if found else f"{text} is a folder without pictures ({', '.join(sorted(SUFFIXES))})"
    if path.exists():
        return [path], ""
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    pattern = str(path.relative_to(anchor)) if path.is_absolute() else text
    found = sorted(p for p in anchor.glob(pattern) if p.is_file()) if any(c in text for c in "*?[") else []
    return found, "" if found else f"{text} not found: no such file, folder or pattern"


def output_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's results: its stem, with its suffix ("a_jpg") and then a number where that is taken."""
    stems = [path.stem for path in files]
    names: list[str] = []
    for path, stem in zip(files, stems, strict=True):
        base = stem if stems.count(stem) == 1 else f"{stem}_{path.suffix.lstrip('.')}"
        name, number = base, 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names
