"""Samples of one split: a batch filled by a reader of our own.

A general Zarr library reads a deleted or empty shard as zeros and spends most of its time per chunk on bookkeeping. Here a
shard's index is read and checked once, its chunks are checked each time and decoded straight into the batch: an
uncompressed one is read into its place, from the second time on copied there out of a map of the file, a compressed one
into memory that its thread keeps, since fresh memory costs more than the copy. Safe to share between threads, to fork and
to pickle.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardError, ShardMissingError
from defocus_sim.lens import Lens
from defocus_sim.shards.codec import (
    CRC_BYTES,
    ChunkDamage,
    check_chunk,
    check_crc,
    decode_chunk,
    decode_index,
    index_bytes,
)
from defocus_sim.shards.crc import copies_at_once, copy_chunks
from defocus_sim.shards.layout import ARRAYS, ArraySpec
from defocus_sim.shards.manifest import Manifest, ShardFile
from defocus_sim.shards.storage import FileMap, RangeReader, Storage

# Each open shard holds a file descriptor, two if it is mapped; the usual limit of a process is 1024. Where there are more
# than that, all but so many are let go of.
_OPEN_SHARDS, _KEPT_SHARDS = 192, 128
_NUMBERS = {array: number for number, array in enumerate(ARRAYS)}


@dataclass(frozen=True)
class _OpenShard:
    """`table`: offset and length of each chunk, checked. `map`: where chunks are to be copied out of one."""

    reader: RangeReader
    map: FileMap | None
    table: list[tuple[int, int]]


@dataclass(frozen=True)
class _Maps:
    """Where chunks lie that can be copied out of maps of files, see `copy_chunks`, and these maps.

    Filled as chunks are read. Whoever copies holds this object meanwhile: where shards are let go of another takes its
    place, so that no map of which `places` knows can go.
    """

    places: NDArray[np.uint64]
    held: list[FileMap]


class ShardSplit:
    """Random access to the samples of one split; `sample_shapes`: of each array, without the batch."""

    def __init__(self, storage: Storage, manifest: Manifest, name: str) -> None:
        self.storage, self.manifest, self.name = storage, manifest, name
        self._split = manifest.splits[name]
        self.height, self.width = manifest.size_hw
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, int], _OpenShard] = OrderedDict()
        self._maps = _Maps(np.zeros((len(self), len(ARRAYS), 3), np.uint64), [])
        # Whether a map's pages are not to stay: with `none`, whose arrays all are, they are what the system keeps anyway.
        self._passing = manifest.compression != "none"
        self.sample_shapes = {array: spec.sample_shape(manifest.size_hw) for array, spec in ARRAYS.items()}
        self._known_columns: dict[tuple[str, ...], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __reduce__(self) -> tuple[type[ShardSplit], tuple[Storage, Manifest, str]]:
        return ShardSplit, (self.storage, self.manifest, self.name)

    def __len__(self) -> int:
        return len(self._split.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every sample."""
        return self._split.names

    @property
    def scenes(self) -> tuple[str, ...]:
        """Scene of every sample."""
        return self._split.scenes

    @property
    def focus_distance_m(self) -> NDArray[np.float64]:
        """(N,) focus distance of the lens of every sample, metres."""
        return np.array(self._split.focus_distance_m)

    @property
    def aperture_mm(self) -> NDArray[np.float64]:
        """(N,) aperture diameter of the lens of every sample, millimetres."""
        return np.array(self._split.aperture_mm)

    def lens(self, index: int) -> Lens:
        """The lens that sample `index` was rendered with."""
        own = {
            "focus_distance_m": self._split.focus_distance_m[index],
            "aperture_mm": self._split.aperture_mm[index],
            "f_number": None,
            "solve_max_coc_px": None,
        }
        return Lens(**self.manifest.lenses[self._split.lens[index]] | own)

    def read(
        self,
        indices: Sequence[int] | NDArray[np.integer[Any]],
        fields: Sequence[str] = tuple(ARRAYS),
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Samples `indices` (any order, each in 0..len-1), one array for each of `fields`: new ones, or those of `out`.

        "defocused", "aif": (B, H, W, 3) uint8 sRGB; "depth_m": (B, H, W) float32 metres, 0 = hole. Raises `ShardError`
        for an index out of range, an unknown field or an array of `out` that is not contiguous or of another shape,
        `ShardMissingError`, `ShardCorruptError` naming shard and sample.
        """
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        batch: dict[str, NDArray[Any]] = {}
        for array in fields:
            if array not in ARRAYS:
                raise ShardError(f"{array!r} is not an array of a store: choose from {', '.join(ARRAYS)}")
            shape, dtype = (len(rows), *self.sample_shapes[array]), ARRAYS[array].dtype
            target = np.empty(shape, dtype) if out is None else out[array]
            if target.shape != shape or target.dtype != dtype or not target.flags.c_contiguous:
                raise ShardError(f"out[{array!r}] must be contiguous, {shape}, {dtype}")
            batch[array] = target
        self.fill(rows, batch, np.array([array.__array_interface__["data"][0] for array in batch.values()], np.uint64))
        return batch

    def fill(
        self, indices: NDArray[np.int64], batch: Mapping[str, NDArray[Any]], addresses: NDArray[np.uint64]
    ) -> None:
        """`read` into arrays that are known to be such as `out` must be, and to lie at these `addresses`."""
        arrays, maps = tuple(batch), self._maps
        missing: Iterable[tuple[int, str]]
        if maps.held:
            # All at once: between copies the interpreter would start cold. Rows may be out of range.
            columns, sizes = self._columns(arrays)
            sound = copy_chunks(np.ascontiguousarray(indices, np.int64), maps.places, columns, addresses, sizes, self._passing)
            if sound is None:
                return
            missing = ((row, arrays[number]) for row, number in np.argwhere(~sound).tolist())
        else:
            missing = itertools.product(range(len(indices)), arrays)
        rows = indices.tolist()
        self._check(rows)
        for row, array in missing:
            self._decode(rows[row], array, batch[array][row])

    def _columns(self, arrays: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each array in `ARRAYS`, and the bytes of a sample of it."""
        if arrays not in self._known_columns:
            sizes = [ARRAYS[array].sample_bytes(self.manifest.size_hw) for array in arrays]
            self._known_columns[arrays] = np.array([_NUMBERS[array] for array in arrays]), np.array(sizes)
        return self._known_columns[arrays]

    def read_encoded(self, index: int) -> dict[str, bytes]:
        """The chunks of sample `index` as they are stored, their checksums checked; raises as `read` does."""
        self._check([index])
        chunks = {}
        for array in ARRAYS:
            chunk = self._chunk(index, array)
            try:
                check_chunk(chunk)
            except ChunkDamage as damage:
                raise self._damaged(index, array, damage) from damage
            chunks[array] = chunk.tobytes()
        return chunks

    def _check(self, indices: Iterable[int]) -> None:
        for index in indices:
            if not 0 <= index < len(self):
                raise ShardError(f"sample {index} is outside 0..{len(self) - 1} of split {self.name!r}")

    def _decode(self, index: int, array: str, target: NDArray[Any]) -> None:
        """Read `array` of sample `index` into `target`, which then is copied out of the map of its file, if there is one.

        The first time, when the bytes may come off a disk, a chunk is read: the system then reads ahead, and an input
        error has a name.
        """
        number, slot = divmod(index, self.manifest.samples_per_shard)
        shard, out = self._shard(array, number), target.reshape(-1).view(np.uint8)
        offset, length = shard.table[slot]
        codec = ARRAYS[array].codec(self.manifest.compression)
        try:
            if codec is None and length == len(out) + CRC_BYTES:
                # No copy but the system's own.
                stored = bytearray(CRC_BYTES)
                _read_into(shard.reader, offset, [out.data, memoryview(stored)])
                check_crc(out, bytes(stored))
                self._can_be_copied(index, array, shard, offset)
            else:
                chunk = _scratch(length)
                _read_into(shard.reader, offset, [chunk.data])
                decode_chunk(chunk, codec, out)
        except ChunkDamage as damage:
            raise self._damaged(index, array, damage) from damage
        except OSError as error:
            raise self._unreadable(index, array, error) from error

    def _can_be_copied(self, index: int, array: str, shard: _OpenShard, offset: int) -> None:
        if shard.map is None:
            return
        begin = shard.map.address
        with self._lock:
            # Meanwhile the cache of open shards may have let go of it.
            if self._open.get((array, index // self.manifest.samples_per_shard)) is shard:
                place = self._maps.places[index, _NUMBERS[array]]
                # The address last: other threads look at it without a lock.
                place[1:] = begin, begin + shard.map.size
                place[0] = begin + offset

    def _copies(self, spec: ArraySpec) -> bool:
        """Whether the array's chunks are copied out of maps of their files: half the time of reading and checking them."""
        raw = spec.codec(self.manifest.compression) is None
        return raw and copies_at_once(spec.sample_bytes(self.manifest.size_hw))

    def _chunk(self, index: int, array: str) -> NDArray[np.uint8]:
        number, slot = divmod(index, self.manifest.samples_per_shard)
        shard = self._shard(array, number)
        try:
            return _read_exactly(shard.reader, *shard.table[slot])
        except ChunkDamage as damage:
            raise self._damaged(index, array, damage) from damage
        except OSError as error:
            raise self._unreadable(index, array, error) from error

    def _unreadable(self, index: int, array: str, error: OSError) -> ShardCorruptError:
        return ShardCorruptError(
            f"{self._where(array, index // self.manifest.samples_per_shard)} cannot be read: {error}"
        )

    def _damaged(self, index: int, array: str, damage: ChunkDamage) -> ShardCorruptError:
        where = self._where(array, index // self.manifest.samples_per_shard)
        return ShardCorruptError(f"{where}: sample {index} ({self.names[index]}) is damaged, {damage}")

    def _where(self, array: str, shard: int) -> str:
        name = ARRAYS[array].shard_name(self.name, shard)
        return f"{self.storage.describe(name)} (shard {shard} of {self.name}/{array})"

    def _shard(self, array: str, shard: int) -> _OpenShard:
        """An open shard, from the cache of them."""
        key = (array, shard)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        name, file = ARRAYS[array].shard_name(self.name, shard), self._split.shards[shard][array]
        per_shard = self.manifest.samples_per_shard
        try:
            check_size(self.storage.size(name), file, self._where(array, shard))
            reader = self.storage.reader(name)
            index_start = file.bytes - index_bytes(per_shard)
            index = _read_exactly(reader, index_start, index_bytes(per_shard))
            table = decode_index(index, min(per_shard, len(self) - shard * per_shard), index_start)
            mapped = reader.mapped() if self._copies(ARRAYS[array]) else None
        except FileNotFoundError as error:
            raise ShardMissingError(f"{self._where(array, shard)} is missing: it was there at the start") from error
        except ChunkDamage as damage:
            raise ShardCorruptError(f"{self._where(array, shard)} is damaged: {damage}") from damage
        except OSError as error:
            raise ShardCorruptError(f"{self._where(array, shard)} cannot be read: {error}") from error
        opened = _OpenShard(reader, mapped, [(offset, length) for offset, length in table.tolist()])
        with self._lock:
            if key in self._open:
                # Another thread was faster, and its map may be in use.
                return self._open[key]
            self._open[key] = opened
            if mapped is not None:
                self._maps.held.append(mapped)
            if len(self._open) > _OPEN_SHARDS:
                self._let_go()
        return opened

    def _let_go(self) -> None:
        """Keep `_KEPT_SHARDS` shards that were asked for last; with the lock held."""
        places, per_shard = self._maps.places.copy(), self.manifest.samples_per_shard
        while len(self._open) > _KEPT_SHARDS:
            # Only the reference goes: a thread that still reads from the file keeps it open.
            (array, number), _ = self._open.popitem(last=False)
            places[number * per_shard : (number + 1) * per_shard, _NUMBERS[array]] = 0
        self._maps = _Maps(places, [shard.map for shard in self._open.values() if shard.map is not None])


def check_size(size: int, file: ShardFile, where: str) -> None:
    """Raise `ShardCorruptError` where a shard file (`where`) has another size than it was written with."""
    if size != file.bytes:
        raise ShardCorruptError(f"{where} has {size} bytes where {file.bytes} were written: convert again")


_OWN = threading.local()


def _scratch(length: int) -> NDArray[np.uint8]:
    """`length` bytes of memory that this thread reuses."""
    held: NDArray[np.uint8] | None = getattr(_OWN, "memory", None)
    if held is None or held.size < length:
        # A little more than asked for: chunks of a store differ in length.
        held = _OWN.memory = np.empty(length + length // 4, np.uint8)
    return held[:length]


def _read_into(reader: RangeReader, offset: int, targets: list[memoryview]) -> None:
    wanted = sum(len(target) for target in targets)
    if offset < 0 or reader.read_into(offset, targets) != wanted:
        raise ChunkDamage("the file ends too early")


def _read_exactly(reader: RangeReader, offset: int, length: int) -> NDArray[np.uint8]:
    data = reader.read_at(offset, length) if offset >= 0 else b""
    if len(data) != length:
        raise ChunkDamage("the file ends too early")
    return np.frombuffer(data, np.uint8)
