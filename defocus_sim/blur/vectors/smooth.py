"""One Gaussian for all pixels, down columns and along rows, as explicit vectors; see `intrinsics` for what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from defocus_sim.blur.vectors.intrinsics import Arguments, Block, index, vector_intrinsic


@vector_intrinsic(constants=("rows", "lanes", "taps"))
def smooth_down(rows, lanes, taps, kernel, source, s_start, s_row, out, o_start, o_row):
    """In compiled code: `rows` x `lanes` values, a symmetric kernel along columns, for every second row.

    out[q, k] = sum over |j| < taps of kernel[|j|] * source[2 q + j, k].

    Parameters
    ----------
    rows, lanes, taps
        Constants.
    kernel
        float32, its middle first.
    source, out
        float32 arrays.
    s_start, s_row, o_start, o_row
        Flat index in `source` and `out` of the first value, and how far the row after a row lies from it.
    """

    def emit(given: Arguments) -> None:
        block = Block(given.builder, 1, rows.literal_value, lanes.literal_value)
        source, out = given.planes(block, "source", "s"), given.planes(block, "out", "o")
        weights, reach = block.splats(given.memory("kernel"), taps.literal_value), taps.literal_value - 1
        lines = [block.load(*source.at(number, 0)) for number in range(-reach, 2 * block.rows - 1 + reach)]
        for q in range(block.rows):
            middle = 2 * q + reach
            total = block.added(None, weights[0], lines[middle])
            for j in range(1, reach + 1):
                total = block.added(total, weights[j], given.builder.fadd(lines[middle - j], lines[middle + j]))
            block.store(total, *out.at(q, 0))

    return emit


@vector_intrinsic(constants=("rows", "lanes", "taps"))
def smooth_along(rows, lanes, taps, kernel, source, s_start, s_row, step, out, o_start, o_row):
    """In compiled code: as `smooth_down`, along the rows and for each of them.

    out[q, k] = sum over |j| < taps of kernel[|j|] * source[q, k + j step].

    Parameters
    ----------
    rows, lanes, taps, kernel, source, s_start, s_row, out, o_start, o_row
        As for `smooth_down`.
    step
        How far apart the samples are.
    """

    def emit(given: Arguments) -> None:
        builder, block = given.builder, Block(given.builder, 1, rows.literal_value, lanes.literal_value)
        source, out = given.planes(block, "source", "s"), given.planes(block, "out", "o")
        weights, step = block.splats(given.memory("kernel"), taps.literal_value), given["step"]

        def apart(q: int) -> Iterator[tuple[Any, Any]]:
            base, before = source.at(q, 0)
            after = before
            for _ in weights[1:]:
                before, after = builder.sub(before, step), builder.add(after, step)
                yield block.load(base, before), block.load(base, after)

        def adjacent(q: int) -> Iterator[tuple[Any, Any]]:
            base, middle = source.at(q, 0)
            # Half of them out of whole vectors: one that begins anywhere costs twice in loading.
            window = block.window(base, middle, len(weights) - 1)
            for j in range(1, len(weights)):
                yield window(-j), block.load(base, builder.add(middle, index(j)))

        with builder.if_else(builder.icmp_signed("==", step, index(1))) as cases:
            for case, pairs in zip(cases, (adjacent, apart), strict=True):
                with case:
                    for q in range(block.rows):
                        total = block.added(None, weights[0], block.load(*source.at(q, 0)))
                        for weight, pair in zip(weights[1:], pairs(q), strict=True):
                            total = block.added(total, weight, builder.fadd(*pair))
                        block.store(total, *out.at(q, 0))

    return emit


@vector_intrinsic(constants=("rows", "vectors", "lanes"))
def weigh_down(
    rows, vectors, lanes, weights, w_start, numbers, first, last, source, s_start, s_row, out, o_start, o_row
):  # fmt: skip
    """In compiled code: `rows` x `vectors` * `lanes` values, each a weighted sum down a column.

    out[q, k] = sum over the rows n = numbers[first] to numbers[last] of weights[w_start + n - q] * source[n, k].

    Parameters
    ----------
    rows, vectors, lanes
        Constants.
    weights, w_start
        float32, and the place of the weight of row 0 for the first row of `out`.
    numbers, first, last
        int64, the rows that count, and which of them are summed; `last` < `first` makes 0.
    source, s_start, s_row, out, o_start, o_row
        As for `smooth_down`.
    """

    def emit(given: Arguments) -> None:
        builder, block = given.builder, Block(given.builder, 1, rows.literal_value, lanes.literal_value)
        places = [(q, k) for q in range(block.rows) for k in range(vectors.literal_value)]
        source, out = given.planes(block, "source", "s"), given.planes(block, "out", "o")
        first, last, numbers, weights = given["first"], given["last"], given.memory("numbers"), given.memory("weights")
        zero = [block.constant(0)] * len(places)

        def sums() -> list[Any]:
            with block.loop(first, last, zero) as loop:
                number = builder.load(builder.gep(numbers, [loop.index]))
                base, start = source.buffer, builder.add(given["s_start"], builder.mul(number, source.row))
                line = [
                    block.load(base, builder.add(start, index(k * block.lanes))) for k in range(vectors.literal_value)
                ]
                own = builder.add(given["w_start"], number)
                weight = [block.number(weights, builder.sub(own, index(q))) for q in range(block.rows)]
                loop.go_on([block.fused(weight[q], line[k], s) for (q, k), s in zip(places, loop.values, strict=True)])
            results: list[Any] = loop.results
            return results

        totals = block.unless(builder.icmp_signed("<", last, first), zero, sums)
        for (q, k), total in zip(places, totals, strict=True):
            base, start = out.at(q, 0)
            block.store(total, base, builder.add(start, index(k * block.lanes)))

    return emit


@vector_intrinsic(constants=("vectors", "lanes"))
def weigh_along(vectors, lanes, half, reach, source, s_start, out, o_start):
    """In compiled code: `vectors` * `lanes` neighbouring values, a symmetric kernel along a row.

    out[k] = sum over |j| <= reach of half[|j|] * source[k + j].

    Parameters
    ----------
    vectors, lanes
        Constants.
    half, reach
        float32, the kernel's middle first, and how far it reaches, at least 1.
    source, s_start, out, o_start
        As for `smooth_down`.
    """

    def emit(given: Arguments) -> None:
        builder, block = given.builder, Block(given.builder, 1, 1, lanes.literal_value)
        source, half, out = given.memory("source"), given.memory("half"), given.memory("out")
        starts = [builder.add(given["s_start"], index(k * block.lanes)) for k in range(vectors.literal_value)]
        middle = block.number(half, index(0))
        initial = [builder.fmul(middle, block.load(source, start)) for start in starts]
        with block.loop(index(1), given["reach"], initial) as loop:
            weight, sums = block.number(half, loop.index), []
            for start, total in zip(starts, loop.values, strict=True):
                before, after = builder.sub(start, loop.index), builder.add(start, loop.index)
                pair = builder.fadd(block.load(source, before), block.load(source, after))
                sums.append(block.fused(weight, pair, total))
            loop.go_on(sums)
        for k, total in enumerate(loop.results):
            block.store(total, out, builder.add(given["o_start"], index(k * block.lanes)))

    return emit
