"""The settings of a training run as options of a command, all made from the one place where they are defined."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click
from dfd_cli.support.help import under

from dfd_train.config.options import GROUPS, Option
from dfd_train.config.train import OPTIONS, told_default

F = TypeVar("F", bound=Callable[..., Any])


def settings(without: Collection[str] = ()) -> Callable[[F], F]:
    """Decorate a command with every setting of a training run but those `without`; None = not given."""

    def decorate(command: F) -> F:
        chosen = [setting for name, setting in OPTIONS.items() if name not in without]
        chosen.sort(key=lambda setting: GROUPS.index(setting.group))
        # The decorator nearest to the function comes last in its help.
        for setting in reversed(chosen):
            command = _declared(setting)(command)
        return command

    return decorate


def _declared(setting: Option) -> Any:
    flag = setting.flag or setting.name.replace("_", "-")
    explained = setting.help if "[required" in setting.help else f"{setting.help} [default: {told_default(setting)}]"
    kind = setting.annotation.removesuffix(" | None")
    if kind == "bool":
        return under(setting.group, f"--{flag}/--no-{flag}", setting.name, default=None, help=explained)
    if setting.choices:
        value: Any = click.Choice(setting.choices)
    else:
        value = {"int": int, "float": float}.get(kind, str)
    return under(setting.group, f"--{flag}", setting.name, type=value, metavar=setting.metavar, help=explained)
