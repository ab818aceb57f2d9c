"""Which store a reader has opened: another one put into its place is noticed, never read in its stead."""

from __future__ import annotations

import hashlib

from defocus_sim.errors import ShardError, ShardReplacedError, StorageTimeoutError
from defocus_sim.shards.storage import Storage, Version

ROOT = "zarr.json"


class StoreIdentity:
    """The root's metadata as they were opened: they hold every shard's checksum, and are written last and removed first.

    `checksum`: SHA-256 (hex) of them. Asking the storage for their version is cheap; only where that has changed are they
    read again, so that a store that was copied over itself stays what it is. Safe to share between threads and to pickle.
    """

    def __init__(self, storage: Storage, version: Version, content: bytes) -> None:
        self._storage, self._version = storage, version
        self.checksum = hashlib.sha256(content).hexdigest()

    @classmethod
    def read(cls, storage: Storage) -> tuple[StoreIdentity, bytes]:
        """The identity of the store that is there now, and its root's metadata; raises as `Storage.read` does."""
        # In this order: what is put there in between is noticed at the next look.
        version = storage.version(ROOT)
        content = storage.read(ROOT)
        return cls(storage, version, content), content

    def check(self) -> None:
        """Raise `ShardReplacedError` where another store is there by now, or none."""
        try:
            version = self._storage.version(ROOT)
            if version == self._version:
                return
            same = hashlib.sha256(self._storage.read(ROOT)).hexdigest() == self.checksum
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except StorageTimeoutError:
            raise
        except OSError as error:
            raise ShardError(f"{self._storage.describe(ROOT)} cannot be read: {error}") from error
        if not same:
            raise self.replaced()
        self._version = version

    def replaced(self) -> ShardReplacedError:
        """The error that says so."""
        return ShardReplacedError(
            f"{self._storage.url} was replaced or removed while it was read: begin again with what is there now"
        )
