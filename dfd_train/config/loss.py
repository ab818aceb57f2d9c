"""What the training loss is made of; free of torch, so that a command line can name the presets at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dfd_train.errors import ConfigError

DEPTH_TERMS = ("l1", "l1+grad")
IMAGE_TERMS = ("l1", "charb", "charb+ssim")
BALANCES = ("literal", "auto")
PAPER_LAMBDA = 0.01


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`total = depth + lambda * deblur` (Nazir et al. 2023, section III); the defaults are Table II's last row.

    `depth`: "l1" (eq 1) or "l1+grad" (eq 2, weight `mu`). `image`: "l1", "charb" (eq 4, `eps` in units of [0, 1]) or
    "charb+ssim" (eq 5, weight `psi`). `deblur_weight`: lambda. `balance`: "literal" uses `deblur_weight` as it is; with
    "auto" it multiplies the ratio depth / deblur measured over the first `balance_steps` steps, which is then frozen:
    `deblur_weight=1` lets both terms weigh alike at the start.

    Raises `ConfigError` for an impossible value.
    """

    depth: str = "l1+grad"
    image: str = "charb+ssim"
    mu: float = 1e-3
    eps: float = 1e-3
    psi: float = 4.0
    deblur_weight: float = PAPER_LAMBDA
    balance: str = "literal"
    balance_steps: int = 20

    def __post_init__(self) -> None:
        for field, known in (("depth", DEPTH_TERMS), ("image", IMAGE_TERMS), ("balance", BALANCES)):
            if getattr(self, field) not in known:
                raise ConfigError(f"loss {field}={getattr(self, field)!r} must be one of {', '.join(known)}")
        for field in ("mu", "psi", "deblur_weight"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise ConfigError(f"loss {field}={getattr(self, field)} must be finite and not negative")
        if not 0 < self.eps < 1:
            raise ConfigError(f"loss eps={self.eps} must lie between 0 and 1")
        if self.balance_steps < 1:
            raise ConfigError(f"loss balance_steps={self.balance_steps} must be at least 1")


# The five rows of the paper's Table II, by the names that the command line takes.
TABLE_II: dict[str, LossConfig] = {
    "l1+charb": LossConfig(depth="l1", image="charb"),
    "l1+l1": LossConfig(depth="l1", image="l1"),
    "l1grad+charb": LossConfig(depth="l1+grad", image="charb"),
    "l1+charbssim": LossConfig(depth="l1", image="charb+ssim"),
    "l1grad+charbssim": LossConfig(depth="l1+grad", image="charb+ssim"),
}


def with_terms(config: LossConfig, name: str) -> LossConfig:
    """`config` with the terms of Table II's row `name`, its weights kept; raises `ConfigError` for another name."""
    if name not in TABLE_II:
        raise ConfigError(f"loss={name!r} must be one of {', '.join(TABLE_II)}")
    return replace(config, depth=TABLE_II[name].depth, image=TABLE_II[name].image)
