"""`dfd-train`: train 2HDED:NET on a shard store."""

from __future__ import annotations

import os
from typing import Any

import click
from dfd_cli.failures import EXIT_INTERRUPTED, OneLineCommand

# Spelled out here so that `--help` needs no import of the library; a test holds them against it.
MODELS = ("full", "small", "tiny")
RECIPES = ("paper", "fast")
LOSSES = ("l1+charb", "l1+l1", "l1grad+charb", "l1+charbssim", "l1grad+charbssim")


@click.command(cls=OneLineCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shards", metavar="STORE", help="Shard store made by dfd-prepare. [required without --resume]")
@click.option("--out", metavar="RUN", required=True, help="Folder of the run: config, metrics, checkpoints.")
@click.option("--recipe", type=click.Choice(RECIPES), help="Settings to start from. [default: paper]")
@click.option("--model", type=click.Choice(MODELS), help="Width of the network. [default: full, 41.4 M parameters]")
@click.option("--heads", type=click.Choice(("both", "depth", "deblur")), help="Heads to train. [default: both]")
@click.option("--loss", type=click.Choice(LOSSES), help="Row of the paper's Table II. [default: l1grad+charbssim]")
@click.option(
    "--lambda", "deblur_weight", type=float, help="Weight of the deblurring loss. [default: paper 0.01, fast 1]"
)
@click.option(
    "--balance",
    type=click.Choice(("literal", "auto")),
    help="Use --lambda as it is, or times the measured ratio of the losses. [default: paper literal, fast auto]",
)
@click.option("--epochs", type=int, help="Passes over the training split. [default: paper 500, fast 60]")
@click.option("--batch-size", type=int, help="Samples a step. [default: 4]")
@click.option("--size", metavar="PX|HxW|native", help="Resize frames to this. [default: 256]")
@click.option("--crop", metavar="PX|HxW", help="Random crops at native resolution instead of --size.")
@click.option("--optimizer", type=click.Choice(("sgd", "adamw")), help="[default: paper sgd, fast adamw]")
@click.option("--lr", type=float, help="Peak learning rate. [default: paper 2e-4, fast 3e-3]")
@click.option("--clip-norm", type=float, help="Largest norm of the gradient. [default: paper none, fast 1]")
@click.option("--seed", type=int, help="Of weights, order and flips. [default: 0]")
@click.option("--stem", type=click.Choice(("paper", "imagenet")), help="3x3, or DenseNet's own 7x7. [default: paper]")
@click.option("--pretrained", metavar="imagenet|FILE", help="DenseNet-121 weights for the encoder.")
@click.option("--device", help="auto, cpu, cuda or cuda:N. [default: auto, CUDA where there is a GPU]")
@click.option("--checkpoint-every", type=int, metavar="EPOCHS", help="[default: 1]")
@click.option("--validate-every", type=int, metavar="EPOCHS", help="0 = after the last epoch only. [default: 10]")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint; other settings are the run's own.")
@click.option("--overwrite", is_flag=True, help="Discard the run that --out holds.")
def main(resume: bool, overwrite: bool, **options: Any) -> int:
    """Train the two-headed network (depth + all-in-focus) on the train split of a shard store.

    Ctrl-C or SIGTERM saves and stops; `dfd-train --out RUN --resume` goes on where it was.
    """
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.start import start

    result = start(resume=resume, overwrite=overwrite, **options)
    click.echo(result.summary())
    return EXIT_INTERRUPTED if result.interrupted else 0
