"""`dfd-train`: train 2HDED:NET on a shard store; `dfd-train plot`: curves of runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import EXIT_INTERRUPTED, OneLineCommand, OneLineGroup
from dfd_cli.support.help import under
from dfd_cli.support.logging import speaking
from dfd_cli.support.parameters import OutputPath

# Spelled out here so that `--help` needs no import of the library; a test holds them against it.
MODELS = (
    "full", "small", "tiny", "dncnn", "ircnn", "d3net", "d3net-small", "d3net-tiny", "anwar", "anwar-small",
    "anwar-tiny", "gur", "gur-small", "gur-tiny", "song", "song-small", "song-tiny",
)  # fmt: skip
RECIPES = ("paper", "authors", "fast")
LOSSES = ("l1+charb", "l1+l1", "l1grad+charb", "l1+charbssim", "l1grad+charbssim")
SCORES = ("auto", "rmse", "abs_rel", "delta1", "psnr", "ssim")


def choice(*values: str) -> click.Choice[str]:
    """One of `values`."""
    return click.Choice(values)


RUN, NET, LOSS = "Run", "Network", "Loss"
STEPS, DATA, ENGINE, SIGHT = "Optimization", "Data", "Engine", "Checkpoints and sight"


@click.group(
    cls=OneLineGroup, invoke_without_command=True, subcommand_metavar="[plot RUN...]",
    examples=(
        "dfd-train --shards nyu.zarr --out runs/paper",
        "dfd-train --shards nyu.zarr --out runs/deblur --recipe fast --heads deblur --crop 256 --batch-size 8",
        "dfd-train --out runs/deblur --resume",
        "dfd-train plot runs/paper runs/deblur --out curves.png",
    ),
)  # fmt: skip
@under(RUN, "--shards", metavar="STORE", help="Shard store made by dfd-prepare. [required for a new run]")
@under(RUN, "--out", metavar="RUN", help="Folder of the run: config, metrics, checkpoints. [required]")
@under(RUN, "--config", metavar="TOML", help="Settings from a file, such as another run's run.toml; options win.")
@under(RUN, "--recipe", type=choice(*RECIPES), help="Settings to start from. [default: paper]")
@under(RUN, "--resume", is_flag=True, help="Go on from the run's last checkpoint; other settings are the run's own.")
@under(RUN, "--overwrite", is_flag=True, help="Discard the run that --out holds.")
@under(RUN, "--seed", type=int, metavar="N", help="Of weights, order and flips. [default: 0]")
@under(RUN, "--device", metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: auto, CUDA where there is a GPU]")
@under(
    NET, "--model", type=choice(*MODELS), metavar="NAME",
    help="Two-headed network full, small or tiny, or a baseline: dncnn, ircnn, d3net, anwar, gur, song; of the last four "
    "also NAME-small, NAME-tiny. [default: full, 41.4 M parameters]",
)  # fmt: skip
@under(
    NET, "--heads", type=choice("both", "depth", "deblur"), help="Heads to train. [default: both; baselines: their own]"
)
@under(NET, "--stem", type=choice("paper", "imagenet"), help="3x3, or DenseNet's own 7x7. [default: paper]")
@under(
    NET, "--input", type=choice("defocused", "aif"),
    help="Picture that the network is given; aif, with --heads depth: what it finds without defocus. [default: defocused]",
)  # fmt: skip
@under(
    NET,
    "--pretrained",
    metavar="imagenet|cached|FILE",
    help="DenseNet-121 weights for the encoder; cached: if they are here already. [default: none; fast cached]",
)
@under(LOSS, "--loss", type=choice(*LOSSES), help="Row of the paper's Table II. [default: l1grad+charbssim]")
@under(
    LOSS, "--lambda", "deblur_weight", type=float, metavar="WEIGHT",
    help="Weight of the deblurring loss. [default: 0.01; fast 1]",
)  # fmt: skip
@under(
    LOSS, "--balance", type=choice("literal", "auto"),
    help="Use --lambda as it is, or times the measured ratio of the losses. [default: literal; fast auto]",
)  # fmt: skip
@under(STEPS, "--epochs", type=int, metavar="N", help="Passes over the training split. [default: 500; fast 60]")
@under(STEPS, "--batch-size", type=int, metavar="N", help="Samples that a process computes at once. [default: 4]")
@under(STEPS, "--accumulate", type=int, metavar="N", help="Batches that make one step. [default: 1]")
@under(
    STEPS, "--optimizer", type=choice("sgd", "adam", "adamw"),
    help="Rule of the steps. [default: paper sgd; authors adam; fast adamw]",
)  # fmt: skip
@under(STEPS, "--lr", type=float, metavar="RATE", help="Peak learning rate. [default: 2e-4; fast 3e-3]")
@under(STEPS, "--clip-norm", type=float, metavar="NORM", help="Largest norm of the gradient. [default: none; fast 1]")
@under(STEPS, "--batch-norm", type=choice("local", "sync", "frozen"),
    help="Statistics of each process's batch, of all processes', or the running ones. [default: local]",
)  # fmt: skip
@under(DATA, "--size", metavar="PX|HxW|native", help="Resize frames to this. [default: 256; fast none]")
@under(
    DATA,
    "--crop",
    metavar="PX|HxW",
    help="Random crops at native resolution instead of --size. [default: none; fast 256]",
)
@under(
    DATA, "--order", type=choice("random", "shards"),
    help="Samples from everywhere, or shard after shard through a shuffle buffer. [default: random]",
)  # fmt: skip
@under(DATA, "--shuffle-buffer", type=int, metavar="SAMPLES", help="For --order shards. [default: 512]")
@under(
    DATA, "--cache", type=choice("none", "ram", "device", "auto"),
    help="Keep decoded samples; auto: on the GPU or in RAM if they fit. [default: none]",
)  # fmt: skip
@under(DATA, "--prefetch", type=int, metavar="BATCHES", help="Read ahead. [default: 4]")
@under(ENGINE, "--precision", type=choice("fp32", "bf16", "fp16"), help="Of the network's layers. [default: fp32]")
@under(ENGINE, "--channels-last/--no-channels-last", default=None, help="Memory layout. [default: no]")
@under(ENGINE, "--compile/--no-compile", default=None, help="Use torch.compile. [default: no]")
@under(ENGINE, "--graphs/--no-graphs", default=None, help="Compile, and replay as CUDA graphs. [default: no]")
@under(
    ENGINE,
    "--profile/--no-profile",
    default=None,
    help="Print a step's time by part, write RUN/trace.json. [default: no]",
)
@under(ENGINE, "--timeout-s", type=float, metavar="SECONDS", help="Wait for other processes at most. [default: 600]")
@under(SIGHT, "--checkpoint-every", type=int, metavar="EPOCHS", help="Save every so many epochs. [default: 1]")
@under(SIGHT, "--keep", type=int, metavar="N", help="Newest checkpoints that stay, beside best.pt. [default: 2]")
@under(
    SIGHT,
    "--validate-every",
    type=int,
    metavar="EPOCHS",
    help="Score the validation samples; 0 = after the last only. [default: 10]",
)
@under(SIGHT, "--validate-limit", type=int, metavar="IMAGES", help="Of the validation samples at most. [default: 64]")
@under(
    SIGHT, "--val-fraction", type=float, metavar="0..1",
    help="Of train, held out for validation where the store has no val split; 0: none. [default: 0.1]",
)  # fmt: skip
@under(SIGHT, "--best-by", type=choice(*SCORES), help="Score of best.pt. [default: auto: rmse, psnr without depth]")
@under(SIGHT, "--tensorboard/--no-tensorboard", default=None, help="Write RUN/tensorboard. [default: yes]")
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

    result = start(console=speaking(), **options)
    if os.environ.get("RANK", "0") == "0":
        click.echo(result.summary())
    return EXIT_INTERRUPTED if result.interrupted else 0


@main.command(cls=OneLineCommand, examples=("dfd-train plot runs/a runs/b --out curves.png",))
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--out", type=OutputPath(), help="The picture. [default: curves.png in the first RUN]")
def plot(runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw the losses, scores and speed of runs, from their metrics.csv, into one PNG."""
    from dfd_train.evaluation.curves import plot_runs

    click.echo(plot_runs(runs, out or runs[0] / "curves.png"))


if __name__ == "__main__":
    main()
