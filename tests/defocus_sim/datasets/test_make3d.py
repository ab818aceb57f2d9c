"""Make3D: pairing by id, the laser's grid, pictures of every kind, and faults that are named."""

import json
import pickle

import cv2
import faults
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.io import savemat

from defocus_sim.datasets.formats.images import colour_size, read_colour
from defocus_sim.datasets.formats.matfile import read_matrix
from defocus_sim.datasets.listing import natural_key
from defocus_sim.datasets.make3d import GRID_HW, Make3dSource, _pair, read_grid
from defocus_sim.errors import SourceError, SourceMissingError

FOLDERS = ("Train400Img", "Train400Depth", "Test134", "Test134Depth")


def grid_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(*GRID_HW, 4))
    grid[..., 3] = rng.uniform(2, 81, GRID_HW)
    # Of a ray that leaves the axis z is the shorter.
    grid[..., 2] = grid[..., 3] * rng.uniform(0.7, 1, GRID_HW)
    return grid


def write_picture(path, seed=0, hw=(72, 54)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(
        str(path), cv2.resize(np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8), hw[::-1])
    )
    return path


def write_grid(path, seed=0, name="Position3DGrid", grid=None, compress=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"other": np.arange(3.0), name: grid_of(seed) if grid is None else grid}, do_compression=compress)
    return path


@pytest.fixture
def root(tmp_path):
    """Two training pairs and a test pair."""
    for seed, name in enumerate(("a-1", "a-2")):
        write_picture(tmp_path / f"Train400Img/img-{name}.jpg", seed)
        write_grid(tmp_path / f"Train400Depth/depth_sph_corr-{name}.mat", seed)
    write_picture(tmp_path / "Test134/img-b-1.jpg", 7)
    write_grid(tmp_path / "Test134Depth/depth_sph_corr-b-1.mat", 7)
    return tmp_path


def names(source):
    return [(sample.name, sample.split) for sample in source.samples()]


def left_out(source):
    return dict(source.skipped())


def test_pairs_are_listed_by_split_and_read_with_their_own_depth(root):
    source = Make3dSource(root=root)
    assert names(source) == [("a-1", "train"), ("a-2", "train"), ("b-1", "test")]
    assert source.skipped() == ()
    assert source.frame_hw() == (460, 345)
    with source.open() as reader:
        for index, seed in enumerate((0, 1, 7)):
            frame = reader.read(index)
            assert frame.aif.shape == (460, 345, 3)
            assert frame.aif.dtype == np.uint8
            expected = grid_of(seed)[..., 2].astype(np.float32)
            # Row 230 of 460 lies in the middle of 55 rows; column 172 of 345 in the middle of 305.
            assert frame.depth_m[230, 172] == expected[27, 152]
            assert frame.depth_m[0, 0] == expected[0, 0]
            assert frame.depth_m[-1, -1] == expected[-1, -1]
            assert set(np.unique(frame.depth_m)) <= set(np.unique(expected))
            laser = read_grid(source.grid_paths()[index])
            np.testing.assert_array_equal(laser.z_m, expected)
            np.testing.assert_array_equal(laser.distance_m, grid_of(seed)[..., 3].astype(np.float32))


def test_every_cell_of_the_grid_is_seen_in_its_own_place(root):
    source = Make3dSource(root=root, size_hw=(110, 610))
    with source.open() as reader:
        depth = reader.read(0).depth_m
    np.testing.assert_array_equal(depth, np.kron(grid_of(0)[..., 2], np.ones((2, 2))).astype(np.float32))


@pytest.mark.parametrize(("picture", "depth"), [("10.21c-9", "c-9"), ("c-9", "10.21c-9"), ("10.2-c-9", "c-9")])
def test_an_extra_number_on_either_side_is_no_obstacle(root, picture, depth):
    write_picture(root / f"Test134/img-{picture}.jpg", 3)
    write_grid(root / f"Test134Depth/Gridlaserdata/depth_sph_corr-{depth}.mat", 3)
    source = Make3dSource(root=root)
    assert ("c-9", "test") in names(source)
    assert source.skipped() == ()
    with source.open() as reader:
        assert reader.read(3).depth_m[0, 0] == np.float32(grid_of(3)[0, 0, 2])


def test_two_candidates_for_one_id_are_left_out_and_not_guessed(root):
    for number in ("10.21", "10.22"):
        write_picture(root / f"Test134/img-{number}c-9.jpg", 3)
    write_grid(root / "Test134Depth/depth_sph_corr-c-9.mat", 3)
    source = Make3dSource(root=root)
    assert len(source.samples()) == 3
    assert set(left_out(source)) == {
        "Test134/img-10.21c-9.jpg",
        "Test134/img-10.22c-9.jpg",
        "Test134Depth/depth_sph_corr-c-9.mat",
    }


def test_numbers_that_differ_on_both_sides_do_not_pair(root):
    write_picture(root / "Test134/img-10.21c-9.jpg", 3)
    write_grid(root / "Test134Depth/depth_sph_corr-10.22c-9.mat", 3)
    assert len(Make3dSource(root=root).skipped()) == 2


def test_copies_count_once_and_different_files_of_one_id_not_at_all(root):
    write_grid(root / "Test134Depth/Gridlaserdata/depth_sph_corr-b-1.mat", 7).write_bytes(
        (root / "Test134Depth/depth_sph_corr-b-1.mat").read_bytes()
    )
    assert len(Make3dSource(root=root).samples()) == 3
    write_grid(root / "Test134Depth/Gridlaserdata/depth_sph_corr-b-1.mat", 8)
    source = Make3dSource(root=root)
    assert names(source) == [("a-1", "train"), ("a-2", "train")]
    assert "2 different files" in left_out(source)["Test134Depth/depth_sph_corr-b-1.mat"]


def test_a_file_without_partner_on_each_side_is_named(root):
    write_picture(root / "Train400Img/img-lone.jpg")
    write_grid(root / "Train400Depth/depth_sph_corr-other.mat")
    write_picture(root / "Train400Img/holiday.jpg")
    source = Make3dSource(root=root)
    assert len(source.samples()) == 3
    assert left_out(source) == {
        "Train400Img/img-lone.jpg": "has no depth file with its id",
        "Train400Depth/depth_sph_corr-other.mat": "has no picture with its id",
        "Train400Img/holiday.jpg": "is not named img-<id>",
    }
    assert ["Train400Img/img-lone.jpg", "has no depth file with its id"] in source.provenance()["skipped"]


@given(
    ids=st.lists(st.from_regex(r"[a-z]{1,4}[0-9]{0,3}-p-[0-9]{1,4}t000", fullmatch=True), unique=True, max_size=12),
    data=st.data(),
)
def test_any_order_of_files_gives_the_same_pairs(ids, data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    pictures, grids = [], []
    for name in ids:
        side = data.draw(st.sampled_from(["neither", "picture", "depth"]))
        pictures.append(folder / f"img-{'10.21' * (side == 'picture')}{name}.jpg")
        grids.append(folder / f"depth_sph_corr-{'10.21' * (side == 'depth')}{name}.mat")
    pairs, left = _pair(data.draw(st.permutations(pictures)), data.draw(st.permutations(grids)))
    assert left == []
    assert [pair.id for pair in pairs] == sorted(ids, key=natural_key)
    for pair in pairs:
        assert pictures.index(pair.image) == grids.index(pair.depth) == ids.index(pair.id)


def test_folders_and_suffixes_are_found_without_regard_to_case(root):
    (root / "Test134").rename(root / "test134")
    (root / "Train400Img/img-a-1.jpg").rename(root / "Train400Img/IMG-a-1.JPG")
    (root / "Train400Depth/depth_sph_corr-a-2.mat").rename(root / "Train400Depth/depth_sph_corr-A-2.MAT")
    assert len(Make3dSource(root=root).samples()) == 3


def test_hidden_files_of_archives_are_not_looked_at(root):
    (root / "Train400Img/._img-a-1.jpg").write_bytes(b"rubbish")
    (root / "Train400Depth/__MACOSX").mkdir()
    (root / "Train400Depth/__MACOSX/depth_sph_corr-a-9.mat").write_bytes(b"rubbish")
    assert Make3dSource(root=root).skipped() == ()


def test_one_split_alone_will_do_but_half_a_split_will_not(root):
    for name in FOLDERS[2:]:
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()
    assert names(Make3dSource(root=root)) == [("a-1", "train"), ("a-2", "train")]
    (root / "Test134").mkdir()
    with pytest.raises(SourceMissingError, match="no folder Test134Depth"):
        Make3dSource(root=root).samples()


def test_a_wrong_root_says_which_folders_are_wanted(tmp_path):
    for wrong in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SourceMissingError) as caught:
            Make3dSource(root=wrong).samples()
        assert all(name in str(caught.value) for name in FOLDERS)


def test_a_picture_of_both_splits_is_kept_for_the_test_only(root):
    write_picture(root / "Train400Img/img-b-1.jpg", 7)
    write_grid(root / "Train400Depth/depth_sph_corr-b-1.mat", 7)
    source = Make3dSource(root=root)
    assert [sample.split for sample in source.samples() if sample.name == "b-1"] == ["test"]
    assert "test split" in left_out(source)["Train400Img/img-b-1.jpg"]


def spoil_text(path):
    path.write_text("no MATLAB file at all\n" * 50)


def spoil_hdf5(path):
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(126) + b"IM" + b"\x89HDF\r\n\x1a\n" + bytes(512))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_text, "not a MATLAB version 5 file"),
        (spoil_hdf5, "7.3"),
        (lambda path: path.write_bytes(b""), "not a MATLAB version 5 file"),
        (lambda path: faults.truncate(path, 0.6), "truncated"),
        (
            lambda path: write_grid(path, name="Position4DGrid"),
            "no variable 'Position3DGrid' (it holds other, Position4DGrid)",
        ),
        (lambda path: write_grid(path, grid=np.zeros((55, 305, 3))), "(55, 305, 3)"),
        (lambda path: write_grid(path, grid=np.zeros((55, 305, 4)) + 1j), "real numbers"),
        (lambda path: write_grid(path, grid="a text"), "real numbers"),
        (lambda path: write_grid(path, grid={"field": 1.0}), "real numbers"),
    ],
)
def test_a_bad_depth_file_is_left_out_with_its_reason_and_the_rest_remains(root, spoil, words):
    bad = root / "Train400Depth/depth_sph_corr-a-1.mat"
    spoil(bad)
    source = Make3dSource(root=root)
    assert names(source) == [("a-2", "train"), ("b-1", "test")]
    reason = left_out(source)["Train400Img/img-a-1.jpg"]
    assert words in reason
    assert bad.name in reason
    assert str(root) not in reason
    with pytest.raises(SourceError, match="depth_sph_corr-a-1"):
        read_grid(bad)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: faults.truncate(path, 0.7),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello"),
    ],
)
def test_a_bad_picture_is_left_out_with_its_reason(root, spoil):
    spoil(root / "Train400Img/img-a-2.jpg")
    source = Make3dSource(root=root)
    assert names(source) == [("a-1", "train"), ("b-1", "test")]
    assert "img-a-2.jpg" in left_out(source)["Train400Img/img-a-2.jpg"]


def test_files_that_break_after_the_listing_give_a_named_error_on_reading(root):
    with Make3dSource(root=root).open() as reader:
        faults.truncate(root / "Train400Img/img-a-1.jpg", 0.5)
        (root / "Train400Depth/depth_sph_corr-a-2.mat").unlink()
        with pytest.raises(SourceError, match=r"img-a-1\.jpg"):
            reader.read(0)
        with pytest.raises(SourceError, match=r"depth_sph_corr-a-2\.mat"):
            reader.read(1)
        reader.read(2)


def test_nothing_left_is_an_error_with_the_first_reason(root):
    for path in root.rglob("*.mat"):
        spoil_text(path)
    with pytest.raises(SourceError, match="3 left out, the first: Train400Img"):
        Make3dSource(root=root).samples()


def test_holes_are_zero_and_saturation_stays(tmp_path):
    grid = grid_of(1)
    grid[0, :5, 3] = [0, -1, np.nan, np.inf, 81.0]
    grid[0, 4:7, 2] = [81.0, 0, -1]
    laser = read_grid(write_grid(tmp_path / "x.mat", grid=grid))
    for depth in laser:
        assert depth.dtype == np.float32
        assert depth[0, :7].tolist() == [0, 0, 0, 0, 81, 0, 0]
        assert (depth[1:] > 0).all()


def test_a_wall_before_the_camera_has_one_depth_and_longer_rays_at_its_edge(root):
    y, x = np.meshgrid(np.linspace(-0.6, 0.6, 55), np.linspace(-0.4, 0.4, 305), indexing="ij")
    wall = np.stack([10 * y, 10 * x, np.full((55, 305), 10.0), 10 * np.sqrt(1 + x**2 + y**2)], -1)
    write_grid(root / "Train400Depth/depth_sph_corr-a-1.mat", grid=wall)
    source = Make3dSource(root=root)
    with source.open() as reader:
        assert (reader.read(0).depth_m == 10).all()
    assert read_grid(source.grid_paths()[0]).distance_m.max() == np.float32(10 * np.sqrt(1 + 0.4**2 + 0.6**2))
    assert source.provenance()["depth"] == "z"


@pytest.mark.parametrize(("hw", "stretched"), [((1704 // 4, 1278 // 4), 0), ((375, 1242), 1)])
def test_pictures_of_another_shape_are_stretched_and_noted(root, hw, stretched):
    write_picture(root / "Test134/img-b-1.jpg", hw=hw)
    source = Make3dSource(root=root)
    assert len(source.notes()) == stretched
    assert all("1242x375" in note and "345x460" in note for note in source.notes())
    with source.open() as reader:
        assert reader.read(2).aif.shape == (460, 345, 3)
    fitting = Make3dSource(root=root, size_hw=(hw[0] // 2, hw[1] // 2))
    assert not any(note.startswith("test") for note in fitting.notes())


def test_the_source_travels_and_its_provenance_follows_the_data(root, tmp_path_factory):
    source = Make3dSource(root=root)
    assert pickle.loads(pickle.dumps(source)) == source
    facts = json.loads(json.dumps(source.provenance()))
    assert str(root) not in json.dumps(facts)
    assert facts["files"]["files"] == 6
    elsewhere = tmp_path_factory.mktemp("copy") / "moved"
    root.rename(elsewhere)
    assert Make3dSource(root=elsewhere).provenance()["files"] == facts["files"]
    write_picture(elsewhere / "Test134/img-b-1.jpg", 99)
    assert Make3dSource(root=elsewhere).provenance()["files"]["sha256"] != facts["files"]["sha256"]


@pytest.mark.parametrize("size", [(0, 345), (460,), (-1, 3)])
def test_an_impossible_size_is_refused(tmp_path, size):
    with pytest.raises(SourceError, match="size_hw"):
        Make3dSource(root=tmp_path, size_hw=size)


@given(
    array=hnp.arrays(
        dtype=st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
        shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=5),
    ),
    compress=st.booleans(),
    name=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,30}", fullmatch=True),
)
def test_the_matlab_reader_agrees_with_the_writer_of_scipy(array, compress, name, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round.mat"
    savemat(path, {"before_it": "hello"} | {name: array} | {"after_it": 1.0}, do_compression=compress)
    np.testing.assert_array_equal(read_matrix(path, name), array)


@pytest.mark.parametrize("compress", [False, True])
def test_a_damaged_matlab_file_never_does_worse_than_a_named_error(tmp_path, compress):
    rng = np.random.default_rng(0)
    whole = write_grid(tmp_path / "x.mat", grid=rng.normal(size=(3, 4, 2)), compress=compress).read_bytes()
    path = tmp_path / "bad.mat"
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        try:
            assert read_matrix(path, "Position3DGrid").dtype.kind in "iuf"
        except SourceError as error:
            assert "bad.mat" in str(error)
            assert "\n" not in str(error)


def pattern(hw=(40, 60)):
    """A picture that changes under every turn and mirroring, smooth so that JPEG keeps it."""
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]]
    return np.stack([x * 4, y * 6, (x + 2 * y) % 120 + 60], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_their_orientation_says(tmp_path, orientation):
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(pattern()).save(path, quality=97, subsampling=0, exif=exif.tobytes())
    wanted = turns[orientation](pattern())
    assert colour_size(path) == wanted.shape[:2]
    assert np.abs(read_colour(path).astype(int) - wanted).mean() < 3


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_colour_mode_become_rgb(tmp_path, mode):
    path = tmp_path / "picture.jpg"
    Image.fromarray(pattern()).convert(mode).save(path, quality=97)
    wanted = np.asarray(Image.fromarray(pattern()).convert(mode).convert("RGB"), int)
    assert np.abs(read_colour(path).astype(int) - wanted).mean() < 4


def test_an_orientation_in_a_png_is_followed_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pattern()).save(tmp_path / "turned.png", exif=exif.tobytes())
    assert colour_size(tmp_path / "turned.png") == (60, 40)
    np.testing.assert_array_equal(read_colour(tmp_path / "turned.png"), pattern()[::-1].swapaxes(0, 1))


def test_alpha_is_dropped_and_16_bit_reduced(tmp_path):
    alpha = np.dstack([pattern(), np.zeros((40, 60), np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    cv2.imwrite(str(tmp_path / "deep.png"), pattern()[..., ::-1].astype(np.uint16) * 257)
    for name in ("alpha.png", "deep.png"):
        np.testing.assert_array_equal(read_colour(tmp_path / name), pattern())


def test_the_street_frames_of_the_real_data_convert(real_data):
    source = Make3dSource(root=real_data / "make3d")
    splits = [sample.split for sample in source.samples()]
    assert [split == "test" for split in splits] == [False] * 5 + [True] * 3
    assert splits.count("val") == 1
    assert {"kitti-000001", "kitti-000080"} <= {sample.name for sample in source.samples()}
    assert [entry.name for entry in source.skipped()] == ["Train400Img/img-op36-p-251t000.jpg"]
    assert len(source.notes()) == 3
    with source.open() as reader:
        for index in range(8):
            frame = reader.read(index)
            assert frame.aif.shape == (460, 345, 3)
            assert frame.depth_m.min() > 2
            assert 80 < frame.depth_m.max() < 82
            # Near at the bottom, far above: neither is upside down.
            assert np.median(frame.depth_m[-40:]) < np.median(frame.depth_m[150:200])
