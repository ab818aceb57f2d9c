"""One way for every command to fail: a single line on standard error and exit code 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from defocus_sim.errors import DefocusSimError
from dfd_train.errors import DfdTrainError

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


def _fail(message: str, code: int) -> None:
    click.echo("Error: " + " ".join(message.split()), err=True)
    sys.exit(code)


class _OneLineErrors(click.Command):
    """Replaces click's three-line usage errors, and the packages' own errors, by one line."""

    def main(  # type: ignore[override]  # click declares overloads that a wrapper cannot repeat
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As `click.Command.main`; every foreseen failure prints one line and exits with 2 (130 when interrupted)."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            result = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.ClickException as error:
            _fail(error.format_message(), EXIT_WRONG_INPUT)
        except (DefocusSimError, DfdTrainError) as error:
            _fail(str(error), EXIT_WRONG_INPUT)
        except (click.Abort, KeyboardInterrupt):
            _fail("interrupted", EXIT_INTERRUPTED)
        else:
            sys.exit(result if isinstance(result, int) else 0)


class OneLineCommand(_OneLineErrors):
    """A single command that fails in one line."""


class OneLineGroup(_OneLineErrors, click.Group):
    """A command group that fails in one line."""
