from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.errors import ShardCorruptError, ShardError
from dfd_train.config.train import TrainConfig, recipe_config
from dfd_train.data.stream import ShardDataset
from dfd_train.errors import CheckpointMissingError, ConfigError, NonFiniteError
from dfd_train.runs.checkpoint import Checkpoint, load_checkpoint
from dfd_train.runs.run_folder import COLUMNS
from dfd_train.training.interrupt import stop_requested
from dfd_train.training.launch import start
from dfd_train.training.train import TrainResult, train

QUIET = Console(quiet=True)
Textured = Callable[..., RgbdFrame]


def tiny(store: Path, out: Path, recipe: str = "fast", **options: Any) -> TrainConfig:
    """Three epochs of five batches of two, at 33x48."""
    given = {"model": "tiny", "size": "48x33", "epochs": 3, "batch_size": 2, "device": "cpu", **options}
    return recipe_config(recipe, shards=store, out=out, **given)


def quietly(config: TrainConfig, **how: Any) -> TrainResult:
    return train(config, console=QUIET, **how)


def assert_same_state(first: Checkpoint, second: Checkpoint) -> None:
    assert (first.epoch, first.batch, first.step) == (second.epoch, second.batch, second.step)
    for field in ("weights", "averaged"):
        mine, other = getattr(first, field), getattr(second, field)
        assert mine.keys() == other.keys()
        assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    for key, entry in first.optimizer["state"].items():
        for name, value in entry.items():
            assert torch.equal(value, second.optimizer["state"][key][name]), name
    assert torch.equal(first.rng["torch"], second.rng["torch"])
    assert first.progress["balance"] == second.progress["balance"]


@pytest.fixture(scope="module")
def uninterrupted(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `tiny`, with dropout, so that the random state matters."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    quietly(with_dropout(tiny(store, out)))
    return out


def with_dropout(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.3))


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_its_configuration_metrics_and_a_checkpoint(uninterrupted: Path, store: Path) -> None:
    content = json.loads((uninterrupted / "config.json").read_text())
    assert TrainConfig.from_dict(content["config"]) == with_dropout(tiny(store, uninterrupted))
    assert content["versions"]["torch"] == torch.__version__
    assert len(content["store_checksum"]) == 64
    logged = rows(uninterrupted)
    assert tuple(logged[0]) == COLUMNS
    assert [row["epoch"] for row in logged] == ["1", "2", "3"]
    assert [row["step"] for row in logged] == ["5", "10", "15"]
    for name in (
        "total",
        "depth",
        "deblur",
        "l1",
        "grad",
        "charb",
        "ssim",
        "deblur_weight",
        "grad_norm",
        "samples_per_s",
    ):
        assert float(logged[0][name]) > 0, name
    assert not logged[0]["image_l1"]
    assert float(logged[-1]["val_psnr"]) > 0
    assert not logged[0]["val_psnr"]
    checkpoint = load_checkpoint(uninterrupted)
    assert (checkpoint.epoch, checkpoint.batch, checkpoint.step) == (3, 0, 15)


def test_the_same_run_again_gives_the_same_bits_and_leaves_the_callers_random_state(
    uninterrupted: Path, store: Path, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    quietly(with_dropout(tiny(store, tmp_path / "again")))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_state(load_checkpoint(tmp_path / "again"), load_checkpoint(uninterrupted))


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let this process receive a SIGTERM during the given step."""
    from dfd_train.training.state import TrainState

    advance = TrainState.advance

    def and_signal(self: TrainState, lr: float) -> None:
        advance(self, lr)
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainState, "advance", and_signal)


@pytest.mark.parametrize("steps", [1, 5, 8, 15])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    uninterrupted: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    config = with_dropout(tiny(store, tmp_path / "run"))
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        first = quietly(config)
    assert first.interrupted
    assert first.steps == steps
    assert f"dfd-train --out {tmp_path / 'run'} --resume" in first.summary()
    last = quietly(config, resume=True)
    assert not last.interrupted
    assert_same_state(load_checkpoint(tmp_path / "run"), load_checkpoint(uninterrupted))
    timeless = [name for name in COLUMNS if name not in ("samples_per_s", "wait_share", "seconds")]
    mine, whole = (
        [{name: row[name] for name in timeless} for row in rows(run)] for run in (tmp_path / "run", uninterrupted)
    )
    assert mine == whole


KILLED_RUN = """
import json, os, signal, sys, torch
torch.set_num_threads(1)
from dfd_train.config.train import TrainConfig
from dfd_train.training.state import TrainState
from dfd_train.training.train import train

config, step, resume = json.load(sys.stdin)
advance = TrainState.advance

def and_die(self, lr):
    advance(self, lr)
    if self.step == step:
        os.kill(os.getpid(), signal.SIGKILL)

TrainState.advance = and_die
train(TrainConfig.from_dict(config), resume=resume)
"""


def killed_at(config: TrainConfig, step: int, *, resume: bool) -> None:
    """Another process trains, and kills itself at `step`."""
    asked = json.dumps([config.to_dict(), step, resume])
    done = subprocess.run([sys.executable, "-c", KILLED_RUN], input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_steps_and_resumed_ends_with_the_same_bits(
    uninterrupted: Path, store: Path, tmp_path: Path, kills: int
) -> None:
    run = tmp_path / "run"
    config = with_dropout(tiny(store, run))
    steps = sorted(np.random.default_rng(kills).integers(6, 16, kills).tolist())
    for number, step in enumerate(steps):
        # The kills are sorted and a step is saved only after its epoch, so each lies ahead of the last checkpoint.
        killed_at(config, step, resume=number > 0)
    quietly(config, resume=True)
    assert_same_state(load_checkpoint(run), load_checkpoint(uninterrupted))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = start(out=run, resume=True, device="cpu")
    assert (result.epochs, result.steps, result.interrupted) == (3, 15, False)
    assert {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_resume_refuses_another_configuration_naming_the_field(uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match=r"another epochs, optim\.lr"):
        start(out=uninterrupted, resume=True, lr=0.5, epochs=9)
    with pytest.raises(ConfigError, match="another recipe"):
        start(out=uninterrupted, resume=True, recipe="paper")


def test_a_network_knows_the_frames_it_saw_also_one_resumed_from_before_that(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    settings = {"predict": "coc+side", "lens_input": True, "epochs": 1}
    config = tiny(store, run, **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert quietly(config).interrupted
    assert load_checkpoint(run).config.model.frame_hw == (33, 48)
    about = json.loads((run / "config.json").read_text())
    assert about["config"]["model"].pop("frame_hw") == [33, 48]
    (run / "config.json").write_text(json.dumps(about))
    assert start(out=run, resume=True, device="cpu", console=QUIET).steps == 5
    assert load_checkpoint(run).config.model.frame_hw == (33, 48)
    again = start(out=tmp_path / "again", config=run / "run.toml", console=QUIET, size="64x48")
    assert load_checkpoint(again.out).config.model.frame_hw == (48, 64)
    assert load_checkpoint(quietly(tiny(store, tmp_path / "metres", epochs=1)).out).config.model.frame_hw is None


def test_resume_refuses_another_store(uninterrupted: Path, make_store: Callable[..., Path], textured: Textured) -> None:
    other = make_store({"train": [textured(np.random.default_rng(5), 48, 64)] * 10})
    with pytest.raises(ConfigError, match="is not the store it was trained on"):
        start(out=uninterrupted, shards=other, resume=True)


def test_one_command_starts_a_run_and_starts_it_again(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def again() -> TrainResult:
        asked = {"model": "tiny", "size": "33x48", "epochs": 1, "batch_size": 2, "device": "cpu"}
        return start(out=run, shards=store, recipe="fast", resume=True, console=QUIET, **asked)

    assert again().steps > 0
    first = (run / "metrics.csv").read_bytes()
    assert again().epochs == 1
    assert (run / "metrics.csv").read_bytes() == first
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointMissingError):
        again()
    # Killed before its first checkpoint a run has a folder and no result.
    (run / "metrics.csv").unlink()
    assert again().steps > 0


def test_resume_without_a_run_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissingError, match="holds no run to resume"):
        start(out=tmp_path / "none", resume=True)


def test_a_folder_with_content_is_refused_and_overwrite_discards_a_run_only(store: Path, tmp_path: Path) -> None:
    config = tiny(store, tmp_path / "run", epochs=1)
    quietly(config)
    with pytest.raises(ConfigError, match="--resume, or discard it with --overwrite"):
        quietly(config)
    quietly(dataclasses.replace(config, seed=1), overwrite=True)
    assert load_checkpoint(tmp_path / "run").config.seed == 1
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ConfigError, match="no run of dfd-train"):
        quietly(dataclasses.replace(config, out=str(tmp_path / "thesis")), overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"crop": "64x49"}, ConfigError, "larger than the store's frames, 64x48"),
        ({"device": "cuda:99"}, ConfigError, "cuda:99"),
        ({"device": "abacus"}, ConfigError, "abacus"),
        ({"pretrained": "gone.pth"}, CheckpointMissingError, r"gone\.pth"),
        ({"shards": "nowhere.zarr"}, ShardError, "nowhere"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_written(
    store: Path, tmp_path: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    size = {} if "crop" in options else {"size": "48x33"}
    given = {"shards": store, "out": tmp_path / "run", "model": "tiny", **size, **options}
    config = recipe_config("fast", **given)
    with pytest.raises(error, match=message):
        quietly(config)
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_stops_before_the_step_and_names_its_samples(store: Path, tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match=r"epoch 1, step \d+: .*total = .*on samples train-0\d\d, train-0\d\d; no step"
    ):
        quietly(tiny(store, tmp_path / "run", recipe="paper", lr=1e30))


def test_weights_are_finite_after_a_non_finite_loss(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfd_train.training import train_step as engine

    seen = []
    losses = engine.compute_losses

    def spoiled(*args: Any, **options: Any) -> Any:
        terms = losses(*args, **options)
        seen.append(terms)
        return terms._replace(depth=terms.depth * float("nan")) if len(seen) == 7 else terms

    monkeypatch.setattr(engine, "compute_losses", spoiled)
    with pytest.raises(NonFiniteError, match="epoch 2, step 7"):
        quietly(tiny(store, tmp_path / "run"))
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.step == 5
    assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())


def test_a_shard_that_goes_bad_in_mid_run_is_named_and_the_last_checkpoint_stays(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfd_train.training import run as trainer

    mine = tmp_path / "mine.zarr"
    shutil.copytree(store, mine)
    save = trainer.save_checkpoint

    def save_and_damage(*args: Any, **how: Any) -> Path:
        path = save(*args, **how)
        for shard in (mine / "train" / "aif" / "c").rglob("*"):
            if shard.is_file():
                content = bytearray(shard.read_bytes())
                content[: len(content) // 2] = bytes(len(content) // 2)
                shard.write_bytes(content)
        return path

    monkeypatch.setattr(trainer, "save_checkpoint", save_and_damage)
    with pytest.raises(ShardCorruptError, match="train-0"):
        quietly(tiny(mine, tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run").epoch == 1


@pytest.mark.parametrize("heads", ["depth", "deblur"])
def test_one_head_trains_alone(store: Path, tmp_path: Path, heads: str) -> None:
    result = quietly(tiny(store, tmp_path / "run", heads=heads, epochs=1))
    assert ("rmse" in result.validation) == (heads == "depth")
    assert ("psnr" in result.validation) == (heads == "deblur")
    row = rows(tmp_path / "run")[0]
    assert bool(row["depth"]) == (heads == "depth")
    assert bool(row["charb"]) == (heads == "deblur")


def test_the_papers_recipe_runs_with_its_literal_lambda_and_says_that_it_is_lopsided(
    store: Path, tmp_path: Path
) -> None:
    console = Console(record=True, force_terminal=False, width=200)
    train(tiny(store, tmp_path / "run", recipe="paper", epochs=1), console=console)
    row = rows(tmp_path / "run")[0]
    assert float(row["deblur_weight"]) == 0.01
    assert float(row["lr"]) == pytest.approx(2e-4)
    assert "--balance auto evens them" in console.export_text()


def test_crops_train_at_native_resolution(store: Path, tmp_path: Path) -> None:
    config = recipe_config(
        "fast", shards=store, out=tmp_path / "run", model="tiny", crop="40x48", epochs=1, device="cpu", validate_limit=2
    )
    assert np.isfinite(quietly(config).validation["psnr"])


def test_two_frames_are_learnt_by_heart(make_store: Callable[..., Path], textured: Textured, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [textured(rng, 64, 64) for _ in range(2)]
    store = make_store({"train": frames, "val": frames})
    stored = ShardDataset(store).read(np.arange(2))
    squares = ((stored.defocused / 255 - stored.aif / 255) ** 2).mean(dim=(1, 2, 3))
    untouched = (-10 * squares.log10()).mean().item()
    config = recipe_config(
        "fast", shards=store, out=tmp_path / "run", model="tiny", size="native", epochs=120, batch_size=2, lr=6e-3,
        device="cpu", checkpoint_every=120, validate_every=0,
    )  # fmt: skip
    scores = quietly(config).validation
    assert scores["psnr"] > untouched + 6
    assert scores["rmse"] < 0.2


def test_signals_ask_once_and_then_act_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_requested() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    answers = []

    def use() -> None:
        with stop_requested() as asked:
            answers.append(asked())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert answers == [False]
