"""How the weights move: the optimizer and the schedule of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.errors import ConfigError

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("step", "cosine")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule; the defaults are the paper's (SGD 2e-4, a tenth of it after 300 of 500 epochs).

    `lr`: peak learning rate. `momentum`: of SGD (the paper gives none; 0.9 is our choice), the first beta of Adam and
    AdamW. `beta2`: their second. `weight_decay`: on convolution weights. `schedule`: "step" multiplies the rate by
    `decay_factor` after the fraction `decay_after` of all epochs; "cosine" rises linearly over the fraction `warmup` of
    all steps and falls along half a cosine to `decay_factor` times the peak. `clip_norm`: largest norm of the whole
    gradient, None = no clipping. `ema_decay`: of the averaged weights that are evaluated, None = evaluate the weights
    themselves.

    Raises `ConfigError` for an impossible value.
    """

    optimizer: str = "sgd"
    lr: float = 2e-4
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    schedule: str = "step"
    warmup: float = 0.0
    decay_after: float = 0.6
    decay_factor: float = 0.1
    clip_norm: float | None = None
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        for field, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, field) not in known:
                raise ConfigError(f"{field}={getattr(self, field)!r} must be one of {', '.join(known)}")
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr={self.lr} must be positive and finite")
        for field in ("momentum", "beta2", "warmup"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 0 and below 1")
        for field in ("decay_after", "decay_factor"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigError(f"{field}={getattr(self, field)} must lie between 0 and 1")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay={self.weight_decay} must not be negative")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm={self.clip_norm} must be positive")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay={self.ema_decay} must lie between 0 and 1")
