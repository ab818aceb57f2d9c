"""Reading: `open_store(place)` checks the manifest and every shard's presence and size, `verify_store` every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from defocus_sim.errors import ShardCorruptError, ShardError, ShardMissingError, StorageTimeoutError, parse_json
from defocus_sim.lens import Lens
from defocus_sim.shards.foreign import ForeignStore, ZarrSplit, open_foreign, root_of
from defocus_sim.shards.identity import ROOT, StoreIdentity
from defocus_sim.shards.layout import ARRAYS, MANIFEST_ATTRIBUTE
from defocus_sim.shards.manifest import UNKNOWN_LENS, Manifest, ShardFile
from defocus_sim.shards.metadata import is_rewritten, metadata_digest
from defocus_sim.shards.open_shards import check_size
from defocus_sim.shards.split import ShardSplit, Split
from defocus_sim.shards.storage import RangeReader, Storage, storage_at

_VERIFY_BLOCK_BYTES = 16 * 2**20
# Where a conversion keeps its state; a place that has it without a manifest is an unfinished store.
STATE_FOLDER = ".markers"
UNFINISHED_SUFFIX = ".partial"


@dataclass(frozen=True)
class ShardRecord:
    """One shard file as the manifest knows it; `name` is relative to the store."""

    split: str
    index: int
    array: str
    name: str
    file: ShardFile

    @property
    def where(self) -> str:
        """As messages name it."""
        return f"shard {self.index} of {self.split}/{self.array}"


@dataclass(frozen=True)
class MetadataRecord:
    """One `zarr.json` as the manifest knows it: `name` relative to the store, `sha256` see `metadata_digest`."""

    name: str
    sha256: str


@dataclass(frozen=True)
class SampleRecord:
    """One sample of a store that is read through zarr: `name` is its split and its own."""

    name: str


Record = ShardRecord | MetadataRecord | SampleRecord


@dataclass(frozen=True)
class ShardStore:
    """An open store. `storage`: its files. `manifest`: see `Manifest`. `identity`: which store it is.

    `foreign`: where zarr finds the arrays of one that is not in our layout; None where our reader reads it.
    """

    storage: Storage
    manifest: Manifest
    identity: StoreIdentity
    foreign: ForeignStore | None = None

    @property
    def url(self) -> str:
        """Path or URL of the store."""
        return self.storage.url

    @property
    def split_names(self) -> tuple[str, ...]:
        """Splits with at least one sample: "train", "val", "test", in this order."""
        return tuple(name for name, split in self.manifest.splits.items() if split.names)

    def split(self, name: str) -> Split:
        """The samples of one split. Raises `ShardError` where the store has none."""
        if name not in self.split_names:
            raise ShardError(f"{self.url} has no split {name!r}: it has {', '.join(self.split_names) or 'no sample'}")
        if self.foreign is not None:
            return ZarrSplit(self.storage, self.manifest, name, self.identity, self.foreign)
        return ShardSplit(self.storage, self.manifest, name, self.identity)

    def seen_through(self, lens: Lens) -> ShardStore:
        """The store with `lens` for the samples of which nobody said theirs; raises `ShardError` where all have one."""
        if UNKNOWN_LENS not in self.manifest.lenses:
            raise ShardError(f"{self.url} says with which lens each of its samples was taken: leave the lens away")
        return replace(self, manifest=self.manifest.seen_through(lens))

    @property
    def stored_bytes(self) -> int:
        """Bytes of the chunks, as far as they are stored."""
        if self.foreign is None:
            return sum(record.file.bytes for record in self.records())
        return sum(a.nbytes_stored() for split in self.split_names for a in self.foreign.arrays(split).values())

    def records(self) -> Iterator[ShardRecord]:
        """Every shard file."""
        for split, content in self.manifest.splits.items():
            for index, shard in enumerate(content.shards):
                for array, file in shard.items():
                    yield ShardRecord(split, index, array, ARRAYS[array].shard_name(split, index), file)

    def metadata_records(self) -> tuple[MetadataRecord, ...]:
        """Every `zarr.json`; none where the store was made by an earlier version, which did not note them."""
        return tuple(MetadataRecord(name, sha256) for name, sha256 in self.manifest.metadata.items())


def open_store(place: str | Path, *, check_files: bool = True) -> ShardStore:
    """Open a finished store and check its manifest.

    A store that is not in our layout but has the three arrays is read through zarr (see `foreign`).

    Parameters
    ----------
    place
        Path or fsspec URL.
    check_files
        Whether every shard's presence and size are checked as well.

    Returns
    -------
    ShardStore
        The open store.

    Raises
    ------
    ShardMissingError
        Where there is no store, or a shard is gone.
    ShardCorruptError
        For a damaged manifest, or a shard of another size.
    ShardError
        For an unfinished store, arrays that do not fit, or a newer format.
    """
    storage = storage_at(place)
    try:
        identity, metadata = StoreIdentity.read(storage)
        content = parse_json(metadata)
    except (FileNotFoundError, NotADirectoryError):
        root = root_of(storage)
        if root is None:
            raise _no_store(storage) from None
        return _foreign(storage, root)
    except ValueError as error:
        raise ShardCorruptError(f"{storage.describe(ROOT)} cannot be read as JSON ({error})") from error
    except StorageTimeoutError:
        raise
    except OSError as error:
        raise ShardError(f"{storage.url} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ShardCorruptError(f"{storage.describe(ROOT)} is not Zarr metadata")
    # Zarr does not ask for attributes.
    attributes = content.get("attributes", {})
    if content.get("node_type") == "group" and isinstance(attributes, dict) and MANIFEST_ATTRIBUTE not in attributes:
        return _foreign(storage, ROOT)
    store = ShardStore(storage, Manifest.from_attributes(attributes, storage.url), identity)
    problem = next((found for _, found in _size_problems(store) if found is not None), None)
    if problem is not None:
        # Replaced at this moment, perhaps.
        identity.check()
        if is_rewritten(storage, store.manifest):
            return _foreign(storage, ROOT, store.manifest)
        if check_files:
            raise problem
    return store


def _foreign(storage: Storage, root: str, manifest: Manifest | None = None) -> ShardStore:
    foreign, described, identity = open_foreign(storage, root, manifest)
    return ShardStore(storage, described, identity, foreign)


def verify_store(store: ShardStore) -> Iterator[tuple[Record, str | None]]:
    """Read every byte of every shard, and the metadata; every sample of a store that is read through zarr.

    Of the latter nothing says what was written.

    Parameters
    ----------
    store
        An open store.

    Yields
    ------
    tuple[Record, str | None]
        Each file or sample with None, or with what is wrong with it.
    """
    if store.foreign is not None:
        yield from _read_through(store)
        return
    for described in store.metadata_records():
        yield described, _metadata_damage(store, described)
    splits = {name: store.split(name) for name in store.split_names}
    for record, missing in _size_problems(store):
        if missing is not None:
            yield record, str(missing)
            continue
        try:
            sound = _sha256(store.storage.reader(record.name), record.file.bytes) == record.file.sha256
            yield record, _damage(splits[record.split], record, sound)
        except StorageTimeoutError:
            # The next file would be waited for as long.
            raise
        except OSError as error:
            yield record, f"{store.storage.describe(record.name)} cannot be read: {error}"


def _read_through(store: ShardStore) -> Iterator[tuple[SampleRecord, str | None]]:
    for name in store.split_names:
        split = store.split(name)
        for index, sample in enumerate(split.names):
            problem = None
            try:
                split.read([index])
            except ShardCorruptError as error:
                problem = str(error)
            yield SampleRecord(f"{name}/{sample}"), problem


def _no_store(storage: Storage) -> ShardError:
    if storage_at(storage.url + UNFINISHED_SUFFIX).sizes() or any(n.startswith(STATE_FOLDER) for n in storage.sizes()):
        return ShardMissingError(
            f"{storage.url} is not finished: its conversion stopped, continue it with --resume (a merge: --overwrite)"
        )
    if Path(storage.url).is_dir():
        return ShardError(f"{storage.url} holds no finished shard store: zarr.json with its manifest is missing")
    return ShardMissingError(f"{storage.url} is not there: make it with dfd-prepare")


def _size_problems(store: ShardStore) -> Iterator[tuple[ShardRecord, ShardError | None]]:
    """Every shard file with None, or with the error that its absence or size deserves; from one listing of the store."""
    try:
        sizes = store.storage.sizes_of(record.name for record in store.records())
    except StorageTimeoutError:
        raise
    except OSError as error:
        raise ShardError(f"{store.url} cannot be listed: {error}") from error
    for record in store.records():
        problem: ShardError | None = None
        where = f"{store.storage.describe(record.name)} ({record.where})"
        if record.name not in sizes:
            problem = ShardMissingError(f"{where} is missing: restore it or convert again")
        else:
            try:
                check_size(sizes[record.name], record.file, where)
            except ShardCorruptError as error:
                problem = error
        yield record, problem


def _damage(split: Split, record: ShardRecord, sound: bool) -> str | None:
    """What is wrong with a shard, whose bytes are those that were written where it is `sound`.

    Then the first sample tells whether it is what the manifest says. Else it is the first that is damaged; a file whose
    samples are all sound is one of another place.
    """
    per_shard = split.manifest.samples_per_shard
    first, last = record.index * per_shard, min((record.index + 1) * per_shard, len(split))
    for sample in range(first, first + 1 if sound else last):
        try:
            split.read([sample], fields=(record.array,))
        except ShardError as error:
            return str(error)
    if sound:
        return None
    return (
        f"{split.storage.describe(record.name)} ({record.where}) is not the file that was written (SHA-256 differs), "
        "though each of its samples is sound"
    )


def _metadata_damage(store: ShardStore, record: MetadataRecord) -> str | None:
    where = store.storage.describe(record.name)
    try:
        if metadata_digest(store.storage.read(record.name)) == record.sha256:
            return None
        return f"{where} is not what was written: it was changed"
    except (FileNotFoundError, NotADirectoryError):
        return f"{where} is missing"
    except StorageTimeoutError:
        raise
    except (OSError, ValueError) as error:
        return f"{where} cannot be read: {error}"


def _sha256(reader: RangeReader, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, _VERIFY_BLOCK_BYTES):
        digest.update(reader.read_at(offset, min(_VERIFY_BLOCK_BYTES, size - offset)))
    return digest.hexdigest()
