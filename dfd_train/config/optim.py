"""How the weights move: the optimizer and the schedule of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.config.options import STEPS, check_options, option

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

    optimizer: str = option("sgd", group=STEPS, choices=OPTIMIZERS, help="Rule of the steps.")
    lr: float = option(2e-4, group=STEPS, metavar="RATE", above=0, help="Peak learning rate.")
    momentum: float = option(0.9, at_least=0, below=1)
    beta2: float = option(0.999, at_least=0, below=1)
    weight_decay: float = option(0.0, at_least=0)
    schedule: str = option("step", choices=SCHEDULES)
    warmup: float = option(0.0, at_least=0, below=1)
    decay_after: float = option(0.6, at_least=0, at_most=1)
    decay_factor: float = option(0.1, at_least=0, at_most=1)
    clip_norm: float | None = option(None, group=STEPS, metavar="NORM", above=0, help="Largest norm of the gradient.")
    ema_decay: float | None = option(None, above=0, below=1)

    def __post_init__(self) -> None:
        check_options(self)
