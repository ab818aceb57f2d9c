"""The paper's tables from a store: `python -m dfd_train.reproduce table2|table3|table4 --shards STORE --out FOLDER`.

Trains every row's run that is missing, scores it on the test split and writes the table. The same command after Ctrl-C or
a crash goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dfd_train.config.compute import PRECISIONS
from dfd_train.reproduce.choices import RECIPES, TABLES, WIDTHS

EXIT_WRONG_INPUT, EXIT_INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """Fails in one line, like the commands."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with 2."""
        print(f"Error: {message}", file=sys.stderr)
        sys.exit(EXIT_WRONG_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m dfd_train.reproduce", description=__doc__, allow_abbrev=False)
    parser.add_argument("table", choices=TABLES, help="II: losses; III: heads; IV: methods")
    parser.add_argument(
        "--shards",
        required=True,
        metavar="STORE",
        help="shard store with a train and a test split, better a val split too",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder of the runs and the table")
    parser.add_argument("--stack", metavar="STORE", help="store with two focus distances, for Table IV's song")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the training split (500; fast 60)")
    parser.add_argument("--model", choices=WIDTHS, default="full", help="width of the networks (full)")
    parser.add_argument("--recipe", choices=RECIPES, default="paper", help="settings to start from (paper)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="train each row for each (0)")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows by name, such as l1+charb (all)")
    parser.add_argument("--limit", type=int, metavar="N", help="score the first N test images only")
    parser.add_argument("--size", metavar="PX|HxW|native", help="resize frames to this (256)")
    parser.add_argument("--crop", metavar="PX|HxW", help="crops at native resolution instead")
    parser.add_argument(
        "--input",
        choices=("defocused", "aif"),
        help="picture that the network is given (defocused); aif: depth rows only",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples in a step (4)")
    parser.add_argument("--lr", type=float, metavar="RATE", help="peak learning rate (2e-4; fast 3e-3)")
    parser.add_argument(
        "--balance", choices=("literal", "auto"), help="lambda as it is, or measured (literal; fast auto)"
    )
    parser.add_argument("--cache", choices=("none", "ram", "device", "auto"), help="keep decoded samples (none)")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the network's layers (fp32)")
    parser.add_argument("--channels-last", action="store_true", default=None, help="memory layout (no)")
    parser.add_argument("--compile", action="store_true", default=None, help="use torch.compile (no)")
    parser.add_argument("--graphs", action="store_true", default=None, help="compile, and replay as CUDA graphs (no)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = vars(_parser().parse_args(arguments))
    own = {name: given.pop(name) for name in ("table", "shards", "out", "stack", "model", "recipe", "limit")}
    seeds, only = tuple(given.pop("seeds")), tuple(given.pop("only"))
    command = shlex.join(["python", "-m", "dfd_train.reproduce", *(sys.argv[1:] if arguments is None else arguments)])
    from defocus_sim.errors import DefocusSimError
    from dfd_train.errors import DfdTrainError
    from dfd_train.reproduce.run import Plan, first_process, reproduce

    try:
        options = {name: value for name, value in given.items() if value is not None}
        table = reproduce(Plan(**own, seeds=seeds, only=only, options=options), command=command)
    except (DfdTrainError, DefocusSimError) as error:
        print("Error: " + " ".join(str(error).split()), file=sys.stderr)
        return EXIT_WRONG_INPUT
    if table is None:
        print("stopped; the same command goes on")
        return EXIT_INTERRUPTED
    if first_process():
        print(f"{table.text()}\n\nwritten: {own['out']}/{own['table']}.md, .tex, .html, results.json")
    return 0
