"""Explicit vectors in compiled code, for what numba's own vectoriser does not find.

A block is `ROWS` x `LANES` neighbouring pixels of a row and of all channels, a vector `LANES` of a row. The vectors are
LLVM's own: they run on any processor, and fast where a register holds `LANES` float32 values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

INDEX, INT32, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
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


class Arguments:
    """The arguments of an intrinsic by name, while its code is emitted: values as `given["step"]`."""

    def __init__(self, names: Sequence[str], context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self._context, self.builder = context, builder
        self._values = dict(zip(names, arguments, strict=True))
        self._types = dict(zip(names, signature.args, strict=True))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def memory(self, name: str) -> Any:
        """Where the array `name` begins."""
        array = self._context.make_array(self._types[name])
        return array(self._context, self.builder, self._values[name]).data

    def planes(self, block: Block, name: str, prefix: str) -> Planes:
        """The array `name` of `block`, whose places are the arguments `prefix`_start, `prefix`_row and `prefix`_plane."""
        first, row, plane = (self._values.get(f"{prefix}_{what}") for what in ("start", "row", "plane"))
        return Planes(block, self.memory(name), first, row, plane)


Emit = Callable[[Arguments], None]


def vector_intrinsic(
    *, constants: Collection[str], floats: Collection[str] = ()
) -> Callable[[Callable[..., Emit]], Any]:
    """Decorate what takes numba's types of the arguments, by name, and returns what emits the code for them.

    The result is an intrinsic: a function for compiled code only, which returns nothing and is called by name.

    Parameters
    ----------
    constants
        Arguments that are known to the compiler.
    floats
        Those of the other numbers that are float64; the rest are indices.

    Returns
    -------
    Callable
        The decorator.
    """

    def decorate(define: Callable[..., Emit]) -> Any:
        names = list(inspect.signature(define).parameters)

        def as_taken(name: str, given: Any) -> Any:
            if name in constants or isinstance(given, types.Array):
                return given
            return types.float64 if name in floats else types.intp

        def defined(typing_context: Any, *args: Any, **named: Any) -> Any:
            given = dict(zip(names, args, strict=False)) | named
            emit = define(**given)

            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                _keep_registers_aligned(builder)
                emit(Arguments(names, context, builder, signature, arguments))
                return context.get_dummy_value()

            return types.void(*(as_taken(name, given[name]) for name in names)), generate

        first = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [first, *inspect.signature(define).parameters.values()]
        defined.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what numba looks at
        defined.__name__, defined.__doc__, defined.__module__ = define.__name__, define.__doc__, define.__module__
        return intrinsic(prefer_literal=True)(defined)

    return decorate


def _keep_registers_aligned(builder: Any) -> None:
    """Have the function that is being built put registers that it runs short of on addresses of whole vectors.

    Else they lie where the caller's stack happens to end, mostly across two lines of the cache, which costs a fifth of the
    time in some processes and nothing in others. LLVM can align them only where it keeps a frame pointer, an attribute with
    a value, which llvmlite has no name for.
    """
    set.add(builder.function.attributes, '"frame-pointer"="all"')


def index(value: int) -> Any:
    """A constant of the type of indices."""
    return ir.Constant(INDEX, value)


class Planes:
    """Where pixel vectors lie: row `q` and channel `c` of a block in a planar buffer."""

    def __init__(self, block: Block, buffer: Any, first: Any, row: Any, plane: Any = None) -> None:
        self._builder, self._first = block.builder, first
        self.buffer, self.row, self._plane = buffer, row, plane

    def at(self, q: int, c: int) -> tuple[Any, Any]:
        """The buffer, and where in it row `q` of channel `c` begins."""
        b = self._builder
        place = self._first
        for number, step in ((q, self.row), (c, self._plane)):
            if number:
                place = b.add(place, b.mul(step, index(number)))
        return self.buffer, place


class Block:
    """Emits the parts of the work on one block; all vectors are float32 of `lanes`."""

    def __init__(self, builder: Any, channels: int, rows: int, lanes: int) -> None:
        self.builder, self.channels, self.rows, self.lanes = builder, channels, rows, lanes
        self.each = [(q, c) for q in range(rows) for c in range(channels)]
        self._vector, self._integers = ir.VectorType(FLOAT, lanes), ir.VectorType(INT32, lanes)

    def constant(self, value: float) -> Any:
        """A vector of one number."""
        return ir.Constant(self._vector, [float(np.float32(value))] * self.lanes)

    def load(self, base: Any, offset: Any) -> Any:
        """The vector that begins at `offset`, on any address."""
        return self.builder.load(self._address(base, offset), align=4)

    def store(self, value: Any, base: Any, offset: Any) -> None:
        """Put a vector where it is to begin at `offset`."""
        self.builder.store(value, self._address(base, offset), align=4)

    def window(self, base: Any, offset: Any, reach: int) -> Callable[[int], Any]:
        """Gives the vector that begins `shift` after `offset`, |shift| <= `reach`, out of whole vectors around `offset`."""
        vectors = -(-reach // self.lanes)
        whole = [
            self.load(base, self.builder.add(offset, index(number * self.lanes)))
            for number in range(-vectors, vectors + 1)
        ]

        def at(shift: int) -> Any:
            number, rest = divmod(shift, self.lanes)
            if rest == 0:
                return whole[vectors + number]
            lanes = ir.Constant(self._integers, list(range(rest, rest + self.lanes)))
            return self.builder.shuffle_vector(whole[vectors + number], whole[vectors + number + 1], lanes)

        return at

    def number(self, numbers: Any, position: Any) -> Any:
        """One of `numbers` as a whole vector."""
        return self.splat(self.builder.load(self.builder.gep(numbers, [position])))

    def splats(self, numbers: Any, count: int) -> list[Any]:
        """Each of the first `count` of `numbers` as a whole vector."""
        return [self.number(numbers, index(k)) for k in range(count)]

    def added(self, total: Any, a: Any, x: Any) -> Any:
        """`total` (None = 0) + `a` * `x`."""
        return self.builder.fmul(a, x) if total is None else self.fused(a, x, total)

    def exp2(self, x: Any) -> Any:
        """2^x for x < 127; below 2^-120 as 2^-120, which a sum of ones and less does not see."""
        b = self.builder
        x = self.larger(x, self.constant(-120))
        whole = self.call("llvm.rint", x)
        rest, result = b.fsub(x, whole), self.constant(_EXP2[-1])
        for coefficient in _EXP2[-2::-1]:
            result = self.fused(result, rest, self.constant(coefficient))
        # Times a power of two by adding to the exponent's bits, which begin at bit 23.
        shift = b.shl(b.fptosi(whole, self._integers), ir.Constant(self._integers, [23] * self.lanes))
        return b.bitcast(b.add(b.bitcast(result, self._integers), shift), self._vector)

    def fused(self, a: Any, x: Any, c: Any) -> Any:
        """`a` * `x` + `c`, rounded once where the processor can."""
        b = self.builder
        return b.fadd(b.fmul(a, x, flags=_CONTRACT), c, flags=_CONTRACT)

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of each pair."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), x, y)

    def unless(self, done: Any, kept: list[Any], made: Callable[[], list[Any]]) -> list[Any]:
        """What `made` emits, or `kept` where `done`."""
        b, before = self.builder, self.builder.block
        with b.if_then(b.not_(done)):
            new, end = made(), b.block
        results = []
        for old, value in zip(kept, new, strict=True):
            phi = b.phi(self._vector)
            phi.add_incoming(old, before)
            phi.add_incoming(value, end)
            results.append(phi)
        return results

    def splat(self, x: Any) -> Any:
        """A vector of one number that is known when the code runs."""
        undefined = ir.Constant(self._vector, ir.Undefined)
        first = self.builder.insert_element(undefined, x, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(self._integers, [0] * self.lanes))

    def call(self, name: str, x: Any, returns: Any = None, fastmath: tuple[str, ...] = ()) -> Any:
        """LLVM's function `name` of a vector."""
        module, full = self.builder.module, f"{name}.v{self.lanes}f32"
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
        self.index = b.phi(INDEX)
        self.index.add_incoming(self._first, before)
        self.values = []
        for value in self._initial:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            self.values.append(phi)
        return self

    def go_on(self, results: list[Any]) -> None:
        b = self._builder
        following, end = b.add(self.index, index(1)), b.block
        self.index.add_incoming(following, end)
        for phi, value in zip(self.values, results, strict=True):
            phi.add_incoming(value, end)
        branch = b.cbranch(b.icmp_signed("<=", following, self._last), self._body, self._after)
        branch.set_metadata("llvm.loop", _not_unrolled(b.module))
        self.results = results

    def __exit__(self, *exception: object) -> None:
        self._builder.position_at_end(self._after)


def _not_unrolled(module: Any) -> Any:
    """What LLVM asks for at the end of a loop that it is not to unroll: ours are as long as the registers allow."""
    demand = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([demand])
    # The first operand of a loop's is to be itself.
    loop.operands = (loop, demand)
    return loop
