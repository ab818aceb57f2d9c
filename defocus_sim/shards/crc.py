"""CRC-32C (Castagnoli) of bytes: by `crc_kernel` where the processor can, by google-crc32c elsewhere, with the same result.

google-crc32c holds Python's lock while it computes, so that threads which read at once wait for each other, and adds half
the time of reading to it. The kernel takes a third of that and no lock, and next to nothing where it copies as well.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Sequence
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
    sources: Sequence[int], targets: Sequence[int], lengths: Sequence[int], maps: Sequence[tuple[int, int]] = ()
) -> NDArray[np.bool_]:
    """Copy bytes within memory: for each of B chunks its length without the CRC-32C behind it, from one address to another.

    Returns (B,): whether the CRC-32C of what was copied is what the four bytes behind it say, little-endian. Only where
    `copies_at_once`; addresses and lengths are trusted. Sources may lie in maps of files; not sound is as well what a
    shortened file no longer holds. Where the `maps` are told, where each begins and ends, the pages of a chunk count as the
    process's memory no longer than for its copy.
    """
    sound = np.zeros(len(sources), dtype=bool)
    within = np.array(maps, dtype=np.uint64).reshape(-1, 2)
    places = np.array(sources, dtype=np.uint64), np.array(targets, dtype=np.uint64)
    _kernel().copy_chunks(*places, np.array(lengths, dtype=np.int64), _PAGE, within, sound)
    return sound


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
