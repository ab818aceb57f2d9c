"""What a training run is: one frozen `TrainConfig`, and its way to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dfd_train.config.compute import EngineConfig
from dfd_train.config.geometry import Geometry
from dfd_train.config.lens_range import LensRange
from dfd_train.config.loss import TABLE_II, LossConfig, table_ii_row
from dfd_train.config.model import OF_THE_LENS, VARIANTS, ModelConfig, tuples_from_lists, variant
from dfd_train.config.optim import OptimConfig
from dfd_train.config.options import (
    CHECKPOINTS,
    DATA,
    ENGINE,
    LOSS,
    NETWORK,
    RUN,
    STEPS,
    about,
    check_options,
    check_types,
    option,
)  # fmt: skip
from dfd_train.config.places import require_local
from dfd_train.errors import ConfigError

# The parts of a configuration that are dataclasses of their own.
PARTS = {"model": ModelConfig, "loss": LossConfig, "optim": OptimConfig, "geometry": Geometry, "engine": EngineConfig}
CACHES = ("none", "ram", "device", "auto")
ORDERS = ("random", "shards")
# Of `pretrained`: ImageNet's weights where they are on this machine already.
CACHED = "cached"
SCORES = {"rmse": -1, "abs_rel": -1, "delta1": 1, "psnr": 1, "ssim": 1}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run; the defaults are the paper's (500 epochs, batches of 4, frames resized to 256x256).

    `shards`: the store. `out`: the run's folder. `model`, `loss`, `optim`, `geometry`, `engine`: see their classes.
    `batch_size`: samples that each process computes at once. `pretrained`: None, "imagenet" or a file of DenseNet-121
    weights for the encoder, or "cached" = ImageNet's if torchvision has them on this machine already.
    `init_from`: a run or checkpoint whose weights the network begins with, see `runs.start_from`.
    `device`: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1". `lens`: file of the lens of samples of
    which the store does not say theirs. `lens_range`: ranges of lenses, one of which blurs
    each sample anew in every epoch (`LensRange.parse`); None trains on the stored defocus.

    `order`: "random" draws samples from the whole store, "shards" reads shard after shard and mixes their samples in a
    buffer of `shuffle_buffer`. `cache`: keep decoded samples in "ram", on the "device" or not ("none"); "auto" takes the
    fastest that fits. `prefetch`: batches read ahead.

    `val_fraction`: of the training samples, held out for validation where the store has no val split; 0: none.

    `checkpoint_every`: epochs between checkpoints, of which the newest `keep` stay. `validate_every`: epochs between
    scores of the validation samples, 0 = after the last only; `validate_limit`: on how many of them; `best_by`: the score
    that decides which checkpoint is the best ("auto" = rmse, or psnr without a depth head). `tensorboard`: write its
    event files. `log_every`: steps between rows of steps.csv. `wandb`: project of Weights & Biases to log to.
    `timeout_s`: how long processes wait for one another. `profile`: measure some of the first steps by
    part, see `training.profiling.StepProfile`.

    Raises `ConfigError` for an impossible value.
    """

    shards: str = field(
        metadata=about(metavar="STORE", volatile=True, help="Shard store made by dfd-prepare. [required for a new run]")
    )
    out: str = field(
        metadata=about(metavar="RUN", volatile=True, help="Folder of the run: config, metrics, checkpoints. [required]")
    )
    recipe: str = "paper"
    epochs: int = option(500, group=STEPS, metavar="N", at_least=1, help="Passes over the training split.")
    batch_size: int = option(4, group=STEPS, metavar="N", at_least=1, help="Samples that a process computes at once.")
    seed: int = option(0, group=RUN, metavar="N", at_least=0, help="Of weights, order and flips.")
    model: ModelConfig = field(default_factory=ModelConfig, metadata=about(
        group=NETWORK, metavar="NAME", choices=tuple(VARIANTS), read=variant, default_text="full, 41.4 M parameters",
        help="Two-headed network full, small, light or tiny, or a baseline: dncnn, ircnn, d3net, anwar, gur, song; of the "
        "last four also NAME-small, NAME-light, NAME-tiny.",
    ))  # fmt: skip
    loss: LossConfig = field(default_factory=LossConfig, metadata=about(
        group=LOSS, choices=tuple(TABLE_II), read=table_ii_row, default_text="l1grad+charbssim",
        help="Row of the paper's Table II.",
    ))  # fmt: skip
    optim: OptimConfig = field(default_factory=OptimConfig)
    geometry: Geometry = field(default_factory=Geometry)
    engine: EngineConfig = field(default_factory=EngineConfig)
    lens_range: str | None = option(
        None, group=DATA, metavar="NAME=LOW..HIGH,...",
        help="Blur while training, by a lens drawn for each sample from ranges such as "
        "focus=0.6m..12m,f_number=1.2..5.6,focal_length=24mm..85mm,psf=both; see docs/guide/training.md. "
        "none: as the store is blurred, whatever the recipe.",
    )  # fmt: skip
    lens: str | None = option(
        None, group=DATA, metavar="TOML",
        help="Lens of the samples of which the store does not say theirs, as dfd-calibrate writes it.",
    )  # fmt: skip
    pretrained: str | None = option(
        None, group=NETWORK, metavar="imagenet|cached|FILE",
        help="DenseNet-121 weights for the encoder; cached: if they are here already.",
    )  # fmt: skip
    init_from: str | None = option(
        None, group=NETWORK, metavar="RUN|FILE|NAME", volatile=True,
        help="Begin with the weights of another run, every tensor that fits: fine-tuning on another lens, other heads.",
    )  # fmt: skip
    device: str = option(
        "auto", group=RUN, metavar="NAME", volatile=True, default_text="auto, CUDA where there is a GPU",
        help="auto, cpu, cuda or cuda:N.",
    )  # fmt: skip
    order: str = option(
        "random", group=DATA, choices=ORDERS,
        help="Samples from everywhere, or shard after shard through a shuffle buffer.",
    )  # fmt: skip
    shuffle_buffer: int = option(512, group=DATA, metavar="SAMPLES", at_least=1, help="For --order shards.")
    cache: str = option(
        "none", group=DATA, choices=CACHES, volatile=True,
        help="Keep decoded samples; auto: on the GPU or in RAM if they fit.",
    )  # fmt: skip
    prefetch: int = option(4, group=DATA, metavar="BATCHES", at_least=0, volatile=True, help="Read ahead.")
    checkpoint_every: int = option(
        1, group=CHECKPOINTS, metavar="EPOCHS", at_least=1, volatile=True, help="Save every so many epochs."
    )
    keep: int = option(
        2, group=CHECKPOINTS, metavar="N", at_least=1, volatile=True,
        help="Newest checkpoints that stay, beside best.pt.",
    )  # fmt: skip
    val_fraction: float = option(
        0.1, group=CHECKPOINTS, metavar="0..1", at_least=0, below=1,
        help="Of train, held out for validation where the store has no val split; 0: none.",
    )  # fmt: skip
    validate_every: int = option(
        10, group=CHECKPOINTS, metavar="EPOCHS", at_least=0, volatile=True,
        help="Score the validation samples; 0 = after the last only.",
    )  # fmt: skip
    validate_limit: int = option(
        64, group=CHECKPOINTS, metavar="IMAGES", at_least=1, volatile=True, help="Of the validation samples at most."
    )
    log_every: int = option(
        0, group=CHECKPOINTS, metavar="STEPS", at_least=0, volatile=True,
        help="Log every so many steps: a line, RUN/steps.csv and the event files; 0: epochs only.",
    )  # fmt: skip
    wandb: str | None = option(
        None, group=CHECKPOINTS, metavar="PROJECT", volatile=True,
        help="Log to this project of Weights & Biases (needs the package wandb).",
    )  # fmt: skip
    best_by: str = option(
        "auto", group=CHECKPOINTS, choices=("auto", *SCORES), volatile=True,
        default_text="auto: rmse, psnr without depth", help="Score of best.pt.",
    )  # fmt: skip
    tensorboard: bool = option(True, group=CHECKPOINTS, volatile=True, help="Write RUN/tensorboard.")
    timeout_s: float = option(
        600.0, group=ENGINE, metavar="SECONDS", above=0, volatile=True, help="Wait for other processes at most."
    )
    profile: bool = option(
        False, group=ENGINE, volatile=True, help="Print a step's time by part, write RUN/trace.json."
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.pretrained not in (None, CACHED) and not self.model.about.encoder:
            raise ConfigError(
                f"pretrained={self.pretrained} is not possible with the model {self.model.name}: it has no encoder"
            )
        if self.pretrained not in (None, CACHED) and self.init_from is not None:
            raise ConfigError(f"pretrained={self.pretrained} and init_from={self.init_from} exclude each other")
        require_local("out", self.out)
        if self.model.uncertainty and self.loss.depth == "silog":
            raise ConfigError("uncertainty is not possible with the depth loss silog: it has no scale of an error")
        if self.loss.relative and (self.model.predict not in OF_THE_LENS or self.loss.depth == "silog"):
            raise ConfigError(
                "relative=True, of --relative-depth, needs predict=coc or coc+side, and a depth loss other than silog"
            )
        if self.lenses is not None and (self.model.about.pictures > 1 or self.model.input == "aif"):
            raise ConfigError(
                f"lens_range is not possible with the model {self.model.name} and input={self.model.input}"
            )

    @property
    def lenses(self) -> LensRange | None:
        """`lens_range` read, None where the stored defocus is used: a recipe's ranges give way to "none"."""
        return None if self.lens_range in (None, "none") else LensRange.parse(self.lens_range)

    @property
    def best_score(self) -> str:
        """The score that decides which checkpoint is the best."""
        if self.best_by != "auto":
            return self.best_by
        return "rmse" if "depth" in self.model.heads else "psnr"

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`, also after JSON; raises `ConfigError` where the fields are not this class's."""
        try:
            for name, part in PARTS.items():
                check_types(part, values[name])
            check_types(cls, values)
            nested = {name: part(**tuples_from_lists(values[name])) for name, part in PARTS.items()}
            # A run from before there was a split for validation trained on all of train, and goes on so.
            return cls(**{"val_fraction": 0.0, **values, **nested})
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ConfigError(f"not a training configuration of this version: {error}") from error
