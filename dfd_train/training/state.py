"""What changes while a run trains, and its way into a checkpoint and back to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dfd_train.config.optim import OptimConfig
from dfd_train.config.train import SCORES, TrainConfig
from dfd_train.distributed.world import World
from dfd_train.errors import CheckpointError
from dfd_train.losses.loss_balance import LossBalance
from dfd_train.model.build import Model, build_model
from dfd_train.runs.checkpoint import Checkpoint
from dfd_train.training.ema import WeightAverage


def build_optimizer(net: nn.Module, config: OptimConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer of `config` over `net`; weight decay acts on convolution weights only, not on biases and BN.

    `fused`: one kernel for all tensors, on GPUs.
    """
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.momentum, config.beta2), fused=fused)


class TrainState:
    """Weights, average, optimizer, loss scale, lambda, position, this epoch's sums and the best score so far.

    The position is `epoch`, `batch` (step within the epoch) and `step`, all from 0; `skipped` counts the latest steps
    in a row that an overflow of float16 spoiled. `world`: the processes that train together; each has a state.
    """

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config, self.world, self.device = config, world, world.device
        generator = torch.Generator().manual_seed(config.seed)
        layout = torch.channels_last if config.engine.channels_last else torch.contiguous_format
        self.net: Model = build_model(config.model, generator=generator).to(self.device).to(memory_format=layout)
        self.optimizer = build_optimizer(self.net, config.optim, fused=self.device.type == "cuda")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.engine.precision == "fp16")
        self.balance = LossBalance(config.loss)
        self.epoch = self.batch = self.step = self.skipped = 0
        self.sums: dict[str, float] = {}
        self.best: float | None = None
        self.average: WeightAverage[Model] | None = None
        self.reset_average()

    def reset_average(self) -> None:
        """Let the averaged weights start from the current ones."""
        decay = self.config.optim.ema_decay
        self.average = None if decay is None else WeightAverage(self.net, decay)

    @property
    def evaluated(self) -> Model:
        """The network to evaluate: the averaged one where there is one."""
        return self.net if self.average is None else self.average.net

    def advance(self, lr: float) -> None:
        """One optimizer step with learning rate `lr`, on the (unscaled) gradients at hand."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped = 0
        self.step += 1
        self.batch += 1
        if self.average is not None:
            self.average.update(self.net, self.step)

    def skip(self) -> None:
        """Pass over a step whose float16 gradients overflowed, and scale the next ones less."""
        # Said outright: a norm can also overflow where each gradient alone is finite, which the scaler would not see.
        self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())
        self.skipped += 1
        self.step += 1
        self.batch += 1

    def record(self, values: dict[str, float], *, samples: int, waited: float, seconds: float) -> None:
        """Add one step to this epoch's sums, its losses weighted by its number of samples."""
        for name, value in values.items():
            self.sums[f"mean {name}"] = self.sums.get(f"mean {name}", 0.0) + value * samples
            self.sums[f"weight {name}"] = self.sums.get(f"weight {name}", 0.0) + samples
        for name, value in (("samples", samples), ("waited", waited), ("seconds", seconds)):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def averages(self) -> dict[str, float]:
        """This epoch's means so far, its rate, and the share of time spent waiting for data."""
        samples, seconds = self.sums["samples"], max(self.sums["seconds"], 1e-9)
        names = [name.removeprefix("mean ") for name in self.sums if name.startswith("mean ")]
        means = {name: self.sums[f"mean {name}"] / self.sums[f"weight {name}"] for name in names}
        return means | {
            "samples_per_s": samples / seconds,
            "wait_share": self.sums["waited"] / seconds,
            "seconds": self.sums["seconds"],
        }

    @property
    def seen(self) -> int:
        """Samples of this epoch that are in its sums."""
        return int(self.sums.get("samples", 0))

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self.sums = {}

    def is_best(self, value: float, score: str) -> bool:
        """Whether `value` of the `score` that decides is the best so far; remembers it if so."""
        sign = SCORES[score]
        better = self.best is None or sign * value > sign * self.best
        if better:
            self.best = value
        return better

    def checkpoint(self, store_checksum: str, store_facts: dict[str, Any] | None = None) -> Checkpoint:
        """Everything above as a `Checkpoint`, sharing memory with the state; to be called by all processes."""
        own = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.device)
        every = self.world.gather(own)
        return Checkpoint(
            config=self.config,
            store_checksum=store_checksum,
            epoch=self.epoch,
            batch=self.batch,
            step=self.step,
            weights=self.net.state_dict(),
            averaged=None if self.average is None else self.average.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            rng={_of(name, rank): value for rank, states in enumerate(every) for name, value in states.items()},
            progress={
                "sums": dict(self.sums),
                "balance": self.balance.state(),
                "best": self.best,
                "skipped": self.skipped,
                "world": self.world.size,
                "store": store_facts or {},
            },
            scaler=self.scaler.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """The inverse of `checkpoint`; raises `CheckpointError` where it does not fit this configuration's network."""
        try:
            self.net.load_state_dict(checkpoint.weights)
            if self.average is not None and checkpoint.averaged is not None:
                self.average.net.load_state_dict(checkpoint.averaged)
            self.optimizer.load_state_dict(checkpoint.optimizer)
            self.balance.restore(checkpoint.progress["balance"])
            self.scaler.load_state_dict(checkpoint.scaler)
            self.best, self.skipped = checkpoint.progress["best"], int(checkpoint.progress["skipped"])
            self.sums = {str(k): float(v) for k, v in checkpoint.progress["sums"].items()}
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"the checkpoint does not fit this run's network or optimizer: {reason}") from error
        self.epoch, self.batch, self.step = checkpoint.epoch, checkpoint.batch, checkpoint.step
        # A process that the checkpoint does not know keeps the random state of its own seed.
        rank = self.world.rank
        if _of("torch", rank) in checkpoint.rng:
            torch.set_rng_state(checkpoint.rng[_of("torch", rank)])
        if self.device.type == "cuda" and _of("cuda", rank) in checkpoint.rng:
            torch.cuda.set_rng_state(checkpoint.rng[_of("cuda", rank)], self.device)


def _of(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name
