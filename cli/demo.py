"""`make demo`: a photograph with the weights that come along; then the three commands on procedural scenes."""

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
# The photograph: a procedural scene as a camera of this kind takes it.
PHOTO_WH, PHOTO_SEED, PHOTO_INDEX = (960, 720), 1, 4
FOCAL_MM, F_NUMBER, FOCUS_M = 35.0, 2.0, 1.5


def _run(command: str, *arguments: str) -> None:
    """Show a command as one would type it, and run it as installed."""
    click.echo(f"\n$ {command} {' '.join(arguments)}", color=False)
    sys.stdout.flush()
    result = subprocess.run([str(Path(sys.executable).with_name(command)), *arguments], check=False)
    if result.returncode != 0:
        sys.exit(result.returncode)


def photograph(path: Path) -> None:
    """Write a JPEG as a camera would: a procedural scene out of focus, and how it was taken in its EXIF."""
    from PIL import ExifTags, Image

    from defocus_sim import Lens, defocus
    from defocus_sim.datasets.synthetic.source import SyntheticSource

    source = SyntheticSource(count=PHOTO_INDEX + 1, size_wh=PHOTO_WH, scenes="varied", scale="room", seed=PHOTO_SEED)
    with source.open() as reader:
        frame = reader.read(PHOTO_INDEX)
    lens = Lens(focal_length_mm=FOCAL_MM, f_number=F_NUMBER, focus_distance_m=FOCUS_M, sensor_width_mm=36.0)
    taken = defocus(frame.aif, frame.depth_m, lens, psf="disc", linear_light=True)
    exif = Image.Exif()
    exif.update({ExifTags.Base.Make: "Procedural", ExifTags.Base.Model: "dfd-toolkit demo"})
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.FNumber: F_NUMBER,
            ExifTags.Base.FocalLength: FOCAL_MM,
            ExifTags.Base.FocalLengthIn35mmFilm: round(FOCAL_MM),
            ExifTags.Base.SubjectDistance: FOCUS_M,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(taken).save(path, quality=93, exif=exif)


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
    """Predict a photograph; then prepare, train and evaluate on procedural scenes; a few minutes on two cores."""
    started = time.monotonic()
    photo = out / "photo.jpg"
    photograph(photo)
    _run("dfd-predict", str(photo), "--out", str(out / "photo"), "--page")
    store, run, report = (str(out / name) for name in ("demo.zarr", "run", "report"))
    _run("dfd-prepare", "synthetic", "--count", str(count), "--out", store, "--overwrite")
    _run("dfd-train", "--shards", store, "--out", run, "--overwrite", *TRAIN)
    _run("dfd-eval", "--shards", store, "--checkpoint", run, "--out", report)
    lines, learned = verdict(json.loads((Path(report) / "report.json").read_text())["rows"])
    click.echo(f"\nThe tiny network after {time.monotonic() - started:.0f} s in all ({os.cpu_count()} cores):")
    click.echo("\n".join(lines))
    for place, what in (
        (out / "photo" / "photo.html", "the photograph: click to focus"),
        (out / "demo_contact_sheet.png", "the data"),
        (Path(report) / "predictions.png", "what the network learned"),
    ):
        click.echo(f"Look at {place} ({what}).")
    return 0 if learned else 1


if __name__ == "__main__":
    main()
