"""Sizes are written one way in every command, and errors speak of options, all that are missing at once."""

from __future__ import annotations

from typing import Any

import click
import pytest
from dfd_cli import evaluate, predict, prepare, reproduce, train
from dfd_cli.support.wording import in_options

from dfd_train.config.train import recipe_config

STORE = ("--shards", "s.zarr")
SIZED: dict[str, tuple[click.Command, tuple[str, ...], str]] = {
    "dfd-prepare synthetic": (prepare.main.commands["synthetic"], (), "size"),
    "dfd-prepare make3d": (prepare.main.commands["make3d"], (".",), "size"),
    "dfd-prepare rgbd": (prepare.main.commands["rgbd"], (), "size_hw"),
    "dfd-prepare pairs": (prepare.main.commands["pairs"], (), "size_hw"),
    "dfd-prepare nyu": (prepare.main.commands["nyu"], (), "size_hw"),
    "dfd-train": (train.main, STORE, "size"),
    "dfd-reproduce": (reproduce.main, ("table2", *STORE, "--out", "o"), "size"),
    "dfd-eval": (evaluate.main.commands["score"], (*STORE, "--checkpoint", "run"), "size"),
    "dfd-predict": (predict.main.commands["images"], ("a.png",), "size"),
}


def size_of(name: str, text: str) -> tuple[int, int]:
    """(height, width) that the command makes of `--size text`."""
    command, needed, param = SIZED[name]
    value: Any = command.make_context(name, ["--size", text, *needed]).params[param]
    if isinstance(value, str):
        # Settings of training are read where the configuration is made.
        made = recipe_config(shards="s", out="o", size=value).geometry.size
        assert made is not None
        return made
    return (int(value[0]), int(value[1]))


@pytest.mark.parametrize("name", SIZED)
def test_every_command_takes_a_size_width_first(name: str) -> None:
    assert size_of(name, "320x240") == (240, 320)


@pytest.mark.parametrize("name", SIZED)
def test_help_says_width_first(name: str) -> None:
    command = SIZED[name][0]
    option = next(p for p in command.params if "--size" in p.opts)
    assert "WxH" in str(option.metavar)


def test_every_command_with_a_size_is_among_these() -> None:
    def sized(command: click.Command) -> int:
        below = command.commands.values() if isinstance(command, click.Group) else ()
        return any("--size" in p.opts for p in command.params) + sum(map(sized, below))

    assert sum(map(sized, (prepare.main, train.main, evaluate.main, predict.main, reproduce.main))) == len(SIZED)


@pytest.mark.parametrize(
    ("command", "message", "told"),
    [
        (train.main, "batch_size=0 must be at least 1", "--batch-size 0 must be at least 1"),
        (train.main, "cannot resume with another optim.lr, epochs", "cannot resume with another --lr, epochs"),
        (train.main, "config /a/batch_size=3/run.toml: unknown key", "config /a/batch_size=3/run.toml: unknown key"),
        (prepare.main.commands["synthetic"], "focus_distance_m=0.05 must exceed", "--focus 0.05m must exceed"),
        (prepare.main.commands["synthetic"], "pixel_pitch_um=-1 is", "--pixel-pitch -1um is"),
        (prepare.main.commands["rgbd"], "test_list and test_fraction both", "--test-list and --test-fraction both"),
        (prepare.main.commands["rgbd"], "a list of them, pairs_csv", "a list of them, --pairs"),
        (prepare.main.commands["rgbd"], "my_own_name=3 stays", "my_own_name=3 stays"),
        (evaluate.main.commands["score"], "size of the frames", "size of the frames"),
    ],
)
def test_errors_name_options(command: click.Command, message: str, told: str) -> None:
    assert in_options(message, command) == told


@pytest.mark.parametrize(
    ("name", "arguments", "missing"),
    [
        ("dfd-eval", [], ("--shards", "--checkpoint")),
        ("dfd-eval", ["--shards", "s"], ("--checkpoint",)),
        ("dfd-reproduce", [], ("table2", "--shards", "--out")),
        ("dfd-reproduce", ["table2"], ("--shards", "--out")),
    ],
)
def test_all_that_is_missing_is_named_at_once(name: str, arguments: list[str], missing: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError) as caught:
        SIZED[name][0].make_context(name, arguments)
    message = caught.value.format_message()
    assert all(one in message for one in missing)
    assert ("--shards" in message) == ("--shards" in missing)
