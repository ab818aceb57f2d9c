"""Going on with another number of processes than a run had before."""

from __future__ import annotations

from dataclasses import replace

from dfd_train.config.train import TrainConfig
from dfd_train.errors import ConfigError
from dfd_train.runs.checkpoint import Checkpoint


def step_samples(config: TrainConfig, world: int) -> int:
    """How many samples `world` processes together put into one step."""
    return config.batch_size * config.engine.accumulate * world


def for_world(config: TrainConfig, checkpoint: Checkpoint, world: int) -> TrainConfig:
    """`config` with batches such that `world` processes take steps of as many samples as the checkpoint's did.

    A batch size and accumulation that already fit stay; else the largest batch up to `config.batch_size` is taken that
    divides a process's share, and accumulated. Raises `ConfigError` where the processes cannot share a step evenly.
    """
    together = step_samples(checkpoint.config, int(checkpoint.progress["world"]))
    if step_samples(config, world) == together:
        return config
    share, rest = divmod(together, world)
    if rest or share == 0:
        raise ConfigError(
            f"cannot resume {config.out} with {world} processes: its steps take {together} samples, which they cannot "
            f"share evenly; take a number that divides {together}"
        )
    batch_size = max(size for size in range(1, config.batch_size + 1) if share % size == 0)
    engine = replace(config.engine, accumulate=share // batch_size)
    return replace(config, batch_size=batch_size, engine=engine)
