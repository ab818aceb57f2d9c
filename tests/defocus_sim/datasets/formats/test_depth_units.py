"""The numbers of a depth file become metres of z; what means nothing becomes a hole, and what looks odd is said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from dfd_cli.prepare import main
from PIL import Image

from defocus_sim.datasets.formats.depth_units import DepthUnits, metres
from defocus_sim.datasets.rgbd_folder import RgbdFolderSource
from defocus_sim.errors import SourceError, SourceMissingError
from defocus_sim.shards.store import open_store

HW = (24, 32)
DEPTH = np.ascontiguousarray(np.broadcast_to(np.linspace(1, 4, 32, dtype=np.float32), HW))
HOLE = np.zeros(HW, bool)
HOLE[5:15, 8:20] = True


@pytest.mark.parametrize(
    ("mark", "kind", "scale"),
    [
        (65535, np.uint16, 0.001), (32767, np.int16, 0.001), (2**31 - 1, np.int32, 0.001), (2**32 - 1, np.uint32, 0.001),
        (32767, np.uint16, 0.001), (0, np.uint16, 0.001), (-1, np.int16, 0.001), (65504, np.float16, 1),
        (1e10, np.float32, 1), (1e38, np.float32, 1), (np.finfo(np.float32).max, np.float32, 1), (1e9, np.float64, 1),
        (999, np.float32, 1), (10000, np.float32, 1), (65535, np.float32, 1), (-1, np.float32, 1), (-9999, np.float32, 1),
        (np.nan, np.float32, 1), (np.inf, np.float64, 1), (-np.inf, np.float32, 1), (1e300, np.float64, 1),
    ],
)  # fmt: skip
def test_marks_for_nothing_are_holes_and_the_rest_stays(mark: float, kind: type, scale: float) -> None:
    stored = (DEPTH / scale).astype(kind)
    stored[HOLE] = mark
    read = metres(stored, scale, DepthUnits())
    assert (read.depth_m[HOLE] == 0).all()
    np.testing.assert_allclose(read.depth_m[~HOLE], DEPTH[~HOLE], rtol=2e-3)
    # What the numbers alone do not tell is said.
    assert bool(read.notes) == bool(np.isfinite(mark) and mark > 0)
    if read.notes and mark < 1e5:
        kept = metres(stored, scale, DepthUnits(guess=False))
        assert (kept.depth_m[HOLE] > 9).all()


@pytest.mark.parametrize("far", [4.5, 8.0, 9.9])
def test_two_walls_stay_two_walls(far: float) -> None:
    walls = np.where(HOLE, np.float32(far), np.float32(3.5))
    np.testing.assert_array_equal(metres(walls, 1.0, DepthUnits()).depth_m, walls)
    np.testing.assert_allclose(metres((walls * 1000).astype(np.uint16), 0.001, DepthUnits()).depth_m, walls, rtol=1e-6)


@pytest.mark.parametrize("mark", [77.0, 500.0, 0.0001])
def test_an_unknown_number_far_from_the_rest_is_kept_and_named(mark: float) -> None:
    read = metres(np.where(HOLE, np.float32(mark), DEPTH), 1.0, DepthUnits())
    assert (read.depth_m[HOLE] == np.float32(mark)).all()
    assert any(f"--depth-invalid {mark:g}" in note for note in read.notes)
    told = metres(np.where(HOLE, np.float32(mark), DEPTH), 1.0, DepthUnits(invalid=(mark,)))
    assert (told.depth_m[HOLE] == 0).all()
    assert told.notes == ()


CAMERA = (40.0, 44.0, 15.0, 11.0)


def test_each_kind_of_depth_becomes_z() -> None:
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    ray = DEPTH * np.sqrt(1 + ((columns - 15) / 40) ** 2 + ((rows - 11) / 44) ** 2)
    disparity = 40.0 * 0.12 / DEPTH - 0.25
    for stored, scale, units in (
        (ray, 1.0, DepthUnits(kind="ray", intrinsics=CAMERA)),
        (np.rint(ray * 1e4).astype(np.uint16), 1e-4, DepthUnits(kind="ray", intrinsics=CAMERA)),
        (disparity, 1.0, DepthUnits(kind="disparity", intrinsics=CAMERA, baseline_m=0.12, disparity_offset_px=0.25)),
        (
            disparity * 256,
            1 / 256,
            DepthUnits(kind="disparity", intrinsics=CAMERA, baseline_m=0.12, disparity_offset_px=0.25),
        ),
        (1 / DEPTH, 1.0, DepthUnits(kind="inverse")),
    ):
        np.testing.assert_allclose(metres(stored, scale, units).depth_m, DEPTH, rtol=1e-3)
        assert metres(np.where(HOLE, 0, stored), scale, units).depth_m[HOLE].max() == 0


def test_shuffled_bits_are_put_back_and_refused_or_named_without_a_word() -> None:
    millimetres = (DEPTH * 1000 + np.random.default_rng(0).integers(0, 9, HW)).astype(np.uint16)
    rotated = (millimetres << 3) | (millimetres >> 13)
    for stored, bits in (
        (rotated, "rotated"),
        ((millimetres << 3) | 5, "shifted"),
        (millimetres.byteswap(), "swapped"),
    ):
        np.testing.assert_allclose(metres(stored, 0.001, DepthUnits(bits=bits)).depth_m, millimetres / 1000, rtol=1e-5)
    with pytest.raises(SourceError, match="--depth-bits swapped"):
        metres(millimetres.byteswap(), 0.001, DepthUnits())
    assert any("multiple of 8" in note for note in metres(rotated, 0.001, DepthUnits()).notes)
    assert metres(millimetres, 0.001, DepthUnits()).notes == ()
    with pytest.raises(SourceError, match="16-bit"):
        metres(DEPTH, 1.0, DepthUnits(bits="swapped"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": "ray"}, "--intrinsics"), ({"kind": "disparity", "intrinsics": CAMERA}, "--baseline"),
        ({"kind": "depth"}, "choose one of"), ({"bits": "odd"}, "choose one of"),
        ({"kind": "ray", "intrinsics": (0.0, 1.0, 1.0, 1.0)}, "above 0"),
        ({"kind": "disparity", "intrinsics": CAMERA, "baseline_m": -1.0}, "--baseline"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict, word: str) -> None:
    with pytest.raises(SourceError, match=word):
        DepthUnits(**options)


def colour(path: Path, hw: tuple[int, int] = HW, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = Image.Exif()
    tag[274] = orientation
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(cv2.resize(small, hw[::-1])).save(path, exif=tag.tobytes())
    return path


def test_masks_of_diodes_layout_are_holes(tmp_path: Path) -> None:
    colour(tmp_path / "scene/a.png")
    np.save(tmp_path / "scene/a_depth.npy", DEPTH[..., None])
    np.save(tmp_path / "scene/a_depth_mask.npy", (~HOLE).astype(np.float64))
    source = RgbdFolderSource(root=tmp_path, mask_dir=tmp_path)
    assert [sample.name for sample in source.samples()] == ["scene/a"]
    assert source.skipped() == ()
    with source.open() as reader:
        np.testing.assert_array_equal(reader.read(0).depth_m, np.where(HOLE, 0, DEPTH))
    before = source.provenance()["files"]["sha256"]
    np.save(tmp_path / "scene/a_depth_mask.npy", HOLE)
    changed = RgbdFolderSource(root=tmp_path, mask_dir=tmp_path)
    assert changed.provenance()["files"]["sha256"] != before
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/a.png"), np.where(HOLE, 0, 255).astype(np.uint8))
    with RgbdFolderSource(root=tmp_path, mask_dir=tmp_path / "masks").open() as reader:
        np.testing.assert_array_equal(reader.read(0).depth_m, np.where(HOLE, 0, DEPTH))
    (tmp_path / "masks/a.png").unlink()
    with pytest.raises(SourceError, match="no mask"):
        RgbdFolderSource(root=tmp_path, mask_dir=tmp_path / "masks").samples()
    with pytest.raises(SourceMissingError, match="nowhere"):
        RgbdFolderSource(root=tmp_path, mask_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 8])
def test_depth_of_the_stored_picture_is_turned_with_it(tmp_path: Path, orientation: int) -> None:
    colour(tmp_path / "a.jpg", orientation=orientation)
    np.save(tmp_path / "a.npy", DEPTH)
    back = {2: DEPTH[:, ::-1], 3: DEPTH[::-1, ::-1], 5: DEPTH.T, 6: np.rot90(DEPTH, -1), 8: np.rot90(DEPTH)}
    asked = RgbdFolderSource(root=tmp_path, turn_depth=True)
    with asked.open() as reader:
        np.testing.assert_array_equal(reader.read(0).depth_m, back[orientation])
    told = RgbdFolderSource(root=tmp_path)
    with told.open() as reader:
        # A quarter turn is seen by the shape, others are only said.
        wanted = back[orientation] if orientation >= 5 else DEPTH
        np.testing.assert_array_equal(reader.read(0).depth_m, wanted)
    assert any(("is turned" if orientation >= 5 else "--turn-depth") in note for note in told.notes())
    np.save(tmp_path / "a.npy", np.ascontiguousarray(back[orientation]))
    with RgbdFolderSource(root=tmp_path).open() as reader:
        np.testing.assert_array_equal(reader.read(0).depth_m, back[orientation])


def dfd_prepare(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


LENS = ("--focal-length", "50mm", "--aperture", "f/1.4", "--focus", "2m", "--sensor-width", "36mm", "--workers", "1")


def test_the_command_takes_units_kinds_and_marks_and_shows_the_depth(tmp_path: Path) -> None:
    colour(tmp_path / "in/a.png")
    cv2.imwrite(str(tmp_path / "in/a.depth.png"), np.where(HOLE, 7777, DEPTH * 1000).astype(np.uint16))
    where = ("rgbd", tmp_path / "in", "--out", tmp_path / "s.zarr", "--overwrite", *LENS)
    result = dfd_prepare(*where, "--depth-scale", "1mm", "--depth-invalid", "7777")
    assert result.exit_code == 0, result.output
    assert "depth      1 to 4 m (1 % below 1" in result.output
    stored = open_store(tmp_path / "s.zarr").split("train").read(range(1))["depth_m"][0]
    assert (stored[HOLE] == 0).all()
    np.testing.assert_allclose(stored[~HOLE], DEPTH[~HOLE], atol=1e-3)
    result = dfd_prepare(*where, "--depth-scale", "0.1", "--depth-invalid", "7777")
    assert "1000 times too large" in result.output
    result = dfd_prepare(*where, "--depth-scale", "0.00003", "--depth-invalid", "7777")
    assert "px are nearer than the focal length" in result.output
    for wrong, word in (
        (("--depth-kind", "ray", "--depth-scale", "1mm"), "--intrinsics"),
        (("--depth-kind", "inverse", "--depth-scale", "1mm"), "plain number"),
        (("--depth-invalid", "much"), "no list of numbers"),
        (("--intrinsics", "1,2"), "FX,FY,CX,CY"),
        (("--depth-scale", "1furlong"), "--depth-scale"),
    ):
        result = dfd_prepare(*where, *wrong)
        assert (result.exit_code, word in result.output + result.stderr) == (2, True), (wrong, result.output)


def test_most_of_the_frame_out_of_reach_is_a_warning(tmp_path: Path) -> None:
    colour(tmp_path / "in/a.png")
    np.save(tmp_path / "in/a.npy", np.full(HW, 0.3, np.float32))
    result = dfd_prepare("rgbd", tmp_path / "in", "--out", tmp_path / "s.zarr", *LENS)
    assert result.exit_code == 0, result.output
    assert "beyond a tenth of the frame" in result.output
