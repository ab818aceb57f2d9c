"""The installed commands as click objects."""

from importlib.metadata import entry_points

import click

PROGRAMS = {e.name: e.load() for e in entry_points(group="console_scripts") if e.name.startswith("dfd-")}


def parse(command, name, words):
    """Parse `words` to the end, converting every value; nothing is run. Raises what click raises."""
    context = command.make_context(name, list(words))
    if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        _, sub, rest = command.resolve_command(context, rest)
        parse(sub, sub.name, rest)
