"""glibc's allocator, told to keep what threads free."""

from __future__ import annotations

import ctypes

# From malloc.h; the thresholds are in bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 32 * 2**20
_KEPT = 2**29


def keep_freed_memory() -> None:
    """Let threads reuse the pages of the images that they free; without glibc nothing happens.

    By default a thread gives the end of its heap back to the system after every image and has it zeroed again, page by
    page, for the next one: 2000 page faults and a third of the time of a mild blur, under a lock of the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_TRIM_THRESHOLD, _KEPT)
