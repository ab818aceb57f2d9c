"""Beginning from another run, going on where something is, and what is logged on the way."""

from __future__ import annotations

import csv
import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from defocus_sim.datasets.base import RgbdFrame
from dfd_train.config.model import ModelConfig
from dfd_train.config.train import TrainConfig, recipe_config
from dfd_train.errors import CheckpointError, CheckpointMissingError, ConfigError
from dfd_train.runs.checkpoint import find_checkpoint, load_checkpoint
from dfd_train.runs.run_folder import run_config
from dfd_train.runs.weights_file import write_weights
from dfd_train.training.launch import start
from dfd_train.training.train import TrainResult, train

SMALL: dict[str, Any] = {
    "model": "tiny", "size": "48x33", "device": "cpu", "batch_size": 5, "tensorboard": False, "validate_every": 0,
}  # fmt: skip


def configured(store: Path, out: Path, **options: Any) -> TrainConfig:
    return recipe_config("fast", shards=store, out=out, **{**SMALL, "epochs": 1, **options})


def trained(config: TrainConfig) -> tuple[TrainResult, str]:
    console = Console(record=True, force_terminal=False, width=400)
    return train(config, console=console), console.export_text()


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    trained(configured(store, out, epochs=2))
    return out


def start_weights(store: Path, out: Path, **options: Any) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of a run after one step that changes nothing that is learnt, and what it said."""
    _, said = trained(configured(store, out, lr=1e-30, **options))
    return load_checkpoint(find_checkpoint(f"{out}@last")).weights, said


@pytest.mark.parametrize("which", ["run", "last", "file"])
def test_every_tensor_that_fits_is_taken_over_and_counted(run: Path, store: Path, tmp_path: Path, which: str) -> None:
    place = {"run": str(run), "last": f"{run}@last", "file": str(run / "checkpoints/best.pt")}[which]
    weights, said = start_weights(store, tmp_path / "b", init_from=place)
    wanted = load_checkpoint(find_checkpoint(place)).evaluated
    learnt = [name for name in wanted if name.endswith("weight")]
    assert all(torch.allclose(weights[name], wanted[name], atol=1e-6) for name in learnt)
    assert f"{len(wanted)} of {len(wanted)} tensors taken over from {find_checkpoint(place)}" in said


def test_other_heads_take_what_they_share(run: Path, store: Path, tmp_path: Path) -> None:
    weights, said = start_weights(store, tmp_path / "b", init_from=str(run), heads="depth")
    assert f"{len(weights)} of {len(weights)} tensors" in said
    depth_only = tmp_path / "b"
    both, said = start_weights(store, tmp_path / "c", init_from=str(depth_only), heads="both")
    assert f"{len(weights)} of {len(both)} tensors" in said
    assert "as a new network begins: " in said


def test_a_run_that_begins_with_other_weights_has_their_model_unless_it_names_one(store: Path, tmp_path: Path) -> None:
    def begun(name: str, **options: Any) -> ModelConfig:
        quiet: dict[str, Any] = {**SMALL, "recipe": "fast", "epochs": 1, "console": Console(quiet=True)}
        start(shards=store, out=tmp_path / name, **{**quiet, **options})
        return run_config(tmp_path / name).model

    first = begun("first", predict="coc", uncertainty=True, lens_input=True, lens_hidden=0.5)
    again = {"init_from": str(tmp_path / "first"), "model": None}
    assert begun("same", **again) == first
    assert begun("same", **again, resume="auto") == first
    assert begun("depth", **again, heads="depth") == replace(first, heads=("depth",))
    assert begun("tiny", init_from=str(tmp_path / "first"), model="tiny").predict == "depth"


def test_another_lens_and_more_epochs_are_a_new_run(
    run: Path, make_store: Callable[..., Path], textured: Callable[..., RgbdFrame], tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    other = make_store({"train": [textured(rng, 48, 64) for _ in range(6)]}, aperture_mm=80.0)
    result, said = trained(configured(other, tmp_path / "b", init_from=str(run), epochs=3))
    assert result.epochs == 3
    assert "tensors taken over" in said


def test_plain_state_dicts_and_named_weights_will_do_and_foreign_ones_will_not(
    run: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_checkpoint(find_checkpoint(run)).evaluated
    torch.save({"state_dict": weights}, tmp_path / "plain.pt")
    assert "tensors taken over" in trained(configured(store, tmp_path / "b", init_from=str(tmp_path / "plain.pt")))[1]
    config = load_checkpoint(find_checkpoint(run)).config.model
    write_weights(tmp_path / "packaged/half.safetensors", config, weights)
    monkeypatch.setattr("dfd_train.runs.weights_file.PACKAGED", tmp_path / "packaged")
    for number, place in enumerate((str(tmp_path / "packaged/half.safetensors"), "half")):
        out = tmp_path / f"half{number}"
        assert "tensors taken over" in trained(configured(store, out, init_from=place))[1]
    assert json.loads((tmp_path / "half1/config.json").read_text())["config"]["init_from"] == "half"
    torch.save({"head": torch.zeros(3)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"no tensor of .*foreign"):
        trained(configured(store, tmp_path / "c", init_from=str(tmp_path / "foreign.pt")))
    with pytest.raises(CheckpointMissingError, match="nowhere"):
        trained(configured(store, tmp_path / "c", init_from="nowhere"))
    assert not (tmp_path / "c").exists()
    with pytest.raises(ConfigError, match="exclude each other"):
        configured(store, tmp_path / "c", init_from=str(run), pretrained="imagenet")


def test_resume_auto_begins_and_goes_on_with_the_same_call(store: Path, tmp_path: Path) -> None:
    def call(**more: Any) -> TrainResult:
        options = {**SMALL, "epochs": 2, **more}
        return start(
            out=tmp_path / "run", shards=store, recipe="fast", resume="auto", console=Console(quiet=True), **options
        )

    assert call().steps == 4
    before = load_checkpoint(find_checkpoint(f"{tmp_path / 'run'}@last"))
    assert call().steps == 4
    after = load_checkpoint(find_checkpoint(f"{tmp_path / 'run'}@last"))
    assert all(torch.equal(value, after.weights[name]) for name, value in before.weights.items())
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.unlink()
    assert call().steps == 4
    with pytest.raises(ConfigError, match=r"another optim\.lr"):
        call(lr=1.0)
    with pytest.raises(ConfigError, match="exclude each other"):
        call(overwrite=True)


def test_steps_are_logged_as_asked_and_a_resumed_run_writes_none_twice(store: Path, tmp_path: Path) -> None:
    config = configured(store, tmp_path / "run", epochs=2, log_every=1, tensorboard=True)
    _, said = trained(config)
    with open(tmp_path / "run/steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert all(float(row["total"]) > 0 and float(row["lr"]) > 0 for row in rows)
    assert "step 3  total" in said
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/total")] == [1, 2, 3, 4]
    train(config, resume=True, console=Console(quiet=True))
    with open(tmp_path / "run/steps.csv", newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_weights_and_biases_is_told_the_same_and_its_absence_is_said(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        trained(configured(store, tmp_path / "run", wandb="blur"))
    assert not (tmp_path / "run").exists()
    calls: list[tuple[str, Any]] = []
    board = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", (step, values))), finish=lambda: calls.append(("finish", None))
    )

    def init(**options: Any) -> Any:
        calls.append(("init", options))
        return board

    fake = types.ModuleType("wandb")
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trained(configured(store, tmp_path / "run", wandb="blur", log_every=1))
    assert [name for name, _ in calls] == ["init", "log", "log", "log", "finish"]
    assert calls[0][1]["project"] == "blur"
    json.dumps(calls[0][1]["config"])
    step, values = calls[3][1]
    assert step == 2
    assert values["val/rmse"] > 0
    assert values["train/total"] > 0
    assert "step/total" in calls[1][1][1]
