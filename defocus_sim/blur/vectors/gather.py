"""The Gaussian gather of one block of pixels as explicit vectors.

`gather_block` blurs `ROWS` x `LANES` neighbouring output pixels of all channels. The sums of the columns +j and -j are
shared by the block's rows, each pixel's own weights by its channels, and the `ROWS * channels` partial sums of an input row
stay in registers.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from defocus_sim.blur.vectors.intrinsics import (
    FLOAT,
    INDEX,
    INT32,
    Arguments,
    Block,
    Planes,
    index,
    vector_intrinsic,
)

# Rounding of a weight grows with the square of its number among them: 16 are good to 1e-5 of the outermost.
_AT_ONCE = 16


@vector_intrinsic(
    constants=("channels", "rows", "lanes", "spaced"),
    floats=("truncate", "narrowest", "widest", "variance", "margin"),
)
def gather_block(
    channels, rows, lanes, spaced, truncate, narrowest, widest, step, variance, margin, line, sigma, s_start, s_row, pixels,
    p_start, p_row, p_plane, weights, out, o_start, o_row, o_plane,
):  # fmt: skip
    """In compiled code: blur one block of `rows` x `lanes` pixels, each with a Gaussian of its own.

    Parameters
    ----------
    channels, rows, lanes
        Constants.
    spaced
        Constant. 0: pixels that are not blurred are copied. 1: they stay what they are in `out`; `pixels` are every
        `step`-th row of the image, smoothed by a Gaussian of variance `variance` * step^2, of which samples are taken
        `step` pixels apart along a row, and sqrt(sigma^2 - variance * step^2) is what is blurred.
    truncate
        Reach of the Gaussian in sigmas.
    narrowest, widest
        Pixels with `narrowest` <= sigma < `widest` are blurred, px.
    step, variance, margin
        If `spaced`: see there; the reach is `truncate` of what is blurred less `margin` samples, rounded up.
    line
        If `spaced`: row of the block's first pixel in the image.
    sigma, s_start, s_row
        float32 px; flat index of the block's first pixel, and how far the block's next row lies from it.
    pixels, p_start, p_row, p_plane
        As `sigma`, and how far the next channel lies; they reach as far as the Gaussian on every side. If `spaced`,
        `p_start` is the column of the block's first pixel in image row 0.
    weights
        float32 scratch of (largest reach in samples + rows) * rows * lanes values, thrice that if `spaced`.
    out, o_start, o_row, o_plane
        As `pixels`.
    """

    def emit(given: Arguments) -> None:
        builder, spacing = given.builder, None
        block = _GatherBlock(builder, channels.literal_value, rows.literal_value, lanes.literal_value)
        source, target, weight = (
            given.planes(block, "pixels", "p"),
            given.planes(block, "out", "o"),
            given.memory("weights"),
        )
        truncate_f, low, high = (builder.fptrunc(given[name], FLOAT) for name in ("truncate", "narrowest", "widest"))
        if spaced.literal_value:
            variance, margin = (builder.fptrunc(given[name], FLOAT) for name in ("variance", "margin"))
            spacing = Spacing(given["step"], variance, margin, given["line"])
        counted, largest = block.counted(given.memory("sigma"), given["s_start"], given["s_row"], low, high)
        with builder.if_else(builder.fcmp_ordered("==", largest, ir.Constant(FLOAT, 0.0))) as (sharp, blurred):
            with sharp:
                if spacing is None:
                    for q, c in block.each:
                        block.store(block.load(*source.at(q, c)), *target.at(q, c))
            with blurred:
                gaussians = block.gaussians(counted, largest, truncate_f, spacing)
                before = source if spacing is None else target
                if spacing is None:
                    total, inverse = block.dense(source, weight, gaussians)
                else:
                    total, inverse = block.spaced(source, weight, gaussians, spacing)
                for number, (q, c) in enumerate(block.each):
                    kept = builder.fcmp_ordered("==", counted[q], block.constant(0))
                    mean = builder.fmul(total[number], inverse[q])
                    block.store(builder.select(kept, block.load(*before.at(q, c)), mean), *target.at(q, c))

    return emit


@dataclass(frozen=True)
class Spacing:
    """Samples `step` pixels apart, of an image with a Gaussian of `variance` * step^2; the block begins in row `line`."""

    step: Any
    variance: Any
    margin: Any
    line: Any


@dataclass(frozen=True)
class Gaussians:
    """Those of a block, in samples: of each row how far each pixel's own reaches and log2 of its weight at distance one.

    `own` is a whole number as float, 0 where nothing is blurred; `reach`, an integer, is the largest of the block.
    """

    own: list[Any]
    exponents: list[Any]
    reach: Any


class _GatherBlock(Block):
    """Emits the parts of the gather."""

    def counted(self, sigma: Any, start: Any, row: Any, narrowest: Any, widest: Any) -> tuple[list[Any], Any]:
        """Per row: sigma where `narrowest` <= sigma < `widest`, else 0; and the block's largest of these."""
        b, counted = self.builder, []
        low, high = self.splat(narrowest), self.splat(widest)
        for q in range(self.rows):
            s = self.load(sigma, b.add(start, b.mul(row, index(q))))
            counts = b.and_(b.fcmp_ordered(">=", s, low), b.fcmp_ordered("<", s, high))
            counted.append(b.select(counts, s, self.constant(0)))
        largest = functools.reduce(self.larger, counted)
        return counted, self.call("llvm.vector.reduce.fmax", largest, returns=FLOAT, fastmath=("nnan",))

    def gaussians(self, counted: list[Any], largest: Any, truncate: Any, spacing: Spacing | None) -> Gaussians:
        """What remains of the sigmas `counted` after that of the spacing, in samples."""
        b = self.builder
        sigmas = [*counted, self.splat(largest)]
        squares = [b.fmul(s, s) for s in sigmas]
        if spacing is not None:
            share = b.fdiv(ir.Constant(FLOAT, 1.0), b.sitofp(b.mul(spacing.step, spacing.step), FLOAT))
            share, variance = self.splat(share), self.splat(spacing.variance)
            squares = [self.larger(b.fsub(b.fmul(s, share), variance), self.constant(0)) for s in squares]
            sigmas = [self.call("llvm.sqrt", s) for s in squares]
        truncate = self.splat(truncate)
        reaches = [b.fmul(truncate, s) for s in sigmas]
        if spacing is not None:
            margin = self.splat(spacing.margin)
            reaches = [self.larger(b.fsub(r, margin), self.constant(0)) for r in reaches]
        *own, reach = (self.call("llvm.ceil", r) for r in reaches)
        # Where nothing is weighted nothing may become infinite either.
        squares = [
            b.select(b.fcmp_ordered("==", s, self.constant(0)), self.constant(1), square)
            for s, square in zip(counted, squares[:-1], strict=True)
        ]
        exponents = [b.fdiv(self.constant(-0.5 / math.log(2)), square) for square in squares]
        return Gaussians(own, exponents, b.fptosi(b.extract_element(reach, ir.Constant(INT32, 0)), INDEX))

    def dense(self, source: Planes, weight: Any, gaussians: Gaussians) -> tuple[Any, Any]:
        """Sums over all samples in the order of `each`, and 1 / (sum of weights) of each row."""
        b, reach = self.builder, gaussians.reach
        # The rows of a block reach as far as the one that reaches farthest.
        for beyond, q in itertools.product(range(1, self.rows), range(self.rows)):
            self.store(self.constant(0), weight, self._weight_at(b.add(reach, index(beyond)), q))
        half = self._weights_aside(weight, gaussians)

        def down(row: Any) -> list[Any]:
            distances = [b.sub(row, index(q)) for q in range(self.rows)]
            distances = [b.select(b.icmp_signed("<", d, index(0)), b.neg(d), d) for d in distances]
            return [self.load(weight, self._weight_at(d, q)) for q, d in enumerate(distances)]

        last = b.add(reach, index(self.rows - 1))
        total = self._gather(source, index(1), weight, reach, b.neg(reach), last, down)
        return total, [b.fdiv(self.constant(0.25), b.fmul(h, h)) for h in half]

    def spaced(self, source: Planes, weight: Any, gaussians: Gaussians, spacing: Spacing) -> tuple[Any, Any]:
        """As `dense`, with samples apart: of a row around each pixel, of a column where `source` has its rows."""
        b, step, line, reach = self.builder, spacing.step, spacing.line, gaussians.reach
        half = self._weights_aside(weight, gaussians)
        # The first row of `source` that is not above the block, and those within half a sample of the reach.
        middle = b.sdiv(b.add(line, b.sub(step, index(1))), step)
        half_step, bottom = b.sdiv(step, index(2)), b.add(line, index(self.rows - 1))
        first = b.sub(b.sdiv(b.add(line, b.sub(half_step, index(1))), step), reach)
        last = b.add(b.sdiv(b.add(bottom, half_step), step), reach)
        below = b.gep(weight, [self._weight_at(b.add(reach, index(1)), 0)])
        share = b.fdiv(ir.Constant(FLOAT, 1.0), b.sitofp(step, FLOAT))
        nearest = b.fmul(b.sitofp(b.sub(b.mul(middle, step), line), FLOAT), share)
        ahead = [self.splat(b.fsub(nearest, b.fmul(share, ir.Constant(FLOAT, float(q))))) for q in range(self.rows)]
        behind = [b.fsub(self.constant(1), d) for d in ahead]
        weights, factors = self._by_rows(self._begun(gaussians.exponents, ahead))
        # By what the weight of the row before the middle differs from that of the middle: e (1 - 2 d).
        back = [
            self.exp2(b.fmul(e, b.fsub(one, d))) for e, one, d in zip(gaussians.exponents, behind, ahead, strict=True)
        ]
        falls = self._falls(gaussians)
        start = [b.fmul(w, u) for w, u in zip(weights, back, strict=True)]
        start += [b.fmul(u, fall) for u, fall in zip(back, falls, strict=True)]
        above, sums = b.sub(b.sub(middle, first), index(1)), [self.constant(0)] * self.rows
        sums = self._weights(
            gaussians, ahead, [*weights, *factors], b.sub(last, middle), sums, below, b.add(above, index(1)), 1
        )
        sums = self._weights(gaussians, behind, start, above, sums, below, above, -1)

        def down(row: Any) -> list[Any]:
            return [self.load(below, self._weight_at(b.sub(row, first), q)) for q in range(self.rows)]

        total = self._gather(source, step, weight, reach, first, last, down)
        return total, [b.fdiv(self.constant(0.5), b.fmul(h, s)) for h, s in zip(half, sums, strict=True)]

    def _weights_aside(self, scratch: Any, gaussians: Gaussians) -> list[Any]:
        """Write each pixel's weights at the distances 0 to the reach; returns half the sum of those at both sides."""
        for q in range(self.rows):
            self.store(self.constant(1), scratch, self._weight_at(index(0), q))
        b, at_one = self.builder, [self.exp2(e) for e in gaussians.exponents]
        start = at_one + [b.fmul(g, fall) for g, fall in zip(at_one, self._falls(gaussians), strict=True)]
        distance, half = [self.constant(1)] * self.rows, [self.constant(0.5)] * self.rows
        last = b.sub(gaussians.reach, index(1))
        return self._weights(gaussians, distance, start, last, half, scratch, index(1), 1)

    def _begun(self, exponents: list[Any], distance: list[Any]) -> list[Any]:
        """Each row's weights at `distance`, then the factors to those one further."""
        b = self.builder
        weights = [self.exp2(b.fmul(e, b.fmul(d, d))) for e, d in zip(exponents, distance, strict=True)]
        steps = [b.fadd(b.fadd(d, d), self.constant(1)) for d in distance]
        return weights + [self.exp2(b.fmul(e, step)) for e, step in zip(exponents, steps, strict=True)]

    def _falls(self, gaussians: Gaussians) -> list[Any]:
        """The factors from one of those factors to the next."""
        at_one = [self.exp2(e) for e in gaussians.exponents]
        return [self.builder.fmul(g, g) for g in at_one]

    def _weights(
        self, gaussians: Gaussians, distance: list[Any], start: list[Any], last: Any, sums: list[Any], scratch: Any,
        place: Any, onward: int,
    ) -> list[Any]:  # fmt: skip
        """Write each pixel's weights at the distances `distance` of its row + 0, 1 to `last`; returns `sums` + these.

        `start`: as of `_begun`. The first goes to number `place` of `scratch`, the others after it, or before it where
        `onward` is -1. A Gaussian falls from one distance to the next by a factor that falls by a factor, which spares
        most exponentials; as rounding grows with the square of their number, `_AT_ONCE` at most.
        """
        b, exponents, falls = self.builder, gaussians.exponents, self._falls(gaussians)
        # How many distances each pixel has: to half a sample beyond its reach, where they are not whole.
        reach = [b.fadd(own, self.constant(0.5)) for own in gaussians.own]
        counts = [b.fsub(own, d) for own, d in zip(reach, distance, strict=True)]
        runs = b.sdiv(last, index(_AT_ONCE))
        with self.loop(index(0), runs, [self.constant(0), *sums, *start]) as run:
            first = b.mul(run.index, index(_AT_ONCE))
            final = b.add(first, index(_AT_ONCE - 1))
            final = b.select(b.icmp_signed("<", final, last), final, last)
            with self.loop(first, final, run.values) as loop:
                number, (so_far, weights, factors) = loop.values[0], self._by_rows(loop.values[1:])
                at, grown = b.add(place, b.mul(loop.index, index(onward))), []
                for q, (count, w) in enumerate(zip(counts, weights, strict=True)):
                    weight = b.select(b.fcmp_ordered("<=", number, count), w, self.constant(0))
                    self.store(weight, scratch, self._weight_at(at, q))
                    grown.append(b.fadd(so_far[q], weight))
                loop.go_on(
                    [b.fadd(number, self.constant(1)), *grown]
                    + [b.fmul(w, f) for w, f in zip(weights, factors, strict=True)]
                    + [b.fmul(f, fall) for f, fall in zip(factors, falls, strict=True)]
                )
            number = loop.results[0]
            following = self.unless(
                b.icmp_signed("==", run.index, runs),
                start,
                lambda: self._begun(exponents, [b.fadd(d, number) for d in distance]),
            )
            run.go_on([number, *loop.results[1 : 1 + self.rows], *following])
        results: list[Any] = run.results[1 : 1 + self.rows]
        return results

    def _by_rows(self, values: Sequence[Any]) -> list[Sequence[Any]]:
        return [values[k : k + self.rows] for k in range(0, len(values), self.rows)]

    def _gather(
        self,
        source: Planes,
        step: Any,
        weight: Any,
        reach: Any,
        first: Any,
        last: Any,
        down: Callable[[Any], list[Any]],
    ) -> list[Any]:
        """The weighted sums of every pixel of the block over the input rows `first` to `last`, in the order of `each`.

        Weights aside are those at `weight`, those of an input row what `down` gives.
        """
        b = self.builder
        across = b.mul(source.row, first)
        starts = [b.add(source.at(0, c)[1], across) for c in range(self.channels)]
        with self.loop(first, last, starts + [self.constant(0)] * len(self.each)) as rows:
            row, totals = rows.values[: self.channels], rows.values[self.channels :]
            middle = [self.load(source.buffer, offset) for offset in row]
            with self.loop(index(1), reach, [middle[c] for _, c in self.each]) as taps:
                aside = b.mul(taps.index, step)
                pairs = [
                    b.fadd(
                        self.load(source.buffer, b.add(offset, aside)), self.load(source.buffer, b.sub(offset, aside))
                    )
                    for offset in row
                ]
                kernel = [self.load(weight, self._weight_at(taps.index, q)) for q in range(self.rows)]
                taps.go_on(
                    [self.fused(kernel[q], pairs[c], s) for (q, c), s in zip(self.each, taps.values, strict=True)]
                )
            kernel = down(rows.index)
            lines = zip(self.each, taps.results, totals, strict=True)
            rows.go_on(
                [b.add(offset, source.row) for offset in row]
                + [self.fused(kernel[q], line, total) for (q, _), line, total in lines]
            )
        results: list[Any] = rows.results[self.channels :]
        return results

    def _weight_at(self, distance: Any, q: int) -> Any:
        b = self.builder
        return b.add(b.mul(distance, index(self.rows * self.lanes)), index(q * self.lanes))
