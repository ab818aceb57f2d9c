"""`make demo`: the three commands on procedural scenes, then whether the network learned anything, and where to look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
from dfd_cli.support.errors import OneLineCommand

# Chosen by measurement (docs/guide/training.md): small batches and an adaptive optimiser learn most in three minutes.
TRAIN = ("--model", "tiny", "--recipe", "fast", "--size", "128x96", "--batch-size", "2", "--epochs", "30")


def _run(command: str, *arguments: str) -> None:
    """Show a command as one would type it, and run it as installed."""
    click.echo(f"\n$ {command} {' '.join(arguments)}", color=False)
    sys.stdout.flush()
    result = subprocess.run([str(Path(sys.executable).with_name(command)), *arguments], check=False)
    if result.returncode != 0:
        sys.exit(result.returncode)


def verdict(rows: dict[str, dict[str, float]]) -> tuple[list[str], bool]:
    """Whether the prediction beats doing nothing, in words; `rows` as in `report.json`."""
    net, blurred, constant = rows["prediction"], rows["input"], rows["mean depth"]
    sharper, deeper = net["psnr"] > blurred["psnr"], net["rmse"] < constant["rmse"]
    lines = [
        f"  restored images: PSNR {net['psnr']:.2f} dB, the blurred input has {blurred['psnr']:.2f} dB: "
        f"{'better' if sharper else 'NOT better'}",
        f"  depth: RMSE {net['rmse']:.3f} m, the training set's mean depth has {constant['rmse']:.3f} m: "
        f"{'better' if deeper else 'NOT better'}",
    ]
    return lines, sharper and deeper


@click.command(
    cls=OneLineCommand,
    examples=("python -m dfd_cli.demo --out demo",),
    exit_codes=(("0", "the network learned something"), ("1", "it did not"), ("2", "a step failed")),
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("demo"), help="Folder for it all.")
@click.option("--count", type=click.IntRange(min=2), metavar="N", default=64, help="Number of scenes.")
def main(out: Path, count: int) -> int:
    """Prepare, train and evaluate on procedural scenes; a few minutes on two cores."""
    started = time.monotonic()
    store, run, report = (str(out / name) for name in ("demo.zarr", "run", "report"))
    _run("dfd-prepare", "synthetic", "--count", str(count), "--out", store, "--overwrite")
    _run("dfd-train", "--shards", store, "--out", run, "--overwrite", *TRAIN)
    _run("dfd-eval", "--shards", store, "--checkpoint", run, "--out", report)
    lines, learned = verdict(json.loads((Path(report) / "report.json").read_text())["rows"])
    click.echo(f"\nThe tiny network after {time.monotonic() - started:.0f} s in all ({os.cpu_count()} cores):")
    click.echo("\n".join(lines))
    click.echo(
        f"Look at {out / 'demo_contact_sheet.png'} (the data) and {Path(report) / 'predictions.png'} (what it learned)."
    )
    return 0 if learned else 1


if __name__ == "__main__":
    main()
