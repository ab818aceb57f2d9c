import hashlib
import os

import faults
import h5py
import numpy as np
import pytest
from scipy.io import savemat

from defocus_sim.datasets.files import fingerprint
from defocus_sim.datasets.nyu import NyuSource, require_official_files
from defocus_sim.errors import SourceError, SourceMissingError


def test_frames_have_matlabs_axes_crop_and_holes(nyu_files):
    mat, splits = nyu_files
    with h5py.File(mat) as file:
        images, raw = file["images"][()], file["rawDepths"][()]
    source = NyuSource(path=mat, splits=splits, depth="raw")
    with source.open() as reader:
        frame = reader.read(1)  # the second of train = frame 3 = index 2
    assert source.frame_hw() == (427, 561)
    assert (frame.aif == images[2].transpose(2, 1, 0)[44:471, 40:601]).all()
    assert (frame.depth_m == raw[2].T[44:471, 40:601]).all()
    assert (frame.depth_m == 0).any()
    assert frame.aif.flags.c_contiguous
    assert frame.depth_m.flags.c_contiguous


@pytest.mark.parametrize(("crop", "size"), [("official", (427, 561)), ("eigen", (426, 560)), ("none", (480, 640))])
def test_each_crop_has_its_size(nyu_files, crop, size):
    source = NyuSource(path=nyu_files[0], splits=nyu_files[1], crop=crop)
    with source.open() as reader:
        frame = reader.read(0)
    assert source.frame_hw() == frame.depth_m.shape == frame.aif.shape[:2] == size


def test_the_split_is_one_based_and_train_comes_first(nyu_files):
    samples = NyuSource(path=nyu_files[0], splits=nyu_files[1]).samples()
    assert [(s.name, s.split) for s in samples] == [
        ("0001", "train"),
        ("0003", "train"),
        ("0005", "train"),
        ("0002", "test"),
        ("0004", "test"),
    ]
    assert samples[0].scene == "kitchen_0000"


def test_val_is_whole_scenes_of_the_official_train_and_test_stays_official(tmp_path):
    mat = faults.write_nyu(tmp_path / "a.mat", 24)
    splits = faults.write_splits(tmp_path / "s.mat", train=[*range(1, 17)], test=[*range(17, 25)])
    source = NyuSource(path=mat, splits=splits, val_fraction=0.25)
    samples = source.samples()
    assert [s.name for s in samples] == [f"{number:04d}" for number in range(1, 25)]
    assert [s.split for s in samples[16:]] == ["test"] * 8
    scenes = {split: {s.scene for s in samples if s.split == split} for split in ("train", "val", "test")}
    assert len(scenes["val"]) == 2
    assert not scenes["val"] & (scenes["train"] | scenes["test"])
    assert source.notes() == ("val: 4 of the 16 training frames, by scene (2 scenes), drawn with seed 0",)
    assert source.samples() == samples
    assert NyuSource(path=mat, splits=splits, val_fraction=0.25, seed=1).samples() != samples
    assert all(s.split == "train" for s in NyuSource(path=mat, splits=splits, val_fraction=0).samples()[:16])
    with source.open() as reader, NyuSource(path=mat, splits=splits, val_fraction=0).open() as other:
        assert all((reader.read(i).aif == other.read(i).aif).all() for i in (0, 7, 15, 23))


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(nyu_files, fraction):
    with pytest.raises(SourceError, match="val_fraction"):
        NyuSource(path=nyu_files[0], val_fraction=fraction)


def test_without_a_split_everything_is_train(nyu_files):
    assert {s.split for s in NyuSource(path=nyu_files[0]).samples()} == {"train"}


def test_a_file_without_scene_names_is_as_good(tmp_path):
    samples = NyuSource(path=faults.write_nyu(tmp_path / "a.mat", 2, scenes=False)).samples()
    assert [s.scene for s in samples] == ["0001", "0002"]


def test_non_finite_and_negative_depths_become_holes(tmp_path):
    path = faults.write_nyu(tmp_path / "a.mat", 1)
    with h5py.File(path, "r+") as file:
        file["depths"][0, 100, 100:104] = [np.nan, np.inf, -1, 2.5]
    with NyuSource(path=path, crop="none").open() as reader:
        assert reader.read(0).depth_m[100:104, 100].tolist() == [0, 0, 0, 2.5]


def test_the_checksum_of_a_file_that_changed_is_new(tmp_path):
    path = tmp_path / "a"
    seen = set()
    for second, content in enumerate((b"one", b"two", b"three", b"four", b"five")):
        path.write_bytes(content)
        if second >= 3:
            os.utime(path, (1e9 + second, 1e9 + second))
        assert fingerprint(path)["sha256"] == fingerprint(path)["sha256"] == hashlib.sha256(content).hexdigest()
        seen.add(fingerprint(path)["sha256"])
    assert len(seen) == 5


def test_provenance_knows_the_files_by_content_not_by_place(nyu_files, tmp_path):
    facts = NyuSource(path=nyu_files[0], splits=nyu_files[1]).provenance()
    assert facts["file"]["bytes"] == nyu_files[0].stat().st_size
    assert len(facts["file"]["sha256"]) == 64
    assert str(tmp_path) not in repr(facts)


@pytest.mark.parametrize(
    ("train", "test", "word"),
    [([1, 6], [2], "frame 6"), ([0, 1], [2], "frame 0"), ([1, 2], [2], "frame 2 more than once"), ([], [], "no frame")],
)
def test_a_split_that_cannot_be_is_refused(nyu_files, tmp_path, train, test, word):
    splits = faults.write_splits(tmp_path / "other.mat", train, test)
    with pytest.raises(SourceError, match=word):
        NyuSource(path=nyu_files[0], splits=splits).samples()


def test_a_split_file_of_another_kind_is_refused(nyu_files, tmp_path):
    other = tmp_path / "other.mat"
    savemat(other, {"ndxs": [1]})
    with pytest.raises(SourceError, match="trainNdxs"):
        NyuSource(path=nyu_files[0], splits=other).samples()
    other.write_text("train: 1, 2")
    with pytest.raises(SourceError, match=r"other\.mat"):
        NyuSource(path=nyu_files[0], splits=other).samples()


@pytest.mark.parametrize("keep", [0.0, 0.00001, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(nyu_files, keep):
    faults.truncate(nyu_files[0], keep)
    with pytest.raises(SourceError, match=r"labelled\.mat"):
        NyuSource(path=nyu_files[0], splits=nyu_files[1]).samples()


def test_a_mat_of_another_kind_is_refused(tmp_path):
    version_5, text, hdf5 = tmp_path / "v5.mat", tmp_path / "text.mat", tmp_path / "other.mat"
    savemat(version_5, {"images": np.zeros(3)})
    text.write_text("not a mat")
    with h5py.File(hdf5, "w") as file:
        file["images"] = np.zeros((2, 640, 480, 3), np.uint8)
        file["depths"] = file["rawDepths"] = np.zeros((2, 640, 480), np.float32)
    for path, word in ((version_5, "HDF5"), (text, "HDF5"), (hdf5, "images is uint8")):
        with pytest.raises(SourceError, match=word):
            NyuSource(path=path).samples()


@pytest.mark.parametrize(("kept", "depth", "other"), [("depths", "filled", "raw"), ("rawDepths", "raw", "filled")])
def test_a_file_with_the_two_arrays_that_are_read_will_do(nyu_files, tmp_path, kept, depth, other):
    whole, subset = nyu_files[0], tmp_path / "subset.mat"
    with h5py.File(whole) as file, h5py.File(subset, "w") as copy:
        for name in ("images", kept):
            copy.create_dataset(name, data=file[name][()], compression="gzip")
    with NyuSource(path=whole, depth=depth).open() as ours, NyuSource(path=subset, depth=depth).open() as theirs:
        for index in range(2):
            one, two = ours.read(index), theirs.read(index)
            np.testing.assert_array_equal(one.aif, two.aif)
            np.testing.assert_array_equal(one.depth_m, two.depth_m)
    with pytest.raises(SourceError, match=f"--depth {depth}"):
        NyuSource(path=subset, depth=other).samples()


def test_a_damaged_frame_is_named(nyu_files):
    with h5py.File(nyu_files[0]) as file:
        chunk = file["images"].id.get_chunk_info_by_coord((3, 0, 0, 0))
        offset = 512 + chunk.byte_offset if chunk.byte_offset < 512 else chunk.byte_offset
    for shift in range(2, 60):
        faults.flip_byte(nyu_files[0], 512 + offset + shift)
    with (
        NyuSource(path=nyu_files[0], splits=nyu_files[1]).open() as reader,
        pytest.raises(SourceError, match="frame 4 cannot be read"),
    ):
        [reader.read(i) for i in range(5)]


def test_official_files_are_found_where_people_keep_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DFD_DATA", raising=False)
    with pytest.raises(SourceMissingError, match=r"nyu_depth_v2_labeled\.mat.*NYU Depth Dataset V2"):
        require_official_files()
    elsewhere = tmp_path / "elsewhere"
    for folder in (elsewhere, tmp_path / "data", tmp_path):
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("DFD_DATA", str(elsewhere))
        (folder / "nyu_depth_v2_labeled.mat").touch()
        with pytest.raises(SourceMissingError, match=r"splits\.mat"):
            require_official_files()
        (folder / "splits.mat").touch()
        assert [p.resolve() for p in require_official_files()] == [
            folder / "nyu_depth_v2_labeled.mat",
            folder / "splits.mat",
        ]
        (folder / "splits.mat").unlink()
    assert require_official_files(everything_in_train=True)[1] is None


def test_real_lossless_frame_matches_its_published_pieces(real_data, tmp_path):
    """Frame 0 of the real set, through a real-layout file, equals the lossless originals after the crop."""
    import subprocess
    import sys

    import cv2

    mat = tmp_path / "real.mat"
    subprocess.run([sys.executable, str(real_data / "make_nyu_mat.py"), str(mat), "--frames", "0:1"], check=True)
    with NyuSource(path=mat).open() as reader:
        frame = reader.read(0)
    rgb = cv2.imread(str(real_data / "nyu/precise/labelled0000_rgb.png"))[44:471, 40:601, ::-1]
    depth = np.load(real_data / "nyu/precise/labelled0000_depth_m.npy")[44:471, 40:601]
    assert (frame.aif == rgb).all()
    np.testing.assert_allclose(frame.depth_m, depth, rtol=1e-6)
