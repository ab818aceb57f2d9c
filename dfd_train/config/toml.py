"""Runs as TOML: `--config run.toml`, and the resolved file in every run's folder that can be given back.

At the top of a file stand the options of the command line (`lr = 1e-3`, `model = "tiny"`, `size = "320x240"`); tables
(`[optim]`, `[model]`, ...) set single fields of a part, a size as `[height, width]`. TOML has no null: the text
"none" takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from defocus_sim.errors import parse_toml
from dfd_train.config.train import OPTIONS, PARTS, TrainConfig, nearest, recipe_config, with_options
from dfd_train.errors import ConfigError, DfdTrainError

NULL = "none"
# What no run can do without, and how it is asked for.
PLACES = {"shards": "the shard store: --shards STORE", "out": "the run's folder: --out RUN"}
# The annotations that a field of a configuration may have, and what TOML gives for them.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "tuple[int, int]": (list,),
    "tuple[int, ...]": (list,), "tuple[str, ...]": (list,),
}  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """The content of a TOML file; raises `ConfigError` where it cannot be read."""
    try:
        return parse_toml(Path(path).read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError as error:
        raise ConfigError(f"config {path} not found") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error


def configured(path: Path | None, *, recipe: str | None = None, **options: Any) -> TrainConfig:
    """The run that the file `path` (None = no file) describes, with `recipe` and `options` above it.

    In rising precedence: the recipe, the file's options, the file's tables, `options` that are not None. Raises
    `ConfigError` naming the file and the key for an unknown key or a value of the wrong type, and where no store or no
    folder is given.
    """
    content = {} if path is None else read_config(path)
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    flat = {name.replace("-", "_"): value for name, value in content.items() if name not in tables}
    recipe = recipe or flat.pop("recipe", None) or "paper"
    flat.pop("recipe", None)
    given = {name: value for name, value in options.items() if value is not None}
    places = {name: given.pop(name, None) or flat.pop(name, None) for name in PLACES}
    missing = [what for name, what in PLACES.items() if places[name] is None]
    if missing:
        raise ConfigError(f"give {' and '.join(missing)}")
    flat = {name: value for name, value in flat.items() if name not in PLACES}
    base = recipe_config(recipe, shards=str(places["shards"]), out=str(places["out"]))
    try:
        base = with_options(base, **{name: _option(name, value) for name, value in flat.items()})
        base = replace(base, **{name: _table(base, name, table) for name, table in tables.items()})
    except DfdTrainError as error:
        raise ConfigError(f"config {path}: {error}") from error
    return with_options(base, **given)


def toml_text(config: TrainConfig, facts: Mapping[str, str]) -> str:
    """`config` as TOML that `configured` turns into the same again; `facts` go into comments above it."""
    comments = [f"# {name}: {' '.join(str(value).split())}\n" for name, value in facts.items()]
    content = {name: _told(value) for name, value in config.to_dict().items()}
    return "".join(comments) + tomli_w.dumps(content)


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _told(one) for name, one in value.items()}
    return NULL if value is None else value


def _option(name: str, value: Any) -> Any:
    """`value` of a key at the top of a file, checked where its field's type is known."""
    if name not in OPTIONS:
        raise ConfigError(f"unknown key {name}{nearest(name, [*OPTIONS, *PARTS, 'recipe'])}")
    setting = OPTIONS[name]
    if setting.read is None:
        return _checked(name, value, setting.annotation)
    if isinstance(value, bool) or not isinstance(value, setting.written):
        raise ConfigError(f"{name} = {value!r} is not a text")
    return value


def _table(base: TrainConfig, name: str, table: Mapping[str, Any]) -> Any:
    if name not in PARTS:
        raise ConfigError(f"unknown table [{name}]{nearest(name, PARTS)}")
    part = getattr(base, name)
    kinds = {f.name: str(f.type) for f in fields(part)}
    values = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(f"unknown key {name}.{key}{nearest(key, kinds)}")
        values[key] = _checked(f"{name}.{key}", value, kinds[key])
    return replace(part, **values)


def _checked(name: str, value: Any, annotation: str) -> Any:
    """`value` as a field annotated so would have it; raises `ConfigError` where it is of another type."""
    kind = annotation.removesuffix(" | None")
    if kind != annotation and value == NULL:
        return None
    wrong = not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool")
    if isinstance(value, list):
        wrong |= any(not isinstance(item, str if "str" in kind else int) for item in value)
    if wrong:
        raise ConfigError(f"{name} = {value!r} is not of the type {annotation.replace('None', NULL)}")
    if isinstance(value, list):
        return tuple(value)
    return float(value) if kind == "float" else value
