"""CRC-32C (Castagnoli) of bytes: by `crc_kernel` where the processor can, by google-crc32c elsewhere, with the same result.

google-crc32c holds Python's lock while it computes, so that threads which read at once wait for each other, and adds half
the time of reading to it. The kernel takes a third of that and no lock, and next to nothing where it copies as well.
"""

from __future__ import annotations

import functools
import mmap
from types import ModuleType
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
# A shorter one is over before the call of a kernel has begun, and should not have numba imported.
LEAST_BYTES = 32 * 1024
_PAGE = np.uint64(mmap.PAGESIZE)


def crc32c(data: bytes | Bytes) -> int:
    """CRC-32C of `data`, a contiguous array (N,) uint8 or bytes, as an unsigned integer of 32 bits."""
    kernel = _kernel() if len(data) >= LEAST_BYTES else None
    if kernel is None:
        return int(google_crc32c.value(data))
    return int(kernel.crc32c(np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data))


def copies_at_once(size: int) -> bool:
    """Whether chunks of `size` bytes are for `copy_chunks`: long ones, where a processor checks as fast as it copies."""
    return size >= LEAST_BYTES and _kernel() is not None


def copy_chunks(
    rows: NDArray[np.int64],
    places: NDArray[np.uint64],
    columns: NDArray[np.int64],
    targets: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    passing: bool,
    soon: bool,
) -> NDArray[np.bool_] | None:
    """Copy bytes within memory: the chunks of B samples, without the CRC-32C that each ends in, to K arrays.

    `places`: (N, A, 4) of A chunks of N samples: the address, 0 = not to be copied, the bytes without CRC, and where the
    map of a file that it lies in begins and ends. Of them the `rows` (B,) and `columns` (K,) count. `targets`: (K,)
    addresses of arrays of B times `sizes` (K,) bytes; a longer chunk is not copied. Addresses are trusted.

    Returns (B, K): whether the CRC-32C of what was copied is what the four bytes behind it say, little-endian; None where
    all are. Not sound are as well what a shortened file no longer holds, and rows outside 0..N-1. Only where
    `copies_at_once`. `passing`: whether the pages of a chunk are to count as the process's memory no longer than for its
    copy. `soon`: whether the copies are to be in the processor's caches.
    """
    sound = np.zeros((len(rows), len(columns)), dtype=bool)
    missing = _kernel().copy_chunks(rows, places, columns, targets, sizes, passing, soon, _PAGE, sound)
    return sound if missing else None


def prepare(size: int) -> None:
    """Import and compile now what `crc32c` would at its first array of `size` bytes: half a second, once a machine one."""
    if size >= LEAST_BYTES:
        _kernel()


@functools.cache
def _kernel() -> Any:
    """The module `crc_kernel`, or None where it does not run."""
    try:
        from defocus_sim.shards import crc_kernel
    except RuntimeError:
        # numba finds no folder that it may keep its results in; compiling in each process is not worth it.
        return None
    kernel: ModuleType = crc_kernel
    return kernel if crc_kernel.USABLE else None
