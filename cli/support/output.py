"""What reaches the terminal: text, never commands to it, whatever files are called."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from rich.console import Console

from defocus_sim.progress import one_line


def plain(text: object) -> str:
    """`text` with control characters as escapes that can be read (`\\x1b`); line ends and tabs stay."""
    return one_line(str(text), keep="\n\t")


def say(text: object, *, err: bool = False) -> None:
    """Print `text` as a line on standard output or error."""
    click.echo(plain(text), err=err)


class PlainConsole(Console):
    """A rich console that prints texts without control characters."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`."""
        super().print(*(plain(one) if isinstance(one, str) else one for one in objects), **options)


def finish_output() -> str | None:
    """Write out what is still held back; returns why that failed, in words, after which nothing is tried again."""
    problem = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if stream is sys.stdout:
                problem = error.strerror or str(error)
            # The interpreter would try again as it ends, and fail in many lines.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return problem
