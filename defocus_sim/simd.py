"""The innermost loop of the Gaussian gather as explicit vectors, which numba's own vectoriser does not find.

`tap_row` runs along one input row for a block of `ROWS` x `lanes` output pixels
of all channels. A vector holds `lanes` neighbouring pixels of a row; the sums of the columns +j and -j are shared by the
block's rows, each pixel's own weights by its channels, and all `ROWS * channels` partial sums stay in registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

ROWS = 4


def _host_lanes() -> int:
    """Pixels in a vector register of this machine, 8 where it is not known better."""
    try:
        return 16 if binding.get_host_cpu_features().get("avx512f") else 8
    except RuntimeError:
        return 8


LANES = _host_lanes()


@intrinsic(prefer_literal=True)
def tap_row(typing_context, channels, lanes, planes, start, plane_stride, weights, depth, reach, row, total):
    """`tap_row(channels, lanes, planes, start, plane_stride, weights, depth, reach, row, total)` in compiled code.

    `channels` (1 or 3) and `lanes` (pixels in a vector): constants of the calling function. `planes`: float32 buffer;
    `start`: index of the block's first pixel in the input row, channel 0; `plane_stride`: from one channel to the next.
    `weights`: float32 (ROWS, depth, lanes), [q, j] the one-dimensional kernels of row q at distance j, zero beyond each
    pixel's own radius and for at least ROWS entries beyond `reach`. `row`: the input row relative to the block's first.
    Adds the row's part to `total`, float32 (ROWS, channels, lanes).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(context, builder, signature, arguments, channels.literal_value, lanes.literal_value)
        return context.get_dummy_value()

    integers = (types.intp,) * 2
    return types.void(channels, lanes, planes, *integers, weights, types.intp, types.intp, types.intp, total), generate


def _emit(context: Any, builder: Any, signature: Any, arguments: Any, channels: int, lanes: int) -> None:
    _, _, planes, start, plane_stride, weights, depth, reach, row, total = arguments
    index = ir.IntType(64)
    vector = ir.VectorType(ir.FloatType(), lanes)
    contract = ("contract",)

    def pointer(position: int, value: Any) -> Any:
        return context.make_array(signature.args[position])(context, builder, value).data

    def constant(value: int) -> Any:
        return ir.Constant(index, value)

    def address(base: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

    def load(base: Any, offset: Any) -> Any:
        return builder.load(address(base, offset), align=4)

    def fused(a: Any, b: Any, c: Any) -> Any:
        return builder.fadd(builder.fmul(a, b, flags=contract), c, flags=contract)

    pixels, kernels, sums = pointer(2, planes), pointer(5, weights), pointer(9, total)
    first = [builder.add(start, builder.mul(plane_stride, constant(c))) for c in range(channels)]
    kernel_row = [builder.mul(builder.mul(depth, constant(lanes)), constant(q)) for q in range(ROWS)]
    middle = [load(pixels, first[c]) for c in range(channels)]

    before = builder.block
    loop, after = builder.append_basic_block("taps"), builder.append_basic_block("after_taps")
    builder.cbranch(builder.icmp_signed(">=", reach, constant(1)), loop, after)
    builder.position_at_end(loop)
    j = builder.phi(index)
    j.add_incoming(constant(1), before)
    partial = []
    for _q in range(ROWS):
        for c in range(channels):
            phi = builder.phi(vector)
            phi.add_incoming(middle[c], before)
            partial.append(phi)
    pairs = [
        builder.fadd(load(pixels, builder.add(first[c], j)), load(pixels, builder.sub(first[c], j)))
        for c in range(channels)
    ]
    grown = []
    for q in range(ROWS):
        weight = load(kernels, builder.add(kernel_row[q], builder.mul(j, constant(lanes))))
        grown += [fused(weight, pairs[c], partial[q * channels + c]) for c in range(channels)]
    following = builder.add(j, constant(1))
    body_end = builder.block
    builder.cbranch(builder.icmp_signed("<=", following, reach), loop, after)
    j.add_incoming(following, body_end)
    for phi, value in zip(partial, grown, strict=True):
        phi.add_incoming(value, body_end)

    builder.position_at_end(after)
    lines = []
    for number in range(ROWS * channels):
        phi = builder.phi(vector)
        phi.add_incoming(middle[number % channels], before)
        phi.add_incoming(grown[number], body_end)
        lines.append(phi)
    for q in range(ROWS):
        distance = builder.sub(row, constant(q))
        distance = builder.select(builder.icmp_signed("<", distance, constant(0)), builder.neg(distance), distance)
        weight = load(kernels, builder.add(kernel_row[q], builder.mul(distance, constant(lanes))))
        for c in range(channels):
            place = address(sums, constant((q * channels + c) * lanes))
            value = fused(weight, lines[q * channels + c], builder.load(place, align=4))
            builder.store(value, place, align=4)
