"""`dfd-eval`: score a checkpoint on a split of a shard store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import CommandOrDefault, OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.logging import speaking
from dfd_cli.support.output import say
from dfd_cli.support.parameters import OutputPath, SizeParam

WHAT, HOW, REPORT, TABLE = "What to score", "How", "Report", "Table"


@click.group(cls=CommandOrDefault, default="score")
def main() -> None:
    """Score checkpoints on a split of a shard store, or lay runs beside the paper's tables."""


@main.command(
    cls=OneLineCommand,
    examples=(
        "dfd-eval --shards nyu.zarr --checkpoint runs/a --out runs/a/report",
        "dfd-eval --shards nyu.zarr --checkpoint runs/a runs/b --out comparison",
        "dfd-eval table2 --runs runs/a runs/b --out tables",
    ),
    epilog="See also: dfd-eval table2|table3|table4 --help",
)
@under(WHAT, "--shards", metavar="STORE", required=True, help="Shard store made by dfd-prepare.")
@under(
    WHAT,
    "--checkpoint",
    metavar="RUN|FILE",
    required=True,
    help="A run's folder (best checkpoint), RUN@last or a file; more may follow.",
)
@click.argument("more", nargs=-1, metavar="[RUN|FILE]...")
@under(WHAT, "--split", metavar="NAME", default="test", help="Split of the store.")
@under(WHAT, "--lens", metavar="TOML", help="Lens of samples of which the store does not say theirs (lens.toml).")
@under(HOW, "--batch-size", type=int, metavar="N", default=8, help="Images read at once; changes no digit.")
@under(
    HOW,
    "--size",
    type=SizeParam(square=True, word="native"),
    metavar="PX|WxH|native",
    help="Size to score at.  [default: as in training]",
)
@under(WHAT, "--limit", type=int, metavar="N", help="Score the first N samples only.")
@under(
    HOW, "--cap-m", type=float, metavar="METRES", help="Depths beyond are not scored.  [default: 10; Make3D 70 = C1]"
)
@under(WHAT, "--make3d-root", metavar="DIR", help="Make3D's own files: score depth on their 55x305 grids.")
@under(
    HOW, "--border", "border_px", type=int, metavar="PX", default=0, help="Pixels left out of the scores at each side."
)
@under(HOW, "--pooled", is_flag=True, help="Every pixel weighs the same, instead of the mean over images.")
@under(
    REPORT,
    "--out",
    metavar="DIR",
    help="Folder of the report.  [default: RUN/report; of several, comparison beside the first RUN]",
)
@under(
    REPORT, "--json", "as_json", is_flag=True, help="Print report.json instead of the table; progress goes to stderr."
)
@under(REPORT, "--html/--no-html", default=True, help="Write report.html, too.")
@under(HOW, "--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N.")
def score(pooled: bool, more: tuple[str, ...], make3d_root: str | None, as_json: bool, **options: Any) -> None:
    """Print depth and image metrics of checkpoints, beside the input as it is and the mean depth.

    Writes report.json, report.md, report.html, per_image.csv and predictions.png. The same command after Ctrl-C goes on
    where it was. Several processes share the images: torchrun --nproc-per-node N -m dfd_cli.evaluate --shards ...
    """
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.evaluation.evaluate import EvalConfig, compare, default_out, evaluate

    checkpoints = (options["checkpoint"], *more)
    options["out"] = options["out"] or str(default_out(checkpoints))
    config = EvalConfig(convention="pooled" if pooled else "per-image", **options)
    truth = None if make3d_root is None else _make3d_grids(make3d_root, config.split)
    told: dict[str, Any] = {"truth": truth, "console": speaking(stderr=as_json)}
    report = compare(config, checkpoints, **told) if more else evaluate(config, **told)
    if os.environ.get("RANK", "0") == "0":
        content = json.dumps(report.to_dict(), indent=2, allow_nan=False)
        say(content if as_json else f"{report.text()}\n\nreport: {config.out}")


def _add_table(name: str, contents: str) -> None:
    """Give `dfd-eval` the command `name`; the three differ in nothing but the table."""

    @main.command(
        name=name,
        cls=OneLineCommand,
        help=f"{contents} Rows without a run show the command that would make it.",
        examples=(f"dfd-eval {name} --runs runs/a runs/b --format latex", f"dfd-eval {name} --out tables"),
    )
    @under(TABLE, "--runs", metavar="RUN", multiple=True, help="A run with reports inside; more may follow.")
    @click.argument("more", nargs=-1, metavar="[RUN]...")
    @under(TABLE, "--format", "form", type=click.Choice(("text", "markdown", "latex", "html")), default="text",
           help="What to print.")  # fmt: skip
    @under(
        TABLE,
        "--out",
        metavar="DIR",
        type=OutputPath(),
        help=f"Write {name}.md, {name}.tex and {name}.html there, too.",
    )
    @under(TABLE, "--shards", metavar="STORE", default="STORE", help="The store in the commands for what is missing.")
    def command(runs: tuple[str, ...], more: tuple[str, ...], form: str, out: Path | None, shards: str) -> None:
        from dfd_train.evaluation.tables import paper_table, write_tables

        table = paper_table(name, (*runs, *more), shards=shards)
        if out is not None:
            write_tables(table, name, out)
        say(getattr(table, form)())


_add_table("table2", "The paper's Table II (losses) with RUNs beside it.")
_add_table("table3", "The paper's Table III (heads) with RUNs beside it.")
_add_table("table4", "The paper's Table IV (methods), for runs on Make3D its rows on Make3D, with RUNs beside it.")


def _make3d_grids(root: str, split: str) -> Any:
    """A function: sample name -> the distances of its 55x305 grid; the samples of a focal stack share theirs."""
    from defocus_sim.datasets.make3d import Make3dSource, read_grid
    from defocus_sim.errors import SourceMissingError
    from dfd_train.evaluation.scoring import TrueGrid

    source = Make3dSource(root=Path(root))
    paths = {s.name: path for s, path in zip(source.samples(), source.grid_paths(), strict=True) if s.split == split}

    def grid(name: str) -> Any:
        bare = name.rpartition("@")[0] or name
        if bare not in paths:
            raise SourceMissingError(f"{root} has no grid for sample {name} of the split {split}")
        laser = read_grid(paths[bare])
        return TrueGrid(laser.distance_m, laser.z_m)

    return grid


if __name__ == "__main__":
    main()
