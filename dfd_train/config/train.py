"""What a training run is: one frozen `TrainConfig`, the recipes it starts from, and its way to JSON and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dfd_train.config.compute import EngineConfig
from dfd_train.config.geometry import Geometry, parse_shape
from dfd_train.config.loss import LossConfig, with_terms
from dfd_train.config.model import HEAD_CHOICES, ModelConfig, tuples_from_lists, variant
from dfd_train.config.optim import OptimConfig
from dfd_train.config.places import require_local
from dfd_train.errors import ConfigError

# What a resumed run may change: where and how fast it runs, never what it computes.
VOLATILE = (
    "shards", "out", "device", "cache", "prefetch", "checkpoint_every", "keep", "best_by", "validate_every",
    "validate_limit", "tensorboard", "timeout_s", "profile",
)  # fmt: skip
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
    `device`: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".

    `order`: "random" draws samples from the whole store, "shards" reads shard after shard and mixes their samples in a
    buffer of `shuffle_buffer`. `cache`: keep decoded samples in "ram", on the "device" or not ("none"); "auto" takes the
    fastest that fits. `prefetch`: batches read ahead.

    `val_fraction`: of the training samples, held out for validation where the store has no val split; 0: none.

    `checkpoint_every`: epochs between checkpoints, of which the newest `keep` stay. `validate_every`: epochs between
    scores of the validation samples, 0 = after the last only; `validate_limit`: on how many of them; `best_by`: the score
    that decides which checkpoint is the best ("auto" = rmse, or psnr without a depth head). `tensorboard`: write its
    event files. `timeout_s`: how long processes wait for one another. `profile`: measure some of the first steps by
    part, see `profiling.StepProfile`.

    Raises `ConfigError` for an impossible value.
    """

    shards: str
    out: str
    recipe: str = "paper"
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    geometry: Geometry = field(default_factory=Geometry)
    engine: EngineConfig = field(default_factory=EngineConfig)
    epochs: int = 500
    batch_size: int = 4
    seed: int = 0
    pretrained: str | None = None
    device: str = "auto"
    order: str = "random"
    shuffle_buffer: int = 512
    cache: str = "none"
    prefetch: int = 4
    checkpoint_every: int = 1
    keep: int = 2
    val_fraction: float = 0.1
    validate_every: int = 10
    validate_limit: int = 64
    best_by: str = "auto"
    tensorboard: bool = True
    timeout_s: float = 600.0
    profile: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1), ("batch_size", 1), ("seed", 0), ("shuffle_buffer", 1), ("prefetch", 0),
            ("checkpoint_every", 1), ("keep", 1), ("validate_every", 0), ("validate_limit", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}")
        for name, known in (("order", ORDERS), ("cache", CACHES), ("best_by", ("auto", *SCORES))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        if self.pretrained not in (None, CACHED) and not self.model.about.encoder:
            raise ConfigError(
                f"pretrained={self.pretrained} is not possible with the model {self.model.name}: it has no encoder"
            )
        require_local("out", self.out)
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction={self.val_fraction} must be at least 0 and below 1")
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError(f"timeout_s={self.timeout_s} must be positive and finite")

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
            nested = {name: part(**tuples_from_lists(values[name])) for name, part in PARTS.items()}
            return cls(**{**values, **nested})
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a training configuration of this version: {error}") from error


_FAST = {
    "loss": LossConfig(deblur_weight=1.0, balance="auto"),
    "optim": OptimConfig(
        optimizer="adamw", lr=3e-3, weight_decay=1e-4, schedule="cosine", warmup=0.05, decay_factor=0.01, clip_norm=1.0,
        ema_decay=0.99,
    ),
    "geometry": Geometry(size=None, crop=(256, 256)),
    "epochs": 60,
    "pretrained": CACHED,
}  # fmt: skip
# What the authors' public code does where the paper says something else or nothing.
_AUTHORS = {
    "model": ModelConfig(input_range="signed"),
    "optim": OptimConfig(optimizer="adam", momentum=0.5, beta2=0.999),
}
RECIPES: dict[str, dict[str, Any]] = {"paper": {}, "authors": _AUTHORS, "fast": _FAST}


def recipe_config(recipe: str = "paper", *, shards: str | Path, out: str | Path, **options: Any) -> TrainConfig:
    """The run that `recipe` ("paper", "authors" or "fast") describes, changed by `options` (see `with_options`).

    "authors" = the paper's with Adam(0.5, 0.999) and images in [-1, 1], as in the authors' code.

    "fast" = AdamW with warm-up and cosine, gradient clipping, averaged weights, balanced losses, a restoration that
    starts as the identity, 256x256 crops at the frames' own resolution, and ImageNet's encoder where it is at hand.
    Raises `ConfigError` for an unknown recipe or option.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"recipe={recipe!r} must be one of {', '.join(RECIPES)}")
    base = TrainConfig(shards=str(shards), out=str(out), recipe=recipe, **RECIPES[recipe])
    base = replace(base, model=replace(base.model, zero_last_aif=recipe == "fast"))
    return with_options(base, **options)


def with_options(config: TrainConfig, **options: Any) -> TrainConfig:
    """`config` with the flat options of the command line applied; an option that is None changes nothing.

    `model`: variant name. `heads`: "both", "depth" or "deblur". `stem`. `input`: "defocused" or "aif". `loss`: a row of
    Table II by name.
    `deblur_weight`, `balance`. `size`, `crop`: pixels as "256" or "192x256" (`size="native"` keeps the frames' own).
    `optimizer`, `lr`, `clip_norm`. The fields of `EngineConfig`.

    Other names are fields of `TrainConfig`. Raises `ConfigError` for an unknown one.
    """
    given = {name: value for name, value in options.items() if value is not None}
    model, loss, optim, geometry = config.model, config.loss, config.optim, config.geometry
    if "model" in given:
        chosen = variant(given.pop("model"))
        # Another method has its own heads; another width of the same keeps those that were chosen.
        kept = ("stem", "zero_last_aif", "input_range", "input", *(("heads",) if chosen.method == model.method else ()))
        model = replace(chosen, **{name: getattr(model, name) for name in kept})
    if "heads" in given:
        heads = given.pop("heads")
        if heads not in HEAD_CHOICES:
            raise ConfigError(f"heads={heads!r} must be one of {', '.join(HEAD_CHOICES)}")
        model = replace(model, heads=HEAD_CHOICES[heads])
    model = replace(model, **_take(given, "stem", "input"))
    ignored = [name for name in ("loss", "deblur_weight", "balance") if name in given]
    if ignored and not model.about.labelled:
        option = f"{ignored[0]}={given[ignored[0]]}"
        raise ConfigError(f"{option} means nothing to the model {model.name}: it has a loss of its own")
    if "loss" in given:
        loss = with_terms(loss, given.pop("loss"))
    loss = replace(loss, **_take(given, "deblur_weight", "balance"))
    optim = replace(optim, **_take(given, "optimizer", "lr", "clip_norm"))
    engine = replace(config.engine, **_take(given, *(f.name for f in fields(EngineConfig))))
    if "size" in given and "crop" in given:
        raise ConfigError("size and crop exclude each other: a crop is taken at the frames' own resolution")
    if "size" in given:
        size = given.pop("size")
        geometry = replace(geometry, size=None if size == "native" else _shape(size), crop=None)
    if "crop" in given:
        geometry = replace(geometry, size=None, crop=_shape(given.pop("crop")))
    plain = {f.name for f in fields(TrainConfig)} - {"recipe", *PARTS}
    for name in given:
        if name not in plain:
            raise ConfigError(f"unknown option {name}{nearest(name, OPTIONS)}")
    given |= {name: str(given[name]) for name in ("shards", "out", "pretrained") if name in given}
    return replace(config, model=model, loss=loss, optim=optim, geometry=geometry, engine=engine, **given)


# Every name that `with_options` takes.
OPTIONS = (
    "model", "heads", "stem", "input", "loss", "deblur_weight", "balance", "size", "crop", "optimizer", "lr", "clip_norm",
    *(f.name for f in fields(EngineConfig)),
    *(f.name for f in fields(TrainConfig) if f.name not in ("recipe", *PARTS)),
)  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean NAME?" for the name among `known` that looks most like `name`, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


def changed_fields(before: TrainConfig, after: TrainConfig) -> list[str]:
    """Names of the fields that decide a run's result and differ, dotted where nested ("optim.lr")."""
    changed = []
    for f in fields(TrainConfig):
        old, new = getattr(before, f.name), getattr(after, f.name)
        if f.name in VOLATILE or old == new:
            continue
        if f.name in PARTS:
            changed += [f"{f.name}.{g.name}" for g in fields(old) if getattr(old, g.name) != getattr(new, g.name)]
        else:
            changed.append(f.name)
    return changed


def _take(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: given.pop(name) for name in names if name in given}


def _shape(value: str | int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else parse_shape(str(value))
