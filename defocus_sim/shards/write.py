"""Writing: one task owns shard K of every array and makes each visible complete; the manifest comes last.

Samples are encoded and appended one at a time, so that a task holds one sample in memory and not a shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from numpy.typing import NDArray

from defocus_sim.shards.codec import encode_chunk, encode_index
from defocus_sim.shards.identity import ROOT
from defocus_sim.shards.layout import ARRAYS, Compression
from defocus_sim.shards.manifest import Manifest, ShardFile
from defocus_sim.shards.metadata import hierarchy, metadata_digest
from defocus_sim.shards.storage import Storage
from defocus_sim.shards.timing import StageClock


def write_skeleton(
    storage: Storage,
    counts: Mapping[str, int],
    size_hw: tuple[int, int],
    samples_per_shard: int,
    compression: Compression,
) -> None:
    """Groups and arrays of a store, all but the root's own metadata, without which it does not open."""
    for name, content in hierarchy(counts, size_hw, samples_per_shard, compression).items():
        if name != ROOT:
            storage.write(name, content)


def write_shard(
    storage: Storage,
    split: str,
    index: int,
    samples: Iterable[Mapping[str, NDArray[Any]]],
    samples_per_shard: int,
    compression: Compression,
) -> dict[str, ShardFile]:
    """Write shard `index` of every array from `samples`, dicts with one contiguous array for each of `ARRAYS`.

    Returns size and checksum of each file. An exception, also one out of `samples`, leaves no new file.
    """
    encoded = (encode_sample(sample, compression) for sample in samples)
    return write_encoded_shard(storage, split, index, encoded, samples_per_shard)


def encode_sample(sample: Mapping[str, NDArray[Any]], compression: Compression) -> dict[str, bytes]:
    """The chunk of each of `ARRAYS`, from one contiguous array for each."""
    return {name: encode_chunk(sample[name], spec.codec(compression)) for name, spec in ARRAYS.items()}


def write_encoded_shard(
    storage: Storage,
    split: str,
    index: int,
    samples: Iterable[Mapping[str, bytes]],
    samples_per_shard: int,
    clock: StageClock | None = None,
) -> dict[str, ShardFile]:
    """As `write_shard`, from chunks that are encoded already. `clock`: told the time that writing takes."""
    clock = clock or StageClock()
    with ExitStack() as stack:
        shards = {
            name: stack.enter_context(_shard(storage, spec.shard_name(split, index), samples_per_shard))
            for name, spec in ARRAYS.items()
        }
        for sample in samples:
            with clock.stage("write"):
                for name, shard in shards.items():
                    shard.append(sample[name])
        with clock.stage("write"):
            return {name: shard.finish() for name, shard in shards.items()}


def write_manifest(storage: Storage, manifest: Manifest) -> None:
    """Finalise: from here on the store opens as data."""
    counts = {split: len(content.names) for split, content in manifest.splits.items()}
    layout = counts, manifest.size_hw, manifest.samples_per_shard, manifest.compression
    digests = {name: metadata_digest(content) for name, content in hierarchy(*layout).items()}
    described = replace(manifest, metadata=digests).to_attributes()
    storage.write(ROOT, hierarchy(*layout, attributes=described)[ROOT])


@contextmanager
def _shard(storage: Storage, name: str, slots: int) -> Iterator[_Shard]:
    with storage.writer(name) as stream:
        yield _Shard(stream, slots)


class _Shard:
    """A shard that grows by one chunk at a time."""

    def __init__(self, stream: BinaryIO, slots: int) -> None:
        self._stream, self._slots = stream, slots
        self._entries: list[tuple[int, int]] = []
        self._size = 0
        self._digest = hashlib.sha256()

    def append(self, chunk: bytes) -> None:
        self._entries.append((self._size, len(chunk)))
        self._put(chunk)

    def finish(self) -> ShardFile:
        self._put(encode_index(self._entries, self._slots))
        # Not at its end only: the other arrays' files can be on their way meanwhile.
        self._stream.flush()
        return ShardFile(bytes=self._size, sha256=self._digest.hexdigest())

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._size += len(data)
        self._digest.update(data)
