"""The training loop: `train(config)` makes or resumes a run and leaves checkpoints and metrics in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from defocus_sim.progress import clock, counted
from dfd_train.config.train import TrainConfig
from dfd_train.distributed.device import keep_freed_memory
from dfd_train.distributed.world import World, join_world
from dfd_train.runs.checkpoint import latest_checkpoint
from dfd_train.runs.run_folder import RunLock
from dfd_train.training.interrupt import stop_requested
from dfd_train.training.run import Run


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    `out`: its folder. `checkpoint`: the newest. `epochs`, `steps`: completed in all. `interrupted`: stopped by a signal
    before the end. `validation`: their last scores by metric ({} where none was taken). `seconds`: of
    this session.
    """

    out: Path
    checkpoint: Path
    epochs: int
    steps: int
    interrupted: bool
    validation: dict[str, float]
    seconds: float

    def summary(self) -> str:
        """One or two lines for a person."""
        if self.interrupted:
            return (
                f"stopped in epoch {self.epochs + 1} after {counted(self.steps, 'step')}; go on with: "
                f"dfd-train --out {self.out} --resume"
            )
        scores = "  ".join(f"{name} {value:.4g}" for name, value in self.validation.items())
        return (
            f"{counted(self.epochs, 'epoch')}, {counted(self.steps, 'step')} in "
            f"{clock(self.seconds)}; {self.checkpoint}" + (f"\nval: {scores}" if scores else "")
        )


def train(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> TrainResult:
    """Train a network.

    Under torchrun the processes train together, and only the first writes and prints. A resumed run on the CPU ends
    with the same bits as one that was never stopped. SIGINT and SIGTERM save and return with `interrupted`.

    Parameters
    ----------
    config
        The run's settings.
    resume
        Go on from the newest checkpoint of `config.out`.
    overwrite
        Discard the run that is there.
    console
        Where progress goes; standard output for None.

    Returns
    -------
    TrainResult
        How the run ended.

    Raises
    ------
    ConfigError
        For an existing folder, a changed configuration on resume, impossible sizes, an absent GPU.
    CheckpointError, ShardError
        For a damaged checkpoint or store.
    DistributedError
        Where another process is lost.
    NonFiniteError
        Naming the samples where a loss or gradient is not finite; the weights of the last checkpoint are then intact.
    """
    # Signals outermost: torchrun's SIGTERM to the survivors of a lost process must not end them before they said so.
    with (
        stop_requested() as asked,
        join_world(config.device, config.timeout_s) as world,
        _own_random_state(world.device),
    ):
        speaking = console or Console() if world.first else Console(quiet=True)
        return _trained(config, world, asked, resume=resume, overwrite=overwrite, console=speaking)


def _trained(
    config: TrainConfig, world: World, asked: Callable[[], bool], *, resume: bool, overwrite: bool, console: Console
) -> TrainResult:
    """A function of its own, so that nothing of the run outlives it and holds on to the process group."""
    began = time.perf_counter()
    # Another stream of dropout in every process.
    torch.manual_seed(config.seed + world.rank)
    keep_freed_memory(world.device)
    with RunLock() as lock:
        run = Run(config, world, resume=resume, overwrite=overwrite, console=console, lock=lock)
        interrupted = run.loop(asked)
    return TrainResult(
        out=run.out,
        checkpoint=latest_checkpoint(run.out),
        epochs=run.state.epoch,
        steps=run.state.step,
        interrupted=interrupted,
        validation=run.scores,
        seconds=time.perf_counter() - began,
    )


def _own_random_state(device: torch.device) -> AbstractContextManager[None]:
    """The caller's random state is not ours to change."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
