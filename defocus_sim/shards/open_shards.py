"""The shards of a split that are open, and where in maps of their files chunks lie that were read before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardMissingError
from defocus_sim.shards.codec import CRC_BYTES, ChunkDamage, decode_index, index_bytes
from defocus_sim.shards.crc import copies_at_once
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import Manifest, ShardFile
from defocus_sim.shards.storage import FileMap, RangeReader, Storage

# Each holds a file descriptor, two if it is mapped; the usual limit of a process is 1024. Where there are more than that,
# all but so many are let go of.
_MOST, _KEPT = 192, 128
NUMBERS = {array: number for number, array in enumerate(ARRAYS)}


@dataclass(frozen=True)
class OpenShard:
    """`table`: offset and length of each chunk, checked. `map`: where chunks are to be copied out of one."""

    reader: RangeReader
    map: FileMap | None
    table: list[tuple[int, int]]


@dataclass(frozen=True)
class Maps:
    """Where the chunks of each sample lie that can be copied, see `crc.copy_chunks`, and the maps of files there are.

    Filled as chunks are read. Whoever copies holds this object meanwhile: where shards are let go of another takes its
    place, so that no map of which `places` knows can go.
    """

    places: NDArray[np.uint64]
    held: list[FileMap]


class OpenShards:
    """A cache of the split's shards, opened as they are asked for. Safe to share between threads."""

    def __init__(self, storage: Storage, manifest: Manifest, name: str) -> None:
        self._storage, self._name, self._per_shard = storage, name, manifest.samples_per_shard
        self._split, self._size_hw = manifest.splits[name], manifest.size_hw
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, int], OpenShard] = OrderedDict()
        self.maps = Maps(np.zeros((len(self._split.names), len(ARRAYS), 4), np.uint64), [])

    def where(self, array: str, shard: int) -> str:
        """A shard as messages name it."""
        name = ARRAYS[array].shard_name(self._name, shard)
        return f"{self._storage.describe(name)} (shard {shard} of {self._name}/{array})"

    def get(self, array: str, shard: int) -> OpenShard:
        """Shard `shard` of an array; raises `ShardMissingError`, `ShardCorruptError`."""
        key = (array, shard)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        opened = self._opened(array, shard)
        with self._lock:
            if key in self._open:
                # Another thread was faster, and its map may be in use.
                return self._open[key]
            self._open[key] = opened
            if opened.map is not None:
                self.maps.held.append(opened.map)
            if len(self._open) > _MOST:
                self._let_go()
        return opened

    def can_be_copied(self, index: int, array: str, shard: OpenShard) -> None:
        """From now on the chunk of sample `index`, which was found sound, is to be copied out of the map of its file."""
        if shard.map is None:
            return
        number, slot = divmod(index, self._per_shard)
        (offset, length), begin = shard.table[slot], shard.map.address
        with self._lock:
            # Meanwhile the shard may have been let go of.
            if self._open.get((array, number)) is shard:
                place = self.maps.places[index, NUMBERS[array]]
                # The address last: other threads look at it without a lock.
                place[1:] = length - CRC_BYTES, begin, begin + shard.map.size
                place[0] = begin + offset

    def _opened(self, array: str, shard: int) -> OpenShard:
        name, file = ARRAYS[array].shard_name(self._name, shard), self._split.shards[shard][array]
        try:
            check_size(self._storage.size(name), file, self.where(array, shard))
            reader = self._storage.reader(name)
            index_start = file.bytes - index_bytes(self._per_shard)
            index = read_exactly(reader, index_start, index_bytes(self._per_shard))
            present = min(self._per_shard, len(self._split.names) - shard * self._per_shard)
            table = decode_index(index, present, index_start)
            copied = copies_at_once(ARRAYS[array].sample_bytes(self._size_hw))
            mapped = reader.mapped() if copied else None
        except FileNotFoundError as error:
            raise ShardMissingError(f"{self.where(array, shard)} is missing: it was there at the start") from error
        except ChunkDamage as damage:
            raise ShardCorruptError(f"{self.where(array, shard)} is damaged: {damage}") from damage
        except OSError as error:
            raise ShardCorruptError(f"{self.where(array, shard)} cannot be read: {error}") from error
        return OpenShard(reader, mapped, [(offset, length) for offset, length in table.tolist()])

    def _let_go(self) -> None:
        """Keep the `_KEPT` shards that were asked for last; with the lock held."""
        places = self.maps.places.copy()
        while len(self._open) > _KEPT:
            # Only the reference goes: a thread that still reads from the file keeps it open.
            (array, number), _ = self._open.popitem(last=False)
            places[number * self._per_shard : (number + 1) * self._per_shard, NUMBERS[array]] = 0
        self.maps = Maps(places, [shard.map for shard in self._open.values() if shard.map is not None])


def check_size(size: int, file: ShardFile, where: str) -> None:
    """Raise `ShardCorruptError` where a shard file (`where`) has another size than it was written with."""
    if size != file.bytes:
        raise ShardCorruptError(f"{where} has {size} bytes where {file.bytes} were written: convert again")


def read_exactly(reader: RangeReader, offset: int, length: int) -> NDArray[np.uint8]:
    """`length` bytes; raises `ChunkDamage` where the file ends before."""
    data = reader.read_at(offset, length) if offset >= 0 else b""
    if len(data) != length:
        raise ChunkDamage("the file ends too early")
    return np.frombuffer(data, np.uint8)
