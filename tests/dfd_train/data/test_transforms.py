from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dfd_train.config.geometry import Geometry, read_crop
from dfd_train.data.stream import Batch
from dfd_train.data.transforms import evaluation_frames, resize, to_frames, training_frames
from dfd_train.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    # Position is written into every array, so that a test sees whether they moved together.
    depth = np.arange(48 * 64, dtype=np.float32).reshape(48, 64) + 1
    image = np.random.default_rng(0).integers(0, 256, (2, 6, 48, 64, 3), dtype=np.uint8)
    image[..., 0] = np.arange(64) * 4
    image[..., 1] = np.arange(48)[:, None] * 4
    defocused, aif = torch.from_numpy(image)
    return Batch(np.arange(6), defocused, aif, torch.from_numpy(depth).repeat(6, 1, 1))


def test_bytes_become_the_unit_range_channels_first(batch: Batch) -> None:
    frames = to_frames(batch, CPU)
    assert frames.aif.shape == (6, 3, 48, 64)
    assert frames.depth_m.shape == (6, 1, 48, 64)
    assert torch.equal((frames.aif * 255).round().byte().permute(0, 2, 3, 1), batch.aif)


def test_resizing_keeps_holes_invents_no_depth_and_leaves_images_in_range() -> None:
    rng = np.random.default_rng(1)
    depth = torch.from_numpy(rng.choice([0.0, 1.5, 7.0], (1, 60, 80)).astype(np.float32))
    image = torch.from_numpy(rng.integers(0, 256, (1, 60, 80, 3), dtype=np.uint8))
    frames = resize(to_frames(Batch(np.arange(1), image, image, depth), CPU), (24, 36))
    assert set(frames.depth_m.unique().tolist()) == {0.0, 1.5, 7.0}
    assert frames.aif.min() >= 0
    assert frames.aif.max() <= 1


def test_shrinking_takes_the_nearest_centre_and_averages_images() -> None:
    depth = torch.arange(36.0).reshape(1, 6, 6)
    rng = np.random.default_rng(2)
    image = torch.from_numpy(cv2.GaussianBlur(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8), (0, 0), 3))[None]
    assert resize(
        to_frames(Batch(np.arange(1), image, image, depth), CPU)._replace(depth_m=depth[:, None]), (2, 2)
    ).depth_m[0, 0].tolist() == [[7, 10], [25, 28]]
    small = evaluation_frames(Batch(np.arange(1), image, image, torch.ones(1, 60, 60)), (20, 20), CPU).aif
    area = cv2.resize(image[0].numpy(), (20, 20), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    assert np.abs(small[0].permute(1, 2, 0).numpy() - area).max() < 0.02


def test_native_size_changes_nothing(batch: Batch) -> None:
    for size in (None, (48, 64)):
        assert torch.equal(evaluation_frames(batch, size, CPU).aif, to_frames(batch, CPU).aif)


def positions(frames: object) -> list[tuple[np.ndarray, np.ndarray]]:
    """(row, column) of every pixel as the images say it, checked against what the depth says."""
    result = []
    for aif, defocused, depth in zip(frames.aif, frames.defocused, frames.depth_m, strict=True):
        column, row = ((aif[k] * 255 / 4).round().long().numpy() for k in (0, 1))
        flat = depth[0].long().numpy() - 1
        assert np.array_equal(flat, row * 64 + column)
        assert torch.equal(aif[:2], defocused[:2])
        result.append((row, column))
    return result


def test_flips_move_the_three_arrays_together_and_only_left_and_right(batch: Batch) -> None:
    flipped = []
    for epoch in range(8):
        frames = training_frames(batch, Geometry(size=None), CPU, seed=1, epoch=epoch)
        for row, column in positions(frames):
            assert np.array_equal(row, np.mgrid[:48, :64][0])
            flipped.append(column[0, 0] == 63)
            assert np.array_equal(column[0], np.arange(64)[:: -1 if flipped[-1] else 1])
    assert 12 < sum(flipped) < 36


def test_crops_are_windows_at_native_resolution(batch: Batch) -> None:
    geometry = Geometry(size=None, crop=(33, 40), flip=0.5)
    corners = set()
    for epoch in range(5):
        for row, column in positions(training_frames(batch, geometry, CPU, seed=0, epoch=epoch)):
            assert row.shape == (33, 40)
            assert np.array_equal(row - row[0, 0], np.mgrid[:33, :40][0])
            corners.add((row[0, 0], column.min()))
    assert len(corners) > 15


def test_what_happens_to_a_sample_depends_on_seed_epoch_and_sample_only(batch: Batch) -> None:
    geometry = Geometry(size=None, crop=(36, 36))
    whole = training_frames(batch, geometry, CPU, seed=5, epoch=2)
    order = [4, 1]
    part = Batch(batch.indices[order], batch.defocused[order], batch.aif[order], batch.depth_m[order])
    alone = training_frames(part, geometry, CPU, seed=5, epoch=2)
    assert torch.equal(alone.depth_m, whole.depth_m[order])
    other = training_frames(batch, geometry, CPU, seed=5, epoch=3)
    assert not torch.equal(other.depth_m, whole.depth_m)


def test_no_flips_where_none_are_wanted(batch: Batch) -> None:
    frames = training_frames(batch, Geometry(size=None, flip=0), CPU, seed=0, epoch=0)
    assert torch.equal(frames.depth_m, to_frames(batch, CPU).depth_m)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (64, 64), "crop": (64, 64)}, "exclude each other"),
        ({"size": (32, 64)}, "at least 33"),
        ({"size": None, "crop": (8, 8)}, "at least 33"),
        ({"flip": 1.5}, "flip"),
    ],
)
def test_an_impossible_geometry_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Geometry(**settings)


def test_a_crop_larger_than_the_frames_names_both() -> None:
    with pytest.raises(ConfigError, match="crop=64x50 is larger than the store's frames, 64x48"):
        Geometry(size=None, crop=(50, 64)).check_frame((48, 64))
    with pytest.raises(ConfigError, match="give --size"):
        Geometry(size=None).check_frame((20, 64))


def test_sizes_are_width_times_height() -> None:
    assert read_crop("256") == (256, 256)
    assert read_crop("256x192") == (192, 256)
    for wrong in ("", "a", "1x2x3", "12.5", "-3"):
        with pytest.raises(ConfigError, match="width x height"):
            read_crop(wrong)


@pytest.mark.parametrize("resized", [evaluation_frames, "training"])
def test_detail_that_is_too_fine_for_the_smaller_picture_is_averaged_away(resized: object) -> None:
    board = (np.indices((64, 96)).sum(0) % 2 * 255).astype(np.uint8)
    image = torch.from_numpy(board[..., None].repeat(3, -1))[None]
    batch = Batch(np.arange(1), image, 255 - image, torch.ones(1, 64, 96))
    # Not a whole share of the sides, at which picked pixels could happen to look like their mean.
    size = (36, 50)
    if resized == "training":
        frames = training_frames(batch, Geometry(size=size), CPU, seed=0, epoch=0)
    else:
        frames = evaluation_frames(batch, size, CPU)
    for picture in (frames.defocused, frames.aif):
        # Picked instead of averaged, neighbours would differ by up to 1.
        assert float((picture - 0.5).abs().max()) < 0.15


def test_crops_reach_every_row_and_column_about_as_often(batch: Batch) -> None:
    geometry = Geometry(size=None, crop=(45, 60), flip=0.0)
    tops, lefts = np.zeros(4, int), np.zeros(5, int)
    for epoch in range(60):
        for row, column in positions(training_frames(batch, geometry, CPU, seed=0, epoch=epoch)):
            tops[row[0, 0]] += 1
            lefts[column[0, 0]] += 1
    # 360 windows; far from none for the first and the last place.
    assert tops.min() > 60
    assert lefts.min() > 45
