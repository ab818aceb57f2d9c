"""A setting of a training run, defined once, means the same wherever it is given."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from dfd_cli import train as train_command

from dfd_train.config.options import Option
from dfd_train.config.toml import configured, toml_text
from dfd_train.config.train import OPTIONS, TrainConfig, changed_fields, recipe_config, with_options
from dfd_train.errors import ConfigError

BASE = recipe_config(shards="s.zarr", out="run", model="small", device="cpu")
# Where the text of a value cannot be told from its type and choices.
TEXTS = {
    "size": "96",
    "crop": "64x96",
    "pretrained": "w.pth",
    "device": "cuda:1",
    "input": None,
    # Only together with --lens-input, and with an answer that the lens turns into metres.
    "lens_hidden": None,
    "height_input": None,
    "relative": None,
    "lens_range": "focus=1m..2m",
}


def another(setting: Option) -> str | None:
    """A possible value as a person types it, other than `BASE`'s; None where a single setting cannot change."""
    if setting.name in TEXTS:
        return TEXTS[setting.name]
    kind = setting.annotation.removesuffix(" | None")
    if setting.choices:
        return setting.choices[-2] if setting.name == "loss" else setting.choices[-1 if setting.name != "model" else 2]
    return {"bool": str(not setting.default), "int": "7", "float": "0.125", "str": "other"}[kind]


CASES = {name: text for name, setting in OPTIONS.items() if (text := another(setting)) is not None}


def with_typed(setting: Option, text: str) -> TrainConfig:
    """`BASE` changed by the setting as `dfd-train` reads it."""
    flag = setting.flag or setting.name.replace("_", "-")
    words = [f"--{flag}", text]
    if setting.annotation == "bool":
        words = [f"--{flag}" if text == "True" else f"--no-{flag}"]
    given = train_command.main.make_context("dfd-train", words).params
    return with_options(BASE, **{name: value for name, value in given.items() if name in OPTIONS})


def written(setting: Option, text: str) -> str:
    kind = setting.annotation.removesuffix(" | None")
    return text.lower() if kind in ("int", "float", "bool") else json.dumps(text)


@pytest.mark.parametrize("name", CASES)
def test_it_means_the_same_on_the_command_line_in_toml_and_from_python(name: str, tmp_path: Path) -> None:
    setting, text = OPTIONS[name], CASES[name]
    from_line = with_typed(setting, text)
    assert from_line != BASE
    path = tmp_path / "run.toml"
    settings = {"shards": '"s.zarr"', "out": '"run"', "model": '"small"', "device": '"cpu"'}
    settings[name] = written(setting, text)
    path.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    assert configured(path) == from_line
    # What a run writes of itself gives the same run, as does its config.json, by which it is resumed.
    path.write_text(toml_text(from_line, {}))
    assert configured(path) == from_line
    assert TrainConfig.from_dict(json.loads(json.dumps(from_line.to_dict()))) == from_line


@pytest.mark.parametrize("name", CASES)
def test_resuming_refuses_it_exactly_where_it_decides_the_result(name: str) -> None:
    after = with_typed(OPTIONS[name], CASES[name])
    assert bool(changed_fields(BASE, after)) is not OPTIONS[name].volatile


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, setting in OPTIONS.items()
        for value in (
            *([setting.at_least - 1] if setting.at_least is not None else ()),
            *([setting.above] if setting.above is not None else ()),
            *([float("nan"), float("inf")] if "float" in setting.annotation else ()),
            *(["nonsense"] if setting.choices else ()),
        )
    ],
)
def test_what_it_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        with_options(BASE, **{name: value})
    assert f"{name}={value!r}" in str(caught.value)


def test_a_field_without_help_is_not_offered_but_checked() -> None:
    offered = {option.name for option in train_command.main.params if isinstance(option, click.Option)}
    assert set(OPTIONS) <= offered
    hidden = {f.name for part in ("optim", "loss") for f in fields(getattr(BASE, part))} - set(OPTIONS)
    assert not hidden & offered
    with pytest.raises(ConfigError, match=r"momentum=1.0 must be at least 0 and below 1"):
        type(BASE.optim)(momentum=1.0)
