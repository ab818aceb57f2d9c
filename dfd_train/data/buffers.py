"""Memory for batches that is used again: pages fresh from the system cost more than filling them."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a cache line, so that vector loops split an array alike wherever it lies.
ALIGNMENT = 64


class BufferPool:
    """Arrays whose memory comes back here as soon as nothing refers to them any more, neither a view nor a tensor.

    So a caller may keep an array for as long as it likes, and the pool never holds more memory than was in use at once.
    `most_free`: arrays of a size that wait at most; what exceeds it is freed. Safe to share between threads.
    """

    def __init__(self, most_free: int = 16) -> None:
        self._free: dict[int, list[bytearray]] = {}
        self._most_free = most_free
        # A finaliser may run inside `take` of the same thread.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A contiguous array with arbitrary content."""
        size = int(np.prod(shape)) * dtype.itemsize
        with self._lock:
            waiting = self._free.get(size + ALIGNMENT)
            memory = waiting.pop() if waiting else bytearray(size + ALIGNMENT)
        # Every view and every tensor made of it refers to this array, and to nothing below it.
        whole = np.frombuffer(memory, np.uint8)
        weakref.finalize(whole, self._give_back, memory).atexit = False
        start = -whole.ctypes.data % ALIGNMENT
        return whole[start : start + size].view(dtype).reshape(shape)

    def _give_back(self, memory: bytearray) -> None:
        with self._lock:
            waiting = self._free.setdefault(len(memory), [])
            if len(waiting) < self._most_free:
                waiting.append(memory)

    def __reduce__(self) -> tuple[type[BufferPool], tuple[int]]:
        return BufferPool, (self._most_free,)
