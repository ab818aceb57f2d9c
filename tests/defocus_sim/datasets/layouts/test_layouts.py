"""Layouts and lists of known data sets, and file systems with odd names, links and closed doors."""

import os
import socket
import unicodedata
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.layouts.match import pairs_below
from defocus_sim.datasets.layouts.names import says_depth, time_s
from defocus_sim.datasets.layouts.walk import files_below
from defocus_sim.datasets.rgbd_folder import RgbdFolderSource
from defocus_sim.errors import ConversionInterruptedError, SourceError
from defocus_sim.lens import Lens
from defocus_sim.pictures.preview import save_contact_sheet

HW = (12, 16)


def colour(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = [*path.as_posix().encode(errors="replace")]
    pixels = np.random.default_rng(seed).integers(0, 256, (*HW, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())


def depth(path: Path, millimetres: int = 1500) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        with path.open("wb") as stream:
            np.save(stream, np.full(HW, millimetres / 1000, np.float32))
    else:
        array = (
            np.full(HW, millimetres / 1000, np.float32)
            if path.suffix == ".pfm"
            else np.full(HW, millimetres, np.uint16)
        )
        path.write_bytes(cv2.imencode(path.suffix, array)[1].tobytes())


def write(root: Path, *names: str) -> None:
    """Depth where a name says so, else a picture."""
    for name in names:
        (depth if says_depth(Path(name)) else colour)(root / name)


def pairs(source: RgbdFolderSource) -> dict[str, tuple[str, str]]:
    source.samples()
    return {f.pair.name: (f.pair.colour.name, f.pair.depth.name) for f in source.listing.frames}


def of(root: Path, **options) -> RgbdFolderSource:
    return RgbdFolderSource(root=root, depth_scale=0.001, **options)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (("room/rgb_00045.jpg", "room/sync_depth_00045.png"), ["room/00045"]),
        (("00000_colors.png", "00000_depth.png"), ["00000"]),
        (("results/frame000000.jpg", "results/depth000000.png"), ["results/000000"]),
        (("s0/color/0.jpg", "s0/depth/0.png", "s0/color/10.jpg", "s0/depth/10.png"), ["s0/0", "s0/10"]),
        (("color/000000.jpg", "depth/000000.png"), ["000000"]),
        (("k/image/0000103-000003451449.jpg", "k/depth/0000103-000003441827.png"), ["k/0000103-000003451449"]),
        (
            ("indoors/s/00000_00000_indoors_000_000.png", "indoors/s/00000_00000_indoors_000_000_depth.npy"),
            ["indoors/s/00000_00000_indoors_000_000"],
        ),
        (("Adirondack-perfect/im0.png", "Adirondack-perfect/disp0.pfm"), ["Adirondack-perfect/0"]),
        (("seq-01/frame-000000.color.png", "seq-01/frame-000000.depth.png"), ["seq-01/frame-000000"]),
        (("rgb/1305031102.175304.png", "depth/1305031102.160407.png"), ["1305031102.175304"]),
        (
            ("r-1294886363.011060-3164794231.ppm", "d-1294886363.016801-3194701155.pgm"),
            ["r-1294886363.011060-3164794231"],
        ),
        (("cam0/rgb/1403636579763555584.png", "cam0/depth/1403636579763555600.png"), ["cam0/1403636579763555584"]),
        (("left_0001.png", "disp_0001.pfm"), ["0001"]),
        (("IMG_0001.JPG", "IMG_0001_depth.png"), ["IMG_0001"]),
    ],
    ids=[
        "bts",
        "densedepth",
        "replica",
        "scannet",
        "open3d",
        "sun",
        "diode",
        "middlebury",
        "7scenes",
        "tum",
        "nyuraw",
        "euroc",
        "stereo",
        "phone",
    ],
)
def test_layouts_of_known_sets_pair_by_themselves(tmp_path, files, names):
    write(tmp_path, *files)
    source = of(tmp_path)
    assert list(pairs(source)) == names
    assert source.skipped() == ()


def test_frames_of_one_folder_of_a_sequence_stay_together(tmp_path):
    for scene in "abcd":
        for number in range(3):
            write(tmp_path, f"{scene}/color/{number}.jpg", f"{scene}/depth/{number}.png")
    samples = of(tmp_path, test_fraction=0.25).samples()
    assert len({s.scene for s in samples if s.split == "test"}) == 1
    assert sum(s.split == "test" for s in samples) == 3


def test_the_plain_depth_folder_is_taken_first_and_another_by_its_name(tmp_path):
    for scene in ("kv1/a", "kv1/b"):
        write(tmp_path, f"{scene}/image/1.jpg", f"{scene}/depth/1.png")
        depth(tmp_path / f"{scene}/depth_bfx/1.png", 2500)
    source = of(tmp_path)
    assert list(pairs(source)) == ["kv1/a/1", "kv1/b/1"]
    assert [entry.name for entry in source.skipped()] == ["kv1/a/depth_bfx/1.png", "kv1/b/depth_bfx/1.png"]
    filled = of(tmp_path, depth_dir=Path("depth_bfx"))
    assert list(pairs(filled)) == ["kv1/a/1", "kv1/b/1"]
    with source.open() as plain, filled.open() as other:
        assert (plain.read(1).depth_m[3, 3], other.read(1).depth_m[3, 3]) == (np.float32(1.5), np.float32(2.5))


def test_of_two_files_of_one_name_the_grey_one_is_depth_where_nothing_else_pairs(tmp_path):
    # DenseDepth's training set: 1.jpg and 1.png.
    colour(tmp_path / "out/1.jpg")
    cv2.imwrite(str(tmp_path / "out/1.png"), np.full(HW, 100, np.uint8))
    source = RgbdFolderSource(root=tmp_path, depth_scale=10 / 255)
    assert pairs(source) == {"out/1": ("1.jpg", "1.png")}
    assert any("the grey one is the depth" in note for note in source.notes())


def test_masks_beside_depth_are_no_depth_of_their_own(tmp_path):
    write(tmp_path, "a.png", "a_depth.npy", "b_depth_mask.npy")
    np.save(tmp_path / "a_depth_mask.npy", np.ones(HW))
    source = of(tmp_path)
    assert list(pairs(source)) == ["a"]
    assert [entry.name for entry in source.skipped()] == ["b_depth_mask.npy"]


def test_times_are_paired_nearest_first_and_once(tmp_path):
    write(tmp_path, "rgb/10.000000.png", "rgb/10.030000.png", "depth/10.012000.png", "depth/10.035000.png")
    write(tmp_path, "rgb/20.000000.png", "depth/20.050000.png")
    assert pairs(of(tmp_path)) == {
        "10.000000": ("10.000000.png", "10.012000.png"),
        "10.030000": ("10.030000.png", "10.035000.png"),
    }
    assert "20.000000" in pairs(of(tmp_path, max_difference_s=0.1))
    assert "--max-difference" in of(tmp_path).notes()[-1]


@given(
    st.lists(st.integers(0, 10**6), unique=True, max_size=20), st.lists(st.integers(0, 10**6), unique=True, max_size=20)
)
def test_no_file_is_in_two_pairs_and_none_is_farther_than_was_said(tmp_path_factory, ours, theirs):
    root = tmp_path_factory.mktemp("times")
    for folder, times in (("rgb", ours), ("depth", theirs)):
        (root / folder).mkdir()
        for time in times:
            (root / folder / f"{time / 1e4:.4f}.png").touch()
    matched = pairs_below(root, 0.5)
    for side in ("colour", "depth"):
        used = [getattr(pair, side) for pair in matched.pairs]
        assert len(set(used)) == len(used)
    # What has the very same name is a pair whatever its time.
    assert all(abs(time_s(pair.colour) - time_s(pair.depth)) <= 0.5 + 1e-9 for pair in matched.pairs)
    assert len(matched.pairs) * 2 + len(matched.skipped) == len(ours) + len(theirs)


def test_names_that_do_not_pair_are_shown_with_what_would_help(tmp_path):
    write(tmp_path, "photos/kitchen.jpg", "maps/one_depth.png")
    with pytest.raises(SourceError) as caught:
        of(tmp_path).samples()
    for word in ("photos/kitchen.jpg", "maps/one_depth.png", "--depth-dir", "--pairs"):
        assert word in str(caught.value)


def test_files_of_kinds_that_are_not_read_are_counted(tmp_path):
    write(tmp_path, "a.png", "a.npy")
    (tmp_path / "b.dng").write_bytes(b"II*\0")
    (tmp_path / "notes.txt").write_text("no picture")
    assert "1 .dng" in of(tmp_path).notes()[0]
    assert ".txt" not in of(tmp_path).notes()[0]


# ---- the file system


def test_names_that_are_no_utf8_are_frames_with_names_that_can_be_written(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    write(tmp_path, "b.png", "b.npy", f"{odd}/{odd}.png", f"{odd}/{odd}.npy", f"{odd}.png")
    source = of(tmp_path)
    assert list(pairs(source)) == ["b", "caf\\xe9/caf\\xe9"]
    assert source.skipped() == (("caf\\xe9.png", "has no depth file of its name"),)
    str(source.provenance()).encode("utf-8")
    with source.open() as reader:
        assert reader.read(1).aif.shape == (*HW, 3)


def test_unicode_forms_and_cases_do_not_keep_files_apart(tmp_path):
    forms = [unicodedata.normalize(form, "küche") for form in ("NFC", "NFD")]
    write(tmp_path, f"{forms[0]}.png", f"{forms[1]}.npy", "IMG_2.JPG", "img_2.npy", "Raum/X.png", "raum/x.npy")
    assert len(pairs(of(tmp_path))) == 3


def test_cases_that_tell_two_frames_apart_still_do(tmp_path):
    write(tmp_path, "a.png", "a.npy", "A.png", "A.npy")
    depth(tmp_path / "A.npy", 3000)
    source = of(tmp_path)
    assert sorted(pairs(source)) == ["A", "a"]


def test_links_to_nowhere_are_left_out_by_what_they_point_to(tmp_path):
    write(tmp_path, "a.png", "a.npy", "b.npy", "c.png")
    (tmp_path / "b.png").symlink_to("/nowhere/object")
    (tmp_path / "c.npy").symlink_to("c.npy")
    reasons = dict(of(tmp_path).skipped())
    assert "/nowhere/object" in reasons["b"]
    assert set(reasons) == {"b", "c"}


def test_links_to_folders_are_followed_once_and_loops_are_named(tmp_path):
    data, root = tmp_path / "data", tmp_path / "root"
    write(data, "one/a.png", "one/a.npy")
    write(root, "own/b.png", "own/b.npy")
    (root / "linked").symlink_to(data / "one")
    (root / "again").symlink_to(data / "one")
    (root / "same").symlink_to(root / "own")
    (root / "own/up").symlink_to(root)
    (root / "everything").symlink_to("/")
    source = of(root)
    assert sorted(pairs(source)) == ["again/a", "own/b"]
    assert {entry.name: entry.reason.split()[3:7] for entry in source.skipped()} == {
        "everything": ["to", "a", "folder", "above"],
        "own/up": ["to", "a", "folder", "above"],
        "same": ["to", "a", "folder", "that"],
        "linked": ["to", "a", "folder", "that"],
    }


def test_a_link_to_the_whole_set_is_followed(tmp_path):
    write(tmp_path / "data", "a.png", "a.npy")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert list(pairs(of(tmp_path / "link"))) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_places_that_may_not_be_read_are_left_out_by_name(tmp_path):
    write(tmp_path, "a.png", "a.npy", "b.png", "b.npy", "closed/c.png", "closed/c.npy")
    (tmp_path / "b.png").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        reasons = dict(of(tmp_path).skipped())
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert set(reasons) == {"b", "closed"}
    assert all("Permission denied" in reason for reason in reasons.values())


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    write(tmp_path, "a.png", "a.npy", "closed/c.png")
    real = os.scandir

    def scandir(place):
        if Path(place).name == "closed":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert dict(of(tmp_path).skipped()) == {"closed": "cannot be read: Permission denied"}


def test_what_is_no_picture_at_all_is_left_out_with_the_reason(tmp_path):
    for name in ("empty", "text", "pipe", "socket", "folder"):
        depth(tmp_path / f"{name}.npy")
    write(tmp_path, "a.png", "a.npy")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("<html>404 not found</html>")
    os.mkfifo(tmp_path / "pipe.png")
    place = os.getcwd()
    os.chdir(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("socket.png")
    finally:
        os.chdir(place)
    (tmp_path / "folder.png").mkdir()
    source = of(tmp_path)
    assert list(pairs(source)) == ["a"]
    assert {entry.name for entry in source.skipped()} == {"empty", "text", "pipe", "socket", "folder.npy"}


def test_stores_in_the_folder_are_not_looked_into(tmp_path):
    write(tmp_path, "a.png", "a.npy", "s.zarr/x.png")
    (tmp_path / "s.zarr/zarr.json").write_text("{}")
    found = files_below(tmp_path, {".png"})
    assert [path.name for path in found.files] == ["a.png"]


# ---- lists


def listed(place: Path, text: str | bytes, **options) -> RgbdFolderSource:
    path = place / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return RgbdFolderSource(pairs_csv=path, depth_scale=0.001, **options)


@pytest.fixture
def two(tmp_path):
    for number in (0, 1):
        write(tmp_path, f"rgb/{number}.jpg", f"depth/{number}.png")
    return tmp_path


BOTH = {"rgb/0": ("0.jpg", "0.png"), "rgb/1": ("1.jpg", "1.png")}


@pytest.mark.parametrize(
    "line",
    [
        "rgb/{0}.jpg,depth/{0}.png",
        "rgb/{0}.jpg , depth/{0}.png",
        "rgb/{0}.jpg;depth/{0}.png",
        "rgb/{0}.jpg\tdepth/{0}.png",
        "rgb/{0}.jpg   depth/{0}.png",
        "rgb/{0}.jpg \t depth/{0}.png",
        "/rgb/{0}.jpg /depth/{0}.png 518.8579",
        "./rgb/{0}.jpg ./depth/{0}.png",
        "rgb\\{0}.jpg,depth\\{0}.png",
        "depth/{0}.png rgb/{0}.jpg",
        "1305031102.{0}75304 rgb/{0}.jpg 1305031102.{0}60407 depth/{0}.png",
        "1305031102.{0}60407 depth/{0}.png 1305031102.{0}75304 rgb/{0}.jpg",
        '"rgb/{0}.jpg","depth/{0}.png"',
        '"rgb/{0}.jpg" "depth/{0}.png"',
        "rgb/{0}.jpg,depth/{0}.png,,",
        "rgb/{0}.jpg,depth/{0}.png,525.0",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_are_read_as_they_are_published(two, line, end):
    text = "# pairs" + end + end.join(line.format(number) for number in (0, 1)) + end + "# end" + end + end
    assert pairs(listed(two, text)) == BOTH
    assert pairs(listed(two, "\ufeff" + text)) == BOTH
    assert pairs(listed(two, text.encode("utf-16"))) == BOTH


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("depth,colour", "depth/{0}.png,rgb/{0}.jpg"),
        ("image_path;depth_path;focal", "rgb/{0}.jpg;depth/{0}.png;518"),
        ("id,rgb,depth", "{0},rgb/{0}.jpg,depth/{0}.png"),
        ("Scene,Image,Depth,Split", "s{0},rgb/{0}.jpg,depth/{0}.png,Training"),
        ("colour,depth,scene,split", "rgb/{0}.jpg,depth/{0}.png,s{0},train"),
    ],
)
def test_a_header_says_which_column_is_which(two, header, line):
    source = listed(two, "\n".join([header, *(line.format(number) for number in (0, 1))]))
    assert pairs(source) == BOTH
    assert {s.split for s in source.samples()} == {"train"}
    if "cene" in header:
        assert [s.scene for s in source.samples()] == ["s0", "s1"]


def test_names_with_spaces_commas_and_a_number_sign(tmp_path):
    write(tmp_path, "my photo, one.png", "my photo, one.npy", "#1.png", "#1.npy")
    assert list(pairs(listed(tmp_path, '"my photo, one.png","my photo, one.npy"\n#1.png,#1.npy\n# comment\n'))) == [
        "my photo, one",
        "#1",
    ]
    assert list(pairs(listed(tmp_path, '"my photo, one.png" "my photo, one.npy"\n'))) == ["my photo, one"]


def test_a_list_of_old_windows_finds_names_of_today(tmp_path):
    write(tmp_path, "küche.png", "küche.npy")
    assert len(pairs(listed(tmp_path, "küche.png;küche.npy\n".encode("cp1252")))) == 1


def test_paths_of_a_list_may_begin_at_the_data(two, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    source = listed(elsewhere, "/rgb/0.jpg /depth/0.png 518.8\n/rgb/9.jpg None 518.8\n", root=two)
    assert pairs(source) == {"rgb/0": ("0.jpg", "0.png")}
    assert source.skipped() == (("rgb/9", "has no depth, the list says"),)


def test_associations_that_are_not_one_to_one_take_the_nearest(two):
    text = "1.00 rgb/0.jpg 1.01 depth/0.png\n1.02 rgb/1.jpg 1.01 depth/0.png\n1.02 rgb/1.jpg 1.05 depth/1.png\n"
    source = listed(two, text)
    assert pairs(source) == BOTH
    assert len(source.skipped()) == 1
    strict = listed(two, text, max_difference_s=0.02)
    assert list(pairs(strict)) == ["rgb/0"]
    assert any("--max-difference 0.02" in reason for _, reason in strict.skipped())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rgb/0.jpg|depth/0.png\n", "by commas"),
        ("rgb/0.jpg;depth/0.png;test;k;x\n", "semicolons"),
        (b"\x00\x01\x02", "text file"),
    ],
)
def test_a_list_of_another_kind_says_what_was_found(two, text, words):
    with pytest.raises(SourceError, match=words):
        listed(two, text).samples()


@pytest.mark.parametrize(
    "lines",
    [
        "rgb/1",
        "1.jpg",
        "\ufeff/rgb/1.jpg /depth/1.png 518.8579\r\n",
        "rgb\\1.jpg\n",
        "# test\nrgb/1.jpg,depth/1.png\n",
        "1\n",
    ],
)
def test_published_lists_of_test_frames_are_understood(two, lines):
    (two / "test.txt").write_bytes(lines.encode())
    source = of(two, test_list=two / "test.txt")
    assert {s.name: s.split for s in source.samples()} == {"0": "train", "1": "test"}


def test_a_list_of_test_scenes_takes_all_their_frames(tmp_path):
    for scene in ("scene0707_00", "scene0708_00"):
        for number in (0, 1):
            write(tmp_path, f"{scene}/color/{number}.jpg", f"{scene}/depth/{number}.png")
    (tmp_path / "test.txt").write_text("scene0708_00\n")
    source = of(tmp_path, test_list=tmp_path / "test.txt")
    assert [s.name for s in source.samples() if s.split == "test"] == ["scene0708_00/0", "scene0708_00/1"]


@pytest.mark.parametrize("option", ["test_fraction", "val_fraction"])
def test_one_scene_cannot_be_divided(two, option):
    text = "rgb/0.jpg,depth/0.png,,desk\nrgb/1.jpg,depth/1.png,,desk\n"
    with pytest.raises(SourceError, match=r"one scene \(desk\)"):
        listed(two, text, **{option: 0.5}).samples()


def test_a_new_file_that_is_no_frame_does_not_stand_in_the_way_of_resuming(tmp_path):
    for name in "abcd":
        write(tmp_path, f"{name}.png", f"{name}.npy")
    config = ConversionSettings(source=of(tmp_path), lens=Lens.preset("paper"), samples_per_shard=1)
    told = []

    def stop(done, total):
        told.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(ConversionInterruptedError, match="shards are kept"):
        convert(config, tmp_path / "s.zarr", workers=1, on_progress=stop)
    save_contact_sheet(convert(config, tmp_path / "other.zarr").store, tmp_path / "other_contact_sheet.png")
    write(tmp_path, "new.png")
    again = replace(config, source=of(tmp_path))
    assert [entry.name for entry in again.source.skipped()] == ["new.png"]
    counts = []
    result = convert(again, tmp_path / "s.zarr", resume=True, on_progress=lambda done, total: counts.append(done))
    assert counts[0] >= 1
    assert result.store.manifest.source["skipped"] == [["new.png", "has no depth file of its name"]]
