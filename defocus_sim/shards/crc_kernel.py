"""CRC-32C by carry-less multiplication in vectors of 512 bits: 56 GB/s on Zen 4, where the `crc32` instruction has 22.

A CRC is the remainder of a polynomial over GF(2), so that a block of the message may be replaced by a shorter one with the
same remainder: its halves, each multiplied by x^distance modulo the CRC's polynomial, added to what lies that distance on
(Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction, Intel 2009). Four vectors do so
side by side; what remains at last, 16 bytes, goes through the `crc32` instruction.

Imported by `crc` only, since importing numba takes time. `USABLE`: whether this machine runs `crc32c` at all.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from defocus_sim.kernels import njit

_BYTE, _HALF, _WORD = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTORS, _VECTOR_BYTES = 4, 64
_BLOCK_BYTES = _VECTORS * _VECTOR_BYTES
_INSTRUCTIONS = ("avx512f", "vpclmulqdq", "pclmul", "sse4.2")
# How far ahead of a copy its source is asked for; beyond a page where it goes through the caches, since the processor's own
# foresight ends there.
_AHEAD_BYTES, _AHEAD_STREAMED_BYTES = 8192, 3072
# From mman.h: have the pages of a map ready, or fail; let go of them.
_POPULATE_READ, _DONTNEED = 22, 4
_LARGE_PAGE = np.uint64(2**21)
_POLYNOMIAL = 0x82F63B78
_ONES = np.uint64(0xFFFFFFFF)


def _usable() -> bool:
    """Whether the code that numba makes for this process may contain the instructions: without, LLVM ends the process."""
    asked = vars(config)
    if asked["DISABLE_JIT"] or not asked["ENABLE_AVX"] or asked["CPU_NAME"] or asked["CPU_FEATURES"] is not None:
        return False
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:
        return False
    return hasattr(mmap, "MADV_DONTNEED") and all(features.get(name, False) for name in _INSTRUCTIONS)


USABLE = _usable()


def _power(exponent: int) -> int:
    """x^exponent modulo the polynomial; bit 31 is the coefficient of x^0."""
    value = 1 << 31
    for _ in range(exponent):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


def _folded(builder: Any, vector: Any, distance: int) -> Any:
    """What has the remainder of `vector`, vectors of two words, and may be added to what lies `distance` bytes after it."""
    kind = vector.type
    # The product of bit-reversed numbers comes out one bit too low, hence the one less.
    factors = ir.Constant(kind, [_power(8 * distance + 31), _power(8 * distance - 33)] * (kind.count // 2))
    name = "llvm.x86.pclmulqdq" + (".512" if kind.count == 8 else "")
    multiply = _declared(builder, name, kind, kind, kind, _BYTE)
    low, high = (builder.call(multiply, [vector, factors, _BYTE(which)]) for which in (0x00, 0x11))
    return builder.xor(low, high)


def _declared(builder: Any, name: str, returns: Any, *takes: Any) -> Any:
    function = builder.module.globals.get(name)
    return function or ir.Function(builder.module, ir.FunctionType(returns, takes), name)


def _emit_blocks(builder: Any, source: Any, blocks: Any, state: Any, target: Any = None, streamed: bool = False) -> Any:
    """The CRC's state after `blocks` (at least one) blocks at `source`, copied to `target`, if given, a multiple of 64.

    `streamed`: past the caches, whose content then stays: what the interpreter and a training have there is worth more
    than a batch of many MB that is looked at once.
    """
    kind = ir.VectorType(_WORD, _VECTOR_BYTES // 8)

    def load(block: Any) -> list[Any]:
        start, vectors = builder.mul(block, _WORD(_BLOCK_BYTES)), []
        if target is not None:
            # Of one line of a block the processor fetches the others itself, but into all caches.
            for line in range(_VECTORS if streamed else 1):
                ahead = (_AHEAD_STREAMED_BYTES if streamed else _AHEAD_BYTES) + line * _VECTOR_BYTES
                _emit_prefetch(builder, builder.gep(source, [builder.add(start, _WORD(ahead))]), once=streamed)
        for i in range(_VECTORS):
            offset = builder.add(start, _WORD(_VECTOR_BYTES * i))
            place = builder.bitcast(builder.gep(source, [offset]), kind.as_pointer())
            vectors.append(builder.load(place, align=1))
            if target is not None:
                place = builder.bitcast(builder.gep(target, [offset]), kind.as_pointer())
                store = builder.store(vectors[-1], place, align=_VECTOR_BYTES)
                if streamed:
                    store.set_metadata("nontemporal", builder.module.add_metadata([_HALF(1)]))
        return vectors

    first = load(_WORD(0))
    first[0] = builder.xor(first[0], builder.insert_element(ir.Constant(kind, [0] * kind.count), state, _HALF(0)))
    before = builder.block
    turn, done = builder.append_basic_block("turn"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", _WORD(1), blocks), turn, done)
    builder.position_at_end(turn)
    block, sums = builder.phi(_WORD), [builder.phi(kind) for _ in first]
    grown = [builder.xor(_folded(builder, old, _BLOCK_BYTES), new) for old, new in zip(sums, load(block), strict=True)]
    following = builder.add(block, _WORD(1))
    for value, start, later in zip([block, *sums], [_WORD(1), *first], [following, *grown], strict=True):
        value.add_incoming(start, before)
        value.add_incoming(later, turn)
    builder.cbranch(builder.icmp_signed("<", following, blocks), turn, done)
    builder.position_at_end(done)
    ends = [builder.phi(kind) for _ in first]
    for value, start, later in zip(ends, first, grown, strict=True):
        value.add_incoming(start, before)
        value.add_incoming(later, turn)
    return _reduced(builder, ends)


def _emit_prefetch(builder: Any, place: Any, once: bool) -> None:
    """Have the cache line at `place` come into the second cache, or near for one use only; there may be no memory there."""
    fetch = _declared(builder, "llvm.prefetch.p0i8", ir.VoidType(), place.type, _HALF, _HALF, _HALF)
    read, locality, data = _HALF(0), _HALF(0 if once else 2), _HALF(1)
    builder.call(fetch, [place, read, locality, data])


def _reduced(builder: Any, vectors: list[Any]) -> Any:
    """Neighbouring vectors as the CRC's state."""
    whole = vectors[0]
    for vector in vectors[1:]:
        whole = builder.xor(_folded(builder, whole, _VECTOR_BYTES), vector)
    pairs = [
        builder.shuffle_vector(whole, whole, ir.Constant(ir.VectorType(_HALF, 2), [i, i + 1]))
        for i in range(0, whole.type.count, 2)
    ]
    rest = pairs[0]
    for pair in pairs[1:]:
        rest = builder.xor(_folded(builder, rest, 16), pair)
    step = _declared(builder, "llvm.x86.sse42.crc32.64.64", _WORD, _WORD, _WORD)
    state = builder.call(step, [_WORD(0), builder.extract_element(rest, _HALF(0))])
    return builder.call(step, [state, builder.extract_element(rest, _HALF(1))])


@intrinsic
def _of_blocks(typing_context, data, blocks, state):
    """In compiled code: the CRC's state after the first `blocks` (at least one) blocks of `data`, from `state` before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return _emit_blocks(builder, source, *arguments[1:])

    return types.uint64(data, types.intp, types.uint64), generate


def _copying(streamed: bool) -> Any:
    """What `_of_copied_blocks` and `_of_streamed_blocks` are made of."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (builder.inttoptr(address, _BYTE.as_pointer()) for address in arguments[:2])
        blocks, state = arguments[2:]
        result = _emit_blocks(builder, source, blocks, state, target, streamed)
        if streamed:
            # Such stores may otherwise come after what tells another thread that they are there.
            builder.call(_declared(builder, "llvm.x86.sse.sfence", ir.VoidType()), [])
        return result

    return types.uint64(types.uint64, types.uint64, types.intp, types.uint64), generate


@intrinsic
def _of_copied_blocks(typing_context, source, target, blocks, state):
    """In compiled code: as `_of_blocks`, of the bytes at the address `source`, copied to `target`, a multiple of 64."""
    return _copying(streamed=False)


@intrinsic
def _of_streamed_blocks(typing_context, source, target, blocks, state):
    """In compiled code: as `_of_copied_blocks`, past the caches."""
    return _copying(streamed=True)


@intrinsic
def _byte_at(typing_context, address):
    """In compiled code: the byte at `address`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _BYTE.as_pointer()))

    return types.uint8(types.uint64), generate


@intrinsic
def _put_byte(typing_context, address, byte):
    """In compiled code: `byte` stored at `address`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], _BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint8), generate


@intrinsic
def _of_byte(typing_context, state, byte):
    """In compiled code: the CRC's state after one more byte."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        step = _declared(builder, "llvm.x86.sse42.crc32.32.8", _HALF, _HALF, _BYTE)
        return builder.zext(builder.call(step, [builder.trunc(arguments[0], _HALF), arguments[1]]), _WORD)

    return types.uint64(types.uint64, types.uint8), generate


def crc32c(data):
    """CRC-32C of `data` (N,) uint8, contiguous, at any address; without Python's lock."""
    state = _ONES
    blocks = data.size // _BLOCK_BYTES
    if blocks > 0:
        state = _of_blocks(data, blocks, state)
    for i in range(blocks * _BLOCK_BYTES, data.size):
        state = _of_byte(state, data[i])
    return state ^ _ONES


def _copy_bytes(source, target, length, state):
    """The CRC's state after `length` bytes from the address `source`, copied to `target` one by one."""
    for i in range(length):
        # What is copied is what is checked: the bytes of a file may change between two looks.
        byte = _byte_at(source + np.uint64(i))
        _put_byte(target + np.uint64(i), byte)
        state = _of_byte(state, byte)
    return state


def copy_chunks(rows, places, columns, targets, sizes, passing, soon, page, sound):
    """For all b and k copy chunk `places[rows[b], columns[k]]` to the address `targets[k] + b sizes[k]`.

    In one pass with its CRC-32C. `rows` (B,), `columns`, `sizes` (K,) int64; `targets` (K,) uint64; `places` (N, A, 4)
    uint64: address and bytes of a chunk, and from where to where the map reaches that it lies in. Nothing is copied where
    the address is 0 or the bytes are more than `sizes`.
    `sound` (B, K) bool, False before: set where the CRC-32C is what the four bytes behind say, little-endian, and the
    memory of pages of `page` bytes, uint64, is there: it is asked for up to its end, which is gone where a file was
    shortened.
    `passing`: whether all of a chunk's pages are asked for, and afterwards given back with those that came along. `soon`:
    whether the copies are to be in the caches. Returns how many are not sound, those of no such row among them.
    """
    missing = 0
    for b in range(len(rows)):
        for k in range(len(columns)):
            if 0 <= rows[b] < len(places):
                place = places[rows[b], columns[k]]
                # Another thread may set them at this moment, this one last.
                source = place[0]
                length = np.int64(place[1])
                if source != 0 and length <= sizes[k] and _asked_for(source, length, passing, page):
                    sound[b, k] = _copy_chunk(source, targets[k] + np.uint64(b * sizes[k]), length, soon)
                    if passing:
                        _give_back(source, length, place)
            missing += not sound[b, k]
    return missing


def _asked_for(source, length, passing, page):
    """Have the pages of a chunk at `source` ready, the last one at least; whether they are there."""
    end = source + np.uint64(length + 4)
    start = source if passing else end - np.uint64(1)
    start -= start % page
    return _madvise(start, end - start, _POPULATE_READ) == 0


def _give_back(source, length, place):
    """Let go of the pages of a chunk: with one page come those around it, up to a large page."""
    end = source + np.uint64(length + 4)
    start = max(source - source % _LARGE_PAGE, place[2])
    end = min(end + -end % _LARGE_PAGE, place[3])
    _madvise(start, end - start, _DONTNEED)


def _copy_chunk(source, target, length, soon):
    """Copy a chunk; whether its CRC-32C is what the four bytes behind it say."""
    # Vectors are stored where none lies across two cache lines.
    head = min(np.int64(-target % np.uint64(_VECTOR_BYTES)), length)
    state = _copy_bytes(source, target, head, _ONES)
    blocks = (length - head) // _BLOCK_BYTES
    if blocks > 0 and soon:
        state = _of_copied_blocks(source + np.uint64(head), target + np.uint64(head), blocks, state)
    elif blocks > 0:
        state = _of_streamed_blocks(source + np.uint64(head), target + np.uint64(head), blocks, state)
    done = np.uint64(head + blocks * _BLOCK_BYTES)
    state = _copy_bytes(source + done, target + done, length - np.int64(done), state)
    stored = np.uint64(0)
    for i in range(4):
        stored |= np.uint64(_byte_at(source + np.uint64(length + i))) << np.uint64(8 * i)
    return stored == state ^ _ONES


if USABLE:
    # The system's own, with the address as a number.
    _madvise = types.ExternalFunction("madvise", types.int32(types.uint64, types.uint64, types.int32))
    # Compiled, or taken from numba's cache, here and not at the first call; data may be of an array that is not written to.
    _copy_bytes = njit(nogil=True, cache=True)(_copy_bytes)
    crc32c = njit([types.uint64(types.Array(types.uint8, 1, "C", readonly=True))], nogil=True, cache=True)(crc32c)
    _copy_chunk = njit(nogil=True, cache=True)(_copy_chunk)
    _asked_for = njit(nogil=True, cache=True)(_asked_for)
    _give_back = njit(nogil=True, cache=True)(_give_back)
    copy_chunks = njit(
        [
            types.int64(
                types.int64[::1],
                types.uint64[:, :, ::1],
                types.int64[::1],
                types.uint64[::1],
                types.int64[::1],
                types.boolean,
                types.boolean,
                types.uint64,
                types.boolean[:, ::1],
            )
        ],
        nogil=True,
        cache=True,
    )(copy_chunks)
