"""The sums of explicit vectors against the same sums written plainly, for registers of every width."""

import numpy as np
import pytest
from numba import njit

from defocus_sim.blur.vectors.smooth import smooth_along, smooth_down, weigh_along, weigh_down

WIDTHS = pytest.mark.parametrize("lanes", [4, 8, 16])


@WIDTHS
@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 7], [5], []])
def test_rows_that_count_are_weighed_down_the_columns_and_others_are_not_read(rng, lanes, numbers):
    rows, vectors, reach, wide = 3, 2, 3, 2 * lanes
    weights = np.zeros(2 * (reach + rows) - 1, np.float32)
    weights[rows - 1 : rows + 2 * reach] = rng.random(2 * reach + 1)
    source = rng.random((rows + 2 * reach, wide), dtype=np.float32)
    source[[n for n in range(len(source)) if n not in numbers]] = np.nan

    @njit
    def blurred(source, weights, numbers, out):
        weigh_down(rows, vectors, lanes, weights, rows - 1, numbers, 0, numbers.size - 1, source, 0, wide, out, 0, wide)

    out = np.full((rows, wide), np.nan, np.float32)
    blurred(source, weights, np.array(numbers, np.int64), out)
    for q in range(rows):
        wanted = sum((weights[rows - 1 + n - q] * source[n].astype(float) for n in numbers), np.zeros(wide))
        assert np.abs(out[q] - wanted).max() < 1e-6


@WIDTHS
@pytest.mark.parametrize("reach", [1, 2, 9, 21])
def test_a_symmetric_kernel_along_a_row_is_a_convolution(rng, lanes, reach):
    vectors = 3
    half = rng.random(reach + 1, dtype=np.float32)
    source = rng.random(vectors * lanes + 2 * reach, dtype=np.float32)

    @njit
    def blurred(source, half, out):
        weigh_along(vectors, lanes, half, reach, source, reach, out, 0)

    out = np.empty(vectors * lanes, np.float32)
    blurred(source, half, out)
    wanted = np.convolve(source.astype(float), np.concatenate([half[:0:-1], half]), mode="valid")
    assert np.abs(out - wanted).max() < 1e-5


@WIDTHS
@pytest.mark.parametrize("step", [1, 2, 8])
def test_one_kernel_for_all_down_every_second_row_and_along_rows(rng, lanes, step):
    rows, taps = 3, 10
    kernel = rng.random(taps, dtype=np.float32)
    both = np.concatenate([kernel[:0:-1], kernel]).astype(float)
    margin = (taps - 1) * step
    tall = rng.random((2 * rows + 2 * taps, lanes), dtype=np.float32)
    # A whole vector more on both sides, since whole vectors are read.
    wide = rng.random((rows, 3 * lanes + 2 * margin), dtype=np.float32)

    @njit
    def blurred(kernel, tall, wide, down, along):
        smooth_down(rows, lanes, taps, kernel, tall, (taps - 1) * lanes, lanes, down, 0, lanes)
        start = lanes + margin
        smooth_along(rows, lanes, taps, kernel, wide, start, wide.shape[1], step, along, 0, lanes)

    down, along = np.empty((rows, lanes), np.float32), np.empty((rows, lanes), np.float32)
    blurred(kernel, tall, wide, down, along)
    for q in range(rows):
        assert np.abs(down[q] - both @ tall[2 * q : 2 * q + 2 * taps - 1]).max() < 1e-5
        window = np.stack([wide[q, lanes + k * step : 2 * lanes + k * step] for k in range(2 * taps - 1)])
        assert np.abs(along[q] - both @ window).max() < 1e-5
