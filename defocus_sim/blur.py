"""Per-pixel gather blur: every output pixel is the mean of its neighbourhood under its own point-spread function.

Numba kernels, serial and without the GIL: the caller runs as many at once as it has cores. They trust their input;
`simulate` checks it. Planes are (C, H, W) float32, so that sixty-four neighbouring pixels of one row share every load.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from defocus_sim.rendering import DEFAULT_TRUNCATE, IDENTITY_SIGMA_PX, Psf
from defocus_sim.simd import LANES, ROWS, tap_row

F32 = np.float32
_LANES = 64
_DISC_TABLE_RADIUS_PX = 32.0


def gather(
    planes: NDArray[F32],
    sigma_px: NDArray[F32],
    coc_px: NDArray[F32],
    *,
    psf: Psf = "gaussian",
    truncate: float = DEFAULT_TRUNCATE,
) -> NDArray[F32]:
    """Blur `planes` with one point-spread function per output pixel; a new (C, H, W) float32 array.

    `planes`: (C, H, W) float32. `sigma_px`: (H, W), >= 0; a pixel below `IDENTITY_SIGMA_PX` keeps its value to the last
    bit. `coc_px`: (H, W) CoC diameter, its sign ignored; read for the disc only.
    Gaussian: weights exp(-(dx^2 + dy^2)/(2 sigma^2)) over |dx|, |dy| <= ceil(truncate*sigma), normalised.
    Disc: weights clip(r + 1/2 - d, 0, 1) with r = `disc_radius_px(coc)`, normalised. Border: half-sample mirror
    (d c b a | a b c d | d c b a; scipy's "reflect").
    """
    sharp = sigma_px < IDENTITY_SIGMA_PX
    if psf == "gaussian":
        shape = np.where(sharp, F32(0), sigma_px).astype(F32)
        radius = np.ceil(F32(truncate) * shape).astype(np.int32)
    else:
        shape = np.where(sharp, F32(0), disc_radius_px(coc_px))
        radius = np.where(shape > 0.5, np.ceil(shape - F32(0.5)), 0).astype(np.int32)
    largest = int(radius.max(initial=0))
    if largest == 0:
        return planes.copy()
    # Blocks of the kernels reach over the last row and column.
    rows, columns = (
        np.pad(np.arange(size), (largest, largest + beyond), mode="symmetric")
        for size, beyond in zip(planes.shape[1:], (ROWS, _LANES), strict=True)
    )
    padded = np.empty((len(planes), rows.size, columns.size), F32)
    _mirror(planes, rows, columns, largest, padded)
    out = np.empty_like(planes)
    kernel = gaussian_kernel(len(planes), LANES) if psf == "gaussian" else _gather_disc
    kernel(padded, shape, radius, largest, out)
    return out


def disc_radius_px(coc_px: ArrayLike) -> NDArray[F32]:
    """Radius of the soft-rimmed pixel disc whose variance is that of a uniform disc of diameter |coc_px|.

    The kernel clip(r + 1/2 - d, 0, 1) on the pixel grid is wider than a hard disc of radius r; r is chosen so that its
    variance along each axis is coc^2/16 exactly. A coc of 0 gives 1/2, a single pixel. Any shape; float32.
    """
    radius, coc = _disc_table()
    diameter = np.abs(np.asarray(coc_px, np.float64))
    # Beyond the table the rim is all there is to correct: variance (r^2 + 5/12)/4 for an ideal soft rim.
    beyond = np.sqrt(np.maximum(diameter**2 / 4 - 5 / 12, 0.25))
    return np.where(diameter < coc[-1], np.interp(diameter, coc, radius), beyond).astype(F32)


@functools.cache
def _disc_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii and the CoC diameters (4 x the standard deviation of the discrete kernel) that they stand for."""
    radius = 0.5 + np.concatenate(
        [np.linspace(0, 1, 129)[:-1] ** 2, np.arange(1, 16 * (_DISC_TABLE_RADIUS_PX - 0.5)) / 16]
    )
    reach = np.arange(-int(_DISC_TABLE_RADIUS_PX) - 1, int(_DISC_TABLE_RADIUS_PX) + 2)
    squares = reach[:, None] ** 2 + reach[None, :] ** 2
    distance_sq, taps = np.unique(squares, return_counts=True)
    weight = np.clip(radius[:, None] + 0.5 - np.sqrt(distance_sq), 0, 1) * taps
    variance = (weight * distance_sq).sum(1) / weight.sum(1) / 2
    return radius, np.maximum.accumulate(4 * np.sqrt(variance))


@njit(nogil=True, cache=True)
def _mirror(planes, rows, columns, pad, out):
    """`out[c, y, x] = planes[c, rows[y], columns[x]]`; the middle of each row is one copy."""
    width = planes.shape[2]
    for c in range(planes.shape[0]):
        for y in range(rows.size):
            source, target = planes[c, rows[y]], out[c, y]
            target[pad : pad + width] = source
            for x in range(pad):
                target[x] = source[columns[x]]
            for x in range(pad + width, columns.size):
                target[x] = source[columns[x]]


@functools.cache
def gaussian_kernel(channels, lanes):
    """The Gaussian gather for 1 or 3 channels in vectors of `lanes` pixels.

    A compiled `(padded, sigma, radius, pad, out)`: `padded` (C, H + 2 pad + ROWS, W + 2 pad + lanes or more), `sigma` and
    `radius` (H, W), `out` (C, H, W).
    """
    @njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
    def gather_gaussian(padded, sigma, radius, pad, out):
        _, height, width = out.shape
        row_stride = padded.shape[2]
        plane_stride = padded.shape[1] * row_stride
        depth = pad + 1 + ROWS
        weights = np.zeros((ROWS, depth, lanes), np.float32)
        total = np.empty((ROWS, channels, lanes), np.float32)
        inverse = np.empty((ROWS, lanes), np.float32)
        own = np.empty((ROWS, lanes), np.int32)
        value, step, square, norm = np.empty((4, lanes), np.float64)
        for y0 in range(0, height, ROWS):
            rows = min(ROWS, height - y0)
            for x0 in range(0, width, lanes):
                columns = min(lanes, width - x0)
                reach = 0
                own[:] = 0
                for q in range(rows):
                    for lane in range(columns):
                        own[q, lane] = radius[y0 + q, x0 + lane]
                        reach = max(reach, own[q, lane])
                if reach == 0:
                    for c in range(channels):
                        for q in range(rows):
                            for lane in range(columns):
                                out[c, y0 + q, x0 + lane] = padded[c, y0 + q + pad, x0 + lane + pad]
                    continue
                for q in range(ROWS):
                    own_q = own[q]
                    for lane in range(lanes):
                        ratio = 0.0
                        if own_q[lane] > 0:
                            s = sigma[y0 + q, x0 + lane]
                            ratio = math.exp(-0.5 / (s * s))
                        step[lane] = ratio
                        square[lane] = ratio * ratio
                        value[lane] = 1.0
                        norm[lane] = 1.0
                        weights[q, 0, lane] = 1.0
                    for j in range(1, reach + 1):
                        w_j = weights[q, j]
                        for lane in range(lanes):
                            value[lane] *= step[lane]
                            step[lane] *= square[lane]
                            w = value[lane] if j <= own_q[lane] else 0.0
                            w_j[lane] = w
                            norm[lane] += 2.0 * w
                    weights[q, reach + 1 : reach + 1 + ROWS] = 0.0
                    for lane in range(lanes):
                        inverse[q, lane] = 1.0 / (norm[lane] * norm[lane])
                total[:] = 0.0
                for row in range(-reach, ROWS + reach):
                    start = (y0 + pad + row) * row_stride + x0 + pad
                    tap_row(channels, lanes, padded, start, plane_stride, weights, depth, reach, row, total)
                for c in range(channels):
                    for q in range(rows):
                        for lane in range(columns):
                            if own[q, lane] == 0:
                                out[c, y0 + q, x0 + lane] = padded[c, y0 + q + pad, x0 + lane + pad]
                            else:
                                out[c, y0 + q, x0 + lane] = total[q, c, lane] * inverse[q, lane]

    return gather_gaussian


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _gather_disc(padded, disc_radius, radius, pad, out):
    channels, height, width = out.shape
    rim = np.empty(_LANES, np.float32)
    rows = np.empty(_LANES + 2 * pad, np.float32)
    total = np.empty(_LANES, np.float32)
    norm = np.empty(_LANES, np.float32)
    for y in range(height):
        for x0 in range(0, width, _LANES):
            lanes = min(_LANES, width - x0)
            reach = 0
            for lane in range(lanes):
                reach = max(reach, radius[y, x0 + lane])
            for lane in range(_LANES):
                rim[lane] = disc_radius[y, x0 + lane] + np.float32(0.5) if lane < lanes else np.float32(1)
            span = _LANES + 2 * reach
            for c in range(channels):
                total[:] = 0.0
                norm[:] = 0.0
                for i in range(reach + 1):
                    up = padded[c, y + pad - i, x0 + pad - reach : x0 + pad - reach + span]
                    if i == 0:
                        rows[:span] = up
                    else:
                        down = padded[c, y + pad + i, x0 + pad - reach : x0 + pad - reach + span]
                        for k in range(span):
                            rows[k] = up[k] + down[k]
                    copies = np.float32(1 if i == 0 else 2)
                    for j in range(reach + 1):
                        distance = np.float32(math.sqrt(i * i + j * j))
                        right = rows[reach + j : reach + j + _LANES]
                        left = rows[reach - j : reach - j + _LANES]
                        # The middle column is met once, the others as a pair.
                        half = np.float32(0.5 if j == 0 else 1.0)
                        for lane in range(_LANES):
                            w = half * min(max(rim[lane] - distance, np.float32(0)), np.float32(1))
                            total[lane] += w * (right[lane] + left[lane])
                            norm[lane] += w * (copies + copies)
                for lane in range(lanes):
                    if radius[y, x0 + lane] == 0:
                        out[c, y, x0 + lane] = padded[c, y + pad, x0 + pad + lane]
                    else:
                        out[c, y, x0 + lane] = total[lane] / norm[lane]
