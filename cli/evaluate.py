"""`dfd-eval`: score a checkpoint on a split of a shard store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from dfd_cli.failures import OneLineCommand, OneLineGroup

_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


class CommandOrDefault(OneLineGroup):
    """A group of which one command, `default`, needs no name: `dfd-eval --shards S` beside `dfd-eval table2`."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As `click.Group.parse_args`, the default command's name put in front of what names no other."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else [self.default, *args])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As `click.Group.resolve_command`; the default command goes without its name in usage lines."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == self.default else name, command, rest


@click.group(cls=CommandOrDefault, default="score", context_settings=_CONTEXT)
def main() -> None:
    """Score checkpoints on a split of a shard store, or lay runs beside the paper's tables."""


@main.command(cls=OneLineCommand, context_settings=_CONTEXT, epilog="See also: dfd-eval table2|table3|table4 --help")
@click.option("--shards", metavar="STORE", required=True, help="Shard store made by dfd-prepare.")
@click.option(
    "--checkpoint",
    metavar="RUN|FILE",
    required=True,
    help="A run's folder (newest checkpoint) or a file; more may follow.",
)
@click.argument("more", nargs=-1, metavar="[RUN|FILE]...")
@click.option("--split", default="test", help="Split of the store.")
@click.option("--batch-size", type=int, default=8)
@click.option("--size", metavar="PX|HxW|native", help="Size to score at.  [default: as in training]")
@click.option("--limit", type=int, metavar="N", help="Score the first N samples only.")
@click.option(
    "--cap-m", type=float, metavar="METRES", help="Depths beyond are not scored.  [default: 10; Make3D 70 = C1]"
)
@click.option("--make3d-root", metavar="DIR", help="Make3D's own files: score depth on their 55x305 grids.")
@click.option("--pooled", is_flag=True, help="Every pixel weighs the same, instead of the mean over images.")
@click.option("--out", metavar="DIR", help="Write report.json, report.md and predictions.png there.")
@click.option("--html", is_flag=True, help="Write report.html and per_image.csv, too; several checkpoints always do.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
def score(pooled: bool, size: str | None, more: tuple[str, ...], make3d_root: str | None, **options: Any) -> None:
    """Print depth and image metrics of checkpoints, beside the untouched input and a constant depth."""
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.data.geometry import parse_shape
    from dfd_train.evaluation import NATIVE, EvalConfig, compare, evaluate

    shape = size if size in (None, NATIVE) else parse_shape(str(size))
    config = EvalConfig(size=shape, convention="pooled" if pooled else "per-image", **options)
    truth = None if make3d_root is None else _make3d_grids(make3d_root, config.split)
    checkpoints = (config.checkpoint, *more)
    report = compare(config, checkpoints, truth=truth) if more else evaluate(config, truth=truth)
    click.echo(report.text())


def _add_table(name: str, contents: str) -> None:
    """Give `dfd-eval` the command `name`; the three differ in nothing but the table."""

    @main.command(name=name, cls=OneLineCommand, context_settings=_CONTEXT, help=f"{contents} Rows without a run show "
                  "the command that would make it.")  # fmt: skip
    @click.option("--runs", metavar="RUN", multiple=True, help="A run with reports inside; more may follow.")
    @click.argument("more", nargs=-1, metavar="[RUN]...")
    @click.option("--format", "form", type=click.Choice(("text", "markdown", "latex", "html")), default="text")
    @click.option("--out", metavar="DIR", help=f"Write {name}.md, {name}.tex and {name}.html there, too.")
    @click.option("--shards", default="STORE", help="The store in the commands for what is missing.")
    def command(runs: tuple[str, ...], more: tuple[str, ...], form: str, out: str | None, shards: str) -> None:
        from dfd_train.tables import paper_table, write_tables

        table = paper_table(name, (*runs, *more), shards=shards)
        if out is not None:
            write_tables(table, name, Path(out))
        click.echo(getattr(table, form)())


_add_table("table2", "The paper's Table II (losses) with RUNs beside it.")
_add_table("table3", "The paper's Table III (heads) with RUNs beside it.")
_add_table("table4", "The paper's Table IV (methods), for runs on Make3D its rows on Make3D, with RUNs beside it.")


def _make3d_grids(root: str, split: str) -> Any:
    """A function: sample name -> its 55x305 grid of distances; the samples of a focal stack share theirs."""
    from defocus_sim.datasets.make3d import Make3dSource, read_grid
    from defocus_sim.errors import SourceMissingError

    source = Make3dSource(root=Path(root))
    paths = {s.name: path for s, path in zip(source.samples(), source.grid_paths(), strict=True) if s.split == split}

    def grid(name: str) -> Any:
        bare = name.rpartition("@")[0] or name
        if bare not in paths:
            raise SourceMissingError(f"{root} has no grid for sample {name} of the split {split}")
        return read_grid(paths[bare])

    return grid
