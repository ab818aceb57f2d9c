"""Files on their way to the disk while they are still being written, so that the flush at their end has little left."""

from __future__ import annotations

import ctypes
import io
import os
from collections.abc import Callable
from typing import Any

# From fcntl.h: begin to write what is not being written yet, wait for nothing.
_SYNC_FILE_RANGE_WRITE = 2
# A whole large page, so that the page cache keeps the file in such: of 512 KiB, `fast` is read a sixth slower.
BLOCK_BYTES = 2**21


class EagerWriter(io.BufferedWriter):
    """Has the system write to the disk from the first byte on, and `flush_to_disk` wait for the rest.

    By default it begins when it is asked to finish: a shard of 50 MB then has its thread wait for 20 ms on a fast disk,
    for 200 on a slow one. Where the system cannot begin early, everything is as by default. Written in `BLOCK_BYTES`.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw, BLOCK_BYTES)
        self._room = BLOCK_BYTES

    def write(self, data: Any) -> int:
        """See `io.BufferedWriter`."""
        left = memoryview(data).cast("B")
        while len(left) >= self._room:
            # Exactly full, or it would be written in pieces that are not whole blocks.
            super().write(left[: self._room])
            left, self._room = left[self._room :], BLOCK_BYTES
            self.flush()
        super().write(left)
        self._room -= len(left)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """See `io.BufferedWriter`; the system begins to write what it has been given."""
        super().flush()
        # What fails here is reported by `fsync`.
        if _begin is not None:
            _begin(self.fileno(), 0, 0, _SYNC_FILE_RANGE_WRITE)

    def flush_to_disk(self) -> None:
        """Return when everything is on the disk; raises `OSError` where any of it is not."""
        self.flush()
        os.fsync(self.fileno())


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Linux's function; None elsewhere."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


_begin = _sync_file_range()
