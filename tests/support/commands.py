"""The installed commands as click objects."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import click

BIN = Path(sys.executable).parent
PROGRAMS = {e.name: e.load() for e in entry_points(group="console_scripts") if e.name.startswith("dfd-")}


def parse(command, name, words):
    """Parse `words` to the end, converting every value; nothing is run. Raises what click raises."""
    context = command.make_context(name, list(words))
    if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        _, sub, rest = command.resolve_command(context, rest)
        parse(sub, sub.name, rest)
