"""One sample to the bytes of one chunk and back: Blosc (or nothing), then CRC-32C. Both ends of the format in one place.

A shard is its chunks one after the other, then the index: for every chunk its offset and length as little-endian uint64
(all ones for a chunk that is not there), then the index's own CRC-32C.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from crc32c import crc32c
from numcodecs import blosc
from numpy.typing import NDArray

from defocus_sim.shards.layout import Blosc

Bytes = NDArray[np.uint8]
CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16
ABSENT = np.uint64(2**64 - 1)
MISMATCH = "its checksum (CRC-32C) does not match"
_SHUFFLE = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


class ChunkDamage(ValueError):
    """Bytes that are not a chunk or index as it was written; the reader turns it into an error that says where."""


def encode_chunk(sample: NDArray[Any], codec: Blosc | None) -> bytes:
    """The chunk of one contiguous sample."""
    raw = np.ascontiguousarray(sample).reshape(-1).view(np.uint8)
    payload = raw.data
    if codec is not None:
        shuffle = _SHUFFLE[codec.shuffle]
        payload = blosc.compress(raw, codec.cname.encode(), codec.clevel, shuffle, codec.blocksize, codec.typesize)
    # One copy: it is made under the interpreter's lock.
    return b"".join((payload, crc32c(payload).to_bytes(CRC_BYTES, "little")))


def decode_chunk(chunk: Bytes, codec: Blosc | None, out: Bytes) -> None:
    """Check `chunk` and decode it into `out`, the bytes of a sample. Raises `ChunkDamage`."""
    payload = check_chunk(chunk)
    if codec is None:
        if len(payload) != len(out):
            raise ChunkDamage(f"{len(payload)} bytes where {len(out)} are wanted")
        out[:] = payload
        return
    if len(payload) < 16 or int.from_bytes(payload[4:8].tobytes(), "little") != len(out):
        raise ChunkDamage("its compressed size does not fit the array")
    try:
        blosc.decompress(payload, out)
    except (RuntimeError, ValueError) as error:
        raise ChunkDamage(f"it does not decompress ({error})") from error


def encode_index(entries: list[tuple[int, int]], slots: int) -> bytes:
    """The index of a shard of `slots` chunks, of which the first `len(entries)` are there."""
    table = np.full((slots, 2), ABSENT, dtype="<u8")
    table[: len(entries)] = entries
    payload = table.tobytes()
    return payload + crc32c(payload).to_bytes(CRC_BYTES, "little")


def index_bytes(slots: int) -> int:
    """Size of the index of a shard of `slots` chunks."""
    return slots * INDEX_ENTRY_BYTES + CRC_BYTES


def decode_index(index: Bytes, present: int, chunks_end: int) -> NDArray[np.uint64]:
    """Offsets and lengths (present, 2) of a shard's first `present` chunks, each checked to end before `chunks_end`.

    Raises `ChunkDamage`.
    """
    table = check_chunk(index).view("<u8").reshape(-1, 2)[:present]
    offset, length = table[:, 0], table[:, 1]
    limit = np.uint64(chunks_end)
    # Written so that no sum can overflow.
    if (offset > limit).any() or (length > limit - np.minimum(offset, limit)).any() or (length <= CRC_BYTES).any():
        raise ChunkDamage("its index points outside the file")
    return table.astype(np.uint64)


def check_chunk(data: Bytes) -> Bytes:
    """What stands before the CRC-32C that `data` ends in. Raises `ChunkDamage` where the two do not agree."""
    payload, stored = data[:-CRC_BYTES], data[-CRC_BYTES:]
    check_crc(payload, stored.tobytes())
    return payload


def check_crc(payload: Bytes, stored: bytes) -> None:
    """Raise `ChunkDamage` where the four bytes `stored` are not the CRC-32C of `payload`."""
    if crc32c(payload.data) != int.from_bytes(stored, "little"):
        raise ChunkDamage(MISMATCH)
