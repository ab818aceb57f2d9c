"""A store in whose place another one is put while it is read: the old samples or an error with a name, never the new."""

import os
import pickle
import shutil
import uuid

import numpy as np
import pytest
from sources import SmoothSource, small_settings
from stores import random_arrays, write_store

from defocus_sim.convert.run import convert
from defocus_sim.errors import ShardReplacedError
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.store import open_store
from dfd_train.data.stream import ShardDataset

NAMED = "was replaced or removed while it was read"


@pytest.fixture(scope="module")
def versions():
    """Two data sets of the same size, types and names."""
    return random_arrays(1, 6, 12, 18), random_arrays(2, 6, 12, 18)


def by_rename(old, new):
    os.rename(old, f"{old}.replaced")
    os.rename(new, old)


def by_removal(old, new):
    shutil.rmtree(old)
    os.rename(new, old)


def by_copying_over_it(old, new):
    shutil.copytree(new, old, dirs_exist_ok=True)


def by_a_link(old, new):
    os.rename(old, f"{old}.moved")
    os.symlink(new, old)


def removed(old, new):
    shutil.rmtree(old)


@pytest.mark.parametrize("compression", ["none", "fast", "balanced"])
@pytest.mark.parametrize("replace", [by_rename, by_removal, by_copying_over_it, by_a_link, removed])
def test_a_replaced_store_gives_what_it_held_or_a_named_error(tmp_path, versions, compression, replace):
    first, second = versions
    old, _ = (write_store(tmp_path / name, a, 2, compression) for name, a in zip("ab", versions, strict=True))
    split = old.split("train")
    # Two of the three shards of two arrays are open.
    for array in ("aif", "depth_m"):
        split.read([0, 3], fields=(array,))
    replace(tmp_path / "a", tmp_path / "b")
    named = 0
    for index in range(6):
        for array in ARRAYS:
            try:
                found = split.read([index], fields=(array,))[array][0]
            except ShardReplacedError as error:
                assert NAMED in str(error)
                assert "\n" not in str(error)
                named += 1
            else:
                assert (found == first[array][index]).all()
    assert named >= 10
    if replace is not removed:
        again = open_store(tmp_path / "a").split("train").read(range(6))
        assert all((again[array] == second[array]).all() for array in ARRAYS)


def test_a_store_that_is_copied_over_itself_is_read_on(tmp_path, versions):
    split = write_store(tmp_path / "a", versions[0], 2, "fast").split("train")
    split.read([0])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    by_copying_over_it(tmp_path / "a", tmp_path / "b")
    found = split.read(range(6))
    assert all((found[array] == versions[0][array]).all() for array in ARRAYS)


def test_overwrite_under_a_reader_is_named_locally(tmp_path):
    out = tmp_path / "a.zarr"
    store = convert(small_settings(compression="none"), out).store
    wanted = store.split("train").read(range(6))
    split = open_store(out).split("train")
    split.read([0])
    convert(small_settings(source=SmoothSource(kind_of="other"), compression="none"), out, overwrite=True)
    for index in range(6):
        try:
            found = split.read([index])
        except ShardReplacedError:
            assert index > 1
        else:
            assert all((found[array][0] == wanted[array][index]).all() for array in ARRAYS)


def test_overwrite_under_a_reader_is_named_over_object_storage():
    place = f"memory://{uuid.uuid4().hex}"
    split = convert(small_settings(compression="none"), place).store.split("train")
    split.read(range(6))
    convert(small_settings(source=SmoothSource(kind_of="other"), compression="none"), place, overwrite=True)
    for work in (lambda: split.read([0]), lambda: split.read([5]), lambda: split.read_encoded(1)):
        with pytest.raises(ShardReplacedError, match=NAMED):
            work()


def test_a_process_that_opens_the_store_anew_does_not_read_another_one(tmp_path, versions):
    for name, arrays in zip("ab", versions, strict=True):
        write_store(tmp_path / name, arrays, 2, "fast")
    dataset = ShardDataset(tmp_path / "a")
    sent = pickle.dumps(dataset), pickle.dumps(dataset.split)
    assert (pickle.loads(sent[0]).read(np.arange(6)).aif.numpy() == versions[0]["aif"]).all()
    by_rename(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ShardReplacedError, match=NAMED):
        pickle.loads(sent[0])
    with pytest.raises(ShardReplacedError, match=NAMED):
        pickle.loads(sent[1]).read([0])
