"""Nothing of an earlier store is lost: outputs among inputs, kills while a store is replaced, two commands at once."""

import subprocess
import sys
import threading
import uuid
from pathlib import Path

import faults
import pytest
from sources import SmoothSource, small_settings

from defocus_sim.convert import place as place_module
from defocus_sim.convert.merge import merge
from defocus_sim.convert.run import convert
from defocus_sim.errors import ConvertError, DefocusSimError
from defocus_sim.shards.store import open_store, verify_store


def sound(store):
    return all(problem is None for _, problem in verify_store(open_store(store)))


@pytest.fixture
def two_stores(tmp_path):
    a, b = tmp_path / "a.zarr", tmp_path / "b.zarr"
    convert(small_settings(), a)
    convert(small_settings(source=SmoothSource(kind_of="other")), b)
    return a, b


def test_a_merge_into_one_of_its_parts_loses_nothing(two_stores):
    a, b = two_stores
    before = len(open_store(a).split("train"))
    merge([a, b], a, overwrite=True)
    assert len(open_store(a).split("train")) == 2 * before
    assert sound(a)
    assert sorted(path.name for path in a.parent.iterdir()) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "memory:///{1}", "memory://{1}//"])
def test_a_merge_into_a_part_that_cannot_be_staged_is_refused_before_anything_is_removed(spelling, small_store):
    name = uuid.uuid4().hex
    place = f"memory://{name}"
    convert(small_settings(), place)
    out = spelling.format(place, name)
    with pytest.raises(ConvertError, match="among the inputs"):
        merge([place, small_store.url], out, overwrite=True)
    assert sound(place)


def test_a_target_around_an_input_is_refused(two_stores, tmp_path):
    a, b = two_stores
    outer = tmp_path / "outer.zarr"
    convert(small_settings(), outer)
    inner = outer / "inner.zarr"
    a.rename(inner)
    with pytest.raises(ConvertError, match=r"lies inside of .*outer\.zarr"):
        merge([inner, b], outer, overwrite=True)
    with pytest.raises(ConvertError, match="lies inside"):
        merge([b, tmp_path / "outer.zarr"], b / "inside.zarr", overwrite=True)
    assert sound(inner)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from sources import small_settings
from defocus_sim.convert.run import convert
from defocus_sim.convert import place
import defocus_sim.convert.state as state
import shutil

left = [{after}]
def counted(function):
    def call(*arguments, **options):
        result = function(*arguments, **options)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

real = state.replace_folder
def replace_folder(new, old):
    # From the moment that the old store gives way, every change of a folder is a moment to be killed at.
    Path.rename = counted(Path.rename)
    os.unlink = os.remove = counted(os.unlink)
    os.rmdir = counted(os.rmdir)
    real(new, old)
state.replace_folder = replace_folder
convert(small_settings(seed=2), {out!r}, overwrite=True, workers=1)
"""


@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.parametrize("after", [1, 2, 3, 9])
def test_killed_while_it_replaces_a_store_a_conversion_goes_on_with_either_option(after, option, tmp_path):
    out = tmp_path / "a.zarr"
    convert(small_settings(), out)
    path = [str(Path(place_module.__file__).parents[2]), str(Path(__file__).parents[2] / "support")]
    script = KILLED.format(path=path, after=after, out=str(out))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -9, ended.stderr
    convert(small_settings(seed=2), out, **{option: True})
    assert sound(out)
    convert(small_settings(seed=2), tmp_path / "wanted.zarr")
    assert faults.tree_bytes(out) == faults.tree_bytes(tmp_path / "wanted.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "wanted.zarr"]


def test_killed_between_the_renames_the_earlier_store_comes_back_if_the_new_one_is_given_up(tmp_path):
    out = tmp_path / "a.zarr"
    convert(small_settings(), out)
    before = faults.tree_bytes(out)
    out.rename(f"{out}.replaced")
    with pytest.raises(ConvertError, match="exists already"):
        convert(small_settings(), out)
    assert faults.tree_bytes(out) == before


@pytest.mark.parametrize("round_", range(3))
def test_of_conversions_begun_at_once_with_overwrite_one_wins(round_, tmp_path):
    out = tmp_path / "a.zarr"
    convert(small_settings(), out)
    start, ended = threading.Barrier(3), []

    def attempt(seed):
        start.wait()
        try:
            convert(small_settings(seed=seed), out, overwrite=True, workers=1)
        except DefocusSimError as error:
            ended.append(str(error))
        else:
            ended.append("won")

    threads = [threading.Thread(target=attempt, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert "won" in ended, ended
    assert all(text == "won" or "another" in text or "no longer belongs" in text for text in ended), ended
    assert sound(out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_link_as_target_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    out = tmp_path / "a.zarr"
    out.symlink_to(tmp_path / "disk" / "real.zarr")
    convert(small_settings(), out)
    assert out.is_symlink()
    assert sound(tmp_path / "disk" / "real.zarr")
    convert(small_settings(seed=3), out, overwrite=True)
    assert out.is_symlink()
    assert sound(out)


def test_a_killed_merge_advises_what_it_has(two_stores, tmp_path, run_command):
    place = tmp_path / "both.zarr.partial" / ".markers"
    place.mkdir(parents=True)
    (place / "settings.json").write_text("{}")
    result = run_command("dfd-prepare", "merge", *two_stores, "--out", tmp_path / "both.zarr")
    assert result.returncode == 2
    assert "--overwrite" in result.stderr
    assert "--resume" not in result.stderr
