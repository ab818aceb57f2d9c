"""Pictures of any usual kind in, pictures of the same depth out, and short films."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defocus_sim.datasets.formats.pictures import PICTURE_SUFFIXES, StoredPicture
from defocus_sim.datasets.formats.pictures import read_picture as read_stored_picture
from defocus_sim.errors import SourceError
from dfd_train.errors import PictureError

SUFFIXES = PICTURE_SUFFIXES
FILMS = ("gif", "mp4")


Picture = StoredPicture


def read_picture(path: Path) -> Picture:
    """The picture in the file `path`, as every other command reads it; see `formats.pictures.read_picture`.

    Raises `PictureError` naming a file that is missing, empty, truncated, no picture, or holds floating point numbers.
    """
    # A pipe would wait for ever, a device has no end.
    if path.exists() and not path.is_file():
        raise PictureError(f"{path} is no file")
    try:
        return read_stored_picture(path)
    except SourceError as error:
        raise PictureError(str(error)) from error


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
