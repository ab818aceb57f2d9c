"""The recipes that a training run starts from, and its settings by name: for the command line, TOML and Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from defocus_sim.units import size_text
from dfd_train.config.compute import EngineConfig
from dfd_train.config.geometry import Geometry
from dfd_train.config.loss import LossConfig, table_ii_row
from dfd_train.config.model import ModelConfig, variant
from dfd_train.config.optim import OptimConfig
from dfd_train.config.options import Option, options_of
from dfd_train.config.run import CACHED, PARTS, SCORES, TrainConfig
from dfd_train.errors import ConfigError

_FAST: dict[str, Any] = {
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
# What the weights that come with the installation are trained with, on procedural scenes: `make weights`.
_ANY_LENS = _FAST | {
    "model": replace(
        variant("light"), stem="blur", init="kaiming", zero_last_aif=True, predict="coc+side", uncertainty=True,
        lens_input=True, lens_hidden=0.3, height_input=True,
    ),
    "optim": replace(_FAST["optim"], lr=2e-3, ema_decay=0.998),
    # Whole frames: which side of the focus a surface is on shows in how a scene is laid out, not in a window of it.
    "geometry": Geometry(size=None, crop=None),
    "engine": EngineConfig(precision="bf16", channels_last=True),
    "batch_size": 4,
    "epochs": 10,
    "lens_range": "focus=0.3m..30m,near_depths=0.8,f_number=1..8,focal_length=20mm..100mm,sensor_width=13mm..36mm,"
    "most_coc_px=2..12,psf=both,light=both,layered=0.4,softness_px=0..0.7,sigma_per_coc=0.24..0.32,"
    "focus_blur_px=0..0.6,tone=0.8..1.3,exposure=0.6..2.5,noise=0..2,demosaic=0.5,denoise=0..2.5,sharpen=0..0.5,"
    "jpeg=60..100,clean=1",
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {"paper": {}, "authors": _AUTHORS, "fast": _FAST, "any-lens": _ANY_LENS}


def recipe_config(recipe: str = "paper", *, shards: str | Path, out: str | Path, **options: Any) -> TrainConfig:
    """The run that a recipe describes, with settings changed.

    "authors" = the paper's with Adam(0.5, 0.999) and images in [-1, 1], as in the authors' code.

    "fast" = AdamW with warm-up and cosine, gradient clipping, averaged weights, balanced losses, a restoration that
    starts as the identity, 256x256 crops at the frames' own resolution, and ImageNet's encoder where it is at hand.

    "any-lens" = the weights that come with the installation: the network light, told the lens or not, which answers a
    circle of confusion and how sure it is of it, with a new lens for each picture of each epoch; in bfloat16.

    Parameters
    ----------
    recipe
        One of `RECIPES`.
    shards, out
        The store, and the run's folder.
    options
        As for `with_options`.

    Returns
    -------
    TrainConfig
        The settings of the run.

    Raises
    ------
    ConfigError
        For an unknown recipe or option.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"recipe={recipe!r} must be one of {', '.join(RECIPES)}")
    base = TrainConfig(shards=str(shards), out=str(out), recipe=recipe, **RECIPES[recipe])
    if recipe == "fast":
        base = replace(base, model=replace(base.model, zero_last_aif=True, stem="blur", init="kaiming"))
    return with_options(base, **options)


def with_options(config: TrainConfig, **options: Any) -> TrainConfig:
    """A run's settings with some of them changed by their names in `OPTIONS`.

    Parameters
    ----------
    config
        What to start from.
    options
        One that is None changes nothing. `model`: name of a variant; `loss`: a row of Table II; `heads`: "both", "depth" or
        "deblur"; `size`, `crop`: pixels as "256" or "320x240", width first, or as the pair (height, width)
        (`size="native"` keeps the frames' own), which exclude each other. Other values are those of the fields.

    Returns
    -------
    TrainConfig
        The changed settings.

    Raises
    ------
    ConfigError
        For an unknown name or an impossible value.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name}{nearest(name, OPTIONS)}")
    if "size" in given and "crop" in given:
        raise ConfigError("size and crop exclude each other: a crop is taken at the frames' own resolution")
    parts: dict[str, Any] = {"model": config.model, "loss": config.loss}
    if "model" in given:
        parts["model"] = _other_model(config.model, variant(given.pop("model")))
    about_loss = [name for name in given if name == "loss" or OPTIONS[name].part == "loss"]
    if about_loss and not parts["model"].about.labelled:
        asked = f"{about_loss[0]}={given[about_loss[0]]}"
        raise ConfigError(f"{asked} means nothing to the model {parts['model'].name}: it has a loss of its own")
    if "loss" in given:
        row = table_ii_row(given.pop("loss"))
        parts["loss"] = replace(config.loss, depth=row.depth, image=row.image)
    changes: dict[str, dict[str, Any]] = {}
    if "size" in given or "crop" in given:
        changes["geometry"] = {"size": None, "crop": None}
    for name, value in given.items():
        setting = OPTIONS[name]
        value = str(value) if isinstance(value, Path) else value
        changes.setdefault(setting.part, {})[name] = value if setting.read is None else setting.read(value)
    plain = changes.pop("", {})
    parts |= {part: replace(parts.get(part, getattr(config, part)), **fields) for part, fields in changes.items()}
    return replace(config, **parts, **plain)


def _other_model(before: ModelConfig, chosen: ModelConfig) -> ModelConfig:
    """`chosen` with those settings of `before` that no variant decides."""
    kept = {name for name, setting in OPTIONS.items() if setting.part == "model"} | {"zero_last_aif", "input_range"}
    if chosen.method != before.method:
        # Another method has its own heads; another width of the same keeps those that were chosen.
        kept.discard("heads")
    if not chosen.about.encoder:
        kept.discard("stem")
    return replace(chosen, **{name: getattr(before, name) for name in kept})


def _registry() -> dict[str, Option]:
    """Every setting that has a name of its own on the command line, in the order of the fields."""
    found: dict[str, Option] = {}
    own = options_of(TrainConfig)
    for f in fields(TrainConfig):
        found |= {f.name: own[f.name]} if f.name in own else {}
        found |= options_of(PARTS[f.name], f.name) if f.name in PARTS else {}
    return {name: setting for name, setting in found.items() if setting.help}


# What `with_options`, the command lines and the top of a TOML file take, by name.
OPTIONS: dict[str, Option] = _registry()


def told_default(setting: Option) -> str:
    """The default of a setting as help tells it, with those of the recipes that have another: "500; fast 60"."""
    if setting.default_text:
        return setting.default_text
    told = {}
    for recipe in RECIPES:
        config = recipe_config(recipe, shards="", out="")
        told[recipe] = _told(getattr(getattr(config, setting.part) if setting.part else config, setting.name))
    others = [f"{recipe} {value}" for recipe, value in told.items() if value != told["paper"]]
    return "; ".join([told["paper"], *others])


def _told(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return size_text(value[:1] if value[0] == value[1] else value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean NAME?" for the name among `known` that looks most like `name`, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


def changed_fields(before: TrainConfig, after: TrainConfig) -> list[str]:
    """Names of the fields that decide a run's result and differ, dotted where nested ("optim.lr")."""
    changed = []
    for f in fields(TrainConfig):
        old, new = getattr(before, f.name), getattr(after, f.name)
        if (f.name in OPTIONS and OPTIONS[f.name].volatile) or old == new:
            continue
        if f.name in PARTS:
            changed += [f"{f.name}.{g.name}" for g in fields(old) if getattr(old, g.name) != getattr(new, g.name)]
        else:
            changed.append(f.name)
    return changed


__all__ = [
    "CACHED",
    "OPTIONS",
    "PARTS",
    "RECIPES",
    "SCORES",
    "TrainConfig",
    "changed_fields",
    "nearest",
    "recipe_config",
    "told_default",
    "with_options",
]
