"""What goes wrong, in the words of the command line: options where a library says names, all that is missing at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import click

# Arguments of the packages that no option is called after, and what only Python can say.
_PYTHON_ONLY = ", solve_max_coc_px"
_CALLED = {"focus_distance": "--focus"}
_SUFFIX = re.compile(r"_(mm|m|um|px|hw|csv)$")
_UNITS = ("mm", "m", "um", "px")
_PART = r"(?:(?:model|loss|optim|geometry|engine)\.)?"
# A name with its value, or one that has an underscore and so is no word of the language; never inside a path or a key.
_NAME = re.compile(rf"(?<![\w./='\"\[-]){_PART}([a-z][a-z0-9]*(?:_[a-z0-9]+)*)(=(?=\S)([+-]?[\d.]+)?|(?![\w=/]| = ))")


def in_options(message: str, command: click.Command) -> str:
    """`message` with the names of arguments replaced by those of the options of `command` that set them.

    "batch_size=0 must be at least 1" becomes "--batch-size 0 must be at least 1"; names that no option has stay.
    """
    flags = _flags(command)

    def told(match: re.Match[str]) -> str:
        name, given, number = match.groups()
        dotted = match.group(0).startswith(("model.", "loss.", "optim.", "geometry.", "engine."))
        if not given and not dotted and "_" not in name:
            return match.group(0)
        flag = flags.get(name) or flags.get(_SUFFIX.sub("", name))
        if flag is None:
            return match.group(0)
        unit = name.rpartition("_")[2]
        return flag + (f" {number or ''}" if given else "") + (unit if number and unit in _UNITS else "")

    return _NAME.sub(told, message.replace(_PYTHON_ONLY, ""))


def _flags(command: click.Command) -> dict[str, str]:
    found: dict[str, str] = {}
    for param in command.params:
        if isinstance(param, click.Option) and param.expose_value:
            flag = max(param.opts, key=len)
            found |= {str(param.name): flag, flag.removeprefix("--").replace("-", "_"): flag}
    return {name: flag for name, flag in _CALLED.items() if flag in found.values()} | found


def all_missing(command: click.Command, ctx: click.Context, given: Mapping[str, object]) -> str:
    """One sentence that names every argument and option that `command` requires and `given` lacks."""
    lacking = [
        param for param in command.get_params(ctx)
        if param.required and not _is_there(given.get(str(param.name)))
    ]  # fmt: skip
    arguments = [param.make_metavar(ctx) for param in lacking if isinstance(param, click.Argument)]
    options = [f"{max(p.opts, key=len)} {p.make_metavar(ctx)}" for p in lacking if isinstance(p, click.Option)]
    return f"give {_listed([*arguments, *options])}"


def _is_there(value: object) -> bool:
    return isinstance(value, str | list | tuple) and bool(value)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
