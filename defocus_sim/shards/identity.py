"""Which store a reader has opened: another one put into its place is noticed, never read in its stead."""

from __future__ import annotations

import hashlib

from defocus_sim.errors import ShardError, ShardReplacedError, StorageTimeoutError
from defocus_sim.shards.storage import Storage, Version

ROOT = "zarr.json"


class StoreIdentity:
    """The file `name` of a store as it was opened: the root's metadata, written last and removed first, or an archive.

    `checksum`: SHA-256 (hex) of its content where it tells two stores apart, as a manifest does, which holds every shard's
    checksum; else of its version. Asking the storage for the version is cheap; only where that has changed is the content
    read again, so that a store that was copied over itself stays what it is. Safe to share between threads and to pickle.
    """

    def __init__(self, storage: Storage, name: str, version: Version, content: bytes | None) -> None:
        self._storage, self._name, self._version, self._by_content = storage, name, version, content is not None
        self.checksum = hashlib.sha256(repr(version).encode() if content is None else content).hexdigest()

    @classmethod
    def read(cls, storage: Storage) -> tuple[StoreIdentity, bytes]:
        """The identity of the store that is there now, and its root's metadata; raises as `Storage.read` does."""
        # In this order: what is put there in between is noticed at the next look.
        version = storage.version(ROOT)
        content = storage.read(ROOT)
        return cls(storage, ROOT, version, content), content

    @classmethod
    def of_version(cls, storage: Storage, name: str) -> StoreIdentity:
        """Of a store without a manifest; raises as `Storage.version` does."""
        return cls(storage, name, storage.version(name), None)

    def check(self) -> None:
        """Raise `ShardReplacedError` where another store is there by now, or none."""
        try:
            version = self._storage.version(self._name)
            if version == self._version and not (version is None and self._by_content):
                return
            same = self._by_content and hashlib.sha256(self._storage.read(self._name)).hexdigest() == self.checksum
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except StorageTimeoutError:
            raise
        except OSError as error:
            raise ShardError(f"{self._storage.describe(self._name)} cannot be read: {error}") from error
        if not same:
            raise self.replaced()
        self._version = version

    def replaced(self) -> ShardReplacedError:
        """The error that says so."""
        return ShardReplacedError(
            f"{self._storage.url} was replaced or removed while it was read: begin again with what is there now"
        )
