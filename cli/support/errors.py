"""One way for every command to fail: one line on standard error and exit code 2; `--verbose` adds the traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem
from dfd_cli.support.help import Documented
from dfd_cli.support.logging import general_options
from dfd_cli.support.output import finish_output, say
from dfd_cli.support.signals import orderly_end

from defocus_sim.errors import ConversionInterruptedError, DefocusSimError
from dfd_train.errors import DfdTrainError, memory_shortage

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


# What a shell reports of a program that a closed pipe ended.
EXIT_CLOSED_PIPE = 128 + 13


def _fail(message: str, code: int) -> int:
    # Where standard error is closed or full, the exit code is all that is left.
    with suppress(OSError):
        say("Error: " + " ".join(message.split()), err=True)
    return code


def _while_printing(error: OSError) -> bool:
    """Whether it came of printing: such an error names no file."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return error.filename is None and any(name.startswith(("click.utils", "rich.console")) for name in modules)


def _unwritable(problem: str | None) -> str:
    return f"standard output cannot be written: {problem or 'an error of the system'}"


def _system_error(error: OSError) -> str:
    """An error of the system in one line, with the file that it is about."""
    names = " -> ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
    )
    reason = error.strerror or str(error) or type(error).__name__
    return f"{names or 'reading or writing'}: {reason}"


class _OneLineErrors(Documented):
    """Replaces click's three-line usage errors, the packages' own errors and the system's by one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As `click.Command.main`; every foreseen failure prints one line and exits with 2 (130 when interrupted)."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        with orderly_end():
            code = self._exit_code(args, prog_name, **extra)
        problem = finish_output()
        if problem is not None and code == 0:
            code = _fail(_unwritable(problem), EXIT_WRONG_INPUT)
        sys.exit(code)

    def _exit_code(self, args: Sequence[str] | None, prog_name: str | None, **extra: Any) -> int:
        try:
            result = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            say(error.format_message(), err=True)
            return EXIT_WRONG_INPUT
        except click.ClickException as error:
            return _fail(error.format_message(), EXIT_WRONG_INPUT)
        except ConversionInterruptedError as error:
            return _fail(str(error), EXIT_INTERRUPTED)
        except (DefocusSimError, DfdTrainError) as error:
            return _fail(str(error), EXIT_WRONG_INPUT)
        except (click.Abort, KeyboardInterrupt):
            return _fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read the output (`head`) has seen enough.
            return EXIT_CLOSED_PIPE
        except OSError as error:
            text = _unwritable(error.strerror) if _while_printing(error) else _system_error(error)
            return _fail(text, EXIT_WRONG_INPUT)
        except RecursionError:
            return _fail("something in a file is nested too deeply to be read", EXIT_WRONG_INPUT)
        except (MemoryError, RuntimeError) as error:
            shortage = memory_shortage(error)
            if shortage is None:
                raise
            return _fail(shortage, EXIT_WRONG_INPUT)
        return result if isinstance(result, int) else 0


class OneLineCommand(_OneLineErrors):
    """A single command that fails in one line."""


class OneLineGroup(_OneLineErrors, click.Group):  # type: ignore[misc]  # click declares overloads of main
    """A command group that fails in one line."""


class CommandOrDefault(OneLineGroup):
    """A group of which one command, `default`, needs no name: `dfd-eval --shards S` beside `dfd-eval table2`."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As `click.Group.parse_args`, the default command's name put in front of what names no other."""
        general = {name for option in general_options() for name in option.opts}
        first = next((word for word in args if word not in general), None)
        if first in self.commands or (ctx.resilient_parsing and first is None):
            return super().parse_args(ctx, args)
        return super().parse_args(ctx, [self.default, *args])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As `click.Group.shell_complete`, with what the default command offers."""
        default = self.commands[self.default]
        offered = super().shell_complete(ctx, incomplete)
        known = {item.value for item in offered}
        more = default.shell_complete(click.Context(default, parent=ctx), incomplete)
        return offered + [item for item in more if item.value not in known]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As `click.Group.resolve_command`; the default command goes without its name in usage lines."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == self.default else name, command, rest
