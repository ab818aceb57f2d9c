"""Samples of one split: a batch filled by a reader of our own.

A general Zarr library reads a deleted or empty shard as zeros and spends most of its time per chunk on bookkeeping. Here a
shard's index is read and checked once, its chunks are checked each time and decoded straight into the batch: an
uncompressed one is put into its place, a compressed one first into memory that its thread keeps, since fresh memory costs
more than the copy. The first time a chunk is read, later it is copied out of a map of its file. Safe to share between
threads, to fork and to pickle.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardError
from defocus_sim.lens import Lens
from defocus_sim.shards.codec import (
    CRC_BYTES,
    MOST_ADDED_BYTES,
    ChunkDamage,
    check_chunk,
    check_crc,
    decode_chunk,
    decode_payload,
)
from defocus_sim.shards.crc import copy_chunks
from defocus_sim.shards.layout import ARRAYS, Blosc
from defocus_sim.shards.manifest import UNKNOWN_LENS, Manifest, blurred_hw
from defocus_sim.shards.open_shards import NUMBERS, Maps, OpenShards, read_exactly
from defocus_sim.shards.storage import RangeReader, Storage


class ShardSplit:
    """Random access to the samples of one split; `sample_shapes`: of each array, without the batch."""

    def __init__(self, storage: Storage, manifest: Manifest, name: str) -> None:
        self.storage, self.manifest, self.name = storage, manifest, name
        self._split = manifest.splits[name]
        self.height, self.width = manifest.size_hw
        self._shards = OpenShards(storage, manifest, name)
        # Whether a map's pages are not to stay: with `none`, whose arrays all are, they are what the system keeps anyway.
        self._passing = manifest.compression != "none"
        self.sample_shapes = {array: spec.sample_shape(manifest.size_hw) for array, spec in ARRAYS.items()}
        self._plans: dict[tuple[str, ...], _Plan] = {}

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

    @property
    def measured(self) -> tuple[Mapping[str, Any], ...]:
        """Of photographs, what was found about each pair; empty for simulated samples."""
        return self._split.measured

    def has_lens(self, index: int) -> bool:
        """Whether the lens of sample `index` is known."""
        return self.manifest.lenses[self._split.lens[index]] != UNKNOWN_LENS

    def lens(self, index: int) -> Lens:
        """The lens that sample `index` was rendered or taken with, in pixels of the stored frame (see `Lens.resized`).

        Raises `ShardError` where nobody said which lens, or which frame its pixels are of.
        """
        return self.blurred_lens(index).resized(self.blurred_hw(index), self.manifest.size_hw)

    def has_pixels(self, index: int) -> bool:
        """Whether the lens of sample `index` is known and which frame its pixels are of, so that `lens` has an answer."""
        return self.has_lens(index) and blurred_hw(self.manifest, self._split, index) is not None

    def blurred_hw(self, index: int) -> tuple[int, int]:
        """Height and width in px of the frame of sample `index` as it was blurred, before it was resized for the store.

        Raises `ShardError` where an older store does not say it and it makes a difference.
        """
        known = blurred_hw(self.manifest, self._split, index)
        if known is None:
            raise ShardError(
                f"{self.storage.url} was made before stores said at which size their frames were blurred, so that the "
                f"pixels of its lens cannot be told: make it again with dfd-prepare"
            )
        return known

    def blurred_lens(self, index: int) -> Lens:
        """The lens of sample `index` in pixels of the frame that was blurred; raises `ShardError` as `lens` does."""
        if not self.has_lens(index):
            raise ShardError(
                f"{self.storage.url} does not say with which lens sample {self.names[index]} was taken: prepare it with "
                "--lens or --preset"
            )
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
        rows, plan, maps = np.ascontiguousarray(indices, np.int64), self._plan(tuple(batch)), self._shards.maps
        missing: list[tuple[int, str]] = []
        if not maps.held:
            missing = list(itertools.product(range(len(rows)), batch))
        else:
            # What is stored as it is all at once: between copies the interpreter would start cold. Rows may be out of
            # range.
            if plan.raw:
                targets = addresses[plan.positions] if plan.packed else addresses
                sound = copy_chunks(rows, maps.places, plan.numbers, targets, plan.sizes, self._passing, soon=False)
                if sound is not None:
                    missing = [(row, plan.raw[column]) for row, column in np.argwhere(~sound).tolist()]
            for array, packed in plan.packed.items():
                target = batch[array]
                missing += [
                    (row, array)
                    for row in range(len(rows))
                    if not self._unpacked(rows[row : row + 1], packed, maps, target[row])
                ]
        if missing:
            numbers = rows.tolist()
            self._check(numbers)
            for row, array in missing:
                self._decode(numbers[row], array, batch[array][row])

    def _plan(self, arrays: tuple[str, ...]) -> _Plan:
        if arrays not in self._plans:
            self._plans[arrays] = _Plan.of(arrays, self.manifest)
        return self._plans[arrays]

    def _unpacked(self, row: NDArray[np.int64], packed: _Packed, maps: Maps, target: NDArray[Any]) -> bool:
        """Copy a compressed chunk into memory that stays in the cache, and decode it; False where that cannot be done."""
        chunk, address = _scratch(int(packed.room[0]))
        if copy_chunks(row, maps.places, packed.number, address, packed.room, self._passing, soon=True) is not None:
            return False
        length = int(maps.places[row[0], packed.number[0], 1])
        try:
            decode_payload(chunk[:length], packed.codec, target.reshape(-1).view(np.uint8))
        except ChunkDamage as damage:
            raise self._damaged(int(row[0]), packed.array, damage) from damage
        return True

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
        shard, out = self._shards.get(array, number), target.reshape(-1).view(np.uint8)
        offset, length = shard.table[slot]
        codec = ARRAYS[array].codec(self.manifest.compression)
        try:
            if codec is None and length == len(out) + CRC_BYTES:
                # No copy but the system's own.
                stored = bytearray(CRC_BYTES)
                _read_into(shard.reader, offset, [out.data, memoryview(stored)])
                check_crc(out, bytes(stored))
            else:
                chunk, _ = _scratch(length)
                _read_into(shard.reader, offset, [chunk.data])
                decode_chunk(chunk, codec, out)
        except ChunkDamage as damage:
            raise self._damaged(index, array, damage) from damage
        except OSError as error:
            raise self._unreadable(index, array, error) from error
        self._shards.can_be_copied(index, array, shard)

    def _chunk(self, index: int, array: str) -> NDArray[np.uint8]:
        number, slot = divmod(index, self.manifest.samples_per_shard)
        shard = self._shards.get(array, number)
        try:
            return read_exactly(shard.reader, *shard.table[slot])
        except ChunkDamage as damage:
            raise self._damaged(index, array, damage) from damage
        except OSError as error:
            raise self._unreadable(index, array, error) from error

    def _unreadable(self, index: int, array: str, error: OSError) -> ShardCorruptError:
        return ShardCorruptError(
            f"{self._shards.where(array, index // self.manifest.samples_per_shard)} cannot be read: {error}"
        )

    def _damaged(self, index: int, array: str, damage: ChunkDamage) -> ShardCorruptError:
        where = self._shards.where(array, index // self.manifest.samples_per_shard)
        return ShardCorruptError(f"{where}: sample {index} ({self.names[index]}) is damaged, {damage}")


@dataclass(frozen=True)
class _Packed:
    """A compressed array: its number in `ARRAYS` (1,), room (1,) for the longest chunk that the codec makes of a sample."""

    array: str
    codec: Blosc
    number: NDArray[np.int64]
    room: NDArray[np.int64]


@dataclass(frozen=True)
class _Plan:
    """How arrays are read: those stored as they are, their positions among all, numbers in `ARRAYS`, bytes of a sample."""

    raw: tuple[str, ...]
    positions: NDArray[np.int64]
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    packed: dict[str, _Packed]

    @staticmethod
    def of(arrays: tuple[str, ...], manifest: Manifest) -> _Plan:
        """For the arrays of a store, in their order."""
        codecs = {array: ARRAYS[array].codec(manifest.compression) for array in arrays}
        sizes = {array: ARRAYS[array].sample_bytes(manifest.size_hw) for array in arrays}
        raw = [array for array, codec in codecs.items() if codec is None]
        packed = {
            array: _Packed(array, codec, np.array([NUMBERS[array]]), np.array([sizes[array] + MOST_ADDED_BYTES]))
            for array, codec in codecs.items()
            if codec is not None
        }
        return _Plan(
            raw=tuple(raw),
            positions=np.array([arrays.index(array) for array in raw], np.int64),
            numbers=np.array([NUMBERS[array] for array in raw], np.int64),
            sizes=np.array([sizes[array] for array in raw], np.int64),
            packed=packed,
        )


_OWN = threading.local()


def _scratch(length: int) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """`length` bytes of memory that this thread reuses, and its address (1,)."""
    held: tuple[NDArray[np.uint8], NDArray[np.uint64]] | None = getattr(_OWN, "memory", None)
    if held is None or held[0].size < length:
        # A little more than asked for: chunks of a store differ in length.
        memory = np.empty(length + length // 4, np.uint8)
        held = _OWN.memory = memory, np.array([memory.ctypes.data], np.uint64)
    return held[0][:length], held[1]


def _read_into(reader: RangeReader, offset: int, targets: list[memoryview]) -> None:
    wanted = sum(len(target) for target in targets)
    if offset < 0 or reader.read_into(offset, targets) != wanted:
        raise ChunkDamage("the file ends too early")
