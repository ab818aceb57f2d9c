"""Whatever zarr opens with the three arrays trains and is scored."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zarr
from rich.console import Console
from stores import random_arrays, write_store
from zarr.codecs import ZstdCodec

from defocus_sim.errors import ShardError
from defocus_sim.lens import Lens
from dfd_train.config.train import recipe_config
from dfd_train.data.stream import ShardDataset
from dfd_train.evaluation.evaluate import EvalConfig, evaluate
from dfd_train.training.train import train

QUIET = Console(quiet=True)


def ours(tmp_path: Path) -> Path:
    write_store(tmp_path / "ours", random_arrays(1, 6, 48, 64), 3, "fast")
    return tmp_path / "ours"


def written_anew(tmp_path: Path) -> Path:
    """A store of ours with other chunks and codecs, its manifest copied along."""
    source = zarr.open_group(ours(tmp_path), mode="r")
    target = zarr.create_group(tmp_path / "anew.zarr", attributes=source.attrs.asdict())
    for split, group in source.groups():
        for name, array in group.arrays():
            target.create_array(f"{split}/{name}", data=array[:], chunks="auto", compressors=[ZstdCodec()])
    return tmp_path / "anew.zarr"


def of_plain_arrays(tmp_path: Path) -> Path:
    """Made by zarr-python alone."""
    root = zarr.create_group(tmp_path / "plain.zarr")
    for name, array in random_arrays(1, 6, 48, 64).items():
        root.create_array(f"train/{name}", data=array)
    return tmp_path / "plain.zarr"


def zipped(tmp_path: Path) -> Path:
    """A store of ours in an archive."""
    return Path(shutil.make_archive(str(tmp_path / "packed"), "zip", ours(tmp_path)))


@pytest.mark.parametrize("made", [written_anew, of_plain_arrays, zipped])
def test_a_store_of_others_trains_and_is_scored(made: Callable[[Path], Path], tmp_path: Path) -> None:
    place = made(tmp_path)
    out = tmp_path / "run"
    options = {"model": "tiny", "size": "48x33", "device": "cpu", "batch_size": 2, "tensorboard": False, "epochs": 1}
    result = train(recipe_config("fast", shards=place, out=out, **options), console=QUIET)
    assert result.steps > 0
    report = evaluate(EvalConfig(shards=str(place), checkpoint=str(out), split="train", device="cpu"), console=QUIET)
    assert len(report.per_image) == 6


def test_the_lens_is_asked_for_only_where_it_is_needed_and_can_be_given(tmp_path: Path) -> None:
    place = of_plain_arrays(tmp_path)
    options = {"model": "tiny", "size": "48x33", "device": "cpu", "batch_size": 2, "tensorboard": False, "epochs": 1}
    config = recipe_config("fast", shards=place, out=tmp_path / "run", lens_input=True, **options)
    with pytest.raises(ShardError, match=r"does not say with which lens .*: give --lens"):
        train(config, console=QUIET)
    lens = Lens.preset("paper")
    lens.save(tmp_path / "lens.toml")
    told = replace(config, lens=str(tmp_path / "lens.toml"), out=str(tmp_path / "told"))
    assert train(told, console=QUIET).steps > 0
    scored = EvalConfig(
        shards=str(place), checkpoint=told.out, split="train", lens=str(tmp_path / "lens.toml"), device="cpu"
    )
    assert len(evaluate(scored, console=QUIET).per_image) == 6
    data = ShardDataset(place, lens=lens)
    assert pickle.loads(pickle.dumps(data)).lens(3) == data.lens(3) == lens
    with pytest.raises(ShardError, match="leave the lens away"):
        ShardDataset(ours(tmp_path), lens=lens)
