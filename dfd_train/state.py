"""What changes while a run trains, and its way into a checkpoint and back to the last bit."""

from __future__ import annotations

import torch
from torch import nn

from dfd_train.balance import LossBalance
from dfd_train.checkpoint import Checkpoint
from dfd_train.config import TrainConfig
from dfd_train.ema import WeightAverage
from dfd_train.errors import CheckpointError
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.schedule import OptimConfig


def build_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `net`; weight decay acts on convolution weights only, not on biases and normalisations."""
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2))


class TrainState:
    """Weights, average, optimizer, lambda, position (`epoch`, `batch`, `step`, all from 0) and this epoch's sums."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        generator = torch.Generator().manual_seed(config.seed)
        self.net = TwoHeadedNet(config.model, generator=generator).to(device)
        self.optimizer = build_optimizer(self.net, config.optim)
        self.balance = LossBalance(config.loss)
        self.epoch = self.batch = self.step = 0
        self.sums: dict[str, float] = {}
        self.average: WeightAverage[TwoHeadedNet] | None = None
        self.reset_average()

    def reset_average(self) -> None:
        """Let the averaged weights start from the current ones."""
        decay = self.config.optim.ema_decay
        self.average = None if decay is None else WeightAverage(self.net, decay)

    @property
    def evaluated(self) -> TwoHeadedNet:
        """The network to evaluate: the averaged one where there is one."""
        return self.net if self.average is None else self.average.net

    def advance(self, lr: float) -> None:
        """One optimizer step with learning rate `lr`, on the gradients at hand."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        self.batch += 1
        if self.average is not None:
            self.average.update(self.net, self.step)

    def record(self, values: dict[str, float], *, samples: int, waited: float, seconds: float) -> None:
        """Add one step to this epoch's sums, its losses weighted by its number of samples."""
        for name, value in values.items():
            self.sums[f"mean {name}"] = self.sums.get(f"mean {name}", 0.0) + value * samples
        for name, value in (("samples", samples), ("waited", waited), ("seconds", seconds)):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def averages(self) -> dict[str, float]:
        """This epoch's means so far, its rate, and the share of time spent waiting for data."""
        samples, seconds = self.sums["samples"], max(self.sums["seconds"], 1e-9)
        means = {k.removeprefix("mean "): v / samples for k, v in self.sums.items() if k.startswith("mean ")}
        return means | {
            "samples_per_s": samples / seconds,
            "wait_share": self.sums["waited"] / seconds,
            "seconds": self.sums["seconds"],
        }

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self.sums = {}

    def checkpoint(self, store_checksum: str) -> Checkpoint:
        """Everything above as a `Checkpoint`, sharing memory with the state."""
        rng = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return Checkpoint(
            config=self.config,
            store_checksum=store_checksum,
            epoch=self.epoch,
            batch=self.batch,
            step=self.step,
            weights=self.net.state_dict(),
            averaged=None if self.average is None else self.average.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            rng=rng,
            progress={"sums": dict(self.sums), "balance": self.balance.state()},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """The inverse of `checkpoint`; raises `CheckpointError` where it does not fit this configuration's network."""
        try:
            self.net.load_state_dict(checkpoint.weights)
            if self.average is not None and checkpoint.averaged is not None:
                self.average.net.load_state_dict(checkpoint.averaged)
            self.optimizer.load_state_dict(checkpoint.optimizer)
            self.balance.restore(checkpoint.progress["balance"])
            self.sums = {str(k): float(v) for k, v in checkpoint.progress["sums"].items()}
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"the checkpoint does not fit this run's network or optimizer: {reason}") from error
        self.epoch, self.batch, self.step = checkpoint.epoch, checkpoint.batch, checkpoint.step
        torch.set_rng_state(checkpoint.rng["torch"])
        if self.device.type == "cuda" and "cuda" in checkpoint.rng:
            torch.cuda.set_rng_state(checkpoint.rng["cuda"], self.device)
