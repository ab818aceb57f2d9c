from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dfd_train.config.train import TrainConfig, recipe_config
from dfd_train.data.order import MicroBatch, epoch_order, step_batches
from dfd_train.data.stream import ShardDataset
from dfd_train.data.transforms import Frames, training_frames
from dfd_train.distributed.world import World
from dfd_train.errors import CheckpointError, ConfigError, NonFiniteError
from dfd_train.model.build import run_model
from dfd_train.optics.answer import Output
from dfd_train.optics.camera import TOP
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training import train_step
from dfd_train.training.run import MOST_SKIPPED
from dfd_train.training.state import TrainState
from dfd_train.training.train import train
from dfd_train.training.train_step import Engine
from dfd_train.training.world_size import for_world

CPU = World(device=torch.device("cpu"))


def tiny(store: Path, out: Path, recipe: str = "fast", **options: Any) -> TrainConfig:
    given = {
        "model": "tiny",
        **({} if "crop" in options else {"size": "48x33"}),
        "epochs": 2,
        "batch_size": 2,
        "device": "cpu",
        **options,
    }
    return recipe_config(recipe, shards=store, out=out, tensorboard=False, **given)


def quietly(config: TrainConfig, **how: Any) -> Any:
    return train(config, console=Console(quiet=True), **how)


def gradients(config: TrainConfig, batches: list[Frames]) -> tuple[dict[str, float], list[torch.Tensor]]:
    state = TrainState(config, CPU)
    engine = Engine(state)
    engine.train_mode()
    values = engine.gradients(batches, [True] * len(batches)).values
    return values, [p.grad.clone() for p in state.net.parameters()]


@pytest.fixture
def frames(store: Path) -> Callable[..., Frames]:
    """A function (samples) -> what the network trains on; every sample has its own holes."""
    data = ShardDataset(store)

    def make(config: TrainConfig, *samples: int) -> Frames:
        batch = data.read(torch.tensor(samples).numpy())
        return training_frames(batch, config.geometry, CPU.device, seed=0, epoch=0)

    return make


def test_accumulated_batches_have_the_gradient_of_one_large_batch(
    store: Path, tmp_path: Path, frames: Callable[..., Frames]
) -> None:
    config = tiny(store, tmp_path, batch_norm="frozen")
    holes = frames(config, 0, 1, 2)
    # Most of one part is a hole: a mean of means would be wrong.
    holes.depth_m[0, :, :25] = 0
    parts = [Frames(*(array[:1] for array in holes)), Frames(*(array[1:] for array in holes))]
    values, whole = gradients(config, [holes])
    same, added = gradients(config, parts)
    for name in ("total", "depth", "deblur", "l1", "grad", "charb", "ssim"):
        # Lambda is measured on the first part only, which the paper's literal one is not.
        if name != "total":
            assert same[name] == pytest.approx(values[name], rel=1e-5), name
    literal = dataclasses.replace(config, loss=dataclasses.replace(config.loss, balance="literal"))
    values, whole = gradients(literal, [holes])
    same, added = gradients(literal, parts)
    assert same["total"] == pytest.approx(values["total"], rel=1e-5)
    largest = max(g.abs().max() for g in whole)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5 * largest) for a, b in zip(whole, added, strict=True))


def test_steps_deal_out_every_sample_once_and_keep_all_processes_busy_equally() -> None:
    for world in (1, 2, 3, 4):
        order = epoch_order(11, seed=3, epoch=1)
        ranks = [step_batches(order, 2, accumulate=2, rank=rank, world=world) for rank in range(world)]
        assert len({tuple(map(len, steps)) for steps in ranks}) == 1
        dealt = [i for steps in ranks for step in steps for micro in step if micro.counted for i in micro.indices]
        assert sorted(dealt) == list(range(11))
    assert step_batches(order[:1], 2, rank=1, world=2) == [[MicroBatch(order[:1], counted=False)]]


@pytest.mark.parametrize("lens_range", [None, "focus=1m..4m"])
def test_a_network_that_is_told_heights_is_told_those_of_its_windows(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lens_range: str | None
) -> None:
    told: list[list[float]] = []

    def watched(net: torch.nn.Module, image: torch.Tensor, camera: torch.Tensor) -> Output:
        told.extend(camera[:, TOP:].tolist())
        return run_model(net, image, camera)

    monkeypatch.setattr(train_step, "run_model", watched)
    options: dict[str, Any] = {"predict": "coc", "lens_input": True, "height_input": True, "lens_range": lens_range}
    config = tiny(store, tmp_path / "a", crop="34x33", val_fraction=0.0, **options)
    quietly(config)
    data = ShardDataset(store)
    every, height = data.read(np.arange(len(data))), data.frame_hw[0]
    # Read off the windows that are cut, of depths that are the numbers of their rows.
    numbered = every._replace(depth_m=torch.arange(1.0, height + 1)[None, :, None].expand(every.depth_m.shape))
    tops = [
        float(top) - 1
        for epoch in range(config.epochs)
        for top in training_frames(numbered, config.geometry, CPU.device, seed=0, epoch=epoch).depth_m[:, 0, 0, 0]
    ]
    assert len(set(tops)) > 1
    expected = [[2 * top / height - 1, 2 * (top + 33) / height - 1] for top in tops]
    assert torch.allclose(torch.tensor(sorted(told)), torch.tensor(sorted(expected)))


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"precision": "fp16"}, {"channels_last": True},
                                     {"accumulate": 3}, {"batch_norm": "frozen"}, {"optimizer": "adam"},
                                     {"predict": "coc", "uncertainty": True, "lens_input": True},
                                     {"predict": "coc", "lens_input": True, "height_input": True, "crop": "40x33",
                                      "lens_range": "focus=1m..4m,psf=both,noise=1..2"}])  # fmt: skip
def test_a_run_of_every_kind_trains_stops_and_resumes_to_the_same_bits(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole, parts = tiny(store, tmp_path / "a", **options), tiny(store, tmp_path / "b", **options)
    quietly(whole)
    state_of_first_epoch(parts)
    quietly(parts, resume=True)
    first, second = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    assert first.step == second.step
    assert [n for n, value in first.weights.items() if not torch.equal(value, second.weights[n])] == []
    assert first.scaler == second.scaler
    assert all(torch.isfinite(value).all() for value in first.weights.values())


def state_of_first_epoch(config: TrainConfig) -> None:
    """Stop `config` after its first epoch, by losing what came later."""
    quietly(dataclasses.replace(config, keep=5))
    newest = sorted((Path(config.out) / "checkpoints").glob("step-*.pt"))[-1]
    newest.with_suffix(".json").unlink()
    newest.unlink()


def test_an_overflow_of_float16_is_skipped_and_too_many_in_a_row_are_an_error(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfd_train.training import train_step as engine

    total_norm, seen = torch.nn.utils.get_total_norm, []
    overflows = {2}

    def overflowing(gradients: list[torch.Tensor]) -> torch.Tensor:
        seen.append(1)
        if len(seen) in overflows or -1 in overflows:
            gradients[0].fill_(float("inf"))
        return total_norm(gradients)

    monkeypatch.setattr(engine.torch.nn.utils, "get_total_norm", overflowing)
    result = quietly(tiny(store, tmp_path / "a", precision="fp16"))
    assert result.steps == 10
    with open(tmp_path / "a" / "metrics.csv", newline="") as file:
        assert all(float(row["grad_norm"]) < float("inf") for row in csv.DictReader(file))
    overflows.add(-1)
    with pytest.raises(
        NonFiniteError, match=f"after {MOST_SKIPPED} skipped steps in a row, grad_norm = inf on samples"
    ):
        quietly(tiny(store, tmp_path / "b", precision="fp16", epochs=10))


def test_the_best_checkpoint_stays_and_retention_is_as_asked(store: Path, tmp_path: Path) -> None:
    quietly(tiny(store, tmp_path / "run", epochs=4, validate_every=1, keep=3, best_by="psnr"))
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.glob("*.pt")) == [
        "best.pt", "step-000000010.pt", "step-000000015.pt", "step-000000020.pt",
    ]  # fmt: skip
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        scores = {int(row["step"]): float(row["val_psnr"]) for row in csv.DictReader(file)}
    assert load_checkpoint(folder / "best.pt").step == max(scores, key=scores.__getitem__)
    content = bytearray((folder / "best.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "best.pt").unlink()
    (folder / "best.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(folder / "best.pt")


def test_another_number_of_processes_keeps_the_steps_or_is_refused(store: Path, tmp_path: Path) -> None:
    config = tiny(store, tmp_path / "run", batch_size=6, epochs=1)
    quietly(config)
    saved = load_checkpoint(tmp_path / "run")
    assert for_world(config, saved, 1) == config
    for world, batch, accumulate in ((2, 3, 1), (3, 2, 1), (6, 1, 1)):
        shared = for_world(config, saved, world)
        assert (shared.batch_size, shared.engine.accumulate) == (batch, accumulate)
    for world in (4, 12):
        with pytest.raises(ConfigError, match=f"with {world} processes: its steps take 6 samples"):
            for_world(config, saved, world)


@pytest.mark.slow
def test_a_compiled_network_trains_to_nearly_the_same_weights(store: Path, tmp_path: Path) -> None:
    kinds: list[dict[str, bool]] = [{}, {"compile": True}, {"graphs": True}]
    runs = [
        tiny(store, tmp_path / str(number), "paper", epochs=1, batch_norm="frozen", **kind)
        for number, kind in enumerate(kinds)
    ]
    for config in runs:
        quietly(config)
    first, *others = (load_checkpoint(Path(config.out)).weights for config in runs)
    for other in others:
        assert all(torch.allclose(value, other[name], rtol=1e-3, atol=1e-5) for name, value in first.items())
