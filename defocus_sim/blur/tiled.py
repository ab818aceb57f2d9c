"""The Gaussian gather over a whole image, strip by strip: all grids of a strip, and its bytes while it is in the cache."""

from __future__ import annotations

import functools

from defocus_sim.blur.gather import whole_lines
from defocus_sim.blur.pixel_format import store_even_pixels, store_srgb_pixels
from defocus_sim.blur.vectors.gather import gather_block
from defocus_sim.blur.vectors.intrinsics import LANES, ROWS
from defocus_sim.kernels import njit

# What a strip and the samples around it take together is to stay in a processor's second cache.
STRIP_ROWS = 8 * ROWS


@functools.cache
def strips_kernel(channels, rows=ROWS, lanes=LANES):
    """The gather for 1 or 3 channels in blocks of `rows` x `lanes` pixels, with as many grids as it takes.

    A compiled `(planes, grids, bounds, variance, margin, sigma, truncate, scratch, out, image, begins, first)`.

    Grid g has every 2^g-th row of the image, as planes in the one float32 memory `planes`: `grids` (G, 3) int64 says where
    that of the image's row 0 and column 0 is, how far the next row, and the next plane. It serves the pixels with
    `bounds[g]` <= sigma < `bounds[g + 1]`; those below the first are copied. Grids after the first have a Gaussian of
    `variance` 4^g already, see `gather_block`, also for `margin` and `truncate`. `sigma` (H, W) float32, H a multiple of
    `rows`, W of `lanes`. `scratch`: room for weights, in values.

    `out`: the result (C, H, W) float32, or `STRIP_ROWS` rows of it, of which one strip after another then goes as bytes to
    `image` (at most H, at most W, C), else empty; `begins`, `first`: as for `planes.store_srgb_pixels`, empty for planes
    that are no linear light.
    """

    @njit(nogil=True, cache=True)
    def blur_strips(planes, grids, bounds, variance, margin, sigma, truncate, scratch, out, image, begins, first):
        height, width = sigma.shape
        weights = whole_lines(scratch)
        for top in range(0, height, STRIP_ROWS):
            # Which row of the image is the first of `out`.
            begin = top if image.size > 0 else 0
            for grid in range(len(grids)):
                origin, row, plane = grids[grid]
                low, high = bounds[grid], bounds[grid + 1]
                for y in range(top, min(top + STRIP_ROWS, height), rows):
                    for x in range(0, width, lanes):
                        at, to = y * width + x, (y - begin) * width + x
                        if grid == 0:
                            gather_block(
                                channels, rows, lanes, 0, truncate, low, high, 1, 0.0, 0.0, y, sigma, at, width, planes,
                                origin + y * row + x, row, plane, weights, out, to, width, out.shape[1] * width,
                            )  # fmt: skip
                        else:
                            gather_block(
                                channels, rows, lanes, 1, truncate, low, high, 1 << grid, variance, margin, y, sigma, at,
                                width, planes, origin + x, row, plane, weights, out, to, width, out.shape[1] * width,
                            )  # fmt: skip
            if image.size > 0:
                if first.size > 0:
                    store_srgb_pixels(out, begins, first, image, top)
                else:
                    store_even_pixels(out, image, top)

    return blur_strips
