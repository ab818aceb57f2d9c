"""Stores as the first version of the format had them: what it called "fast" is called "balanced" since."""

import json
from pathlib import Path

import pytest
from sources import small_settings

from defocus_sim.convert.merge import merge
from defocus_sim.convert.run import convert
from defocus_sim.errors import ConvertError
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import digest
from defocus_sim.shards.store import open_store, verify_store


@pytest.fixture
def old(tmp_path):
    """A store of version 1."""
    store = convert(small_settings(compression="balanced"), tmp_path / "old.zarr").store
    path = Path(store.url) / "zarr.json"
    content = json.loads(path.read_bytes())
    manifest = content["attributes"]["dfd"]
    del manifest["checksum"]
    manifest |= {"format_version": 1, "compression": "fast"}
    manifest["checksum"] = digest(manifest)
    path.write_text(json.dumps(content))
    return open_store(store.url)


@pytest.fixture
def new(tmp_path):
    """The same frames, compressed as the name says today."""
    return convert(small_settings(compression="fast", seed=1), tmp_path / "new.zarr").store


def test_it_is_read_verified_and_identified_as_before(old, small_store):
    assert old.manifest.format_version == 1
    stored = json.loads((Path(old.url) / "zarr.json").read_bytes())
    assert old.manifest.checksum == stored["attributes"]["dfd"]["checksum"]
    assert all(problem is None for _, problem in verify_store(old))
    for split in old.split_names:
        count = len(old.split(split))
        found, wanted = old.split(split).read(range(count)), small_store.split(split).read(range(count))
        assert all((found[name] == wanted[name]).all() for name in ARRAYS)


def test_it_merges_with_its_like_only(old, new, tmp_path):
    like = convert(small_settings(compression="balanced", seed=2), tmp_path / "like.zarr").store
    joined = merge([old.url, like.url], tmp_path / "both.zarr")
    assert joined.manifest.compression == "balanced"
    assert joined.manifest.format_version == 2
    assert all(problem is None for _, problem in verify_store(joined))
    count = len(old.split("train"))
    found = joined.split("train").read(range(2 * count))
    for part, rows in ((old, slice(0, count)), (like, slice(count, None))):
        wanted = part.split("train").read(range(count))
        assert all((found[name][rows] == wanted[name]).all() for name in ARRAYS)
    with pytest.raises(ConvertError, match=r"has compression fast, .* has balanced"):
        merge([old.url, new.url], tmp_path / "none.zarr")
