"""`dfd-train`: train 2HDED:NET on a shard store; `dfd-train plot`: curves of runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import EXIT_INTERRUPTED, OneLineCommand, OneLineGroup
from dfd_cli.support.help import under
from dfd_cli.support.logging import speaking
from dfd_cli.support.output import say
from dfd_cli.support.parameters import OutputPath
from dfd_cli.support.training import settings

from dfd_train.config.options import RUN
from dfd_train.config.train import RECIPES


@click.group(
    cls=OneLineGroup, invoke_without_command=True, subcommand_metavar="[plot RUN...]",
    examples=(
        "dfd-train --shards nyu.zarr --out runs/paper",
        "dfd-train --shards nyu.zarr --out runs/deblur --recipe fast --heads deblur --crop 256 --batch-size 8",
        "dfd-train --out runs/deblur --resume",
        "dfd-train plot runs/paper runs/deblur --out curves.png",
    ),
)  # fmt: skip
@settings()
@under(RUN, "--config", metavar="TOML", help="Settings from a file, such as another run's run.toml; options win.")
@under(RUN, "--recipe", type=click.Choice(tuple(RECIPES)), help="Settings to start from. [default: paper]")
@under(
    RUN, "--resume", is_flag=False, flag_value="yes", type=click.Choice(("yes", "auto")), metavar="[auto]",
    help="Go on from the run's last checkpoint; other settings are the run's own. Where no run is, --shards begins one. "
    "--resume=auto: with all settings from this command, also from --config.",
)  # fmt: skip
@under(RUN, "--overwrite", is_flag=True, help="Discard the run that --out holds.")
@click.pass_context
def main(ctx: click.Context, **options: Any) -> int:
    """Train the two-headed network (depth + all-in-focus) on the train split of a shard store.

    Ctrl-C or SIGTERM saves and stops; `dfd-train --out RUN --resume` goes on where it was. On several GPUs:
    `torchrun --nproc-per-node N -m dfd_cli.train --shards STORE --out RUN`.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    # The profiler's own messages are for those who build it.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.training.launch import start

    asked = options.pop("resume")
    result = start(console=speaking(), resume=asked if asked == "auto" else asked is not None, **options)
    if os.environ.get("RANK", "0") == "0":
        say(result.summary())
    return EXIT_INTERRUPTED if result.interrupted else 0


@main.command(cls=OneLineCommand, examples=("dfd-train plot runs/a runs/b --out curves.png",))
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--out", type=OutputPath(), help="The picture. [default: curves.png in the first RUN]")
def plot(runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw the losses, scores and speed of runs, from their metrics.csv, into one PNG."""
    from dfd_train.runs.curves import plot_runs

    if out is not None and out.suffix.lower() != ".png":
        raise click.UsageError(f"--out {out} must end in .png")
    say(plot_runs(runs, out or runs[0] / "curves.png"))


if __name__ == "__main__":
    main()
