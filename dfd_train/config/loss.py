"""What the training loss is made of; free of torch, so that a command line can name the presets at once."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.config.options import LOSS, check_options, option
from dfd_train.errors import ConfigError

DEPTH_TERMS = ("l1", "l1+grad", "silog")
IMAGE_TERMS = ("l1", "charb", "charb+ssim")
BALANCES = ("literal", "auto")
PAPER_LAMBDA = 0.01


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`total = depth + lambda * deblur` (Nazir et al. 2023, section III); the defaults are Table II's last row.

    `depth`: "l1" (eq 1), "l1+grad" (eq 2, weight `mu`) or "silog" (scale-invariant,
    see `terms.silog_loss`). `image`: "l1", "charb" (eq 4, `eps` in units of [0, 1]) or
    "charb+ssim" (eq 5, weight `psi`). `deblur_weight`: lambda. `balance`: "literal" uses `deblur_weight` as it is; with
    "auto" it multiplies the ratio depth / deblur measured over the first `balance_steps` steps, which is then frozen:
    `deblur_weight=1` lets both terms weigh alike at the start. `relative`: a pixel's error of a circle of confusion weighs
    by focus distance over depth, limited to 1/4 and 4: where two depths are possible, the answer is then the one whose
    relative error is the least to be expected.

    Raises `ConfigError` for an impossible value.
    """

    depth: str = option(
        "l1+grad", group=LOSS, flag="depth-loss", choices=DEPTH_TERMS, default_text="that of --loss: l1+grad",
        help="Depth side of the loss; silog: scale-invariant logarithmic.",
    )  # fmt: skip
    relative: bool = option(
        False, group=LOSS, flag="relative-depth",
        help="With --predict coc and coc+side: pixels weigh by 1/depth, as relative errors do.",
    )  # fmt: skip
    image: str = option("charb+ssim", choices=IMAGE_TERMS)
    mu: float = option(1e-3, at_least=0)
    eps: float = option(1e-3, above=0, below=1)
    psi: float = option(4.0, at_least=0)
    deblur_weight: float = option(
        PAPER_LAMBDA, group=LOSS, flag="lambda", metavar="WEIGHT", at_least=0, help="Weight of the deblurring loss."
    )
    balance: str = option(
        "literal", group=LOSS, choices=BALANCES,
        help="Use --lambda as it is, or times the measured ratio of the losses.",
    )  # fmt: skip
    balance_steps: int = option(20, at_least=1)

    def __post_init__(self) -> None:
        check_options(self, "loss ")


# The five rows of the paper's Table II, by the names that the command line takes.
TABLE_II: dict[str, LossConfig] = {
    "l1+charb": LossConfig(depth="l1", image="charb"),
    "l1+l1": LossConfig(depth="l1", image="l1"),
    "l1grad+charb": LossConfig(depth="l1+grad", image="charb"),
    "l1+charbssim": LossConfig(depth="l1", image="charb+ssim"),
    "l1grad+charbssim": LossConfig(depth="l1+grad", image="charb+ssim"),
}


def table_ii_row(name: str) -> LossConfig:
    """Table II's row `name`; raises `ConfigError` for another name."""
    if name not in TABLE_II:
        raise ConfigError(f"loss={name!r} must be one of {', '.join(TABLE_II)}")
    return TABLE_II[name]
