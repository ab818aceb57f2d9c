import shutil

import cv2
import faults
import numpy as np
import pytest
from sources import SmoothSource, small_settings

from defocus_sim import Lens
from defocus_sim.blur.options import Rendering
from defocus_sim.convert.merge import merge
from defocus_sim.convert.run import convert
from defocus_sim.datasets.nyu import NyuSource
from defocus_sim.datasets.rgbd_folder import RgbdFolderSource
from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.errors import ConvertError, ShardError
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.store import open_store, verify_store


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two stores of one source, seen by different lenses, with different shards."""
    folder = tmp_path_factory.mktemp("parts")
    convert(small_settings(), folder / "near.zarr")
    far = Lens.preset("kinect", focus_distance_m=5.0)
    convert(small_settings(lens=far, samples_per_shard=3), folder / "far.zarr")
    return folder / "near.zarr", folder / "far.zarr"


def test_every_sample_keeps_its_pixels_name_scene_and_lens(parts, tmp_path):
    near, far = (open_store(part) for part in parts)
    joined = merge(parts, tmp_path / "both.zarr")
    assert all(problem is None for _, problem in verify_store(joined))
    for split in ("train", "test"):
        ours = joined.split(split)
        count = len(near.split(split))
        assert len(ours) == 2 * count
        assert ours.names[0] == f"1/{near.split(split).names[0]}"
        assert ours.names[count] == f"2/{far.split(split).names[0]}"
        for index in range(2 * count):
            part, own = (near, index) if index < count else (far, index - count)
            one, other = ours.read([index]), part.split(split).read([own])
            assert all((one[name] == other[name]).all() for name in ARRAYS)
            assert ours.lens(index) == part.split(split).lens(own)
            assert ours.scenes[index] == part.split(split).scenes[own]
    assert joined.manifest.statistics["samples"] == 20


def test_chunks_are_copied_not_compressed_again(parts, tmp_path):
    near = open_store(parts[0])
    joined = merge(parts, tmp_path / "both.zarr")
    assert joined.split("train").read_encoded(3) == near.split("train").read_encoded(3)


def test_merging_is_reproducible(parts, tmp_path):
    for name in ("a.zarr", "b.zarr"):
        merge(parts, tmp_path / name)
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(tmp_path / "b.zarr")


def test_a_merged_store_merges_again(parts, tmp_path):
    merge(parts, tmp_path / "both.zarr")
    other = convert(small_settings(source=SmoothSource(kind_of="other")), tmp_path / "other.zarr").store
    joined = merge([tmp_path / "both.zarr", other.url], tmp_path / "three.zarr")
    assert len(joined.split("train")) == 18
    assert len(joined.manifest.lenses) == 3
    assert not set(joined.split("train").scenes) & set(joined.split("test").scenes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size_hw": (20, 24)}, "size_hw"),
        ({"compression": "none"}, "compression"),
        ({"rendering": Rendering(psf="disc")}, "rendering"),
    ],
)
def test_stores_that_do_not_fit_are_refused_with_both_values(parts, tmp_path, changes, word):
    convert(small_settings(**changes), tmp_path / "other.zarr")
    with pytest.raises(ConvertError, match=word):
        merge([parts[0], tmp_path / "other.zarr"], tmp_path / "both.zarr")
    assert not (tmp_path / "both.zarr").exists()


def test_a_scene_never_comes_to_stand_in_both_splits(parts, tmp_path):
    convert(small_settings(source=SmoothSource(test_from=1)), tmp_path / "other.zarr")
    with pytest.raises(ConvertError, match=r"scene frame-1 would stand in train and in test.*near\.zarr.*other\.zarr"):
        merge([parts[0], tmp_path / "other.zarr"], tmp_path / "both.zarr")


def photographs(folder, count=8, offset=0):
    """Pictures that all differ, with a plane as depth."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number + offset).integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
        np.save(folder / f"{number}.npy", np.full((24, 32), 2.5, np.float32))
    return folder


def prepared(folder, out, focus_distances_m=(), **options):
    source = RgbdFolderSource(root=folder, test_fraction=0.25, **options)
    convert(small_settings(source=source, focus_distances_m=focus_distances_m), out)
    return out


def pictures_of(split):
    return {split.read([index], fields=("aif",))["aif"].tobytes() for index in range(len(split))}


def test_a_folder_prepared_twice_with_other_seeds_never_leaks_a_test_picture(tmp_path):
    folder = photographs(tmp_path / "photos")
    first = prepared(folder, tmp_path / "one.zarr", seed=0)
    second = prepared(folder, tmp_path / "two.zarr", seed=1)
    assert pictures_of(open_store(first).split("test")) & pictures_of(open_store(second).split("train"))
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([first, second], tmp_path / "both.zarr")
    assert not (tmp_path / "both.zarr").exists()


def test_stacks_of_other_focus_distances_never_leak_either(tmp_path):
    folder = photographs(tmp_path / "photos")
    first = prepared(folder, tmp_path / "one.zarr", (1.0, 2.0), seed=0)
    second = prepared(folder, tmp_path / "two.zarr", (3.0, 4.0), seed=1)
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([first, second], tmp_path / "both.zarr")


def test_a_copied_and_renamed_picture_is_known_again_by_its_content(tmp_path):
    folder = photographs(tmp_path / "photos")
    other = photographs(tmp_path / "other", offset=100)
    first = prepared(folder, tmp_path / "one.zarr")
    tested = open_store(first).split("test").names[0]
    for suffix in ("png", "npy"):
        shutil.copy(folder / f"{tested}.{suffix}", other / f"renamed.{suffix}")
    convert(small_settings(source=RgbdFolderSource(root=other)), tmp_path / "two.zarr")
    with pytest.raises(ConvertError, match=f"scene {tested} .*there called renamed"):
        merge([first, tmp_path / "two.zarr"], tmp_path / "both.zarr")


def test_a_scene_is_known_again_through_a_merged_store(tmp_path):
    folder = photographs(tmp_path / "photos")
    first = prepared(folder, tmp_path / "one.zarr", seed=0)
    other = prepared(photographs(tmp_path / "other", offset=100), tmp_path / "other.zarr", seed=0)
    merge([other, first], tmp_path / "joined.zarr")
    second = prepared(folder, tmp_path / "two.zarr", seed=1)
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([tmp_path / "joined.zarr", second], tmp_path / "all.zarr")


def test_two_folders_that_call_other_pictures_alike_keep_two_scenes(tmp_path):
    first = prepared(photographs(tmp_path / "a"), tmp_path / "one.zarr", seed=0)
    second = prepared(photographs(tmp_path / "b", offset=100), tmp_path / "two.zarr", seed=1)
    joined = merge([first, second], tmp_path / "both.zarr")
    scenes = [set(joined.split(split).scenes) for split in ("train", "test")]
    assert [len(found) for found in scenes] == [12, 4]
    assert not scenes[0] & scenes[1]


def test_stores_joined_of_joined_stores_join_again_and_every_scene_keeps_its_split(tmp_path):
    stores = [
        prepared(photographs(tmp_path / f"{n}", offset=100 * n), tmp_path / f"{n}.zarr", seed=n) for n in range(4)
    ]
    joined = stores[0]
    for n in (1, 2, 3):
        merge([joined, stores[n]], tmp_path / f"joined{n}.zarr")
        joined = tmp_path / f"joined{n}.zarr"
    store = open_store(joined)
    train, test = (set(store.split(split).scenes) for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (24, 8, set())
    names = [name for split in ("train", "test") for name in store.split(split).names]
    assert len(set(names)) == 32
    # The first folder once more, divided otherwise, is known through three joins.
    again = prepared(tmp_path / "0", tmp_path / "again.zarr", seed=9)
    assert pictures_of(open_store(again).split("test")) - pictures_of(store.split("test"))
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([joined, again], tmp_path / "all.zarr")


def two_crops(nyu_files, folder, size_hw):
    """Stores a and b of one file, cut and divided otherwise."""
    labelled, splits = nyu_files
    swapped = faults.write_splits(folder / "swapped.mat", train=[2, 4], test=[1, 3, 5])
    for name, crop, division in (("a", "official", splits), ("b", "none", swapped)):
        source = NyuSource(path=labelled, splits=division, crop=crop)
        convert(small_settings(source=source, size_hw=size_hw), folder / f"{name}.zarr")


def test_other_crops_are_known_by_the_file_through_stores_joined_twice(nyu_files, tmp_path):
    two_crops(nyu_files, tmp_path, (24, 32))
    others = [prepared(photographs(tmp_path / f"{n}", offset=n), tmp_path / f"{n}.zarr") for n in (100, 200)]
    merge([others[0], tmp_path / "a.zarr"], tmp_path / "once.zarr")
    merge([others[1], tmp_path / "once.zarr"], tmp_path / "twice.zarr")
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([tmp_path / "twice.zarr", tmp_path / "b.zarr"], tmp_path / "both.zarr")


def test_a_longer_lens_sees_the_same_drawn_scenes(tmp_path):
    for name, view_deg, share in (("wide", 57.0, 0.25), ("long", 40.0, 0.75)):
        source = SyntheticSource(count=4, size_wh=(64, 48), field_of_view_deg=view_deg, test_fraction=share)
        convert(small_settings(source=source, size_hw=(48, 64)), tmp_path / f"{name}.zarr")
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([tmp_path / "wide.zarr", tmp_path / "long.zarr"], tmp_path / "both.zarr")


def test_other_crops_of_one_file_are_known_by_the_file(nyu_files, tmp_path):
    two_crops(nyu_files, tmp_path, (48, 64))
    with pytest.raises(ConvertError, match=r"scene .* would stand in"):
        merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "both.zarr")


def test_pictures_of_one_colour_say_nothing_of_their_scene(tmp_path):
    for name, number in (("a", 0), ("b", 1)):
        folder = photographs(tmp_path / name, 4, offset=100 * number)
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((24, 32, 3), np.uint8))
        lists = tmp_path / f"{name}.txt"
        lists.write_text(f"{number}\n" if number else "2\n")
        source = RgbdFolderSource(root=folder, test_list=lists)
        convert(small_settings(source=source), tmp_path / f"{name}.zarr")
    assert len(merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "both.zarr").split("test")) == 2


def test_a_damaged_part_is_named_and_nothing_is_left(parts, tmp_path):
    shutil.copytree(parts[0], tmp_path / "bad.zarr")
    bad = open_store(tmp_path / "bad.zarr")
    record = next(r for r in bad.records() if r.array == "aif")
    faults.flip_byte(tmp_path / "bad.zarr" / record.name, 100)
    with pytest.raises(ShardError, match=r"bad\.zarr.*sample 0"):
        merge([parts[1], tmp_path / "bad.zarr"], tmp_path / "both.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"bad.zarr"}


def test_one_store_or_a_taken_target_is_refused(parts, tmp_path):
    with pytest.raises(ConvertError, match="two stores"):
        merge(parts[:1], tmp_path / "a.zarr")
    merge(parts, tmp_path / "a.zarr")
    with pytest.raises(ConvertError, match="--overwrite"):
        merge(parts, tmp_path / "a.zarr")
    merge(parts[::-1], tmp_path / "a.zarr", overwrite=True)
    assert np.isclose(open_store(tmp_path / "a.zarr").split("train").focus_distance_m[0], 5.0)


def test_the_command_prints_what_was_joined(parts, tmp_path, run_command):
    result = run_command("dfd-prepare", "merge", *parts, "--out", tmp_path / "both.zarr")
    assert result.returncode == 0, result.stderr
    assert "12 train, 8 test samples of 48x40" in result.stdout
    assert "kinect" in result.stdout
