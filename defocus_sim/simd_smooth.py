"""One Gaussian for all pixels, down columns and along rows, as explicit vectors; see `simd` for what they are made of."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from defocus_sim.simd import Block, Planes, buffers_of


@intrinsic(prefer_literal=True)
def smooth_down(
    typing_context, rows, lanes, taps, kernel, source, s_start, s_row, out, o_start, o_row
):  # fmt: skip
    """In compiled code: `rows` x `lanes` values of `out`, a symmetric kernel along columns; the first three are constants.

    out[q, k] = sum over |j| < `taps` of kernel[|j|] * source[q + j, k], where the row after a row of `source` lies `s_row`
    further, and of `out` `o_row`. All arrays float32; starts are flat indices.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer = buffers_of(context, builder, signature, arguments)
        block = Block(builder, 1, rows.literal_value, lanes.literal_value)
        source, out = Planes(block, buffer(4), *arguments[5:7]), Planes(block, buffer(7), *arguments[8:10])
        weights, reach = block.splats(buffer(3), taps.literal_value), taps.literal_value - 1
        sums: list[Any] = [None] * rows.literal_value
        for number in range(-reach, rows.literal_value + reach):
            line = block.load(*source.at(number, 0))
            for q in range(max(0, number - reach), min(rows.literal_value, number + reach + 1)):
                sums[q] = block.added(sums[q], weights[abs(number - q)], line)
        for q, total in enumerate(sums):
            block.store(total, *out.at(q, 0))
        return context.get_dummy_value()

    places = (types.intp,) * 2
    return types.void(rows, lanes, taps, kernel, source, *places, out, *places), generate


@intrinsic(prefer_literal=True)
def smooth_along(
    typing_context, rows, lanes, taps, kernel, source, s_start, s_row, step, out, o_start, o_row
):  # fmt: skip
    """As `smooth_down` along the rows: out[q, k] = sum over |j| < `taps` of kernel[|j|] * source[q, k + j step]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer = buffers_of(context, builder, signature, arguments)
        block = Block(builder, 1, rows.literal_value, lanes.literal_value)
        source, out = Planes(block, buffer(4), *arguments[5:7]), Planes(block, buffer(8), *arguments[9:11])
        weights = block.splats(buffer(3), taps.literal_value)
        for q in range(rows.literal_value):
            base, middle = source.at(q, 0)
            total = block.added(None, weights[0], block.load(base, middle))
            before = after = middle
            for weight in weights[1:]:
                before, after = builder.sub(before, arguments[7]), builder.add(after, arguments[7])
                pair = builder.fadd(block.load(base, before), block.load(base, after))
                total = block.added(total, weight, pair)
            block.store(total, *out.at(q, 0))
        return context.get_dummy_value()

    places = (types.intp,) * 2
    return types.void(rows, lanes, taps, kernel, source, *places, types.intp, out, *places), generate
