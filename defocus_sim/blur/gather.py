"""Per-pixel gather blur: every output pixel is the mean of its neighbourhood under its own point-spread function.

Numba kernels, serial and without the GIL: the caller runs as many at once as it has cores. They trust their input;
`simulate` checks it. Inside, images are planes (C, H, W) of float32, so that neighbouring pixels of a row share a vector.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.disc import disc_radius_px
from defocus_sim.blur.options import DEFAULT_TRUNCATE, IDENTITY_SIGMA_PX, Psf
from defocus_sim.blur.pixel_format import mirrored, scratch, shape_of
from defocus_sim.blur.vectors.gather import gather_block
from defocus_sim.blur.vectors.intrinsics import LANES, ROWS
from defocus_sim.kernels import compiling, njit

F32 = np.float32
_DISC_LANES = 64


# Both kinds, on an idle core.
@compiling("the blur", 9)
def gather(
    image: NDArray[Any],
    sigma_px: NDArray[F32],
    coc_px: NDArray[F32],
    *,
    psf: Psf = "gaussian",
    truncate: float = DEFAULT_TRUNCATE,
    levels: NDArray[F32] | None = None,
) -> NDArray[F32]:
    """Blur `image` with one point-spread function per output pixel; a new (C, H, W) float32 array, maybe not contiguous.

    `image`: (C, H, W) float32, or (H, W, C) uint8 of `levels`, see `pixel_format.mirror_into`. `sigma_px`: (H, W), >= 0; a
    pixel below `IDENTITY_SIGMA_PX` keeps its value to the last bit. `coc_px`: (H, W) CoC diameter, its sign ignored; read
    for the disc only.
    Gaussian: weights exp(-(dx^2 + dy^2)/(2 sigma^2)) over |dx|, |dy| <= ceil(truncate*sigma), normalised.
    Disc: weights clip(r + 1/2 - d, 0, 1) with r = `disc_radius_px(coc)`, normalised. Border: half-sample mirror
    (d c b a | a b c d | d c b a; scipy's "reflect").
    """
    channels, height, width = shape_of(image)
    if psf == "disc":
        disc_radius = np.where(sigma_px < IDENTITY_SIGMA_PX, F32(0), disc_radius_px(coc_px))
        radius = np.where(disc_radius > 0.5, np.ceil(disc_radius - F32(0.5)), 0).astype(np.int32)
        pad = int(radius.max())
        padded = mirrored(image, levels, (pad, pad), (height, width + _DISC_LANES))
        out = np.empty((channels, height, width), F32)
        _gather_disc(padded, disc_radius, radius, pad, out)
        return out
    sigma = whole_blocks(sigma_px)
    whole = sigma.shape
    pad = math.ceil(F32(truncate) * sigma.max())
    out = np.empty((channels, *whole), F32)
    gaussian_kernel(channels)(mirrored(image, levels, (pad, pad), whole), pad, sigma, float(truncate), out)
    return out[:, :height, :width]


def whole_blocks(sigma_px: NDArray[F32]) -> NDArray[F32]:
    """`sigma_px` (H, W) filled up with 0 to whole blocks; in memory that this thread's next call uses again."""
    height, width = sigma_px.shape
    sigma = blocks_of_zeros(height, width)
    sigma[:height, :width] = sigma_px
    return sigma


def blocks_of_zeros(height: int, width: int) -> NDArray[F32]:
    """Arbitrary values for `height` x `width` pixels, filled up with 0 to whole blocks; in memory as of `whole_blocks`."""
    sigma = scratch("sigma", (-(-height // ROWS) * ROWS, -(-width // LANES) * LANES))
    sigma[height:], sigma[:, width:] = 0, 0
    return sigma


@njit(nogil=True, cache=True)
def whole_lines(size):
    """In compiled code: `size` float32 values from a multiple of 64 bytes on, which no vector of a processor straddles."""
    memory = np.empty(size + 16, np.float32)
    first = -(memory.ctypes.data // 4) % 16
    return memory[first : first + size]


@functools.cache
def gaussian_kernel(channels, rows=ROWS, lanes=LANES):
    """The Gaussian gather for 1 or 3 channels in blocks of `rows` x `lanes` pixels.

    A compiled `(padded, pad, sigma, truncate, out)`: `sigma` (H, W) and `out` (C, H, W), H and W multiples of `rows` and
    `lanes`; `padded` (C, H + 2 pad, W + 2 pad); all float32. Pixels of sigma below `IDENTITY_SIGMA_PX` are copied.
    """

    @njit(nogil=True, cache=True)
    def gather_gaussian(padded, pad, sigma, truncate, out):
        _, height, width = out.shape
        row = padded.shape[2]
        weights = whole_lines((pad + rows) * rows * lanes)
        for y in range(0, height, rows):
            for x in range(0, width, lanes):
                at = y * width + x
                gather_block(
                    channels=channels, rows=rows, lanes=lanes, spaced=0,
                    truncate=truncate, narrowest=IDENTITY_SIGMA_PX, widest=math.inf,
                    step=1, variance=0.0, margin=0.0, line=y,
                    sigma=sigma, s_start=at, s_row=width,
                    pixels=padded, p_start=(y + pad) * row + x + pad, p_row=row, p_plane=padded.shape[1] * row,
                    weights=weights, out=out, o_start=at, o_row=width, o_plane=height * width,
                )  # fmt: skip

    return gather_gaussian


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _gather_disc(padded, disc_radius, radius, pad, out):
    channels, height, width = out.shape
    rim = np.empty(_DISC_LANES, np.float32)
    weight = np.empty(_DISC_LANES, np.float32)
    rows = np.empty((channels, _DISC_LANES + 2 * pad), np.float32)
    total = np.empty((channels, _DISC_LANES), np.float32)
    norm = np.empty(_DISC_LANES, np.float32)
    for y in range(height):
        for x0 in range(0, width, _DISC_LANES):
            lanes = min(_DISC_LANES, width - x0)
            reach = 0
            for lane in range(lanes):
                reach = max(reach, radius[y, x0 + lane])
            for lane in range(_DISC_LANES):
                rim[lane] = disc_radius[y, x0 + lane] + np.float32(0.5) if lane < lanes else np.float32(1)
            span = _DISC_LANES + 2 * reach
            total[:] = 0.0
            norm[:] = 0.0
            for i in range(reach + 1):
                for c in range(channels):
                    up = padded[c, y + pad - i, x0 + pad - reach : x0 + pad - reach + span]
                    both = rows[c]
                    if i == 0:
                        both[:span] = up
                    else:
                        down = padded[c, y + pad + i, x0 + pad - reach : x0 + pad - reach + span]
                        for k in range(span):
                            both[k] = up[k] + down[k]
                copies = np.float32(2 if i == 0 else 4)
                # A disc is narrower away from its middle row: no pixel of the block weights anything beyond.
                for j in range(min(reach, int(math.sqrt((reach + 1) ** 2 - i * i))) + 1):
                    distance = np.float32(math.sqrt(i * i + j * j))
                    # The middle column is met once, the others as a pair.
                    half = np.float32(0.5 if j == 0 else 1.0)
                    for lane in range(_DISC_LANES):
                        w = half * min(max(rim[lane] - distance, np.float32(0)), np.float32(1))
                        weight[lane] = w
                        norm[lane] += w * copies
                    for c in range(channels):
                        right = rows[c, reach + j : reach + j + _DISC_LANES]
                        left = rows[c, reach - j : reach - j + _DISC_LANES]
                        sums = total[c]
                        for lane in range(_DISC_LANES):
                            sums[lane] += weight[lane] * (right[lane] + left[lane])
            for c in range(channels):
                for lane in range(lanes):
                    if radius[y, x0 + lane] == 0:
                        out[c, y, x0 + lane] = padded[c, y + pad, x0 + pad + lane]
                    else:
                        out[c, y, x0 + lane] = total[c, lane] / norm[lane]
