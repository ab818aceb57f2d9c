"""The Gaussian gather of one block of pixels as explicit vectors, which numba's own vectoriser does not find.

`gather_block` blurs `ROWS` x `LANES` neighbouring output pixels of all channels. A vector holds neighbouring pixels of a
row; the sums of the columns +j and -j are shared by the block's rows, each pixel's own weights by its channels, and the
`ROWS * channels` partial sums of an input row stay in registers. The vectors are LLVM's own: they run on any processor, and
fast where a register holds `LANES` float32 values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

_INDEX, _INT32, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_CONTRACT = ("contract",)


def _block_of_host() -> tuple[int, int]:
    """Rows and lanes of a block: as many sums as the registers of this machine hold, those of AVX2 where unknown."""
    try:
        wide = binding.get_host_cpu_features().get("avx512f")
    except RuntimeError:
        wide = False
    return (5, 16) if wide else (3, 8)


ROWS, LANES = _block_of_host()


def _exp2_polynomial(degree: int = 6) -> list[float]:
    """Coefficients, lowest first, of 2^x on [-1/2, 1/2] through the Chebyshev nodes; relative error below 1e-8."""
    fit = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, degree, domain=[-0.5, 0.5])
    return [float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


_EXP2 = _exp2_polynomial()


@intrinsic(prefer_literal=True)
def gather_block(
    typing_context, channels, rows, lanes, spaced, truncate, narrowest, widest, step, sigma, s_start, s_row, pixels,
    p_start, p_row, p_plane, weights, out, o_start, o_row, o_plane,
):  # fmt: skip
    """In compiled code: blur one block of `rows` x `lanes` pixels; `channels`, `rows`, `lanes`, `spaced` are constants.

    `truncate`: reach of the Gaussian in sigmas. Pixels with `narrowest` <= sigma < `widest` are blurred. `sigma` (px),
    `pixels`, `weights`, `out`: float32 arrays; `*_start` is the flat index of the block's first pixel, `*_row` and
    `*_plane` the steps to the block's next row and to the next channel. `pixels` must reach as far as the Gaussian on
    every side. `weights`: scratch for (largest reach in samples + rows) * rows * lanes values.

    `spaced` = 0: the other pixels are copied. `spaced` = 1: they stay what they are in `out`; samples are taken `step`
    pixels apart along a row and `p_row` apart down a column, from pixels that have a Gaussian of sigma `step` already, and
    sqrt(sigma^2 - step^2) is what is blurred.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer = buffers_of(context, builder, signature, arguments)
        given = dict(zip(_BLOCK_ARGUMENTS, arguments, strict=True))
        block = Block(builder, channels.literal_value, rows.literal_value, lanes.literal_value)
        source = Planes(block, buffer(11), *(given[f"p_{name}"] for name in ("start", "row", "plane")))
        target = Planes(block, buffer(16), *(given[f"o_{name}"] for name in ("start", "row", "plane")))
        weight, step_px, own_share, before = buffer(15), _index(1), None, source
        if spaced.literal_value:
            step_px, before = given["step"], target
            own_share = builder.fdiv(ir.Constant(_FLOAT, 1.0), builder.sitofp(step_px, _FLOAT))
        truncate_f, low, high = (builder.fptrunc(given[name], _FLOAT) for name in ("truncate", "narrowest", "widest"))
        own, exponent, reach = block.widths(
            buffer(8), given["s_start"], given["s_row"], truncate_f, low, high, own_share
        )
        with builder.if_else(builder.icmp_signed("==", reach, _index(0))) as (sharp, blurred):
            with sharp:
                if before is source:
                    for q, c in block.each:
                        block.store(block.load(*source.at(q, c)), *target.at(q, c))
            with blurred:
                inverse = block.weights(weight, own, exponent, reach)
                total = block.gather(source, step_px, weight, reach)
                for number, (q, c) in enumerate(block.each):
                    kept = builder.fcmp_ordered("==", own[q], block.constant(0))
                    mean = builder.fmul(total[number], inverse[q])
                    block.store(builder.select(kept, block.load(*before.at(q, c)), mean), *target.at(q, c))
        return context.get_dummy_value()

    places = (types.intp,) * 3
    signature = types.void(
        *(channels, rows, lanes, spaced), *(types.float64,) * 3, types.intp, *(sigma, *places[:2]), *(pixels, *places),
        weights, *(out, *places),
    )  # fmt: skip
    return signature, generate


_BLOCK_ARGUMENTS = (
    "channels", "rows", "lanes", "spaced", "truncate", "narrowest", "widest", "step", "sigma", "s_start", "s_row", "pixels",
    "p_start", "p_row", "p_plane", "weights", "out", "o_start", "o_row", "o_plane",
)  # fmt: skip


def buffers_of(context: Any, builder: Any, signature: Any, arguments: Any) -> Callable[[int], Any]:
    """Gives the memory of the array that is the argument of some position."""
    return lambda position: context.make_array(signature.args[position])(context, builder, arguments[position]).data


def _index(value: int) -> Any:
    return ir.Constant(_INDEX, value)


class Planes:
    """Where pixel vectors lie: row `q` and channel `c` of a block in a planar buffer."""

    def __init__(self, block: Block, buffer: Any, first: Any, row: Any, plane: Any = None) -> None:
        self._builder, self._first = block.builder, first
        self.buffer, self.row, self._plane = buffer, row, plane

    def at(self, q: int, c: int) -> tuple[Any, Any]:
        """The buffer, and where in it row `q` of channel `c` begins."""
        b = self._builder
        across = b.mul(self.row, _index(q))
        if c:
            across = b.add(across, b.mul(self._plane, _index(c)))
        return self.buffer, b.add(self._first, across)


class Block:
    """Emits the parts of the work on one block; all vectors are float32 of `lanes`."""

    def __init__(self, builder: Any, channels: int, rows: int, lanes: int) -> None:
        self.builder, self._channels, self._rows, self._lanes = builder, channels, rows, lanes
        self.each = [(q, c) for q in range(rows) for c in range(channels)]
        self._vector, self._integers = ir.VectorType(_FLOAT, lanes), ir.VectorType(_INT32, lanes)

    def constant(self, value: float) -> Any:
        """A vector of one number."""
        return ir.Constant(self._vector, [float(np.float32(value))] * self._lanes)

    def load(self, base: Any, offset: Any) -> Any:
        """The vector that begins at `offset`, on any address."""
        return self.builder.load(self._address(base, offset), align=4)

    def store(self, value: Any, base: Any, offset: Any) -> None:
        """Put a vector where it is to begin at `offset`."""
        self.builder.store(value, self._address(base, offset), align=4)

    def splats(self, numbers: Any, count: int) -> list[Any]:
        """Each of the first `count` of `numbers` as a whole vector."""
        b = self.builder
        return [self._splat(b.load(b.gep(numbers, [_index(k)]))) for k in range(count)]

    def added(self, total: Any, a: Any, x: Any) -> Any:
        """`total` (None = 0) + `a` * `x`."""
        return self.builder.fmul(a, x) if total is None else self._fused(a, x, total)

    def widths(
        self, sigma: Any, start: Any, row: Any, truncate: Any, narrowest: Any, widest: Any, own_share: Any
    ) -> tuple[list[Any], list[Any], Any]:
        """Per row: each pixel's reach (as float) and log2 of its weight at distance one; the block's largest reach.

        Both are 0 where sigma is not between `narrowest` and `widest`. With `own_share` = 1 / spacing, what counts is the
        sigma that remains of it after one of the size of the spacing, in samples; None is the sigma itself.
        """
        b, own, exponent = self.builder, [], []
        factor, low, high = (self._splat(x) for x in (truncate, narrowest, widest))
        for q in range(self._rows):
            s = self.load(sigma, b.add(start, b.mul(row, _index(q))))
            counts = b.and_(b.fcmp_ordered(">=", s, low), b.fcmp_ordered("<", s, high))
            square = b.fmul(s, s)
            if own_share is not None:
                s = b.fmul(s, self._splat(own_share))
                square = self._larger(b.fsub(b.fmul(s, s), self.constant(1)), self.constant(0))
                s = self._call("llvm.sqrt", square)
            own.append(b.select(counts, self._call("llvm.ceil", b.fmul(factor, s)), self.constant(0)))
            # Where nothing is weighted nothing may become infinite either.
            square = b.select(counts, square, self.constant(1))
            exponent.append(b.fdiv(self.constant(-0.5 / math.log(2)), square))
        largest = own[0]
        for other in own[1:]:
            largest = self._larger(largest, other)
        return own, exponent, b.fptosi(self._largest_lane(largest), _INDEX)

    def weights(self, scratch: Any, own: list[Any], exponent: list[Any], reach: Any) -> list[Any]:
        """Write each pixel's weights at the distances 0 to `reach` + rows - 1; returns 1 / (their sum)^2 of each row."""
        b, one = self.builder, ir.Constant(_FLOAT, 1.0)
        for q in range(self._rows):
            self.store(self.constant(1), scratch, _index(q * self._lanes))
            # The rows of a block reach as far as the one that reaches farthest.
            for beyond in range(1, self._rows):
                self.store(self.constant(0), scratch, self._weight_at(b.add(reach, _index(beyond)), q))
        with self.loop(_index(1), reach, [one] + [self.constant(0.5)] * self._rows) as loop:
            distance, *sums = loop.values
            j = self._splat(distance)
            grown = [b.fadd(distance, one)]
            for q in range(self._rows):
                weight = self._exp2(b.fmul(exponent[q], b.fmul(j, j)))
                weight = b.select(b.fcmp_ordered("<=", j, own[q]), weight, self.constant(0))
                self.store(weight, scratch, self._weight_at(loop.index, q))
                grown.append(b.fadd(sums[q], weight))
            loop.go_on(grown)
        half = loop.results[1:]
        return [b.fdiv(self.constant(0.25), b.fmul(h, h)) for h in half]

    def gather(self, source: Planes, step: Any, weight: Any, reach: Any) -> list[Any]:
        """The weighted sums of every pixel of the block over all input rows, in the order of `each`."""
        b = self.builder
        up = b.neg(reach)
        across = b.mul(source.row, up)
        starts = [b.add(source.at(0, c)[1], across) for c in range(self._channels)]
        last = b.add(reach, _index(self._rows - 1))
        with self.loop(up, last, starts + [self.constant(0)] * len(self.each)) as rows:
            row, totals = rows.values[: self._channels], rows.values[self._channels :]
            middle = [self.load(source.buffer, offset) for offset in row]
            with self.loop(_index(1), reach, [middle[c] for _, c in self.each]) as taps:
                aside = b.mul(taps.index, step)
                pairs = [
                    b.fadd(
                        self.load(source.buffer, b.add(offset, aside)), self.load(source.buffer, b.sub(offset, aside))
                    )
                    for offset in row
                ]
                kernel = [self.load(weight, self._weight_at(taps.index, q)) for q in range(self._rows)]
                taps.go_on(
                    [self._fused(kernel[q], pairs[c], s) for (q, c), s in zip(self.each, taps.values, strict=True)]
                )
            kernel = []
            for q in range(self._rows):
                distance = b.sub(rows.index, _index(q))
                distance = b.select(b.icmp_signed("<", distance, _index(0)), b.neg(distance), distance)
                kernel.append(self.load(weight, self._weight_at(distance, q)))
            lines = zip(self.each, taps.results, totals, strict=True)
            rows.go_on(
                [b.add(offset, source.row) for offset in row]
                + [self._fused(kernel[q], line, total) for (q, _), line, total in lines]
            )
        results: list[Any] = rows.results[self._channels :]
        return results

    def _weight_at(self, distance: Any, q: int) -> Any:
        b = self.builder
        return b.add(b.mul(distance, _index(self._rows * self._lanes)), _index(q * self._lanes))

    def _exp2(self, x: Any) -> Any:
        """2^x for x <= 0; below 2^-120 as 2^-120, which a sum of ones and less does not see."""
        b = self.builder
        x = self._larger(x, self.constant(-120))
        whole = self._call("llvm.rint", x)
        rest, result = b.fsub(x, whole), self.constant(_EXP2[-1])
        for coefficient in _EXP2[-2::-1]:
            result = self._fused(result, rest, self.constant(coefficient))
        # Times a power of two by adding to the exponent's bits, which begin at bit 23.
        shift = b.shl(b.fptosi(whole, self._integers), ir.Constant(self._integers, [23] * self._lanes))
        return b.bitcast(b.add(b.bitcast(result, self._integers), shift), self._vector)

    def _fused(self, a: Any, x: Any, c: Any) -> Any:
        b = self.builder
        return b.fadd(b.fmul(a, x, flags=_CONTRACT), c, flags=_CONTRACT)

    def _larger(self, x: Any, y: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), x, y)

    def _largest_lane(self, x: Any) -> Any:
        return self._call("llvm.vector.reduce.fmax", x, returns=_FLOAT, fastmath=("nnan",))

    def _splat(self, x: Any) -> Any:
        undefined = ir.Constant(self._vector, ir.Undefined)
        first = self.builder.insert_element(undefined, x, ir.Constant(_INT32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(self._integers, [0] * self._lanes))

    def _call(self, name: str, x: Any, returns: Any = None, fastmath: tuple[str, ...] = ()) -> Any:
        module, full = self.builder.module, f"{name}.v{self._lanes}f32"
        function = module.globals.get(full)
        if function is None:
            function = ir.Function(module, ir.FunctionType(returns or self._vector, [x.type]), full)
        return self.builder.call(function, [x], fastmath=fastmath)

    def _address(self, base: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [offset]), self._vector.as_pointer())

    def loop(self, first: Any, last: Any, initial: list[Any]) -> _Loop:
        """See `_Loop`."""
        return _Loop(self.builder, first, last, initial)


class _Loop:
    """`with` body: run for `index` = first to last (at least once), `values` carried from turn to turn by `go_on`.

    Afterwards `results` holds the values of the last turn.
    """

    def __init__(self, builder: Any, first: Any, last: Any, initial: list[Any]) -> None:
        self._builder, self._first, self._last, self._initial = builder, first, last, initial

    def __enter__(self) -> _Loop:
        b, before = self._builder, self._builder.block
        self._body, self._after = b.append_basic_block("turn"), b.append_basic_block("done")
        b.branch(self._body)
        b.position_at_end(self._body)
        self.index = b.phi(_INDEX)
        self.index.add_incoming(self._first, before)
        self.values = []
        for value in self._initial:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            self.values.append(phi)
        return self

    def go_on(self, results: list[Any]) -> None:
        b = self._builder
        following, end = b.add(self.index, _index(1)), b.block
        self.index.add_incoming(following, end)
        for phi, value in zip(self.values, results, strict=True):
            phi.add_incoming(value, end)
        b.cbranch(b.icmp_signed("<=", following, self._last), self._body, self._after)
        self.results = results

    def __exit__(self, *exception: object) -> None:
        self._builder.position_at_end(self._after)
