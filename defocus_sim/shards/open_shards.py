"""The shards of a split that are open: their files, and where in them each chunk lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardMissingError, StorageTimeoutError
from defocus_sim.shards.codec import ChunkDamage, decode_index, index_bytes
from defocus_sim.shards.identity import StoreIdentity
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import Manifest, ShardFile
from defocus_sim.shards.storage import RangeReader, Storage, Version

# Each holds a file descriptor; the usual limit of a process is 1024. Where there are more than that, all but so many are
# let go of.
_MOST, _KEPT = 192, 128


@dataclass(frozen=True)
class OpenShard:
    """`version`: of its file when it was opened. `table`: offset and length of each chunk, checked."""

    reader: RangeReader
    version: Version
    table: list[tuple[int, int]]


class OpenShards:
    """A cache of the split's shards, opened as they are asked for.

    Safe to share between threads, and in a process that is forked from them: it has no lock, each change is one operation
    of a dict, and two threads that open the same shard at once lose nothing but time.
    """

    def __init__(self, storage: Storage, manifest: Manifest, name: str, identity: StoreIdentity) -> None:
        self._storage, self._name, self._per_shard = storage, name, manifest.samples_per_shard
        self._split, self._identity = manifest.splits[name], identity
        self._open: dict[tuple[str, int], OpenShard] = {}

    def where(self, array: str, shard: int) -> str:
        """A shard as messages name it."""
        name = ARRAYS[array].shard_name(self._name, shard)
        return f"{self._storage.describe(name)} (shard {shard} of {self._name}/{array})"

    def get(self, array: str, shard: int) -> OpenShard:
        """Shard `shard` of an array.

        Opened anew where its file was written to meanwhile. Raises `ShardMissingError`, `ShardCorruptError`, and
        `ShardReplacedError` where it may be another store's.
        """
        key = (array, shard)
        opened = self._open.get(key)
        if opened is not None and opened.reader.version() == opened.version:
            return opened
        opened = self._opened(array, shard)
        self._open[key] = opened
        if len(self._open) > _MOST:
            # Only the reference goes: a thread that still reads from the file keeps it open.
            for old in list(self._open)[:-_KEPT]:
                self._open.pop(old, None)
        return opened

    def _opened(self, array: str, shard: int) -> OpenShard:
        name, file = ARRAYS[array].shard_name(self._name, shard), self._split.shards[shard][array]
        try:
            reader = self._storage.reader(name)
            version = reader.version()
            check_size(reader.size(), file, self.where(array, shard))
            index_start = file.bytes - index_bytes(self._per_shard)
            index = read_exactly(reader, index_start, index_bytes(self._per_shard))
            present = min(self._per_shard, len(self._split.names) - shard * self._per_shard)
            table = decode_index(index, present, index_start)
        except StorageTimeoutError:
            raise
        except (ChunkDamage, OSError) as error:
            # Of a store that was replaced, that is what there is to say.
            self._identity.check()
            if isinstance(error, FileNotFoundError):
                raise ShardMissingError(f"{self.where(array, shard)} is missing: it was there at the start") from error
            if isinstance(error, ShardCorruptError):
                raise
            what = "is damaged" if isinstance(error, ChunkDamage) else "cannot be read"
            raise ShardCorruptError(f"{self.where(array, shard)} {what}: {error}") from error
        # After the file: a store that is the same now was so when the file was opened.
        self._identity.check()
        return OpenShard(reader, version, [(offset, length) for offset, length in table.tolist()])


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
