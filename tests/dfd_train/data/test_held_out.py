"""What is trained on and what is watched: never the same scene, and never the test split."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.shards.split import ShardSplit
from dfd_train.config.model import variant
from dfd_train.config.train import TrainConfig, recipe_config
from dfd_train.data.focus_pairs import FocusPairs
from dfd_train.data.held_out import train_and_val
from dfd_train.data.stream import ShardDataset
from dfd_train.errors import ConfigError
from dfd_train.training.train import train

Textured = Callable[..., RgbdFrame]
TINY = variant("tiny")


@pytest.fixture
def without_val(make_store: Callable[..., Path], textured: Textured) -> Path:
    rng = np.random.default_rng(3)
    frames = {name: [textured(rng, 48, 64) for _ in range(count)] for name, count in (("train", 20), ("test", 3))}
    return make_store(frames)


def config_of(store: Path, out: Path, **options: object) -> TrainConfig:
    small = {"model": "tiny", "size": "48x33", "epochs": 1, "device": "cpu", "batch_size": 5, "tensorboard": False}
    return recipe_config("fast", shards=store, out=out, **small | options)


def test_the_stores_own_val_split_is_taken_as_it_is(store: Path) -> None:
    found = train_and_val(TINY, store, 0.1)
    assert found.val is not None
    assert (len(found.train), len(found.val), found.val.names[0]) == (10, 5, "val-000")
    assert "the store's val split, 5 samples" in found.told


def test_without_one_a_part_of_train_is_held_out_and_said_aloud(without_val: Path) -> None:
    whole = ShardDataset(without_val)
    found = train_and_val(TINY, without_val, 0.2)
    assert found.val is not None
    assert (len(found.train), len(found.val)) == (16, 4)
    assert sorted(found.train.names + found.val.names) == sorted(whole.names)
    assert "4 of its 20 training samples (4 scenes" in found.told
    again = train_and_val(TINY, without_val, 0.2)
    assert again.val is not None
    assert again.val.names == found.val.names
    for part in (found.train, found.val, pickle.loads(pickle.dumps(found.val))):
        for index, name in enumerate(part.names):
            where = whole.names.index(name)
            assert torch.equal(part[index]["aif"], whole[where]["aif"])
            assert part.lens(index) == whole.lens(where)
            assert part.focus_distance_m[index] == whole.focus_distance_m[where]


def test_the_frames_of_a_stack_are_held_out_whole(stack: Path) -> None:
    for model in (TINY, variant("song-tiny")):
        found = train_and_val(model, stack, 0.25)
        assert found.val is not None
        frames = [{name.partition("@")[0] for name in part.names} for part in (found.train, found.val)]
        assert [len(names) for names in frames] == [3, 1]
        assert not frames[0] & frames[1]
    assert isinstance(found.val, FocusPairs)
    pair = found.val.read(np.array([0]))
    singles = ShardDataset(stack)
    near = singles.names.index(f"{found.val.names[0]}@1m")
    assert torch.equal(pair.defocused[0, ..., :3], singles[near]["defocused"])
    assert np.array_equal(found.val.read_depth_m(np.array([0]))[0], singles[near]["depth_m"])


@pytest.mark.parametrize(("fraction", "count", "why"), [(0.0, 20, "--val-fraction 0"), (0.5, 3, "fewer than 4")])
def test_nothing_is_held_out_where_nothing_can_be(
    make_store: Callable[..., Path], textured: Textured, fraction: float, count: int, why: str
) -> None:
    rng = np.random.default_rng(3)
    found = train_and_val(TINY, make_store({"train": [textured(rng, 48, 64) for _ in range(count)]}), fraction)
    assert found.val is None
    assert len(found.train) == count
    assert why in found.told


def test_a_share_that_is_none_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="val_fraction=1"):
        config_of(store, tmp_path / "run", val_fraction=1.0)


@pytest.mark.parametrize("own_val", [True, False])
def test_training_never_reads_the_test_split(
    store: Path, without_val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_val: bool
) -> None:
    read: set[str] = set()
    fill = ShardSplit.fill

    def watched(self: ShardSplit, *arguments: object) -> None:
        read.add(self.name)
        fill(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardSplit, "fill", watched)
    console = Console(record=True, force_terminal=False, width=200)
    config = config_of(store if own_val else without_val, tmp_path / "run", validate_every=1, val_fraction=0.2)
    result = train(config, console=console)
    assert read == ({"train", "val"} if own_val else {"train"})
    assert {"rmse", "psnr"} <= result.validation.keys()
    assert (tmp_path / "run/checkpoints/best.pt").is_file()
    with open(tmp_path / "run/metrics.csv") as file:
        assert float(next(csv.DictReader(file))["val_rmse"]) == pytest.approx(result.validation["rmse"])
    said = console.export_text()
    assert ("val split, 5 samples" if own_val else "4 of its 20 training samples") in said
    assert "(mean depth " in said
    assert "(input " in said
