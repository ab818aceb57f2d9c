"""Reading: `open_store(path)` checks the manifest and every shard's presence and size, `ShardSplit.read` fills a batch.

Own reader, because a general Zarr library reads a deleted or empty shard as zeros and spends most of its time per chunk
on bookkeeping. A shard's index is read and checked once, its chunks are checked and decoded straight into the batch.
Plain positioned reads, not a memory map: a file that shrinks under a map kills the process instead of raising an error.
Safe to share between threads, to fork and to pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardError, ShardMissingError
from defocus_sim.shards.codec import ChunkDamage, decode_chunk, decode_index, index_bytes
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import Manifest, ShardFile
from defocus_sim.shards.write import PARTIAL_SUFFIX

# Each open shard holds a file descriptor; the usual limit of a process is 1024.
_OPEN_SHARDS = 192


@dataclass(frozen=True)
class ShardStore:
    """An open store. `path`: its folder. `manifest`: see `Manifest`."""

    path: Path
    manifest: Manifest

    @property
    def split_names(self) -> tuple[str, ...]:
        """Splits with at least one sample, "train" before "test"."""
        return tuple(name for name, split in self.manifest.splits.items() if split.names)

    def split(self, name: str) -> ShardSplit:
        """The samples of one split. Raises `ShardError` where the store has none."""
        if name not in self.split_names:
            raise ShardError(
                f"{self.path} has no split {name!r}: it has {', '.join(self.split_names) or 'no sample at all'}"
            )
        return ShardSplit(self.path, self.manifest, name)

    def files(self) -> Iterator[tuple[str, int, str, Path, ShardFile]]:
        """Every shard file as (split, shard, array, path, size and checksum)."""
        for split, content in self.manifest.splits.items():
            for index, shard in enumerate(content.shards):
                for array, file in shard.items():
                    yield split, index, array, ARRAYS[array].shard_path(self.path, split, index), file


class ShardSplit:
    """Random access to the samples of one split."""

    def __init__(self, path: Path, manifest: Manifest, name: str) -> None:
        self.path, self.manifest, self.name = path, manifest, name
        self._split = manifest.splits[name]
        self.height, self.width = manifest.size_hw
        self._open_empty()

    def _open_empty(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, int], tuple[_ShardFile, NDArray[np.uint64]]] = OrderedDict()

    def __getstate__(self) -> tuple[Path, Manifest, str]:
        return self.path, self.manifest, self.name

    def __setstate__(self, state: tuple[Path, Manifest, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

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

    def read(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], fields: Sequence[str] = tuple(ARRAYS)
    ) -> dict[str, NDArray[Any]]:
        """Samples `indices` (any order, each in 0..len-1) as new arrays, one for each of `fields`.

        "defocused", "aif": (B, H, W, 3) uint8 sRGB; "depth_m": (B, H, W) float32 metres, 0 = hole. Raises `ShardError`
        for an index out of range or an unknown field, `ShardMissingError`, `ShardCorruptError` naming shard and sample.
        """
        unknown = [field for field in fields if field not in ARRAYS]
        if unknown:
            raise ShardError(f"{unknown[0]!r} is not an array of a store: choose from {', '.join(ARRAYS)}")
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < len(self):
                raise ShardError(f"sample {index} is outside 0..{len(self) - 1} of split {self.name!r}")
        batch = {}
        for field in fields:
            spec = ARRAYS[field]
            out = np.empty((len(wanted), *spec.sample_shape(self.manifest.size_hw)), spec.dtype)
            codec = spec.codec(self.manifest.compression)
            for row, index in enumerate(wanted):
                shard, slot = divmod(index, self.manifest.samples_per_shard)
                file, table = self._shard(field, shard)
                try:
                    decode_chunk(file.read_at(int(table[slot, 0]), int(table[slot, 1])), codec, out[row])
                except ChunkDamage as damage:
                    raise ShardCorruptError(
                        f"{self._where(field, shard)}: sample {index} ({self.names[index]}) is damaged, {damage}"
                    ) from damage
            batch[field] = out
        return batch

    def _where(self, array: str, shard: int) -> str:
        return f"{ARRAYS[array].shard_path(self.path, self.name, shard)} (shard {shard} of {self.name}/{array})"

    def _shard(self, array: str, shard: int) -> tuple[_ShardFile, NDArray[np.uint64]]:
        """An open shard and the checked index of its chunks, from the cache of open shards."""
        key = (array, shard)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        path, written = ARRAYS[array].shard_path(self.path, self.name, shard), self._split.shards[shard][array]
        _check_size(path, written, "it changed after the store was opened")
        per_shard = self.manifest.samples_per_shard
        file = _ShardFile(path)
        try:
            index_start = written.bytes - index_bytes(per_shard)
            index = file.read_at(index_start, index_bytes(per_shard))
            table = decode_index(index, min(per_shard, len(self) - shard * per_shard), index_start)
        except ChunkDamage as damage:
            raise ShardCorruptError(f"{self._where(array, shard)} is damaged: {damage}") from damage
        with self._lock:
            self._open[key] = file, table
            while len(self._open) > _OPEN_SHARDS:
                # Only the reference goes: a thread that still reads from the file keeps it open.
                self._open.popitem(last=False)
        return file, table


class _ShardFile:
    """A file descriptor that closes when the last thread lets go of it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_at(self, offset: int, length: int) -> NDArray[np.uint8]:
        """`length` bytes from `offset`; raises `ChunkDamage` where the file ends before."""
        data = os.pread(self._descriptor, length, offset) if offset >= 0 else b""
        if len(data) != length:
            raise ChunkDamage("the file ends too early")
        return np.frombuffer(data, np.uint8)


def open_store(path: str | Path, *, check_files: bool = True) -> ShardStore:
    """Open a finished store: manifest checked and, with `check_files`, every shard file there with its size.

    Raises `ShardMissingError` where there is no store or a shard is gone, `ShardError` for an unfinished or foreign one or
    a newer format, `ShardCorruptError` for a damaged manifest or a shard of another size.
    """
    root = Path(path)
    metadata = root / "zarr.json"
    if not metadata.is_file():
        if root.with_name(root.name + PARTIAL_SUFFIX).is_dir():
            raise ShardMissingError(f"{root} is not finished: its conversion stopped, continue it with --resume")
        if root.is_dir():
            raise ShardError(f"{root} holds no finished shard store: zarr.json with its manifest is missing")
        raise ShardMissingError(f"{root} is not there: make it with dfd-prepare")
    try:
        content = json.loads(metadata.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ShardCorruptError(f"{metadata} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ShardCorruptError(f"{metadata} is not Zarr metadata")
    store = ShardStore(root, Manifest.from_attributes(content.get("attributes"), str(root)))
    if check_files:
        for split, index, array, file_path, file in store.files():
            _check_size(file_path, file, f"shard {index} of {split}/{array}")
    return store


def verify_store(store: ShardStore) -> Iterator[tuple[Path, str | None]]:
    """Read every byte of every shard: yields each file with None, or with what is wrong with it."""
    for split, index, array, path, file in store.files():
        problem = None
        try:
            _check_size(path, file, f"shard {index} of {split}/{array}")
            if _file_sha256(path) != file.sha256:
                own = _locate_damage(store, split, index, array)
                problem = own or f"{path} is not the file that was written (SHA-256 differs), its samples are sound"
        except (ShardError, OSError) as error:
            problem = str(error)
        yield path, problem


def _locate_damage(store: ShardStore, split: str, index: int, array: str) -> str | None:
    """The first damaged sample of a shard, or None where each is sound by itself (a file of another place, say)."""
    samples, per_shard = store.split(split), store.manifest.samples_per_shard
    for sample in range(index * per_shard, min((index + 1) * per_shard, len(samples))):
        try:
            samples.read([sample], fields=(array,))
        except ShardError as error:
            return str(error)
    return None


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_size(path: Path, file: ShardFile, what: str) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ShardMissingError(f"{path} is missing ({what}): restore it or convert again") from error
    if size != file.bytes:
        raise ShardCorruptError(f"{path} has {size} bytes where {file.bytes} were written ({what}): convert again")
