"""`dfd-reproduce`: the paper's tables from a store."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import click
from dfd_cli.support.errors import EXIT_INTERRUPTED, OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.logging import speaking
from dfd_cli.support.output import say
from dfd_cli.support.parameters import NAMES, NUMBERS, OutputPath
from dfd_cli.support.training import settings

from dfd_train.config.model import WIDTHS
from dfd_train.config.options import RUN
from dfd_train.config.reproduction import DECIDED, TABLES, Plan
from dfd_train.config.train import RECIPES


@click.command(
    cls=OneLineCommand,
    examples=(
        "dfd-reproduce table2 --shards nyu.zarr --out runs/table2",
        "dfd-reproduce table3 --shards nyu.zarr --out runs/table3 --seeds 0,1 --only both,depth --epochs 60",
        "dfd-reproduce table4 --shards nyu.zarr --out runs/table4 --stack stack.zarr --model tiny --recipe fast",
    ),
)
@click.argument("table", type=click.Choice(tuple(TABLES)))
@under(
    RUN, "--shards", metavar="STORE", required=True, help="Store with a train and a test split, better a val split too."
)
@under(RUN, "--out", metavar="FOLDER", required=True, type=OutputPath(), help="Folder of the runs and of the table.")
@under(RUN, "--stack", metavar="STORE", help="Store with two focus distances, which Table IV's row song compares.")
@under(RUN, "--model", type=click.Choice(tuple(WIDTHS)), default="full", help="Width of the networks.")
@under(RUN, "--recipe", type=click.Choice(tuple(RECIPES)), default="paper", help="Settings to start from.")
@under(RUN, "--seeds", type=NUMBERS, metavar="N,...", default="0", help="Train each row once for each seed.")
@under(RUN, "--only", type=NAMES, metavar="ROW,...", help="Rows by name, such as l1+charb. [default: all]")
@under(RUN, "--limit", type=int, metavar="N", help="Score the first N test images only.")
@settings(without=DECIDED)
def main(only: tuple[str, ...] | None, **given: Any) -> int:
    """Train, score and lay out what a table of the paper compares: losses (table2), heads (table3), methods (table4).

    Every run that is missing is trained as dfd-train would and scored on the test split as dfd-eval would. The same
    command after Ctrl-C goes on where it was.
    """
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    own = {name: given.pop(name) for name in ("table", "shards", "out", "stack", "model", "recipe", "seeds", "limit")}
    options = {name: value for name, value in given.items() if value is not None}
    plan = Plan(**own, only=only or (), options=options)
    from dfd_train.training.reproduce import first_process, reproduce

    table = reproduce(plan, console=speaking(), command=shlex.join(["dfd-reproduce", *sys.argv[1:]]))
    if table is None:
        say("stopped; the same command goes on")
        return EXIT_INTERRUPTED
    if first_process():
        say(f"{table.text()}\n\nwritten: {plan.out}/{plan.table}.md, .tex, .html, results.json")
    return 0


if __name__ == "__main__":
    main()
