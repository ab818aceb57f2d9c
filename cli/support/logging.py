"""What every command says of itself and how much: progress, notes, `--version`, `--quiet`, `--verbose`."""

from __future__ import annotations

import logging
import os
import platform
import re
import resource
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
from click.core import ParameterSource
from dfd_cli.support.output import PlainConsole, say
from rich.console import Console

from defocus_sim.progress import Meter

PACKAGE = "dfd-toolkit"
# What a report of a fault has to name, besides our own version.
NAMED = ("numpy", "numba", "zarr", "dask", "torch", "torchvision")
_SECRET = re.compile(r"(?i)((?:secret|token|password|signature|credential|access_?key|\bsig)\b[^=&\s]*=)[^&\s'\"]+")
PACKAGES = ("defocus_sim", "dfd_train")
_QUIET, _VERBOSE, _TOLD, _NOTES = "dfd.quiet", "dfd.verbose", "dfd.told", "dfd.notes"


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        say(f"{ctx.find_root().info_name} {version(PACKAGE)}")
        ctx.exit()


def _remember(key: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if not wanted:
            return
        # Shared by a group and its commands, so that the option may stand before or after the command's name.
        ctx.meta[key] = True
        if ctx.meta.get(_QUIET) and ctx.meta.get(_VERBOSE):
            raise click.UsageError("--quiet and --verbose exclude each other")

    return callback


def _flag(*names: str, callback: Callable[[click.Context, click.Parameter, bool], None], text: str) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, is_eager=True, callback=callback, help=text)


def general_options() -> list[click.Option]:
    """The options that every command has."""
    more = "Also versions, every option's value, time and memory; with an error, where it came from."
    return [
        _flag("--quiet", "-q", callback=_remember(_QUIET), text="No progress and no notes: results and errors."),
        _flag("--verbose", "-v", callback=_remember(_VERBOSE), text=more),
        _flag("--version", callback=_print_version, text="Show the version and exit."),
    ]


def is_quiet() -> bool:
    """Whether the running command was told `--quiet`."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_QUIET))


def speaking(*, stderr: bool = False) -> Console:
    """Where progress goes: standard output or error, or nowhere with `--quiet`. Colours and bars on a terminal only."""
    return PlainConsole(stderr=stderr, quiet=is_quiet())


@contextmanager
def sample_progress(title: str | Callable[[], str], unit: str = "samples") -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that shows count, rate and remaining time on standard error.

    `title`: what is going on, or a function that says what is by now.
    """
    with ExitStack() as stack:
        meter: Meter | None = None

        def report(done: int, total: int) -> None:
            nonlocal meter
            name = title if isinstance(title, str) else title()
            if meter is None:
                meter = stack.enter_context(Meter(name, total, done=done, unit=unit, console=speaking(stderr=True)))
            meter.title = name
            for _ in range(done - meter.done):
                meter.step(1)

        yield report


def note(line: str) -> None:
    """Something to know beside the result, on standard error; not with `--quiet`."""
    if not is_quiet():
        say(line, err=True)


@contextmanager
def telling(ctx: click.Context) -> Iterator[None]:
    """Notes of the packages on standard error.

    With `--verbose` also program, machine and options; time and memory at the end; where an error was.

    A group and its command each go through here: program, time and traceback are told once, by the outermost that
    knows of `--verbose`.
    """
    with _notes_of_packages(ctx):
        if ctx.meta.get(_VERBOSE):
            with _told_at_length(ctx):
                yield
        else:
            yield


class _Notes(logging.Handler):
    """Shows records from any thread as notes of the command that `meta` is shared by."""

    def __init__(self, meta: dict[str, Any]) -> None:
        super().__init__()
        self._meta = meta

    def emit(self, record: logging.LogRecord) -> None:
        if not self._meta.get(_QUIET):
            say(record.getMessage(), err=True)


@contextmanager
def _notes_of_packages(ctx: click.Context) -> Iterator[None]:
    """Show what the packages log, such as what they compile; once for a group and its command."""
    if _NOTES in ctx.meta:
        yield
        return
    ctx.meta[_NOTES], handler = True, _Notes(ctx.meta)
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(handler)


@contextmanager
def _told_at_length(ctx: click.Context) -> Iterator[None]:
    began = None if _TOLD in ctx.meta else time.perf_counter()
    ctx.meta[_TOLD] = True
    if began is not None:
        system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        say(f"{ctx.command_path.strip()}: {PACKAGE} {version(PACKAGE)}, {system}", err=True)
        say("  " + ", ".join(f"{name} {_version_of(name)}" for name in NAMED), err=True)
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        if value is not None and source is not None:
            given = "given" if source is ParameterSource.COMMANDLINE else source.name.lower().replace("_", " ")
            # A URL with a password in it is refused later; it must not have been printed by then.
            say(f"  {name} = {without_credentials(str(value))} ({given})", err=True)
    try:
        yield
    except Exception as error:
        # A wrong option is nobody's fault in the code.
        if began is not None and not isinstance(error, click.ClickException):
            say(without_credentials(traceback.format_exc().rstrip()), err=True)
        raise
    if began is not None:
        # Linux counts in KiB.
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(f"  took {time.perf_counter() - began:.1f} s, at most {peak_mib:.0f} MiB of memory", err=True)


def without_credentials(text: str) -> str:
    """`text` with what stands before the @ of a URL, or behind a word that means a secret, left out."""
    text = re.sub(r"(?<=/)/[^/\s'\"]*@", "/...@", text)
    return _SECRET.sub(r"\1...", text)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
