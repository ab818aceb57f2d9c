"""`dfd-eval`: score a checkpoint on a split of a shard store."""

from __future__ import annotations

import os

import click
from dfd_cli.failures import OneLineCommand


@click.command(cls=OneLineCommand, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--shards", metavar="STORE", required=True, help="Shard store made by dfd-prepare.")
@click.option("--checkpoint", metavar="RUN|FILE", required=True, help="A run's folder (newest checkpoint) or a file.")
@click.option("--split", default="test", help="Split of the store.")
@click.option("--batch-size", type=int, default=8)
@click.option("--size", metavar="PX|HxW|native", help="Size to score at.  [default: as in training]")
@click.option("--limit", type=int, metavar="N", help="Score the first N samples only.")
@click.option("--cap-m", type=float, default=10.0, metavar="METRES", help="Depths beyond are not scored.")
@click.option("--pooled", is_flag=True, help="Every pixel weighs the same, instead of the mean over images.")
@click.option("--out", metavar="DIR", help="Write report.json, report.md and predictions.png there.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
def main(pooled: bool, size: str | None, **options: object) -> None:
    """Print depth and image metrics of a checkpoint, beside the untouched input and a constant depth."""
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.data.geometry import parse_shape
    from dfd_train.evaluation import NATIVE, EvalConfig, evaluate

    shape = size if size in (None, NATIVE) else parse_shape(str(size))
    report = evaluate(EvalConfig(size=shape, convention="pooled" if pooled else "per-image", **options))  # type: ignore[arg-type]
    click.echo(report.text())
