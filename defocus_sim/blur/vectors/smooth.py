"""One Gaussian for all pixels, down columns and along rows, as explicit vectors; see `simd` for what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import types
from numba.extending import intrinsic

from defocus_sim.blur.vectors.intrinsics import Block, Planes, buffers_of, index, keep_registers_aligned


@intrinsic(prefer_literal=True)
def smooth_down(
    typing_context, rows, lanes, taps, kernel, source, s_start, s_row, out, o_start, o_row
):  # fmt: skip
    """In compiled code: `rows` x `lanes` values of `out`, a symmetric kernel along columns; the first three are constants.

    Every second row: out[q, k] = sum over |j| < `taps` of kernel[|j|] * source[2 q + j, k], where the row after a row of
    `source` lies `s_row` further, and of `out` `o_row`. All arrays float32; starts are flat indices.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        keep_registers_aligned(builder)
        buffer = buffers_of(context, builder, signature, arguments)
        block = Block(builder, 1, rows.literal_value, lanes.literal_value)
        source, out = Planes(block, buffer(4), *arguments[5:7]), Planes(block, buffer(7), *arguments[8:10])
        weights, reach = block.splats(buffer(3), taps.literal_value), taps.literal_value - 1
        lines = [block.load(*source.at(number, 0)) for number in range(-reach, 2 * rows.literal_value - 1 + reach)]
        for q in range(rows.literal_value):
            middle = 2 * q + reach
            total = block.added(None, weights[0], lines[middle])
            for j in range(1, reach + 1):
                total = block.added(total, weights[j], builder.fadd(lines[middle - j], lines[middle + j]))
            block.store(total, *out.at(q, 0))
        return context.get_dummy_value()

    places = (types.intp,) * 2
    return types.void(rows, lanes, taps, kernel, source, *places, out, *places), generate


@intrinsic(prefer_literal=True)
def smooth_along(
    typing_context, rows, lanes, taps, kernel, source, s_start, s_row, step, out, o_start, o_row
):  # fmt: skip
    """Along the rows: out[q, k] = sum over |j| < `taps` of kernel[|j|] * source[q, k + j step]; else as `smooth_down`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        keep_registers_aligned(builder)
        buffer = buffers_of(context, builder, signature, arguments)
        block = Block(builder, 1, rows.literal_value, lanes.literal_value)
        source, out = Planes(block, buffer(4), *arguments[5:7]), Planes(block, buffer(8), *arguments[9:11])
        weights, step = block.splats(buffer(3), taps.literal_value), arguments[7]

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
                    for q in range(rows.literal_value):
                        total = block.added(None, weights[0], block.load(*source.at(q, 0)))
                        for weight, pair in zip(weights[1:], pairs(q), strict=True):
                            total = block.added(total, weight, builder.fadd(*pair))
                        block.store(total, *out.at(q, 0))
        return context.get_dummy_value()

    places = (types.intp,) * 2
    return types.void(rows, lanes, taps, kernel, source, *places, types.intp, out, *places), generate


@intrinsic(prefer_literal=True)
def weigh_down(
    typing_context, rows, vectors, lanes, weights, w_start, numbers, first, last, source, s_start, s_row, out, o_start,
    o_row,
):  # fmt: skip
    """In compiled code: `rows` x `vectors` * `lanes` values of `out`, each a weighted sum down a column of `source`.

    out[q, k] = sum over the rows n = numbers[first] to numbers[last] of weights[w_start + n - q] * source[n, k], 0 where
    `last` < `first`; `numbers` int64. The first three arguments are constants; the rest as for `smooth_down`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        keep_registers_aligned(builder)
        buffer = buffers_of(context, builder, signature, arguments)
        block = Block(builder, 1, rows.literal_value, lanes.literal_value)
        places = [(q, k) for q in range(rows.literal_value) for k in range(vectors.literal_value)]
        source, out = Planes(block, buffer(8), *arguments[9:11]), Planes(block, buffer(11), *arguments[12:14])
        zero = [block.constant(0)] * len(places)

        def sums() -> list[Any]:
            with block.loop(arguments[6], arguments[7], zero) as loop:
                number = builder.load(builder.gep(buffer(5), [loop.index]))
                base, start = source.buffer, builder.add(arguments[9], builder.mul(number, source.row))
                line = [
                    block.load(base, builder.add(start, index(k * block.lanes))) for k in range(vectors.literal_value)
                ]
                own = builder.add(arguments[4], number)
                weight = [block.number(buffer(3), builder.sub(own, index(q))) for q in range(rows.literal_value)]
                loop.go_on([block.fused(weight[q], line[k], s) for (q, k), s in zip(places, loop.values, strict=True)])
            results: list[Any] = loop.results
            return results

        totals = block.unless(builder.icmp_signed("<", arguments[7], arguments[6]), zero, sums)
        for (q, k), total in zip(places, totals, strict=True):
            base, start = out.at(q, 0)
            block.store(total, base, builder.add(start, index(k * block.lanes)))
        return context.get_dummy_value()

    places = (types.intp,) * 2
    whole = types.intp
    return types.void(rows, vectors, lanes, weights, whole, numbers, *places, source, *places, out, *places), generate


@intrinsic(prefer_literal=True)
def weigh_along(typing_context, vectors, lanes, half, reach, source, s_start, out, o_start):
    """In compiled code: `vectors` * `lanes` neighbouring values of `out`, a symmetric kernel along a row of `source`.

    out[k] = sum over |j| <= `reach` (at least 1) of half[|j|] * source[k + j]; else as `smooth_down`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        keep_registers_aligned(builder)
        buffer = buffers_of(context, builder, signature, arguments)
        block, source = Block(builder, 1, 1, lanes.literal_value), buffer(4)
        starts = [builder.add(arguments[5], index(k * block.lanes)) for k in range(vectors.literal_value)]
        middle = block.number(buffer(2), index(0))
        with block.loop(
            index(1), arguments[3], [builder.fmul(middle, block.load(source, start)) for start in starts]
        ) as loop:
            weight, sums = block.number(buffer(2), loop.index), []
            for start, total in zip(starts, loop.values, strict=True):
                before, after = builder.sub(start, loop.index), builder.add(start, loop.index)
                pair = builder.fadd(block.load(source, before), block.load(source, after))
                sums.append(block.fused(weight, pair, total))
            loop.go_on(sums)
        for k, total in enumerate(loop.results):
            block.store(total, buffer(6), builder.add(arguments[7], index(k * block.lanes)))
        return context.get_dummy_value()

    return types.void(vectors, lanes, half, types.intp, source, types.intp, out, types.intp), generate
