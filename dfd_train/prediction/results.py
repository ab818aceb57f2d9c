"""Pictures to look at: depth and its uncertainty with a bar, and a sheet of before and after."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, ImageFont

from defocus_sim.pictures.depth_colours import DEPTH_MAP, depth_colours, error_colours

# Pictures to look at are reduced to this.
LONGEST_PX = 1600
_SHEET_CELL_PX, _GAP_PX, _LABEL_PX = 760, 8, 26
_INK, _PAPER = (235, 235, 235), (24, 26, 29)
_DETAIL_SHARE, _SMALLEST_DETAIL_PX = 0.16, 48
_TICKS = 6
Picture = NDArray[np.uint8]


def colour_depth(nearness: Picture) -> Picture:
    """`nearness` (...,) uint8, 255 = nearest, as RGB (..., 3) uint8."""
    row = cv2.applyColorMap(nearness.reshape(1, -1), DEPTH_MAP)[0, :, ::-1]
    return np.asarray(row, np.uint8).reshape(*nearness.shape, 3)


def depth_picture(depth_m: NDArray[np.float32], *, unit_m: float = 1.0, unit: str = "m") -> Picture:
    """`depth_m` (H, W) in colours that are even in 1/distance, as blur is, with a bar; (h, w, 3) uint8 RGB.

    From the 1st to the 99th percentile; at most 1600 pixels. `unit_m`: metres of what the bar counts in, named `unit`.
    """
    small = reduced(depth_m, LONGEST_PX, cv2.INTER_NEAREST_EXACT)
    nearness = 1 / np.maximum(small.astype(np.float64), 1e-3)
    far, near = (float(v) for v in np.percentile(nearness, (1, 99)))
    near = max(near, far * 1.001)
    picture = depth_colours(small, 1 / near, 1 / far, np.ones(small.shape, bool))
    at = [1 / (near + (far - near) * share) / unit_m for share in np.linspace(0, 1, _TICKS)]
    column = np.linspace(255, 0, small.shape[0]).round().astype(np.uint8)
    return _with_bar(picture, colour_depth(column), [f"{_digits(v)} {unit}" for v in at])


def uncertainty_bound_m(sigma_m: NDArray[np.float32]) -> float:
    """The uncertainty that its picture shows as the brightest: the 98th percentile, in metres."""
    return max(float(np.percentile(sigma_m, 98)), 1e-4)


def uncertainty_picture(sigma_m: NDArray[np.float32], *, unit_m: float = 1.0, unit: str = "m") -> Picture:
    """`sigma_m` (H, W) from 0 to `uncertainty_bound_m` with a bar; (h, w, 3) uint8 RGB, at most 1600 pixels."""
    small, bound = reduced(sigma_m, LONGEST_PX, cv2.INTER_AREA), uncertainty_bound_m(sigma_m)
    column = np.linspace(bound, 0, small.shape[0])[:, None]
    at = [bound * share / unit_m for share in np.linspace(1, 0, _TICKS)]
    bright, bar = (error_colours(a, bound, np.ones(a.shape, bool)) for a in (small, column))
    return _with_bar(bright, bar[:, 0], [f"± {_digits(v)} {unit}" for v in at])


def contact_sheet(before: NDArray[Any], after: NDArray[Any] | None, others: Sequence[tuple[str, Picture]]) -> Picture:
    """Before and after, the detail that changed most of both, enlarged, and `others` (caption, picture); RGB uint8."""
    cells = [("photograph", to_eight_bit(before))]
    if after is not None:
        first, second = to_eight_bit(before), to_eight_bit(after)
        at = _most_changed(first, second)
        cells += [("restored", second), ("photograph, a detail", first[at]), ("restored, the same detail", second[at])]
    cells += others
    tiles = [_cell(caption, picture) for caption, picture in cells]
    if len(tiles) % 2:
        tiles.append(np.full_like(tiles[-1], _PAPER))
    rows = []
    for left, right in zip(tiles[::2], tiles[1::2], strict=True):
        height = max(len(left), len(right)) + _GAP_PX
        rows.append(np.concatenate([_filled(left, height), _filled(right, height)], axis=1))
    return np.concatenate(rows)


def to_eight_bit(picture: NDArray[Any]) -> Picture:
    """uint8, uint16 or floating in [0, 1], (H, W) or (H, W, 3), as (H, W, 3) uint8."""
    eight = picture
    if picture.dtype == np.uint16:
        eight = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif picture.dtype.kind == "f":
        eight = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2) if eight.ndim == 2 else eight


def as_srgb(picture: NDArray[Any], profile: bytes | None) -> Picture:
    """`picture` in 8 bit, its numbers converted from its ICC `profile`; one that cannot be used counts as sRGB."""
    eight = to_eight_bit(picture)
    if profile is None:
        return eight
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        image = ImageCms.profileToProfile(Image.fromarray(eight), source, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return eight
    return eight if image is None else np.asarray(image, np.uint8)


def reduced(array: NDArray[Any], longest: int, how: int = cv2.INTER_AREA) -> NDArray[Any]:
    """`array` (H, W, ...) with its longer side at most `longest` pixels."""
    share = longest / max(array.shape[:2])
    if share >= 1:
        return array
    size = (max(round(array.shape[1] * share), 1), max(round(array.shape[0] * share), 1))
    return np.asarray(cv2.resize(array, size, interpolation=how))


def _with_bar(picture: Picture, column: Picture, labels: Sequence[str]) -> Picture:
    """`picture` with `column` (H, 3), stretched to a bar, and `labels` from its top to its bottom on the right."""
    height, width = picture.shape[:2]
    size = max(12, round(max(height, width) / 50))
    font = ImageFont.load_default(size)
    bar = size
    room = bar + size // 2 + 4 + int(max(font.getlength(text) for text in labels)) + size // 2
    side = Image.new("RGB", (room, height), _PAPER)
    side.paste(Image.fromarray(np.repeat(column[:, None], bar, axis=1)), (size // 2, 0))
    draw = ImageDraw.Draw(side)
    # As many as fit.
    keep = max(1, -(-len(labels) * size * 3 // (2 * height)))
    for k, text in list(enumerate(labels))[::keep]:
        y = k * (height - 1) / (len(labels) - 1)
        anchor = "lt" if k == 0 else "lb" if k == len(labels) - 1 else "lm"
        draw.text((size // 2 + bar + 4, y), text, fill=_INK, font=font, anchor=anchor)
    return np.concatenate([picture, np.asarray(side, np.uint8)], axis=1)


def _cell(caption: str, picture: Picture) -> Picture:
    share = _SHEET_CELL_PX / picture.shape[1]
    size = (_SHEET_CELL_PX, max(round(picture.shape[0] * share), 1))
    shown = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC)
    head = Image.new("RGB", (_SHEET_CELL_PX, _LABEL_PX), _PAPER)
    draw = ImageDraw.Draw(head)
    draw.text((6, _LABEL_PX / 2), caption, fill=_INK, font=ImageFont.load_default(15), anchor="lm")
    return np.concatenate([np.asarray(head, np.uint8), np.asarray(shown, np.uint8)])


def _filled(tile: Picture, height: int) -> Picture:
    page = np.full((height, tile.shape[1] + _GAP_PX, 3), _PAPER, np.uint8)
    page[: len(tile), : tile.shape[1]] = tile
    return page


def _most_changed(before: Picture, after: Picture) -> tuple[slice, slice]:
    """The part, a sixth of the longer side, in which the two pictures differ most."""
    height, width = before.shape[:2]
    tall = min(height, max(round(max(height, width) * _DETAIL_SHARE), _SMALLEST_DETAIL_PX))
    wide = min(width, round(tall * 4 / 3))
    change = np.abs(after.astype(np.int16) - before).sum(axis=2).astype(np.float32)
    sums = cv2.boxFilter(change, -1, (wide, tall), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    top, left = np.unravel_index(
        int(sums[: height - tall + 1, : width - wide + 1].argmax()), (height - tall + 1, width - wide + 1)
    )
    return slice(int(top), int(top) + tall), slice(int(left), int(left) + wide)


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
