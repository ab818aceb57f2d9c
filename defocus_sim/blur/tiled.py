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
    `image` (at most H, at most W, C), else empty; `begins`, `first`: as for `pixel_format.store_srgb_pixels`, empty for
    planes that are no linear light.
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
                                channels=channels, rows=rows, lanes=lanes, spaced=0,
                                truncate=truncate, narrowest=low, widest=high,
                                step=1, variance=0.0, margin=0.0, line=y,
                                sigma=sigma, s_start=at, s_row=width,
                                pixels=planes, p_start=origin + y * row + x, p_row=row, p_plane=plane, weights=weights,
                                out=out, o_start=to, o_row=width, o_plane=out.shape[1] * width,
                            )  # fmt: skip
                        else:
                            gather_block(
                                channels=channels, rows=rows, lanes=lanes, spaced=1,
                                truncate=truncate, narrowest=low, widest=high,
                                step=1 << grid, variance=variance, margin=margin, line=y,
                                sigma=sigma, s_start=at, s_row=width,
                                pixels=planes, p_start=origin + x, p_row=row, p_plane=plane, weights=weights,
                                out=out, o_start=to, o_row=width, o_plane=out.shape[1] * width,
                            )  # fmt: skip
            if image.size > 0:
                if first.size > 0:
                    store_srgb_pixels(out, begins, first, image, top)
                else:
                    store_even_pixels(out, image, top)

    return blur_strips
