"""Wide Gaussians on coarser grids: the gather's result, closer than its own truncation, at a fraction of its work.

A Gaussian of sigma is one of sigma `d` after which one of sqrt(sigma^2 - d^2) remains. What the first has smoothed is
described by every d-th sample, so the second takes its samples `d` pixels apart: a quarter of the work for d = 2, a
sixteenth for d = 4. Every pixel takes them around itself, hence nothing is interpolated. (After Burt, *Fast Filter
Transforms for Image Processing*, 1981; error terms in docs/decisions.)
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from defocus_sim.blur import gaussian_kernel, whole_blocks
from defocus_sim.planes import mirror_positions, mirrored, scratch
from defocus_sim.rendering import DEFAULT_TRUNCATE
from defocus_sim.simd import LANES, ROWS, gather_block
from defocus_sim.simd_smooth import smooth_along, smooth_down

F32 = np.float32
# A grid of spacing d serves Gaussians from 1.5 d on: on white noise the error is then below 4e-6 of full scale anywhere.
WIDE_SIGMA_PX = 3.0
# Half of the kernel that makes a grid, its middle included: 4.5 sigmas and more; every wide pixel shares its error, so it
# reaches farther than what is left to each.
_TAPS = 10
# Who asks for more than those gets the direct sum.
_LARGEST_TRUNCATE = 4.5
# Samples that it needs on every side, rounded up to half a vector, so that a row and its margins are whole vectors.
_FIRST_REACH = 16
# Mean of (sigma / spacing)^2, pixels that are too narrow counting 0, from which on a coarser grid saves time.
_WORTH_A_GRID = 3.0


def gaussian_gather(
    image: NDArray[Any],
    sigma_px: NDArray[F32],
    *,
    truncate: float = DEFAULT_TRUNCATE,
    levels: NDArray[F32] | None = None,
    keep: bool = True,
) -> NDArray[F32]:
    """`blur.gather` with the Gaussian, pixels of `WIDE_SIGMA_PX` and more on coarser grids; (C, H, W) float32.

    Arguments as there; without `keep` the result lies in memory that this thread's next call uses again. Narrower pixels
    get the same bits as there, and so do all where the image has too few wide ones for a coarser grid to pay, or where
    `truncate` is beyond 4.5. On white noise a wide one is within 4e-6 of full scale of the Gaussian that is not truncated,
    where the direct sum with `truncate` 4 is within 2e-5.
    """
    height, width = sigma_px.shape
    channels = image.shape[2 if levels is not None else 0]
    grids = _grids(sigma_px) if truncate <= _LARGEST_TRUNCATE else 1
    rows = ROWS << (grids - 1)
    whole = -(-height // rows) * rows, -(-width // LANES) * LANES
    sigma = whole_blocks(sigma_px, whole)
    # A grid must reach as far as its own Gaussians and as the one that makes the next grid of it.
    bounds = [WIDE_SIGMA_PX * 2**grid for grid in range(grids - 1)] + [math.inf]
    pads = [math.ceil(truncate * WIDE_SIGMA_PX)] * (grids - 1)
    pads = [max(pad, _FIRST_REACH) << grid for grid, pad in enumerate(pads)]
    pads.append(math.ceil(F32(truncate) * sigma.max() / (1 << (grids - 1))) << (grids - 1))
    padded = mirrored(image, levels, pads[0], whole)
    out = np.empty((channels, *whole), F32) if keep else scratch("blurred", (channels, *whole))
    gaussian_kernel(channels)(padded, pads[0], sigma, float(truncate), out, bounds[0])
    for grid in range(1, grids):
        padded = _smoothed(padded, pads[grid - 1], grid, pads[grid], (height, width), whole)
        _dilated_kernel(channels)(
            padded, pads[grid], 1 << grid, sigma, float(truncate), bounds[grid - 1], bounds[grid], out
        )
    return out[:, :height, :width]


def _grids(sigma_px: NDArray[F32]) -> int:
    """How many grids pay: spacing 1 below `WIDE_SIGMA_PX`, 2 up to twice that, and so on; the last takes all beyond.

    A pixel's taps grow with the square of sigma over the spacing; making a grid costs as much as some taps everywhere.
    """
    grids = 1
    while (
        _square_sum(sigma_px, F32(WIDE_SIGMA_PX * 2 ** (grids - 1))) > _WORTH_A_GRID * 4 ** (grids - 1) * sigma_px.size
    ):
        grids += 1
    return grids


@njit(nogil=True, cache=True, fastmath=True)
def _square_sum(sigma_px, from_px):
    total = 0.0
    for y in range(sigma_px.shape[0]):
        line = sigma_px[y]
        part = np.float32(0)
        for x in range(line.size):
            part += line[x] * line[x] if line[x] >= from_px else np.float32(0)
        total += part
    return total


@functools.cache
def _first_gaussian(grid: int) -> NDArray[F32]:
    """What makes grid `grid` (smoothed by sigma = spacing = 2^grid) of the one before: half a kernel, its middle first.

    `_TAPS` samples as far apart as the spacing of the grid before, which is the image itself for grid 1.
    """
    variance = 4.0 if grid == 1 else 3.0
    weights = np.exp(-0.5 * np.arange(_TAPS) ** 2 / variance)
    return (weights / (2 * weights.sum() - 1)).astype(F32)


def _smoothed(
    source: NDArray[F32], source_pad: int, grid: int, pad: int, hw: tuple[int, int], whole: tuple[int, int]
) -> NDArray[F32]:
    """The planes of grid `grid` from those of the one before, mirrored anew as `planes.mirrored` does."""
    rows, columns = mirror_positions(hw, pad, whole)
    out = scratch(f"grid {grid}", (len(source), rows.size, columns.size))
    lines = np.empty((ROWS, whole[1] + (2 * _FIRST_REACH << (grid - 1))), F32)
    _smooth(source, source_pad, 1 << (grid - 1), _first_gaussian(grid), lines, rows, columns, pad, *hw, out)
    return out


@functools.cache
def _dilated_kernel(channels, rows=ROWS, lanes=LANES):
    """As `blur.gaussian_kernel` with samples `step` pixels apart, for pixels with `narrowest_px` <= sigma < `widest_px`.

    A compiled `(padded, pad, step, sigma, truncate, narrowest_px, widest_px, out)`; `padded` has a Gaussian of sigma `step`
    already; other pixels stay what they are in `out`, whose height is a multiple of `rows * step`.
    """

    @njit(nogil=True, cache=True)
    def gather_dilated(padded, pad, step, sigma, truncate, narrowest_px, widest_px, out):
        _, height, width = out.shape
        row = padded.shape[2]
        weights = np.empty((pad // step + rows) * rows * lanes, np.float32)
        for first in range(0, height, rows * step):
            # The rows of a block are as far apart as its samples, so that they share them.
            for y in range(first, first + step):
                for x in range(0, width, lanes):
                    at = y * width + x
                    gather_block(
                        channels, rows, lanes, 1, truncate, narrowest_px, widest_px, step, sigma, at, step * width, padded,
                        (y + pad) * row + x + pad, step * row, padded.shape[1] * row, weights, out, at, step * width,
                        height * width,
                    )  # fmt: skip

    return gather_dilated


@njit(nogil=True, cache=True)
def _smooth(source, source_pad, step, kernel, lines, rows, columns, pad, height, width, out):
    """Down the columns into `lines`, which are the image and margins on both sides wide, and from there along the rows."""
    channels, source_rows, source_row = source.shape
    wide, row = lines.shape[1], columns.size
    whole = row - 2 * pad
    margin = (wide - whole) // 2
    for c in range(channels):
        for first in range(0, rows.size - 2 * pad, ROWS * step):
            for y in range(first, first + step):
                start = (c * source_rows + source_pad + y) * source_row + source_pad - margin
                for x in range(0, wide, LANES):
                    smooth_down(ROWS, LANES, _TAPS, kernel, source, start + x, step * source_row, lines, x, wide)
                to = (c * rows.size + pad + y) * row + pad
                for x in range(0, whole, LANES):
                    smooth_along(ROWS, LANES, _TAPS, kernel, lines, margin + x, wide, step, out, to + x, step * row)
        for y in range(pad, pad + height):
            target = out[c, y]
            inner = target[pad : pad + width]
            for x in range(pad):
                target[x] = inner[columns[x]]
            for x in range(pad + width, row):
                target[x] = inner[columns[x]]
        for y in range(pad):
            out[c, y] = out[c, rows[y] + pad]
        for y in range(pad + height, rows.size):
            out[c, y] = out[c, rows[y] + pad]
