"""Samples of one split: what is known of each, and batches filled by a reader of our own.

A general Zarr library reads a deleted or empty shard as zeros and spends most of its time per chunk on bookkeeping. In
`ShardSplit` a shard's index is read and checked once, its chunks are read and checked each time: an uncompressed one
straight into its place in the batch. Nothing is mapped: a file that others shorten is an error with a name. Safe to share
between threads, to fork and to pickle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardError
from defocus_sim.lens import Lens
from defocus_sim.shards.codec import CRC_BYTES, ChunkDamage, check_chunk, check_crc, decode_chunk
from defocus_sim.shards.identity import StoreIdentity
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import UNKNOWN_LENS, Manifest, blurred_hw
from defocus_sim.shards.open_shards import OpenShards, read_exactly
from defocus_sim.shards.storage import Storage


class Split(ABC):
    """Random access to the samples of one split; `sample_shapes`: of each array, without the batch."""

    def __init__(self, storage: Storage, manifest: Manifest, name: str, identity: StoreIdentity) -> None:
        self.storage, self.manifest, self.name, self._identity = storage, manifest, name, identity
        self._split = manifest.splits[name]
        self.height, self.width = manifest.size_hw
        self.sample_shapes = {array: spec.sample_shape(manifest.size_hw) for array, spec in ARRAYS.items()}

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
                f"{self.storage.url} does not say with which lens sample {self.names[index]} was taken: give --lens, or "
                "prepare it with --lens or --preset"
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
        self.fill(rows, batch)
        return batch

    @abstractmethod
    def fill(self, indices: NDArray[np.int64], batch: Mapping[str, NDArray[Any]]) -> None:
        """`read` into arrays that are known to be such as `out` must be."""

    @abstractmethod
    def read_encoded(self, index: int) -> dict[str, bytes]:
        """The chunks of sample `index` as a store of this compression has them; raises as `read` does."""

    def _check(self, indices: Iterable[int]) -> None:
        for index in indices:
            if not 0 <= index < len(self):
                raise ShardError(f"sample {index} is outside 0..{len(self) - 1} of split {self.name!r}")


class ShardSplit(Split):
    """A split of a store in our own layout."""

    def __init__(self, storage: Storage, manifest: Manifest, name: str, identity: StoreIdentity) -> None:
        super().__init__(storage, manifest, name, identity)
        self._shards = OpenShards(storage, manifest, name, identity)

    def __reduce__(self) -> tuple[type[ShardSplit], tuple[Storage, Manifest, str, StoreIdentity]]:
        return ShardSplit, (self.storage, self.manifest, self.name, self._identity)

    def fill(self, indices: NDArray[np.int64], batch: Mapping[str, NDArray[Any]]) -> None:
        """See `Split`."""
        rows = indices.tolist()
        self._check(rows)
        for row, index in enumerate(rows):
            for array, target in batch.items():
                self._decode(index, array, target[row])
        self._check_identity()

    def _check_identity(self) -> None:
        """Where an object of the same name takes the place of one that is being read: whether that has happened."""
        if not self.storage.renames:
            self._identity.check()

    def read_encoded(self, index: int) -> dict[str, bytes]:
        """See `Split`: as they are stored, their checksums checked."""
        self._check([index])
        chunks = {array: self._chunk(index, array).tobytes() for array in ARRAYS}
        self._check_identity()
        return chunks

    def _decode(self, index: int, array: str, target: NDArray[Any]) -> None:
        """Read `array` of sample `index` into `target`."""
        number, slot = divmod(index, self.manifest.samples_per_shard)
        shard, out = self._shards.get(array, number), target.reshape(-1).view(np.uint8)
        offset, length = shard.table[slot]
        codec = ARRAYS[array].codec(self.manifest.compression)
        try:
            if codec is None and length == len(out) + CRC_BYTES:
                # No copy but the system's own.
                stored = bytearray(CRC_BYTES)
                if shard.reader.read_into(offset, [out.data, memoryview(stored)]) != length:
                    raise ChunkDamage("the file ends too early")
                check_crc(out, bytes(stored))
            else:
                decode_chunk(read_exactly(shard.reader, offset, length), codec, out)
        except (ChunkDamage, OSError) as error:
            raise self._failed(index, array, error) from error

    def _chunk(self, index: int, array: str) -> NDArray[np.uint8]:
        """The chunk of sample `index` as it is stored, checked."""
        number, slot = divmod(index, self.manifest.samples_per_shard)
        shard = self._shards.get(array, number)
        try:
            chunk = read_exactly(shard.reader, *shard.table[slot])
            check_chunk(chunk)
        except (ChunkDamage, OSError) as error:
            raise self._failed(index, array, error) from error
        return chunk

    def _failed(self, index: int, array: str, error: ChunkDamage | OSError) -> ShardError:
        """What there is to say of an error, which may be that the store is another by now."""
        if isinstance(error, ShardError):
            return error
        self._check_identity()
        where = self._shards.where(array, index // self.manifest.samples_per_shard)
        if isinstance(error, ChunkDamage):
            return ShardCorruptError(f"{where}: sample {index} ({self.names[index]}) is damaged, {error}")
        return ShardCorruptError(f"{where} cannot be read: {error}")
