"""Memory for batches that is used again: pages fresh from the system cost more than filling them."""

from __future__ import annotations

import functools
import math
import mmap
import os
import threading
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a cache line, so that vector loops split an array alike wherever it lies.
ALIGNMENT = 64
LARGE_PAGE_BYTES = 2 * 2**20
Wanted = tuple[tuple[int, ...], np.dtype[Any]]


_POOLS: weakref.WeakSet[BufferPool] = weakref.WeakSet()


def _renew_pools() -> None:
    for pool in list(_POOLS):
        pool.renew_after_fork()


os.register_at_fork(after_in_child=_renew_pools)


class BufferPool:
    """Arrays whose memory comes back here as soon as nothing refers to them any more, neither a view nor a tensor.

    So a caller may keep an array for as long as it likes, and the pool never holds more memory than was in use at once.
    `most_free`: arrays of a size that wait at most; what exceeds it is freed. Safe to share between threads.
    """

    def __init__(self, most_free: int = 16) -> None:
        # By its size.
        self._free: dict[int, list[mmap.mmap]] = {}
        self._lent: dict[int, tuple[weakref.ref[NDArray[np.uint8]], mmap.mmap]] = {}
        self._most_free = most_free
        # An array may go, and its memory come back, inside `take` of the same thread.
        self._lock = threading.RLock()
        _POOLS.add(self)

    def renew_after_fork(self) -> None:
        """In a new process: another thread of the parent may have held the lock, and been in the middle of a change."""
        self._lock = threading.RLock()
        self._free = {}

    def take(self, wanted: tuple[Wanted, ...]) -> list[NDArray[Any]]:
        """Contiguous arrays of these shapes and types with arbitrary content.

        In one piece of memory, which comes back when all of them are gone.
        """
        starts, room = _layout(wanted)
        with self._lock:
            waiting = self._free.get(room)
            memory = waiting.pop() if waiting else _new(room)
            # Every view and every tensor made of it refers to this array, and to nothing below it.
            whole = np.frombuffer(memory, np.uint8)
            reference = weakref.ref(whole, self._give_back)
            self._lent[id(reference)] = reference, memory
        return [np.ndarray(shape, dtype, whole, start) for (shape, dtype), start in zip(wanted, starts, strict=True)]

    def _give_back(self, reference: weakref.ref[NDArray[np.uint8]]) -> None:
        with self._lock:
            _, memory = self._lent.pop(id(reference), (None, None))
            if memory is None:
                return
            waiting = self._free.setdefault(len(memory), [])
            if len(waiting) < self._most_free:
                waiting.append(memory)

    def __reduce__(self) -> tuple[type[BufferPool], tuple[int]]:
        return BufferPool, (self._most_free,)


@functools.lru_cache(maxsize=64)
def _layout(wanted: tuple[Wanted, ...]) -> tuple[list[int], int]:
    """Where each array begins in memory that begins on a page, and how large that is."""
    starts, end = [], 0
    for shape, dtype in wanted:
        starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
        end = starts[-1] + math.prod(shape) * dtype.itemsize
    unit = LARGE_PAGE_BYTES if end > LARGE_PAGE_BYTES else mmap.PAGESIZE
    return starts, max(-(-end // unit), 1) * unit


def _new(room: int) -> mmap.mmap:
    """`room` bytes, in large pages where it is whole ones: a batch in small ones takes a tenth longer."""
    # Of its own, without a file, so that a forked process does not write into it.
    memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if room % LARGE_PAGE_BYTES == 0 and hasattr(mmap, "MADV_HUGEPAGE"):
        # Refused by a kernel that is built without them.
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
