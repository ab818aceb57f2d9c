"""Stores that another program wrote, or wrote anew: read through zarr, or refused by name."""

import json
import os
import pickle
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import random_arrays, write_store
from torch.utils.data import DataLoader
from zarr.codecs import GzipCodec, ZstdCodec

from defocus_sim.convert.merge import merge
from defocus_sim.errors import ShardCorruptError, ShardError, ShardMissingError, ShardReplacedError
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.split import ShardSplit
from defocus_sim.shards.store import open_store, verify_store
from dfd_train.data.stream import ShardDataset

COUNT = 7


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(4, COUNT, 20, 24)


def written(place, arrays, split="train", attributes=None, zarr_format=3, **how):
    """The arrays in a group of a new store, by zarr-python alone."""
    root = zarr.create_group(place, zarr_format=zarr_format, attributes=attributes or {})
    group = root.create_group(split) if split else root
    for name, array in arrays.items():
        chunks = how.get("chunks", array.shape)[: array.ndim]
        group.create_array(name, data=array, **{**how, "chunks": chunks})
    return root


def folder(tmp_path, **how):
    return lambda arrays: written(tmp_path / "a.zarr", arrays, **how) and tmp_path / "a.zarr"


def zip_store(tmp_path, arrays):
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        written(store, arrays, chunks=(1, 20, 24, 3))
    return tmp_path / "a.zip"


def zipped_folder(tmp_path, arrays):
    written(tmp_path / "in" / "a.zarr", arrays)
    return Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "in"))


def without_attributes(tmp_path, arrays):
    """As other libraries than zarr-python may write it."""
    written(tmp_path / "a.zarr", arrays)
    for name in ("zarr.json", "train/zarr.json", "train/aif/zarr.json"):
        edited(tmp_path / "a.zarr" / name, lambda described: described.pop("attributes"))
    return tmp_path / "a.zarr"


def big_endian(tmp_path, arrays):
    other = {**arrays, "depth_m": arrays["depth_m"].astype(">f4")}
    written(tmp_path / "a.zarr", other, zarr_format=2)
    return tmp_path / "a.zarr"


def url(tmp_path, arrays):
    place = f"memory://{uuid.uuid4().hex}"
    written(zarr.storage.FsspecStore.from_url(place), arrays, chunks=(2, 20, 24, 3))
    return place


OTHERS = {
    "as zarr chooses": lambda t, a: folder(t)(a),
    "cut across frames": lambda t, a: folder(t, chunks=(3, 7, 24, 2), compressors=[GzipCodec()])(a),
    "sharded otherwise": lambda t, a: folder(t, chunks=(1, 20, 24, 3), shards=None, compressors=[ZstdCodec()])(a),
    "version 2": lambda t, a: folder(t, zarr_format=2, chunks=(2, 20, 24, 3))(a),
    "version 2, big-endian": big_endian,
    "without attributes": without_attributes,
    "in the root": lambda t, a: folder(t, split="")(a),
    "zipped by zarr": zip_store,
    "a zipped folder": zipped_folder,
    "a URL": url,
}


@pytest.mark.filterwarnings("ignore:.*fsspec.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", OTHERS)
def test_three_arrays_are_a_store_whoever_wrote_them_and_however(tmp_path, arrays, kind, caplog):
    place = OTHERS[kind](tmp_path, arrays)
    store = open_store(place)
    assert store.split_names == ("train",)
    assert [record.getMessage() for record in caplog.records if "through zarr" in record.getMessage()]
    split = store.split("train")
    order = np.array([6, 0, 3, 3])
    with ThreadPoolExecutor(4) as pool:
        for batch in (*pool.map(split.read, [order] * 8), pickle.loads(pickle.dumps(split)).read(order)):
            assert all((batch[name] == arrays[name][order]).all() for name in ARRAYS)
            assert batch["depth_m"].dtype == np.dtype("<f4")
    assert not split.has_lens(0)
    with pytest.raises(ShardError, match="does not say with which lens"):
        split.lens(0)
    if kind != "a URL":
        loader = DataLoader(ShardDataset(place), batch_size=COUNT, num_workers=1, timeout=60)
        (found,) = list(loader)
        assert all((found[name].numpy() == arrays[name]).all() for name in ARRAYS)


def anew(store, out, arrays, keep=True, **how):
    """The arrays of a store of ours written by zarr-python, with its manifest or without."""
    attributes = zarr.open_group(store.url, mode="r").attrs.asdict() if keep else {}
    written(out, arrays, attributes=attributes, **how)
    return out


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (2, 20, 24, 3)},
        {"chunks": (1, 20, 24, 3)},
        {"chunks": (7, 10, 10, 1), "compressors": None},
        {"zarr_format": 2},
    ],
)
def test_what_is_written_anew_with_its_manifest_keeps_names_and_lens(tmp_path, arrays, how):
    ours = write_store(tmp_path / "ours", arrays, 3, "fast")
    place = anew(ours, tmp_path / "a.zarr", arrays, **how)
    store = open_store(place)
    split, before = store.split("train"), ours.split("train")
    assert not isinstance(split, ShardSplit)
    assert (split.names, split.lens(2)) == (before.names, before.lens(2))
    assert all((split.read([5, 1])[name] == arrays[name][[5, 1]]).all() for name in ARRAYS)
    assert [problem for _, problem in verify_store(store)] == [None] * COUNT


def test_our_own_store_in_an_archive_keeps_names_and_lens(tmp_path, arrays):
    ours = write_store(tmp_path / "in" / "ours.zarr", arrays, 3, "balanced")
    split = open_store(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")).split("train")
    assert split.lens(6) == ours.split("train").lens(6)
    assert all((split.read(range(COUNT))[name] == arrays[name]).all() for name in ARRAYS)


def test_our_own_layout_keeps_the_direct_reader_and_its_errors(tmp_path, arrays):
    ours = write_store(tmp_path / "ours", arrays, 3, "fast")
    assert isinstance(ours.split("train"), ShardSplit)
    (tmp_path / "ours" / ARRAYS["aif"].shard_name("train", 1)).unlink()
    with pytest.raises(ShardMissingError, match="shard 1 of train/aif"):
        open_store(tmp_path / "ours")


def test_holes_of_others_are_holes(tmp_path, arrays):
    depth = arrays["depth_m"].copy()
    depth[0, :3, 0] = np.nan, -1, np.inf
    written(tmp_path / "a.zarr", {**arrays, "depth_m": depth})
    found = open_store(tmp_path / "a.zarr").split("train").read([0])["depth_m"][0]
    assert found[:3, 0].tolist() == [0, 0, 0]
    assert (found.ravel()[3:] == np.nan_to_num(depth[0], posinf=0).clip(0).ravel()[3:]).all()


def test_a_damaged_chunk_of_others_is_named(tmp_path, arrays):
    written(tmp_path / "a.zarr", arrays, chunks=(1, 20, 24, 3), compressors=[GzipCodec()])
    (tmp_path / "a.zarr/train/aif/c/4/0/0/0").write_bytes(b"nothing")
    split = open_store(tmp_path / "a.zarr").split("train")
    assert (split.read([3, 5])["aif"] == arrays["aif"][[3, 5]]).all()
    with pytest.raises(ShardCorruptError, match=r"train/aif: sample 4 \(train-4\) cannot be read by zarr"):
        split.read([3, 4, 5])


def test_a_foreign_store_that_is_replaced_is_named(tmp_path, arrays):
    split = open_store(OTHERS["as zarr chooses"](tmp_path, arrays)).split("train")
    split.read([0])
    os.rename(tmp_path / "a.zarr", tmp_path / "b.zarr")
    written(tmp_path / "a.zarr", random_arrays(9, COUNT, 20, 24))
    with pytest.raises(ShardReplacedError):
        split.read([0])


WRONG = {
    "missing": (lambda a: a.pop("aif"), "no array train/aif"),
    "type": (lambda a: a.update(aif=a["aif"].astype("uint16")), "aif is uint16"),
    "depth type": (lambda a: a.update(depth_m=a["depth_m"].astype("float64")), "depth_m is float64"),
    "channels": (lambda a: a.update(aif=a["aif"][..., :1]), r"aif is uint8 \(7, 20, 24, 1\)"),
    "counts": (lambda a: a.update(aif=a["aif"][:5]), "differ in samples or size"),
    "empty": (lambda a: a.update({name: array[:0] for name, array in a.items()}), "above 0 is wanted"),
}


@pytest.mark.parametrize("what", WRONG)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, what):
    change, words = WRONG[what]
    other = dict(arrays)
    change(other)
    written(tmp_path / "a.zarr", other, chunks=(1, 20, 24, 3))
    with pytest.raises(ShardError, match=words) as caught:
        open_store(tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_replaced_is_named(tmp_path, arrays):
    split = open_store(zip_store(tmp_path, arrays)).split("train")
    split.read([0])
    (tmp_path / "other").mkdir()
    os.replace(zip_store(tmp_path / "other", random_arrays(9, COUNT, 20, 24)), tmp_path / "a.zip")
    for copy in (split, pickle.loads(pickle.dumps(split))):
        with pytest.raises(ShardReplacedError):
            copy.read([0])


def edited(path, change):
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def test_nothing_is_unpickled_and_no_chunk_takes_all_memory(tmp_path, arrays):
    written(tmp_path / "a.zarr", arrays, zarr_format=2, chunks=(1, 20, 24, 3))
    described = tmp_path / "a.zarr/train/aif/.zarray"
    kept = described.read_bytes()
    edited(described, lambda array: array.update(filters=[{"id": "pickle", "protocol": 5}]))
    with pytest.raises(ShardError, match="pickle"):
        open_store(tmp_path / "a.zarr")
    described.write_bytes(kept)
    edited(described, lambda array: array.update(chunks=[10**6, 20, 24, 3]))
    with pytest.raises(ShardError, match="are the most"):
        open_store(tmp_path / "a.zarr")
    edited(described, lambda array: array.update(chunks=[1, 20, 24, 3], shape=[10**12, 20, 24, 3]))
    with pytest.raises(ShardError, match="are the most"):
        open_store(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"not an archive"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ShardError, match=r"a\.zip"):
        open_store(tmp_path / "a.zip")


def test_commands_say_what_can_be_said(tmp_path, arrays, run_command):
    written(tmp_path / "a.zarr", arrays, chunks=(1, 20, 24, 3), compressors=[GzipCodec()])
    info = run_command("dfd-prepare", "info", "a.zarr", cwd=tmp_path)
    assert info.returncode == 0, info.stderr
    assert "7 train samples of 24x20" in info.stdout
    assert "read through zarr" in info.stdout
    assert info.stderr.count("note: ") == 1
    verify = run_command("dfd-prepare", "verify", "a.zarr", cwd=tmp_path)
    assert "all 7 samples can be read; there are no checksums" in verify.stdout
    (tmp_path / "a.zarr/train/aif/c/4/0/0/0").write_bytes(b"nothing")
    verify = run_command("dfd-prepare", "verify", "a.zarr", cwd=tmp_path)
    assert verify.returncode == 2
    assert "sample 4 (train-4) cannot be read" in verify.stdout
    assert "1 of 7 samples" in verify.stderr


def test_stores_of_others_can_be_joined_to_one_of_ours(tmp_path, arrays):
    other = random_arrays(6, COUNT, 20, 24)
    for name, content in (("a", arrays), ("b", other)):
        written(tmp_path / name, content)
    joined = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both.zarr").split("train")
    assert isinstance(joined, ShardSplit)
    assert (joined.read([1, COUNT + 2])["aif"] == np.stack([arrays["aif"][1], other["aif"][2]])).all()
