"""Writing: one task owns shard K of every array and makes each visible by one rename; the manifest comes last.

Samples are encoded and appended one at a time, so that a task holds one sample in memory and not a shard.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from defocus_sim.shards.codec import encode_chunk, encode_index
from defocus_sim.shards.layout import ARRAYS, ArraySpec, Compression, array_metadata, group_metadata
from defocus_sim.shards.manifest import Manifest, ShardFile

PARTIAL_SUFFIX = ".partial"


def write_skeleton(
    root: Path, counts: Mapping[str, int], size_hw: tuple[int, int], samples_per_shard: int, compression: Compression
) -> None:
    """Groups and arrays of a store below `root`, all but the root's own metadata, without which it does not open."""
    for split, count in counts.items():
        write_bytes(root / split / "zarr.json", group_metadata())
        for spec in ARRAYS.values():
            metadata = array_metadata(spec, count, size_hw, samples_per_shard, compression)
            write_bytes(root / split / spec.name / "zarr.json", metadata)


def write_shard(
    root: Path,
    split: str,
    index: int,
    samples: Iterable[Mapping[str, NDArray[Any]]],
    samples_per_shard: int,
    compression: Compression,
) -> dict[str, ShardFile]:
    """Write shard `index` of every array from `samples`, dicts with one contiguous array for each of `ARRAYS`.

    Returns size and checksum of each file. An exception, also one out of `samples`, leaves no new file.
    """
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                _ShardWriter(spec, spec.shard_path(root, split, index), samples_per_shard, compression)
            )
            for name, spec in ARRAYS.items()
        }
        for sample in samples:
            for name, writer in writers.items():
                writer.append(sample[name])
        return {name: writer.commit() for name, writer in writers.items()}


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Finalise: from here on `root` opens as data."""
    write_bytes(root / "zarr.json", group_metadata(manifest.to_attributes()))


def write_bytes(path: Path, content: bytes) -> None:
    """`content` as `path`, complete or not at all, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _ShardWriter:
    def __init__(self, spec: ArraySpec, path: Path, slots: int, compression: Compression) -> None:
        self._codec, self._path, self._slots = spec.codec(compression), path, slots
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._entries: list[tuple[int, int]] = []
        self._size = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> _ShardWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._partial.open("wb")
        return self

    def append(self, sample: NDArray[Any]) -> None:
        chunk = encode_chunk(sample, self._codec)
        self._entries.append((self._size, len(chunk)))
        self._put(chunk)

    def commit(self) -> ShardFile:
        self._put(encode_index(self._entries, self._slots))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._partial.replace(self._path)
        return ShardFile(bytes=self._size, sha256=self._digest.hexdigest())

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._size += len(data)
        self._digest.update(data)

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._partial.unlink(missing_ok=True)
