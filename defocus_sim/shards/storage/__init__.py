"""Where a store's files lie: a local folder, or a prefix of an object store (fsspec). Names are relative, with `/`.

Both write a file completely or not at all: locally by a flushed temporary file and a rename, remotely by one upload.
"""

from __future__ import annotations

from pathlib import Path

from defocus_sim.shards.storage.base import TEMPORARY_SUFFIX, RangeReader, Storage, Version
from defocus_sim.shards.storage.local import LocalStorage
from defocus_sim.shards.storage.object_store import ObjectStorage, client_options

__all__ = [
    "TEMPORARY_SUFFIX",
    "LocalStorage",
    "ObjectStorage",
    "RangeReader",
    "Storage",
    "Version",
    "client_options",
    "storage_at",
]


def storage_at(place: str | Path) -> Storage:
    """The storage at a local path, or at an fsspec URL (`protocol://...`). Raises `ShardError` for an unusable URL."""
    text = str(place)
    return ObjectStorage(text) if "://" in text else LocalStorage(Path(place))
