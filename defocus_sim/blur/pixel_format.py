"""Passes over whole images: between (H, W, C) in uint8, as files have them, and the planes (C, H, W) of the kernels."""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.vectors.intrinsics import LANES
from defocus_sim.blur.vectors.pixels import store_pixels
from defocus_sim.kernels import njit

F32 = np.float32
_STEPS = 4096
_kept = threading.local()
# Larger memory is given back: a photograph's planes are not to stay for ever.
_LARGEST_KEPT_BYTES = 64 * 2**20
_PAGE_BYTES = 4096


def scratch(name: str, shape: tuple[int, ...]) -> NDArray[F32]:
    """A float32 array with arbitrary content, in memory that the next call with `name` in this thread gives out again.

    Memory fresh from the system costs more than what is done with it: it is zeroed page by page. It begins on a page: else
    every vector lies across two cache lines, which in some processes costs a tenth of the blur.
    """
    size = math.prod(shape)
    memory: NDArray[F32] | None = getattr(_kept, name, None)
    if memory is None or memory.size < size:
        raw = np.empty(size + _PAGE_BYTES // 4, F32)
        first = -raw.ctypes.data % _PAGE_BYTES // 4
        memory = raw[first : first + size]
        if memory.nbytes <= _LARGEST_KEPT_BYTES:
            setattr(_kept, name, memory)
    return memory[:size].reshape(shape)


def mirrored(
    image: NDArray[Any],
    levels: NDArray[F32] | None,
    pad_hw: tuple[int, int],
    size_hw: tuple[int, int],
    name: str = "mirrored",
) -> NDArray[F32]:
    """`image` as planes with `pad_hw` more rows and columns on both sides and then filled up to `size_hw` (without these).

    See `mirror_into`. In memory that this thread's next call with `name` uses again.
    """
    rows, columns = (size + 2 * pad for size, pad in zip(size_hw, pad_hw, strict=True))
    padded = scratch(name, (shape_of(image)[0], rows, columns))
    mirror_into(padded, image, levels, pad_hw)
    return padded


def mirror_into(
    padded: NDArray[F32], image: NDArray[Any], levels: NDArray[F32] | None, pad_hw: tuple[int, int]
) -> None:
    """Fill `padded` (C, H', W') with `image` from row and column `pad_hw` on, and all around with its mirror image.

    `image`: (C, H, W) float32, or (H, W, C) uint8, C 1 or 3, whose levels 0 to 255 stand for `levels` (256,) float32,
    without for [0, 1]. The mirror image is the half-sample one (d c b a | a b c d | d c b a), as often as it takes.
    """
    _, *hw = shape_of(image)
    rows, columns = (
        mirror_positions(size, pad, whole) for size, pad, whole in zip(hw, pad_hw, padded.shape[1:], strict=True)
    )
    if image.dtype != np.uint8:
        padded[:, pad_hw[0] : pad_hw[0] + hw[0], pad_hw[1] : pad_hw[1] + hw[1]] = image
    elif levels is None:
        _to_even_planes(np.ascontiguousarray(image), padded, *pad_hw)
    else:
        _to_planes(np.ascontiguousarray(image), levels, padded, *pad_hw)
    mirror_margins(padded, rows, columns, *pad_hw, *hw)


def shape_of(image: NDArray[Any]) -> tuple[int, int, int]:
    """C, H, W of an image that is (C, H, W) float32 or (H, W, C) uint8."""
    first, second, third = image.shape
    return (third, first, second) if image.dtype == np.uint8 else (first, second, third)


def mirror_positions(size: int, pad: int, whole: int) -> NDArray[np.intp]:
    """Which of `size` rows, or columns, stands at each of `whole` places, of which `pad` lie before the first."""
    position = np.arange(-pad, whole - pad) % (2 * size)
    return np.minimum(position, 2 * size - 1 - position)


def quantised(planes: NDArray[F32], linear: bool) -> NDArray[np.uint8]:
    """Planes (C, H, W) of [0, 1], of linear light or not, as an sRGB image (H, W, C): the nearest of 256 levels."""
    channels, height, width = planes.shape
    image = np.empty((height, width, channels), np.uint8)
    if linear:
        store_srgb_pixels(np.ascontiguousarray(planes), *srgb_tables(), image, 0)
    else:
        store_even_pixels(np.ascontiguousarray(planes), image, 0)
    return image


@njit(nogil=True, cache=True)
def _to_planes(image, levels, planes, top, left):
    """`planes[c, top + y, left + x] = levels[image[y, x, c]]`."""
    height, width, channels = image.shape
    for y in range(height):
        for c in range(channels):
            source, target = image[y], planes[c, top + y, left : left + width]
            for x in range(width):
                target[x] = levels[source[x, c]]


@njit(nogil=True, cache=True, error_model="numpy")
def _to_even_planes(image, planes, top, left):
    """As `_to_planes` with the levels k / 255; 1 or 3 channels, which the compiler has to see for its vectors."""
    height, width, channels = image.shape
    most = np.float32(255)
    for y in range(height):
        line = image[y].reshape(-1)
        first = planes[0, top + y, left : left + width]
        if channels == 1:
            for x in range(width):
                first[x] = np.float32(line[x]) / most
        else:
            second, third = planes[1, top + y, left : left + width], planes[2, top + y, left : left + width]
            for x in range(width):
                first[x] = np.float32(line[3 * x]) / most
                second[x] = np.float32(line[3 * x + 1]) / most
                third[x] = np.float32(line[3 * x + 2]) / most


@njit(nogil=True, cache=True)
def mirror_margins(planes, rows, columns, pad_rows, pad, height, width):
    """Give every pixel of `planes` beyond the `height` x `width` from (`pad_rows`, `pad`) on the value of its mirror image.

    `rows`, `columns`: as of `mirror_positions`.
    """
    for c in range(planes.shape[0]):
        for y in range(pad_rows, pad_rows + height):
            target = planes[c, y]
            inner = target[pad : pad + width]
            for x in range(pad):
                target[x] = inner[columns[x]]
            for x in range(pad + width, columns.size):
                target[x] = inner[columns[x]]
        for y in range(pad_rows):
            planes[c, y] = planes[c, rows[y] + pad_rows]
        for y in range(pad_rows + height, rows.size):
            planes[c, y] = planes[c, rows[y] + pad_rows]


@njit(nogil=True, cache=True, fastmath={"nnan"})
def store_even_pixels(planes, image, top):
    """In compiled code: `planes` (1 or 3, R, W'), of [0, 1], as the nearest levels of `image` (H, W, C) from row `top` on.

    As many rows and columns as both have; contiguous.
    """
    channels, strip, row = planes.shape
    height, width, _ = image.shape
    for y in range(min(strip, height - top)):
        line, x = (top + y) * width, 0
        while x + LANES <= width:
            if channels == 3:
                store_pixels(
                    channels=3, lanes=LANES, planes=planes, p_start=y * row + x, p_plane=strip * row,
                    image=image, i_start=(line + x) * 3,
                )  # fmt: skip
            else:
                store_pixels(
                    channels=1, lanes=LANES, planes=planes, p_start=y * row + x, p_plane=strip * row,
                    image=image, i_start=line + x,
                )  # fmt: skip
            x += LANES
        for c in range(channels):
            for last in range(x, width):
                level = planes[c, y, last] * np.float32(255) + np.float32(0.5)
                image[top + y, last, c] = np.uint8(min(max(level, np.float32(0)), np.float32(255)))


@functools.cache
def srgb_tables() -> tuple[NDArray[F32], NDArray[np.uint8]]:
    """The smallest value of linear light that is shown as each level, and the level at the beginning of each step.

    The levels lie further apart than the steps, so that at most one begins within a step.
    """
    encoded = (np.arange(1, 256) - 0.5) / 255
    begins = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(F32)
    steps = np.arange(_STEPS + 1) / F32(_STEPS)
    return np.append(begins, F32(2)), np.searchsorted(begins, steps, side="right").astype(np.uint8)


@njit(nogil=True, cache=True)
def store_srgb_pixels(planes, begins, first, image, top):
    """As `store_even_pixels`, from linear light to sRGB; `begins[k]`: where level k + 1 begins, see `srgb_tables`."""
    channels, strip, _ = planes.shape
    height, width, _ = image.shape
    for y in range(min(strip, height - top)):
        for c in range(channels):
            source, target = planes[c, y], image[top + y, :, c]
            for x in range(width):
                value = min(max(source[x], np.float32(0)), np.float32(1))
                level = first[np.intp(value * np.float32(_STEPS))]
                target[x] = level + np.uint8(value >= begins[level])


@njit(nogil=True, cache=True)
def usual_depths(depth_m, far_m):
    """How many pixels of `depth_m` (H, W) are neither holes nor faults nor beyond `far_m`."""
    count = 0
    for y in range(depth_m.shape[0]):
        line = depth_m[y]
        # As narrow as a depth: counted in vectors.
        part = np.int32(0)
        for x in range(line.size):
            part += np.int32((line[x] > 0) & (line[x] <= far_m))
        count += part
    return count


@njit(nogil=True, cache=True)
def depth_counts(depth_m, far_m):
    """How many pixels of `depth_m` (H, W) are NaN, negative (but finite), valid (> 0 and finite), valid beyond `far_m`."""
    unknown = negative = valid = far = 0
    for y in range(depth_m.shape[0]):
        for x in range(depth_m.shape[1]):
            value = depth_m[y, x]
            unknown += value != value
            negative += -np.inf < value < 0
            valid += 0 < value < np.inf
            far += far_m < value < np.inf
    return unknown, negative, valid, far


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan"})
def coc_and_sigma(depth_m, at_infinity_px, focus_distance_m, max_coc_px, sigma_per_coc, sharp_below_px, coc, sigma):
    """`lens.coc_diameter_px` and `lens.sigma_px` of a depth map (H, W), to the bit, into `coc`, `sigma`, float32.

    In one pass, where NumPy takes seven through intermediate results in float64. `coc`: (H, W), or one row only, which then
    is used for each. `sigma`: at least (H, W). Contiguous arrays, and a division by nothing that is NumPy's: else the
    compiler finds no vectors.
    """
    width = depth_m.shape[1]
    for y in range(depth_m.shape[0]):
        depths, cocs, sigmas = depth_m[y], coc[y % coc.shape[0], :width], sigma[y, :width]
        for x in range(width):
            own = at_infinity_px * (1.0 - focus_distance_m / np.float64(depths[x]))
            own = min(max(own, -max_coc_px), max_coc_px)
            cocs[x] = own
            sigmas[x] = sigma_per_coc * max(abs(own) - sharp_below_px, 0.0)
