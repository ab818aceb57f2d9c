"""Wide Gaussians on coarser grids: the gather's result, as near to the truth as its truncation allows, for less work.

A Gaussian of sigma is one of about the spacing `d` after which the rest of the variance remains. What the first has
smoothed is described by every d-th sample, so the second takes its samples `d` pixels apart: a quarter of the work for
d = 2, a sixteenth for d = 4. Along a row every pixel takes them around itself; down a column they lie in every d-th row of
the image, at distances that need not be whole, so that only those rows are made. Nothing is interpolated. (After Burt,
*Fast Filter Transforms for Image Processing*, 1981; error terms in docs/decisions.)
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.gather import whole_blocks
from defocus_sim.blur.options import DEFAULT_TRUNCATE, IDENTITY_SIGMA_PX
from defocus_sim.blur.pixel_format import mirror_into, mirror_margins, mirror_positions, scratch, shape_of, srgb_tables
from defocus_sim.blur.tiled import STRIP_ROWS, strips_kernel
from defocus_sim.blur.vectors.intrinsics import LANES, ROWS
from defocus_sim.blur.vectors.smooth import smooth_along, smooth_down
from defocus_sim.kernels import njit

F32 = np.float32
# Half of the kernel that makes a grid, its middle included: 4.5 sigmas and more; every wide pixel shares its error, so it
# reaches farther than what is left to each.
_TAPS = 10
# Who asks for more than those gets the direct sum.
_LARGEST_TRUNCATE = 4.5
# Samples of the grid before that it needs on every side, rounded up to a vector; both sides are as many of the new one.
_FIRST_REACH = 16
# Mean of (sigma / spacing)^2, pixels that are too narrow counting 0, from which on a coarser grid saves time.
_WORTH_A_GRID = 1.0
_NO_IMAGE, _NO_TABLES = np.empty((0, 0, 0), np.uint8), (np.empty(0, F32), np.empty(0, np.uint8))


@dataclass(frozen=True)
class Grids:
    """How Gaussians are shared among grids: a grid of spacing d serves those from `narrowest` d on.

    `variance` * d^2 is the variance of the Gaussian that makes it. What remains reaches as far as `truncate` of its sigmas,
    less `margin` samples, rounded up: the outermost sample stands for half a sample more.
    """

    narrowest: float
    variance: float
    margin: float


# What aliasing adds on white noise is then below 5e-6 of full scale anywhere; truncation at 4 sigmas costs 1e-5.
CLOSE = Grids(narrowest=1.5, variance=1.0, margin=0.0)
# For who truncates earlier: 1e-4, which is what truncation at 3.5 sigmas costs.
FAST = Grids(narrowest=1.25, variance=0.8, margin=0.5)


def grids_for(truncate: float) -> Grids:
    """The grids whose error is of the size of what `truncate` sigmas leave out."""
    return CLOSE if truncate >= DEFAULT_TRUNCATE else FAST


def gaussian_gather(
    image: NDArray[Any],
    sigma_px: NDArray[F32],
    *,
    truncate: float = DEFAULT_TRUNCATE,
    levels: NDArray[F32] | None = None,
    keep: bool = True,
) -> NDArray[F32]:
    """`blur.gather` with the Gaussian, wide pixels on coarser grids; (C, H, W) float32.

    Arguments as there; `sigma_px` may be filled up to whole blocks already, see `gather.blocks_of_zeros`. Without `keep`
    the result lies in memory that this thread's next call uses again. Wide is a sigma of 3 px and more, or 2.5 px where
    `truncate` is below 4. Narrower pixels get the same bits as there, and so do all where the image has too few wide ones
    for a coarser grid to pay, or where `truncate` is beyond 4.5. On white noise a wide one is within 5e-6 of full scale of
    the Gaussian that is not truncated, where the direct sum with `truncate` 4 is within 2e-5.
    """
    channels, height, width = shape_of(image)
    sigma = _in_blocks(sigma_px, height, width)
    shape = (channels, *sigma.shape)
    out = np.empty(shape, F32) if keep else scratch("blurred", shape)
    _blur(image, sigma, truncate, levels, out, _NO_IMAGE, _NO_TABLES)
    return out[:, :height, :width]


def gaussian_pixels(
    image: NDArray[np.uint8],
    sigma_px: NDArray[F32],
    *,
    truncate: float = DEFAULT_TRUNCATE,
    levels: NDArray[F32] | None = None,
) -> NDArray[np.uint8]:
    """`pixel_format.quantised` of `gaussian_gather`, which never is in memory as a whole; (H, W, C).

    `levels`: those of linear light, to which the bytes then are brought back.
    """
    channels, height, width = shape_of(image)
    sigma = _in_blocks(sigma_px, height, width)
    out = scratch("strip", (channels, STRIP_ROWS, sigma.shape[1]))
    pixels = np.empty((height, width, channels), np.uint8)
    _blur(image, sigma, truncate, levels, out, pixels, _NO_TABLES if levels is None else srgb_tables())
    return pixels


def _in_blocks(sigma_px: NDArray[F32], height: int, width: int) -> NDArray[F32]:
    return whole_blocks(sigma_px) if sigma_px.shape == (height, width) else sigma_px


def _blur(
    image: NDArray[Any],
    sigma: NDArray[F32],
    truncate: float,
    levels: NDArray[F32] | None,
    out: NDArray[F32],
    pixels: NDArray[np.uint8],
    tables: tuple[NDArray[F32], NDArray[np.uint8]],
) -> None:
    """Make the grids and fill `out` and `pixels` from them, see `strips_kernel`; `sigma` in whole blocks."""
    channels, height, width = shape_of(image)
    grids = grids_for(truncate)
    count = _paying(sigma, height * width, grids) if truncate <= _LARGEST_TRUNCATE else 1
    bounds = [IDENTITY_SIGMA_PX, *(grids.narrowest * 2**grid for grid in range(1, count)), math.inf]
    pads = _pads([*bounds[1:-1], float(sigma.max())], grids, truncate)
    memory, planes = _planes(channels, sigma.shape, pads)
    mirror_into(planes[0], image, levels, pads[0])
    for grid in range(1, count):
        _smoothed(planes[grid - 1], pads[grid - 1], grid, grids, pads[grid], width, planes[grid])
    strips_kernel(channels)(
        memory,
        _table(planes, pads),
        np.array(bounds),
        grids.variance,
        grids.margin,
        sigma,
        float(truncate),
        _most_weights(pads),
        out,
        pixels,
        *tables,
    )


def _planes(
    channels: int, whole: tuple[int, ...], pads: list[tuple[int, int]]
) -> tuple[NDArray[F32], list[NDArray[F32]]]:
    """Memory that this thread's next call uses again, and of it the planes of every grid."""
    shapes = [
        (channels, -(-(whole[0] + 2 * rows) // (1 << grid)), whole[1] + 2 * aside)
        for grid, (rows, aside) in enumerate(pads)
    ]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    memory = scratch("planes", (ends[-1],))
    planes = [memory[end - math.prod(shape) : end].reshape(shape) for end, shape in zip(ends, shapes, strict=True)]
    return memory, planes


def _table(planes: list[NDArray[F32]], pads: list[tuple[int, int]]) -> NDArray[np.int64]:
    """`grids` of `strips_kernel`: where row 0 and column 0 of each is, its rows and its planes."""
    table, begin = [], 0
    for grid, (one, (rows, aside)) in enumerate(zip(planes, pads, strict=True)):
        _, height, width = one.shape
        table.append((begin + (rows >> grid) * width + aside, width, height * width))
        begin += one.size
    return np.array(table, np.int64)


def _pads(widest_px: list[float], grids: Grids, truncate: float) -> list[tuple[int, int]]:
    """Rows and columns of the image that each grid needs around it; `widest_px`: the largest sigma that it is for."""
    pads: list[tuple[int, int]] = []
    for grid in reversed(range(len(widest_px))):
        step = 1 << grid
        remaining = math.sqrt(max((widest_px[grid] / step) ** 2 - (grids.variance if grid else 0), 0))
        reach = math.ceil(F32(truncate) * F32(remaining))
        # Where rows do not lie at whole distances, one more is within half a sample of the reach.
        rows, aside = (reach + (grid > 0)) * step, reach * step
        if pads:
            # As far as the Gaussian that makes the next grid of this one.
            rows, aside = max(rows, pads[0][0] + (_TAPS - 1) * step), max(aside, _FIRST_REACH * step)
        pads.insert(0, (-(-rows // step) * step, aside))
    return pads


def _most_weights(pads: list[tuple[int, int]]) -> int:
    """Room that `gather_block` needs for the weights of any block: thrice as much where samples are apart."""
    reaches = [min(pads[0]), *(aside >> grid for grid, (_, aside) in enumerate(pads) if grid)]
    return max((reach + ROWS) * (3 if grid else 1) for grid, reach in enumerate(reaches)) * ROWS * LANES


def _paying(sigma_px: NDArray[F32], pixels: int, grids: Grids) -> int:
    """How many grids pay: the image itself, one of spacing 2, and so on; each for what is wide enough, the last for all.

    A pixel's taps grow with the square of sigma over the spacing; making a grid costs as much as some taps everywhere.
    """
    count = 1
    while _square_sum(sigma_px, F32(grids.narrowest * 2**count)) > _WORTH_A_GRID * 4 ** (count - 1) * pixels:
        count += 1
    return count


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
def _first_gaussian(grid: int, grids: Grids) -> NDArray[F32]:
    """What makes grid `grid`, of spacing 2^grid, of the one before: half a kernel, its middle first.

    `_TAPS` samples as far apart as the spacing of the grid before, which is the image itself for grid 1.
    """
    variance = grids.variance * (4 if grid == 1 else 3)
    weights = np.exp(-0.5 * np.arange(_TAPS) ** 2 / variance)
    return (weights / (2 * weights.sum() - 1)).astype(F32)


def _smoothed(
    source: NDArray[F32], source_pad: tuple[int, int], grid: int, grids: Grids, pad: tuple[int, int], width: int,
    out: NDArray[F32],
) -> None:  # fmt: skip
    """Make the planes `out` of grid `grid` from those of the one before: every 2^grid-th row of the image, all columns."""
    step, wide = 1 << grid, out.shape[2] - 2 * pad[1]
    columns = mirror_positions(width, pad[1], out.shape[2])
    lines = np.empty((ROWS, wide + _FIRST_REACH * step), F32)
    first = (source_pad[0] - pad[0]) // (step // 2)
    _smooth(source, first, source_pad[1], step // 2, _first_gaussian(grid, grids), lines, columns, pad[1], width, out)


@njit(nogil=True, cache=True)
def _smooth(source, source_first, source_pad, step, kernel, lines, columns, pad, width, out):
    """Down the columns into `lines`, which are the image and margins on both sides wide, and from there along the rows."""
    channels, source_rows, source_row = source.shape
    count, row = out.shape[1:]
    wide = lines.shape[1]
    whole = row - 2 * pad
    margin = (wide - whole) // 2
    for c in range(channels):
        for block in range(0, count, ROWS):
            # The last block may do rows again.
            first = min(block, count - ROWS)
            start = (c * source_rows + source_first + 2 * first) * source_row + source_pad - margin
            for x in range(0, wide, LANES):
                smooth_down(
                    rows=ROWS, lanes=LANES, taps=_TAPS, kernel=kernel,
                    source=source, s_start=start + x, s_row=source_row, out=lines, o_start=x, o_row=wide,
                )  # fmt: skip
            to = (c * count + first) * row + pad
            for x in range(0, whole, LANES):
                smooth_along(
                    rows=ROWS, lanes=LANES, taps=_TAPS, kernel=kernel,
                    source=lines, s_start=margin + x, s_row=wide, step=step, out=out, o_start=to + x, o_row=row,
                )  # fmt: skip
    # Of columns only: all rows were made of rows that are mirrored already.
    mirror_margins(out, columns[:0], columns, 0, pad, count, width)
