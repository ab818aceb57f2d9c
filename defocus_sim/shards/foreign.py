"""Stores of other programs: whatever zarr opens with the three arrays of the right shape and type, read through zarr.

Rechunked, of other codecs, not sharded, of Zarr version 2, zipped, with our manifest or without. Slower than our own
layout, and without its checks: zarr reads a chunk that is not there as the fill value.
"""

from __future__ import annotations

import functools
import logging
import math
import multiprocessing
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import ShardCorruptError, ShardError
from defocus_sim.shards.codec import encode_chunk
from defocus_sim.shards.identity import ROOT, StoreIdentity
from defocus_sim.shards.layout import ARRAYS, MANIFEST_ATTRIBUTE
from defocus_sim.shards.manifest import LARGEST_SIDE_PX, UNKNOWN_LENS, Manifest, SplitManifest, digest
from defocus_sim.shards.split import Split
from defocus_sim.shards.storage import LocalStorage, Storage, client_options

if TYPE_CHECKING:
    import zarr

# A chunk is decoded as a whole, and so is a member of an archive that is not stored as it is.
LARGEST_CHUNK_BYTES = 2**30
MOST_SAMPLES = 10**6
ROOT_OF_VERSION_2 = ".zgroup"
_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class ForeignStore:
    """Where zarr finds the arrays: a path or URL, the group in it, and the group of each split in that."""

    url: str
    inside: str
    groups: Mapping[str, str]

    def arrays(self, split: str) -> dict[str, zarr.Array[Any]]:
        """The three arrays of a split, opened."""
        return _arrays(_group(self.url, self.inside), self.groups[split], self.url)


def root_of(storage: Storage) -> str | None:
    """The name of the file that makes a store which is not ours; "" for an archive, None where there is none."""
    if isinstance(storage, LocalStorage) and storage.root.is_file():
        return "" if zipfile.is_zipfile(storage.root) else None
    for name in (ROOT, ROOT_OF_VERSION_2):
        try:
            storage.version(name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return name
    return None


def open_foreign(
    storage: Storage, root: str, manifest: Manifest | None
) -> tuple[ForeignStore, Manifest, StoreIdentity]:
    """What is at `storage`, whose file `root` was found, by zarr; `manifest`: its own, where that is known already.

    Raises `ShardError` where zarr does not open it, or finds no arrays of the right shape and type.
    """
    url = storage.url
    if root:
        identity = StoreIdentity.of_version(storage, root)
    else:
        path = Path(url)
        identity = StoreIdentity.of_version(LocalStorage(path.parent), path.name)
    inside = "" if root else _top_of(url)
    try:
        group = _group(url, inside)
        attributes = group.attrs.asdict()
        groups = _groups(group, url)
        found = {split: _arrays(group, name, url) for split, name in groups.items()}
    except ShardError:
        raise
    except Exception as error:
        raise ShardError(f"{url} cannot be opened by zarr: {_one_line(error)}") from error
    store = ForeignStore(url, inside, groups)
    if manifest is None and MANIFEST_ATTRIBUTE in attributes:
        manifest = Manifest.from_attributes(attributes, url)
    if manifest is not None:
        _note(url, "another program has written its arrays anew")
        return store, _with_manifest(manifest, found, url), identity
    _note(url, "it was made by another program, without a manifest")
    return store, _without_manifest(found, url), identity


class ZarrSplit(Split):
    """A split of a store of another program."""

    def __init__(
        self, storage: Storage, manifest: Manifest, name: str, identity: StoreIdentity, store: ForeignStore
    ) -> None:
        super().__init__(storage, manifest, name, identity)
        self._store = store
        self._opened = os.getpid(), store.arrays(name)

    def __reduce__(self) -> tuple[type[ZarrSplit], tuple[Storage, Manifest, str, StoreIdentity, ForeignStore]]:
        return ZarrSplit, (self.storage, self.manifest, self.name, self._identity, self._store)

    def fill(self, indices: NDArray[np.int64], batch: Mapping[str, NDArray[Any]]) -> None:
        """See `Split`."""
        self._check(indices.tolist())
        if len(indices):
            # Each chunk once.
            rows, back = np.unique(indices, return_inverse=True)
            for array, target in batch.items():
                target[...] = self._rows(array, rows)[back]
        self._identity.check()

    def read_encoded(self, index: int) -> dict[str, bytes]:
        """See `Split`: encoded anew."""
        sample = self.read([index])
        codecs = {name: spec.codec(self.manifest.compression) for name, spec in ARRAYS.items()}
        return {name: encode_chunk(np.ascontiguousarray(sample[name][0]), codecs[name]) for name in ARRAYS}

    def _rows(self, array: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        try:
            found = np.asarray(self._arrays()[array].oindex[rows])
        except Exception as error:
            self._identity.check()
            if len(rows) > 1:
                # Which of them it is.
                return np.concatenate([self._rows(array, rows[i : i + 1]) for i in range(len(rows))])
            where = f"{self.storage.describe(f'{self.name}/{array}')}: sample {rows[0]} ({self.names[rows[0]]})"
            raise ShardCorruptError(f"{where} cannot be read by zarr: {_one_line(error)}") from error
        # Nobody promises that holes are 0.
        return np.where(np.isfinite(found) & (found > 0), found, 0) if array == "depth_m" else found

    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        """Opened anew after a fork: an archive's file has one position for both processes."""
        process, arrays = self._opened
        if process != os.getpid():
            arrays = self._store.arrays(self.name)
            self._opened = os.getpid(), arrays
        return arrays


def _group(url: str, inside: str) -> zarr.Group:
    import zarr

    store: Any = url
    if "://" in url:
        store = zarr.storage.FsspecStore.from_url(url, storage_options=client_options(url), read_only=True)
    elif os.path.isfile(url):
        store = zarr.storage.ZipStore(url, mode="r")
    return zarr.open_group(store, mode="r", path=inside or None)


def _top_of(archive: str) -> str:
    """The folder of an archive that its store is in: "" or the only one. Raises `ShardError` for one that is too large."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ShardError(f"{archive} cannot be opened as a zip archive: {_one_line(error)}") from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED and member.file_size > LARGEST_CHUNK_BYTES:
            raise ShardError(
                f"{archive}: {member.filename!r} unpacks to {member.file_size} bytes, {LARGEST_CHUNK_BYTES} is the most: "
                "zip the store without compression (zip -0)"
            )
    tops = {member.filename.split("/", 1)[0] for member in members}
    names = {member.filename for member in members}
    return next(iter(tops)) if len(tops) == 1 and not names & {ROOT, ROOT_OF_VERSION_2} else ""


def _groups(group: zarr.Group, url: str) -> dict[str, str]:
    """The splits of a store and their groups: arrays in the root are all "train"."""
    if any(name in group for name in ARRAYS):
        return {"train": ""}
    found = [name for name in group.group_keys() if any(f"{name}/{array}" in group for array in ARRAYS)]
    if not found:
        raise ShardError(
            f"{url} is a Zarr group without the arrays {', '.join(ARRAYS)}, in it or in groups such as train and test: "
            "it was not made by dfd-prepare and cannot be read"
        )
    return {name: name for name in sorted(found, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))}


def _arrays(group: zarr.Group, inside: str, url: str) -> dict[str, zarr.Array[Any]]:
    """The three arrays of a split, their shapes, types and codecs checked; raises `ShardError`."""
    import zarr

    arrays: dict[str, zarr.Array[Any]] = {}
    for name, spec in ARRAYS.items():
        path = f"{inside}/{name}".lstrip("/")
        array = group.get(path)
        if not isinstance(array, zarr.Array):
            raise ShardError(f"{url} has no array {path}: a split is the arrays {', '.join(ARRAYS)}")
        shape, dtype = array.shape, np.dtype(array.dtype)
        right = len(shape) == 3 + len(spec.channels) and shape[3:] == spec.channels and min(shape[:3]) > 0
        if not right or (dtype.kind, dtype.itemsize) != (spec.dtype.kind, spec.dtype.itemsize):
            wanted = f"{spec.dtype.name} (N, H, W{''.join(f', {c}' for c in spec.channels)})"
            raise ShardError(f"{url}: {path} is {dtype.name} {shape}, {wanted} with N, H, W above 0 is wanted")
        if max(shape[1:3]) > LARGEST_SIDE_PX or shape[0] > MOST_SAMPLES:
            raise ShardError(
                f"{url}: {path} has shape {shape}: {MOST_SAMPLES} samples of {LARGEST_SIDE_PX} px are the most"
            )
        if math.prod(array.chunks) * dtype.itemsize > LARGEST_CHUNK_BYTES:
            raise ShardError(f"{url}: chunks of {path} are {array.chunks}: {LARGEST_CHUNK_BYTES} bytes are the most")
        # numcodecs has one that executes what it decodes.
        described: Any = array.metadata.to_dict()
        codecs = [described.get(key) for key in ("codecs", "filters", "compressor")]
        if re.search(r"['\"](numcodecs\.)?pickle['\"]", repr(codecs)):
            raise ShardError(f"{url}: {path} is encoded by pickle, which can run any program: it is not read")
        arrays[name] = array
    shapes = {array.shape[:3] for array in arrays.values()}
    if len(shapes) > 1:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ShardError(f"{url}: the arrays of {inside or 'the root'} differ in samples or size: {found}")
    return arrays


def _with_manifest(manifest: Manifest, found: Mapping[str, Mapping[str, zarr.Array[Any]]], url: str) -> Manifest:
    """Our manifest of arrays that were written anew: of files it says nothing any more."""
    splits = {name: replace(split, shards=()) for name, split in manifest.splits.items()}
    for name, split in splits.items():
        wanted = (len(split.names), *manifest.size_hw)
        shape = found[name]["aif"].shape[:3] if name in found else (0, *manifest.size_hw)
        if shape != wanted:
            raise ShardError(f"{url}: split {name!r} has (samples, height, width) {shape}, its manifest says {wanted}")
    return replace(manifest, splits=splits, metadata={}, samples_per_shard=_read_together(found))


def _without_manifest(found: Mapping[str, Mapping[str, zarr.Array[Any]]], url: str) -> Manifest:
    sizes = {name: arrays["aif"].shape[1:3] for name, arrays in found.items()}
    if len(set(sizes.values())) > 1:
        raise ShardError(f"{url}: the splits differ in frame size (height, width): {sizes}")
    splits = {}
    for split, arrays in found.items():
        count = arrays["aif"].shape[0]
        names = tuple(f"{split}-{index:0{len(str(count - 1))}d}" for index in range(count))
        nothing = (0.0,) * count
        splits[split] = SplitManifest(
            names=names, scenes=names, lens=(0,) * count, focus_distance_m=nothing, aperture_mm=nothing, shards=()
        )
    height, width = next(iter(sizes.values()))
    described = {
        f"{split}/{name}": {
            "shape": list(array.shape),
            "chunks": list(array.chunks),
            "zarr_format": int(array.metadata.zarr_format),
        }
        for split, arrays in found.items()
        for name, array in arrays.items()
    }
    return Manifest(
        size_hw=(height, width),
        samples_per_shard=_read_together(found),
        compression="fast",
        lenses=(UNKNOWN_LENS,),
        rendering={},
        source={"kind": "zarr", "arrays": digest(described)},
        statistics={
            "samples": sum(len(split.names) for split in splits.values()),
            **dict.fromkeys(("coc_px", "psnr_db", "psnr_db_range")),
            "unblurred": 0,
        },
        splits=splits,
        created_by="another program",
        settings="",
    )


def _read_together(found: Mapping[str, Mapping[str, zarr.Array[Any]]]) -> int:
    """How many samples share a chunk or shard at most: they are read together in training."""
    return max((array.shards or array.chunks)[0] for arrays in found.values() for array in arrays.values())


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@functools.cache
def _note(url: str, why: str) -> None:
    if multiprocessing.parent_process() is None:
        logging.getLogger(__name__).warning(
            f"note: {url} is read through zarr, slower and without our checksums ({why}); a chunk that is missing reads "
            "as the fill value"
        )
