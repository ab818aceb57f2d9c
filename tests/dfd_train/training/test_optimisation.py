"""What turns gradients into weights: the rate, the clipping, the decay and the average, each against its own arithmetic."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from dfd_train.config.optim import OptimConfig
from dfd_train.config.train import TrainConfig, recipe_config
from dfd_train.distributed.world import World
from dfd_train.model.build import build_model
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.ema import WeightAverage
from dfd_train.training.schedule import lr_at
from dfd_train.training.state import TrainState, build_optimizer
from dfd_train.training.train import train

CPU = World(device=torch.device("cpu"))
# One step of plain gradient descent an epoch: all ten training samples are one batch.
PLAIN = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "step", "decay_after": 1.0}


def tiny(store: Path, out: Path, epochs: int = 1, batch_size: int = 10, **optim: Any) -> TrainConfig:
    config = recipe_config(
        "fast", shards=store, out=out, model="tiny", size="48x33", epochs=epochs, batch_size=batch_size, device="cpu",
        tensorboard=False,
    )  # fmt: skip
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **optim))


def trained(config: TrainConfig) -> tuple[dict[str, Tensor], Any]:
    """The weights that the run begins with, and its last checkpoint."""
    first = {name: p.detach().clone() for name, p in TrainState(config, CPU).net.named_parameters()}
    train(config, console=Console(quiet=True))
    return first, load_checkpoint(Path(config.out))


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float((second[name] - value).double().square().sum()) for name, value in first.items()))


def test_a_cosine_is_half_way_down_in_the_middle_and_at_its_floor_at_the_end() -> None:
    config = OptimConfig(optimizer="adamw", lr=0.8, schedule="cosine", warmup=0.0, decay_factor=0.25)
    rates = [lr_at(config, step=step, steps_per_epoch=10, epochs=40) for step in range(400)]
    assert rates[0] == 0.8
    assert rates[200] == pytest.approx(0.5)
    # 1 + cos(3/4 pi) = 0.2929
    assert rates[300] == pytest.approx(0.2 + 0.6 * 0.2929 / 2, abs=1e-4)
    assert rates[399] == pytest.approx(0.2, abs=1e-4)
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_the_optimizer_of_a_run_follows_the_cosine_down(store: Path, tmp_path: Path) -> None:
    config = tiny(store, tmp_path / "run", epochs=3, batch_size=5, lr=1e-3, warmup=0.0, decay_factor=0.0)
    _, checkpoint = trained(config)
    assert checkpoint.step == 6
    for group in checkpoint.optimizer["param_groups"]:
        # The last of six steps: 1 + cos(5/6 pi).
        assert group["lr"] == pytest.approx(1e-3 * (1 + math.cos(5 * math.pi / 6)) / 2)


def test_a_step_is_no_longer_than_the_clipped_gradient(store: Path, tmp_path: Path) -> None:
    first, free = trained(tiny(store, tmp_path / "free", lr=1e-3, clip_norm=None, **PLAIN))
    length = distance(first, free.weights)
    clipped = tiny(store, tmp_path / "clipped", lr=1e-3, clip_norm=0.01 * length / 1e-3, **PLAIN)
    first, short = trained(clipped)
    assert distance(first, short.weights) == pytest.approx(0.01 * length, rel=1e-3)
    # The direction stays.
    for name, value in first.items():
        expected = value + 0.01 * (free.weights[name] - value)
        assert torch.allclose(short.weights[name], expected, atol=2e-7), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_shrinks_convolutions_and_nothing_else(store: Path, tmp_path: Path, optimizer: str) -> None:
    config = tiny(store, tmp_path / "run", optimizer=optimizer, weight_decay=0.5)
    net = build_model(config.model)
    with torch.no_grad():
        for parameter in net.parameters():
            # Biases start at 0, which any decay leaves alone.
            parameter.copy_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
            parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step = build_optimizer(net, config.optim)
    step.param_groups[0]["lr"] = step.param_groups[1]["lr"] = 0.1
    step.step()
    kinds = {
        f"{name}.{part}": type(m) for name, m in net.named_modules() for part, _ in m.named_parameters(recurse=False)
    }
    assert any(kind is nn.BatchNorm2d for kind in kinds.values())
    assert any(name.endswith("0.bias") for name in kinds)
    for name, parameter in net.named_parameters():
        shrunk = issubclass(kinds[name], nn.Conv2d | nn.ConvTranspose2d) and name.endswith("weight")
        assert torch.allclose(parameter, before[name] * (0.95 if shrunk else 1.0), rtol=1e-5), name


def test_the_average_is_the_weighted_sum_of_every_steps_weights() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = WeightAverage(net, decay=0.3)
    expected = {name: value.double().clone() for name, value in net.state_dict().items()}
    # 2/11 and 3/12 are below the decay, from 4/13 on it is 0.3.
    for step, decay in enumerate((2 / 11, 3 / 12, 0.3, 0.3), start=1):
        with torch.no_grad():
            for value in net.state_dict().values():
                value.copy_(torch.rand(value.shape) * 10)
        average.update(net, step)
        expected = {name: decay * old + (1 - decay) * net.state_dict()[name].double() for name, old in expected.items()}
    for name, value in average.net.state_dict().items():
        wanted = net.state_dict()[name] if name.endswith("num_batches_tracked") else expected[name]
        assert torch.allclose(value.double(), wanted.double(), atol=1e-5), name


def test_a_run_averages_the_weights_that_its_steps_arrive_at(store: Path, tmp_path: Path) -> None:
    first, checkpoint = trained(tiny(store, tmp_path / "run", lr=0.05, ema_decay=0.999, **PLAIN))
    assert distance(first, checkpoint.weights) > 1e-3
    for name, value in first.items():
        expected = value * (2 / 11) + checkpoint.weights[name] * (9 / 11)
        assert torch.allclose(checkpoint.averaged[name], expected, atol=1e-6), name
