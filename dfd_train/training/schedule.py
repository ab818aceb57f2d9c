"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from dfd_train.config.optim import OptimConfig


def lr_at(config: OptimConfig, *, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of step `step` (from 0) of a run; no state, so that a resumed run cannot differ."""
    total = steps_per_epoch * epochs
    if config.schedule == "step":
        decayed = step // steps_per_epoch >= round(config.decay_after * epochs)
        return config.lr * (config.decay_factor if decayed else 1.0)
    warmup_steps = math.ceil(config.warmup * total)
    if step < warmup_steps:
        return config.lr * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(total - warmup_steps, 1)
    floor = config.decay_factor
    return config.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
