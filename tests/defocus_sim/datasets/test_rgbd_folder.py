"""RGB-D folders: pairing by name, folder or list, units, sizes, splits, and faults that are named."""

import json
import pickle
from contextlib import suppress
from pathlib import Path

import cv2
import faults
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets import rgbd_folder
from defocus_sim.datasets.formats.images import colour_size, depth_header, read_colour, read_depth_units, resize_nearest
from defocus_sim.datasets.layouts.match import pairs_below
from defocus_sim.datasets.listing import draw_scenes, identity, natural_key
from defocus_sim.datasets.rgbd_folder import RgbdFolderSource
from defocus_sim.errors import SourceError, SourceMissingError
from defocus_sim.lens import Lens

HW = (12, 16)


def picture(path: Path, hw=HW, seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)
    cv2.imwrite(str(path), colours)
    return path


def metres(hw=HW, seed=0) -> np.ndarray:
    depth = np.round(np.random.default_rng([seed, 5]).uniform(0.5, 9, hw), 3)
    depth[0, 0] = 0
    return depth


def depth_file(path: Path, hw=HW, seed=0, unit=0.001) -> Path:
    """Depth of `metres` in the format of the suffix: 16-bit integers in `unit` metres, or floating point metres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = metres(hw, seed)
    if path.suffix == ".npy":
        np.save(path, depth.astype(np.float32))
    elif path.suffix == ".npz":
        np.savez(path, depth=depth, other=np.zeros(3))
    elif path.suffix in (".pfm", ".tif"):
        cv2.imwrite(str(path), depth.astype(np.float32))
    else:
        cv2.imwrite(str(path), np.rint(depth / unit).astype(np.uint16))
    return path


def names(source):
    return [sample.name for sample in source.samples()]


def splits(source):
    return {sample.name: sample.split for sample in source.samples()}


@pytest.fixture
def ten(tmp_path):
    """Ten frames, `f1.png` with `f1.npy` to `f10.png`."""
    for number in range(1, 11):
        picture(tmp_path / f"f{number}.png", seed=number)
        depth_file(tmp_path / f"f{number}.npy", seed=number)
    return tmp_path


@pytest.mark.parametrize(
    ("colour", "depth", "scale"),
    [
        ("a.png", "a.npy", None),
        ("a.png", "a.npz", None),
        ("a.bmp", "a.pfm", None),
        ("a.jpg", "a.depth.tif", None),
        ("a.jpg", "a.depth.png", 0.001),
        ("a.png", "a_depth.png", 0.001),
        ("a.png", "a-depth.PNG", 0.001),
        ("a.tif", "a_depth_mm.png", None),
        ("a.png", "a.depth_mm.pgm", None),
        ("a.png", "a.pgm", 0.001),
        ("a_rgb.png", "a_depth_mm.png", None),
        ("a.color.png", "a.depth.png", 0.001),
        ("rgb_a.png", "depth_a.png", 0.001),
    ],
)
def test_names_and_formats_pair_and_give_metres(tmp_path, colour, depth, scale):
    picture(tmp_path / colour)
    depth_file(tmp_path / depth)
    source = RgbdFolderSource(root=tmp_path, depth_scale=scale)
    assert names(source) == ["a"]
    assert source.skipped() == ()
    assert source.frame_hw() == HW
    with source.open() as reader:
        frame = reader.read(0)
    assert frame.aif.shape == (*HW, 3)
    assert frame.aif.dtype == np.uint8
    assert frame.depth_m.dtype == np.float32
    np.testing.assert_allclose(frame.depth_m, metres(), atol=1e-5)
    if not colour.endswith(".jpg"):
        np.testing.assert_array_equal(frame.aif, cv2.imread(str(tmp_path / colour))[..., ::-1])


def test_sixteen_bit_steps_of_any_size_become_metres(tmp_path):
    picture(tmp_path / "a.png")
    depth_file(tmp_path / "a_depth.png", unit=1 / 5000)
    with RgbdFolderSource(root=tmp_path, depth_scale=0.0002).open() as reader:
        np.testing.assert_allclose(reader.read(0).depth_m, metres(), atol=2e-4)


@pytest.mark.parametrize("name", ["a_depth.png", "a.pgm", "a.npy"])
def test_integer_depth_without_a_unit_is_refused_naming_the_option(tmp_path, name):
    picture(tmp_path / "a.png")
    path = depth_file(tmp_path / name)
    if path.suffix == ".npy":
        np.save(path, np.ones(HW, np.uint16))
    with pytest.raises(SourceError, match=r"--depth-scale 0\.001") as caught:
        RgbdFolderSource(root=tmp_path).samples()
    assert name in str(caught.value)


def test_zero_negative_nan_and_infinite_depth_is_a_hole(tmp_path):
    picture(tmp_path / "a.png")
    depth = metres()
    depth[1, :6] = [np.nan, np.inf, -np.inf, -1, 0, 1e300]
    np.save(tmp_path / "a.npy", depth)
    with RgbdFolderSource(root=tmp_path).open() as reader:
        found = reader.read(0).depth_m
    assert (found[1, :6] == 0).all()
    assert (found[2:] > 0).all()


def test_two_files_of_one_name_are_never_told_apart_by_their_order(tmp_path):
    picture(tmp_path / "a.png")
    depth_file(tmp_path / "a.tiff".replace("tiff", "tif"))
    picture(tmp_path / "b.png")
    depth_file(tmp_path / "b.npy")
    source = RgbdFolderSource(root=tmp_path)
    assert names(source) == ["b"]
    reasons = dict(source.skipped())
    assert set(reasons) == {"a.png", "a.tif"}
    assert all("depth.png" in reason for reason in reasons.values())


def test_two_depth_files_of_one_picture_leave_it_out(tmp_path):
    picture(tmp_path / "a.png")
    depth_file(tmp_path / "a.npy")
    depth_file(tmp_path / "a_depth_mm.png")
    with pytest.raises(SourceError, match="3 left out"):
        RgbdFolderSource(root=tmp_path).samples()


def test_files_without_a_partner_are_named_on_both_sides(ten):
    picture(ten / "lone.png")
    depth_file(ten / "other.npy")
    (ten / "README.md").write_text("not a picture")
    (ten / ".hidden.png").write_bytes(b"")
    source = RgbdFolderSource(root=ten)
    assert len(source.samples()) == 10
    assert dict(source.skipped()) == {
        "lone.png": "has no depth file of its name",
        "other.npy": "has no picture of its name",
    }
    assert ["lone.png", "has no depth file of its name"] in source.provenance()["skipped"]


def test_names_are_in_natural_order_and_folders_belong_to_them(tmp_path):
    for name in ("b/f10", "b/f9", "a/f1"):
        picture(tmp_path / f"{name}.png")
        depth_file(tmp_path / f"{name}.npy")
    assert names(RgbdFolderSource(root=tmp_path)) == ["a/f1", "b/f9", "b/f10"]


@pytest.mark.parametrize("root", [".", "rgb"])
def test_depth_in_a_folder_of_its_own_is_found_by_the_name(tmp_path, root):
    for number in (2, 10):
        picture(tmp_path / f"rgb/x{number}.jpg", seed=number)
        depth_file(tmp_path / f"depth/x{number}.png", seed=number)
    source = RgbdFolderSource(root=tmp_path / root, depth_dir=tmp_path / "depth", depth_scale=0.001)
    assert names(source) == ["x2", "x10"]
    assert source.skipped() == ()
    with source.open() as reader:
        np.testing.assert_allclose(reader.read(1).depth_m, metres(seed=10), atol=1e-6)


def test_two_folders_of_the_same_inner_layout_pair_by_the_relative_path(tmp_path):
    for place in ("k/1", "k/2", "l/1"):
        picture(tmp_path / f"rgb/{place}.png")
        depth_file(tmp_path / f"depth/{place}.npy")
    picture(tmp_path / "rgb/l/3.png")
    source = RgbdFolderSource(root=tmp_path / "rgb", depth_dir=tmp_path / "depth")
    assert names(source) == ["k/1", "k/2", "l/1"]
    assert [entry.name for entry in source.skipped()] == ["l/3.png"]


def test_the_folders_of_scenes_say_which_of_equal_names_belong_together(tmp_path):
    for number, place in enumerate(("a", "b")):
        picture(tmp_path / f"{place}/rgb/1.png")
        depth_file(tmp_path / f"depth/{place}/1.npy", seed=number)
    source = RgbdFolderSource(root=tmp_path, depth_dir=tmp_path / "depth")
    assert [(s.name, s.scene) for s in source.samples()] == [("a/1", "a"), ("b/1", "b")]
    with source.open() as reader:
        np.testing.assert_allclose(reader.read(1).depth_m, metres(seed=1), atol=1e-5)


def test_equal_names_in_several_folders_are_not_paired_across_them(tmp_path):
    for place in ("k", "l"):
        picture(tmp_path / f"{place}/rgb/1.png")
        depth_file(tmp_path / f"depth/of_{place}/1.npy")
    with pytest.raises(SourceError, match="no readable pair"):
        RgbdFolderSource(root=tmp_path, depth_dir=tmp_path / "depth").samples()


@pytest.mark.parametrize("header", ["", "rgb,depth,split,scene\n", "\ufeffrgb,depth\n", "\ufeff"])
def test_a_list_names_pairs_splits_and_scenes(ten, header):
    (ten / "lists").mkdir()
    path = ten / "lists/pairs.csv"
    path.write_text(
        header + "../f3.png,../f3.npy,test,kitchen\n\n../f1.png, ../f2.npy ,train,hall\n../f9.png,../f9.npy\n"
    )
    source = RgbdFolderSource(pairs_csv=path)
    assert [(s.name, s.split, s.scene) for s in source.samples()] == [
        ("../f3", "test", "kitchen"),
        ("../f1", "train", "hall"),
        ("../f9", "train", "../f9"),
    ]
    with source.open() as reader:
        np.testing.assert_allclose(reader.read(1).depth_m, metres(seed=2), atol=1e-6)


def test_the_third_column_may_say_val(ten):
    (ten / "pairs.csv").write_text("f1.png,f1.npy,train\nf2.png,f2.npy,val\nf3.png,f3.npy,test\n")
    source = RgbdFolderSource(pairs_csv=ten / "pairs.csv")
    assert [s.split for s in source.samples()] == ["train", "val", "test"]
    with pytest.raises(SourceError, match="val_fraction"):
        RgbdFolderSource(pairs_csv=ten / "pairs.csv", val_fraction=0.5).samples()


def test_a_share_of_what_is_not_test_is_val(ten):
    source = RgbdFolderSource(root=ten, test_fraction=0.2, val_fraction=0.25)
    splits = [s.split for s in source.samples()]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (6, 2, 2)
    without = RgbdFolderSource(root=ten, test_fraction=0.2).samples()
    assert all(s.split == "test" for s, o in zip(source.samples(), without, strict=True) if o.split == "test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("f1.png\n", "line 1"),
        ("colour,depth\nf1.png,f1.npy,holdout\n", "line 2: split 'holdout'"),
        ("f1.png,f1.npy\nf1.png,f2.npy\n", "line 2: f1 is in the list twice"),
        ("f1.png,f1.npy,test,k\nf2.png,f2.npy,train,k\n", "scene k would be in two splits"),
        ("", "lists no pair"),
        ("rgb,depth\n", "lists no pair"),
        ("x.png,x.npy\n", "no readable pair"),
        ("f1.png,f1.npy,train,a,b\n", "line 1"),
    ],
)
def test_a_faulty_list_is_refused_with_its_line(ten, text, words):
    (ten / "pairs.csv").write_text(text)
    with pytest.raises(SourceError) as caught:
        RgbdFolderSource(pairs_csv=ten / "pairs.csv").samples()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_listed_file_that_is_not_there_is_left_out_and_named(ten):
    (ten / "pairs.csv").write_text("f1.png,f1.npy\nf2.png,gone.npy\n")
    source = RgbdFolderSource(root=ten, pairs_csv=ten / "pairs.csv")
    assert names(source) == ["f1"]
    assert source.skipped() == (("f2", "gone.npy is not there"),)


def test_everything_is_training_unless_a_split_is_asked_for(ten):
    assert set(splits(RgbdFolderSource(root=ten)).values()) == {"train"}


def test_a_fraction_is_drawn_by_the_seed(ten):
    first = splits(RgbdFolderSource(root=ten, test_fraction=0.3))
    assert sum(split == "test" for split in first.values()) == 3
    assert first == splits(RgbdFolderSource(root=ten, test_fraction=0.3))
    others = [splits(RgbdFolderSource(root=ten, test_fraction=0.3, seed=seed)) for seed in range(1, 5)]
    assert any(other != first for other in others)


def test_a_list_of_test_frames_takes_names_files_and_stems(ten):
    picture(ten / "deep/g1.png")
    depth_file(ten / "deep/g1.npy")
    picture(ten / "lone.png")
    (ten / "test.txt").write_text("# held out\nf2\n\nf4.png\ndeep/g1\nlone\n")
    chosen = splits(RgbdFolderSource(root=ten, test_list=ten / "test.txt"))
    assert [name for name, split in chosen.items() if split == "test"] == ["deep/g1", "f2", "f4"]
    (ten / "test.txt").write_text("g1\n")
    assert splits(RgbdFolderSource(root=ten, test_list=ten / "test.txt"))["deep/g1"] == "test"


@pytest.mark.parametrize(("line", "words"), [("f77", "no pair"), ("g1", "several pairs")])
def test_a_list_of_test_frames_must_name_pairs(ten, line, words):
    for place in ("x", "y"):
        picture(ten / f"{place}/g1.png")
        depth_file(ten / f"{place}/g1.npy")
    (ten / "test.txt").write_text(line + "\n")
    with pytest.raises(SourceError, match=words) as caught:
        RgbdFolderSource(root=ten, test_list=ten / "test.txt").samples()
    assert repr(line) in str(caught.value)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=20), fraction=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_scenes_are_never_divided_and_the_fraction_is_met_to_within_a_scene(sizes, fraction, seed):
    frames = [f"s{scene}" for scene, size in enumerate(sizes) for _ in range(size)]
    chosen = draw_scenes(frames, fraction, seed)
    count = sum(frame in chosen for frame in frames)
    assert chosen <= set(frames)
    if 0 < fraction < 1 and len(sizes) > 1:
        assert 1 <= len(chosen) < len(sizes)
    wanted = round(fraction * len(frames))
    assert count < wanted + max(sizes) or count == min(sizes) or wanted == 0
    if fraction in (0, 1):
        assert count == wanted


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(order=st.permutations(["a.png", "a_depth.png", "b.jpg", "b.npy", "c.tif", "c-depth.tif", "d.png", "e.exr"]))
def test_pairing_does_not_depend_on_the_order_of_files_on_disk(tmp_path, order):
    folder = tmp_path / "case"
    folder.mkdir(exist_ok=True)
    for name in order:
        (folder / name).touch()
    matched = pairs_below(folder)
    pairs, skipped = matched.pairs, matched.skipped
    assert [(p.name, p.colour.name, p.depth.name) for p in pairs] == [
        ("a", "a.png", "a_depth.png"),
        ("b", "b.jpg", "b.npy"),
        ("c", "c.tif", "c-depth.tif"),
    ]
    assert [entry.name for entry in skipped] == ["d.png", "e.exr"]
    for name in order:
        (folder / name).unlink()


@given(st.lists(st.text(alphabet="aB1203_.-é²", max_size=8)))
def test_natural_order_is_total(texts):
    backwards = texts[::-1]
    assert sorted(texts, key=natural_key) == sorted(backwards, key=natural_key)


def spoil_end(path):
    faults.truncate(path, 0.6)


def spoil_text(path):
    path.write_text("hello")


def spoil_empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_end, spoil_text, spoil_empty])
@pytest.mark.parametrize(
    ("colour", "depth", "bad"),
    [
        ("a.png", "a.npy", "a.png"),
        ("a.jpg", "a.npy", "a.jpg"),
        ("a.bmp", "a.npy", "a.bmp"),
        ("a.tif", "a.npy", "a.tif"),
        ("a.jpg", "a.npy", "a.npy"),
        ("a.jpg", "a.npz", "a.npz"),
        ("a.jpg", "a_mm.pgm", "a_mm.pgm"),
        ("a.jpg", "a_depth_mm.png", "a_depth_mm.png"),
        ("a.jpg", "a_depth.tif", "a_depth.tif"),
        ("a.jpg", "a.pfm", "a.pfm"),
    ],
)
def test_an_unreadable_file_is_left_out_and_the_rest_converts(tmp_path, spoil, colour, depth, bad):
    picture(tmp_path / colour, hw=(48, 64))
    depth_file(tmp_path / depth, hw=(48, 64))
    spoil(tmp_path / bad)
    picture(tmp_path / "ok.png")
    depth_file(tmp_path / "ok.npy")
    if bad == "a_mm.pgm":
        (tmp_path / "pairs.csv").write_text("a.jpg,a_mm.pgm\nok.png,ok.npy\n")
    source = RgbdFolderSource(root=tmp_path, pairs_csv=tmp_path / "pairs.csv" if bad == "a_mm.pgm" else None)
    assert names(source) == ["ok"]
    (entry,) = source.skipped()
    assert entry.name == "a"
    assert bad in entry.reason
    assert "\n" not in entry.reason
    assert str(tmp_path) not in entry.reason


def test_a_flipped_byte_in_a_png_is_noticed_before_it_is_read(ten):
    faults.flip_byte(ten / "f3.png", -40)
    source = RgbdFolderSource(root=ten)
    assert "f3" not in names(source)
    assert "checksum" in dict(source.skipped())["f3"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.npy", "a.npz", "a.pgm", "a.pfm"])
def test_damage_is_a_named_error_or_other_numbers_and_never_worse(tmp_path, name):
    rng = np.random.default_rng(0)
    colour = name in ("a.bmp", "a.webp")
    path = picture(tmp_path / name) if colour else depth_file(tmp_path / name)
    whole = path.read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(0, min(len(data), 300))] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(0, len(data))] if rng.random() < 0.3 else data)
        for read in (read_colour, colour_size) if colour else (read_depth_units, depth_header):
            try:
                read(path)
            except SourceError as error:
                assert name in str(error)
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((*HW, 3), np.float32), "one channel"),
        (np.zeros(HW, bool), "bool"),
        (np.zeros(HW, np.complex64), "complex64"),
        (np.zeros(5, np.float32), "(5,)"),
        (np.array([{"a": 1}], dtype=object), "NumPy"),
        (np.zeros((0, 16), np.float32), "(0, 16)"),
    ],
)
def test_an_array_that_is_no_depth_map_is_left_out(ten, content, words):
    np.save(ten / "f5.npy", content, allow_pickle=True)
    source = RgbdFolderSource(root=ten)
    assert len(source.samples()) == 9
    assert words in dict(source.skipped())["f5"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_coloured_depth_picture_is_left_out(ten, mode):
    (ten / "f5.npy").unlink()
    Image.fromarray(np.full((*HW, 3), 90, np.uint8)).convert(mode).save(ten / "f5_depth.png")
    reasons = dict(RgbdFolderSource(root=ten, depth_scale=1.0).skipped())
    assert "coloured" in reasons["f5"]


def test_an_npz_of_several_arrays_needs_one_named_depth(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(HW), y=np.zeros(HW))
    with pytest.raises(SourceError, match="x, y"):
        read_depth_units(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=np.full((1, *HW), 2.0))
    assert read_depth_units(tmp_path / "a.npz").shape == HW


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif", ".npy", ".npz", ".pfm"])
def test_the_header_tells_what_reading_finds(tmp_path, suffix):
    path = depth_file(tmp_path / f"a{suffix}", hw=(7, 11))
    units = read_depth_units(path)
    assert depth_header(path) == (*units.shape, units.dtype.kind != "f")


def test_depth_of_the_same_shape_is_brought_to_the_size_of_the_picture(ten):
    small = metres((6, 8), seed=3)
    np.save(ten / "f4.npy", small)
    with RgbdFolderSource(root=ten).open() as reader:
        np.testing.assert_array_equal(reader.read(3).depth_m, np.kron(small, np.ones((2, 2))).astype(np.float32))


def test_depth_of_another_shape_is_left_out(ten):
    np.save(ten / "f4.npy", metres((12, 12)))
    source = RgbdFolderSource(root=ten)
    assert "f4" not in names(source)
    assert "12x12" in dict(source.skipped())["f4"]
    assert "16x12" in dict(source.skipped())["f4"]


def test_pictures_of_different_sizes_need_a_size(ten):
    picture(ten / "f4.png", hw=(24, 32))
    source = RgbdFolderSource(root=ten)
    with pytest.raises(SourceError, match=r"f1\.png is 16x12 but f4\.png is 32x24.*--size"):
        source.frame_hw()
    sized = RgbdFolderSource(root=ten, size_hw=(6, 8))
    assert sized.frame_hw() == (6, 8)
    with sized.open() as reader:
        for index in (0, 3):
            frame = reader.read(index)
            full = cv2.imread(str(ten / f"f{index + 1}.png"))[..., ::-1].astype(float)
            blocks = full.reshape(6, full.shape[0] // 6, 8, full.shape[1] // 8, 3).mean((1, 3))
            np.testing.assert_allclose(frame.aif, blocks, atol=1)
            assert frame.depth_m.shape == (6, 8)
            source_values = metres(seed=index + 1).astype(np.float32)
            assert set(frame.depth_m.ravel().tolist()) <= set(source_values.ravel().tolist())


@given(old=st.tuples(st.integers(1, 20), st.integers(1, 20)), new=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_nearest_takes_the_cell_that_holds_the_centre(old, new):
    depth = np.arange(np.prod(old), dtype=np.float32).reshape(old)
    out = resize_nearest(depth, new)
    assert out.shape == new
    for row in range(new[0]):
        cell = int((row + 0.5) * old[0] / new[0])
        assert out[row, 0] // old[1] == cell
    if old == new:
        np.testing.assert_array_equal(out, depth)


def test_a_folder_without_any_pair_or_none_at_all_is_an_error(tmp_path):
    with pytest.raises(SourceMissingError, match="absent"):
        RgbdFolderSource(root=tmp_path / "absent").samples()
    with pytest.raises(SourceError, match="no readable pair"):
        RgbdFolderSource(root=tmp_path).samples()
    with pytest.raises(SourceMissingError, match="absent"):
        RgbdFolderSource(root=tmp_path, depth_dir=tmp_path / "absent").samples()
    with pytest.raises(SourceMissingError, match=r"absent\.csv"):
        RgbdFolderSource(pairs_csv=tmp_path / "absent.csv").samples()
    with pytest.raises(SourceMissingError, match=r"absent\.txt"):
        picture(tmp_path / "a.png")
        depth_file(tmp_path / "a.npy")
        RgbdFolderSource(root=tmp_path, test_list=tmp_path / "absent.txt").samples()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"root": None}, "or a list of them, pairs_csv"),
        ({"depth_scale": 0.0}, "depth_scale=0.0"),
        ({"depth_scale": float("nan")}, "depth_scale=nan"),
        ({"depth_scale": float("inf")}, "depth_scale=inf"),
        ({"size_hw": (0, 4)}, "size_hw"),
        ({"test_fraction": -0.1}, "test_fraction=-0.1"),
        ({"depth_dir": Path("d"), "pairs_csv": Path("p")}, "one of them"),
        ({"test_fraction": 0.5, "test_list": Path("t")}, "one of them"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(SourceError) as caught:
        RgbdFolderSource(**{"root": Path(), **options})
    assert words in str(caught.value)


def test_a_list_with_a_split_admits_no_other(ten):
    (ten / "pairs.csv").write_text("f1.png,f1.npy,test\nf2.png,f2.npy,train\n")
    with pytest.raises(SourceError, match="column for the split"):
        RgbdFolderSource(pairs_csv=ten / "pairs.csv", test_fraction=0.5).samples()


def test_a_file_that_goes_away_after_the_listing_is_a_named_error(ten):
    with RgbdFolderSource(root=ten).open() as reader:
        (ten / "f1.png").unlink()
        np.save(ten / "f2.npy", metres((12, 12)))
        with pytest.raises(SourceError, match=r"f1\.png"):
            reader.read(0)
        with pytest.raises(SourceError, match="f2"):
            reader.read(1)
        reader.read(2)


def test_the_source_travels_and_its_provenance_follows_the_data(ten):
    source = RgbdFolderSource(root=ten, test_fraction=0.3)
    assert pickle.loads(pickle.dumps(source)) == source
    facts = json.loads(json.dumps(source.provenance()))
    assert str(ten) not in json.dumps(facts)
    assert facts["files"]["sha256_over"] == "names and contents"
    moved = ten.parent / "moved"
    ten.rename(moved)
    assert RgbdFolderSource(root=moved, test_fraction=0.3).provenance() == facts
    depth_file(moved / "f7.npy", seed=77)
    assert RgbdFolderSource(root=moved, test_fraction=0.3).provenance()["files"]["sha256"] != facts["files"]["sha256"]


def test_every_file_is_looked_at_once_however_many_shards_there_are(ten, tmp_path_factory, monkeypatch):
    looks = []
    for name in ("look_at_colour", "look_at_depth"):
        look = getattr(rgbd_folder, name)
        monkeypatch.setattr(rgbd_folder, name, lambda path, look=look: looks.append(path) or look(path))
    config = ConversionSettings(source=RgbdFolderSource(root=ten), lens=Lens.preset("paper"), samples_per_shard=1)
    result = convert(config, tmp_path_factory.mktemp("out") / "s.zarr")
    assert len(result.store.split("train")) == 10
    assert len(looks) == len(set(looks)) == 20
    assert 0 < result.planning_seconds < result.seconds


def test_a_task_elsewhere_brings_the_files_of_its_own_frames_along(ten):
    source = RgbdFolderSource(root=ten)
    source.samples()
    part = pickle.loads(pickle.dumps(source.narrowed_to([3, 4])))
    assert b"f4.png" in pickle.dumps(part)
    assert b"f9.png" not in pickle.dumps(part)
    (ten / "f1.png").unlink()
    with part.open() as reader:
        np.testing.assert_allclose(reader.read(3).depth_m, metres(seed=4), atol=1e-5)
        with pytest.raises(KeyError):
            reader.read(0)


def test_large_data_is_identified_by_names_and_sizes(tmp_path, monkeypatch):
    path = depth_file(tmp_path / "a.npy")
    monkeypatch.setattr("defocus_sim.datasets.listing.HASHED_BYTES", 10)
    facts = identity([("a.npy", path)])
    assert facts["sha256_over"] == "names and sizes"
    assert facts["bytes"] == path.stat().st_size
    assert identity([("b.npy", path)])["sha256"] != facts["sha256"]


def test_the_kinect_frames_of_the_real_data_convert(real_data):
    source = RgbdFolderSource(root=real_data / "rgbd_png", test_fraction=0.2)
    assert names(source) == [f"office_{number}" for number in range(1, 6)]
    assert source.skipped() == ()
    assert source.frame_hw() == (480, 640)
    assert sorted(splits(source).values()) == ["test"] + ["train"] * 4
    with source.open() as reader:
        for index in range(5):
            frame = reader.read(index)
            assert frame.aif.shape == (480, 640, 3)
            assert 0.2 < (frame.depth_m == 0).mean() < 0.4
            assert frame.depth_m[frame.depth_m > 0].min() > 0.4
            assert 5 < frame.depth_m.max() < 10


@pytest.mark.parametrize("start", ["a" * 5000, "#" + "a" * 5000, '"x', "c/" * 3000])
def test_a_line_that_names_what_can_be_no_file_is_a_named_error_or_left_out(start, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 32, 3), np.uint8))
    np.save(tmp_path / "a.npy", np.ones((24, 32), np.float32))
    for text in (f"{start}.png,d.png", f"a.png,a.npy\n{start}.png,d.png"):
        (tmp_path / "list.csv").write_text(text)
        for options in ({"pairs_csv": tmp_path / "list.csv"}, {"root": tmp_path, "test_list": tmp_path / "list.csv"}):
            with suppress(SourceError):
                assert RgbdFolderSource(**options).samples()
