import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import random_arrays, write_store

from defocus_sim.errors import ShardCorruptError, ShardError, ShardMissingError
from defocus_sim.shards.layout import ARRAYS, COMPRESSIONS
from defocus_sim.shards.manifest import digest
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.storage import storage_at
from defocus_sim.shards.store import open_store, verify_store
from defocus_sim.shards.write import write_skeleton


@pytest.fixture
def store(tmp_path):
    """A fresh store that a test may damage: 7 samples, 3 a shard."""
    return write_store(tmp_path / "a.zarr", random_arrays(1, 7, 12, 18), 3, "fast")


@given(count=st.integers(0, 500), per_shard=st.integers(1, 70))
def test_the_plan_covers_every_sample_once_in_order(count, per_shard):
    plan = plan_shards(count, per_shard)
    assert [i for shard in plan for i in range(shard.start, shard.stop)] == list(range(count))
    assert [shard.index for shard in plan] == list(range(len(plan)))
    assert all(shard.stop - shard.start == per_shard for shard in plan[:-1])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 9),
    per_shard=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    compression=st.sampled_from(COMPRESSIONS),
)
def test_what_is_written_is_read_back_by_us_and_by_plain_zarr(
    tmp_path_factory, seed, count, per_shard, height, width, compression
):
    arrays = random_arrays(seed, count, height, width)
    root = tmp_path_factory.mktemp("round") / "a.zarr"
    store = write_store(root, arrays, per_shard, compression)
    order = np.random.default_rng(seed).permutation(count)
    batch = store.split("train").read(order)
    group = zarr.open_group(root, mode="r")
    assert set(group["train"].array_keys()) == set(ARRAYS)
    for name, array in arrays.items():
        assert batch[name].dtype == array.dtype
        assert (batch[name] == array[order]).all()
        assert (group["train"][name][:] == array).all()
    assert all(problem is None for _, problem in verify_store(store))


def test_the_layout_is_one_sample_a_chunk_and_many_a_shard(store):
    array = zarr.open_group(Path(store.url), mode="r")["train/aif"]
    assert array.chunks == (1, 12, 18, 3)
    assert array.shards == (3, 12, 18, 3)
    assert array.metadata.dimension_names == ("sample", "y", "x", "channel")


def test_equal_input_gives_equal_bytes(tmp_path):
    arrays = random_arrays(5, 7, 30, 40)
    for name in ("one", "two"):
        write_store(tmp_path / name, arrays, 4, "small")
    assert faults.tree_bytes(tmp_path / "one") == faults.tree_bytes(tmp_path / "two")


def test_reading_is_the_same_from_threads_and_after_pickling(store):
    split = store.split("train")
    whole = split.read(range(7))
    copy = pickle.loads(pickle.dumps(split))
    with ThreadPoolExecutor(8) as pool:
        for index, sample in pool.map(lambda i: (i % 7, copy.read([i % 7])), range(200)):
            assert all((sample[name][0] == whole[name][index]).all() for name in ARRAYS)


def test_fields_can_be_chosen(store):
    assert set(store.split("train").read([0, 0], fields=("depth_m",))) == {"depth_m"}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda s: s.read([7]), r"sample 7 is outside 0\.\.6"),
        (lambda s: s.read([-1]), "sample -1"),
        (lambda s: s.read([0], fields=("sigma",)), "'sigma'"),
    ],
)
def test_wrong_requests_are_named(store, call, word):
    with pytest.raises(ShardError, match=word):
        call(store.split("train"))
    with pytest.raises(ShardError, match="no split 'test'"):
        store.split("test")


def shard_file(store, array, shard=1):
    return Path(store.url) / ARRAYS[array].shard_name("train", shard)


@pytest.mark.parametrize("array", ARRAYS)
class TestDamage:
    def test_a_deleted_shard_is_found_when_opening(self, store, array):
        shard_file(store, array).unlink()
        with pytest.raises(ShardMissingError, match=rf"shard 1 of train/{array}"):
            open_store(Path(store.url))

    def test_an_empty_shard_is_found_when_opening(self, store, array):
        shard_file(store, array).write_bytes(b"")
        with pytest.raises(ShardCorruptError, match=rf"shard 1 of train/{array}\) has 0 bytes"):
            open_store(Path(store.url))

    def test_a_truncated_shard_is_found_when_opening(self, store, array):
        faults.truncate(shard_file(store, array), 0.7)
        with pytest.raises(ShardCorruptError, match=rf"shard 1 of train/{array}"):
            open_store(Path(store.url))

    def test_every_flipped_byte_is_found_by_verify_and_never_read(self, store, array):
        path = shard_file(store, array)
        clean = open_store(Path(store.url)).split("train").read(range(7), fields=(array,))[array]
        for offset in np.linspace(0, path.stat().st_size - 1, 40).astype(int):
            faults.flip_byte(path, offset)
            damaged = [record.name for record, problem in verify_store(open_store(Path(store.url))) if problem]
            assert damaged == [ARRAYS[array].shard_name("train", 1)]
            split = open_store(Path(store.url)).split("train")
            for index in range(3, 6):
                try:
                    assert (split.read([index], fields=(array,))[array][0] == clean[index]).all()
                except ShardCorruptError as error:
                    assert f"shard 1 of train/{array}" in str(error)
            faults.flip_byte(path, offset)

    def test_swapped_shards_are_found(self, store, array):
        first, second = shard_file(store, array, 0), shard_file(store, array, 1)
        kept = first.read_bytes()
        shutil.copyfile(second, first)
        second.write_bytes(kept)
        try:
            found = [problem for _, problem in verify_store(open_store(Path(store.url))) if problem]
        except ShardCorruptError:
            return
        assert len(found) == 2
        assert "SHA-256" in found[0]


def test_a_missing_store_says_how_to_make_one(tmp_path):
    with pytest.raises(ShardMissingError, match="dfd-prepare"):
        open_store(tmp_path / "no.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ShardError, match="no finished shard store"):
        open_store(tmp_path / "folder")
    (tmp_path / "half.zarr.partial").mkdir()
    (tmp_path / "half.zarr.partial" / "file").touch()
    with pytest.raises(ShardMissingError, match="--resume"):
        open_store(tmp_path / "half.zarr")


def test_an_unfinished_store_does_not_open_for_plain_zarr_either(tmp_path):
    write_skeleton(storage_at(tmp_path / "a.zarr"), {"train": 3}, (4, 5), 2, "fast")
    with pytest.raises(FileNotFoundError):
        zarr.open_group(tmp_path / "a.zarr", mode="r")


def test_a_foreign_zarr_group_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(ShardError, match="not made by dfd-prepare"):
        open_store(tmp_path / "a.zarr")


def edit_manifest(store, change):
    path = Path(store.url) / "zarr.json"
    content = json.loads(path.read_bytes())
    change(content["attributes"]["dfd"])
    path.write_text(json.dumps(content))


def test_a_newer_format_is_refused_by_name(store):
    edit_manifest(store, lambda manifest: manifest.update(format_version=99))
    with pytest.raises(ShardError, match=r"format_version 99.*update dfd-toolkit"):
        open_store(Path(store.url))


def test_a_changed_manifest_is_noticed(store):
    edit_manifest(store, lambda manifest: manifest["splits"]["train"]["names"].reverse())
    with pytest.raises(ShardCorruptError, match="own checksum"):
        open_store(Path(store.url))


def test_verify_finds_that_frames_are_not_of_the_size_that_the_manifest_says(store):
    def shrunk(manifest):
        manifest["size_hw"] = [2, 3]
        del manifest["checksum"]
        manifest["checksum"] = digest(manifest)

    edit_manifest(store, shrunk)
    records = [pair for pair in verify_store(open_store(Path(store.url))) if pair[0].name.rpartition("/")[2] == "0"]
    assert records
    assert all(problem is not None and record.where in problem for record, problem in records)


METADATA = ["zarr.json", "train/zarr.json", *(f"train/{array}/zarr.json" for array in ARRAYS)]


@pytest.mark.parametrize("name", METADATA)
def test_verify_names_metadata_that_are_changed_damaged_or_gone(store, name):
    path = Path(store.url) / name
    kept = path.read_bytes()
    content = json.loads(kept)
    content["attributes"]["unit"] = "feet"
    # Without those of the root, nothing is a store.
    for damaged in (json.dumps(content).encode(), *(() if name == "zarr.json" else (b"{", b"[]", None))):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        found = {record.name: problem for record, problem in verify_store(open_store(store.url)) if problem}
        assert list(found) == [name]
        assert name in found[name]
        path.write_bytes(kept)
    # The same content in other words.
    path.write_text(json.dumps(json.loads(kept), indent=7))
    assert all(problem is None for _, problem in verify_store(open_store(store.url)))


def test_a_store_of_an_earlier_version_that_does_not_cover_its_metadata_is_verified(store, run_command, tmp_path):
    def forget(manifest):
        del manifest["metadata"], manifest["checksum"]
        manifest["checksum"] = digest(manifest)

    edit_manifest(store, forget)
    assert all(problem is None for _, problem in verify_store(open_store(store.url)))
    result = run_command("dfd-prepare", "verify", store.url, cwd=tmp_path)
    assert result.returncode == 0
    assert "metadata are not covered" in result.stdout


def test_a_pipe_in_the_place_of_metadata_is_named(store):
    path = Path(store.url) / "zarr.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ShardError, match="not a file"):
        open_store(store.url)


@pytest.mark.parametrize("name", ["../../other.json", "/dev/zero", "train/aif/c/0/0/0/0"])
def test_a_manifest_does_not_have_other_files_read(store, name):
    def lead_astray(manifest):
        manifest["metadata"][name] = ""
        del manifest["checksum"]
        manifest["checksum"] = digest(manifest)

    edit_manifest(store, lead_astray)
    with pytest.raises(ShardCorruptError, match="not metadata"):
        open_store(store.url)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"attributes": 3}', b"\xff\xfe", b"[" * 100_000])
def test_broken_metadata_is_a_named_error(store, content):
    (Path(store.url) / "zarr.json").write_bytes(content)
    with pytest.raises(ShardError):
        open_store(Path(store.url))


@pytest.mark.parametrize("compression", ["fast", "none"])
def test_samples_are_read_into_the_arrays_of_the_caller(tmp_path, compression):
    arrays = random_arrays(1, 7, 12, 18)
    split = write_store(tmp_path / "a.zarr", arrays, 3, compression).split("train")
    out = {name: np.full_like(array[:2], 9) for name, array in split.read(range(7)).items()}
    made = split.read([5, 2], out=out)
    for name, array in split.read([5, 2]).items():
        assert made[name] is out[name]
        np.testing.assert_array_equal(out[name], array)
    with pytest.raises(ShardError, match="must be contiguous"):
        split.read([0, 1, 2], out=out)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("statistics", "coc_px"), []), (("statistics", "coc_px"), "xy"), (("statistics", "coc_px"), [1, None]),
        (("statistics", "depth_m"), [1, 2, 3]), (("statistics", "depth_m"), [10**400] * 5),
        (("statistics", "psnr_db"), "x"), (("statistics", "psnr_db_range"), None),
        (("statistics", "samples"), 1.5), (("statistics", "samples"), 0),
        (("statistics", "unblurred"), 10**6), (("statistics", "notes"), [[1, 2]]), (("statistics", "limited_px"), "1"),
        (("rendering",), {"mode": 3}), (("rendering",), {"psf": "disc"}), (("lenses", 0), {"a": 1}), (("lenses", 0), {}),
        (("lenses", 0, "name"), ["x"]), (("lenses", 0, "aperture_mm"), float("nan")), (("skipped",), [{"name": 1}]),
        (("source",), {"parts": [{}]}), (("source",), {"border_px": "x"}), (("created_by",), 3), (("settings",), {}),
        (("splits", "train", "focus_distance_m", 0), float("nan")), (("splits", "train", "aperture_mm", 0), -1.0),
    ],
)  # fmt: skip
def test_a_manifest_that_describes_what_cannot_be_is_refused_though_its_checksum_fits(
    place, value, small_store, tmp_path
):
    shutil.copytree(small_store.url, tmp_path / "a.zarr")
    path = tmp_path / "a.zarr" / "zarr.json"
    root = json.loads(path.read_bytes())
    manifest = root["attributes"]["dfd"]
    manifest.pop("checksum")
    node = manifest
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    manifest["checksum"] = digest(manifest)
    path.write_text(json.dumps(root))
    with pytest.raises(ShardCorruptError, match="the manifest is incomplete"):
        open_store(tmp_path / "a.zarr")
