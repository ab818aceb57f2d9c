"""Help that reads like documentation: options under headings, examples and exit codes; `--version` everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from dfd_cli.support.logging import general_options, telling
from dfd_cli.support.wording import all_missing, in_options

from defocus_sim.errors import DefocusSimError
from dfd_train.errors import DfdTrainError

EXIT_CODES = (
    ("0", "done"),
    ("2", "a wrong option or input, a damaged file, a failed write: one line on standard error says which"),
    ("130", "interrupted (Ctrl-C)"),
)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
_GENERAL = "General"
_REST = "Options"


class Grouped(click.Option):
    """An option that `--help` shows under a heading."""

    def __init__(self, *args: Any, heading: str = _REST, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


def under(heading: str, *names: str, **settings: Any) -> Any:
    """A `click.option` shown under `heading`."""
    return click.option(*names, cls=Grouped, heading=heading, **settings)


class Documented(click.Command):
    """A command or group that takes `examples`, and `exit_codes` where they are not the usual ones.

    `examples`: command lines as one would type them. `exit_codes`: pairs of code and meaning. Every command gets
    `--version`, `--quiet` and `--verbose`.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        exit_codes: Sequence[tuple[str, str]] = EXIT_CODES,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.context_settings = {**_CONTEXT, **self.context_settings}
        self.params += general_options()
        self.examples, self.exit_codes = tuple(examples), tuple(exit_codes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As `click.Command.parse_args`; all that is missing is named at once."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            given, _, _ = self.make_parser(ctx).parse_args(args=words)
            raise click.UsageError(all_missing(self, ctx, given), ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """As `click.Command.invoke`, telling what `--verbose` asks for; errors name options."""
        with telling(ctx):
            try:
                return super().invoke(ctx)
            except (DefocusSimError, DfdTrainError) as error:
                if error.args == (str(error),):
                    error.args = (in_options(str(error), self),)
                raise

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As `click.Command.format_usage`, without the gap that a command without a name leaves."""
        formatter.write_usage(" ".join(ctx.command_path.split()), " ".join(self.collect_usage_pieces(ctx)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One list for each heading, in the order of their first options; what every command has comes last."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            # Newer versions of click list arguments, too; ours are explained in the text above.
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                # `--help` and the options of every command act at once; the command never sees their values.
                heading = getattr(option, "heading", _REST) if option.expose_value else _GENERAL
                rows.setdefault(heading, []).append(record)
        rows[_GENERAL] = rows.pop(_GENERAL)
        for heading, records in rows.items():
            with formatter.section(heading):
                formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples as they are, exit codes, then the epilog."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))
        with formatter.section("Exit codes"):
            formatter.write_dl(self.exit_codes)
        super().format_epilog(ctx, formatter)
