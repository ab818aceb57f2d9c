"""`dfd-predict`: pictures in; restored pictures, depth maps and refocused pictures out. `dfd-predict export`: a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import CommandOrDefault, OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.parameters import Aperture, ApertureParam, DistancesParam, LengthParam, OutputPath

EXIT_SOME_FAILED = 1
EXIT_CODES = (
    ("0", "all pictures done"),
    ("1", "some pictures failed, one line each on standard error; the others are done"),
    ("2", "nothing was done: a wrong option, a checkpoint that cannot be used"),
    ("130", "interrupted (Ctrl-C)"),
)
WHAT, MEMORY, REFOCUS = "What to do", "Memory and device", "Refocusing"


@click.group(cls=CommandOrDefault, default="images")
def main() -> None:
    """Restore pictures and predict their depth, or export a network."""


@main.command(
    cls=OneLineCommand,
    examples=(
        "dfd-predict photo.jpg --checkpoint runs/a --out results",
        "dfd-predict photos/ 'more/*.tif' --checkpoint runs/a --out results",
        "dfd-predict photo.jpg --checkpoint runs/a --out results --refocus 1m,2m,4m --aperture f/2 --film mp4",
    ),
    exit_codes=EXIT_CODES,
    epilog="See also: dfd-predict export --help",
)
@click.argument("images", nargs=-1, required=True)
@under(WHAT, "--checkpoint", metavar="RUN|FILE", required=True, help="A run's folder (newest checkpoint) or a file.")
@under(WHAT, "--out", metavar="DIR", required=True, help="Folder for the results.")
@under(WHAT, "--size", metavar="PX|HxW", help="Reduce pictures to this first.  [default: as they are]")
@under(
    MEMORY, "--tile", type=int, metavar="PX", default=1024, help="Side of a tile in px: memory grows with its square."
)
@under(MEMORY, "--overlap", type=int, metavar="PX", default=384, help="Pixels that neighbouring tiles share.")
@under(
    REFOCUS,
    "--refocus",
    type=DistancesParam(),
    metavar="LENGTH,...",
    help="Render the restored picture focused at 1.5m, or 1m,2m,4m.",
)
@under(
    REFOCUS,
    "--aperture",
    type=ApertureParam(),
    metavar="LENGTH|f/N",
    default="f/2",
    help="Of --refocus: f/2, or a diameter (25mm).",
)
@under(REFOCUS, "--focal-length", type=LengthParam(1e3), default="50mm", help="Of --refocus.")
@under(
    REFOCUS, "--sensor-width", type=LengthParam(1e3), default="36mm", help="Of --refocus, across the picture's width."
)
@under(
    REFOCUS, "--film", type=click.Choice(("gif", "mp4")), default="gif", help="Rack focus through several distances."
)
@under(MEMORY, "--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N.")
def images(images: tuple[str, ...], tile: int, overlap: int, size: str | None, **options: Any) -> int:
    """Restore IMAGES (files, folders, patterns) and predict their depth.

    For each picture: NAME_restored.png (its own bit depth), NAME_depth.png (16 bit, millimetres), NAME_depth.npy
    (float32 metres) and NAME_depth_colour.png.
    """
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.config.geometry import parse_shape
    from dfd_train.prediction.files import PredictConfig, predict_files
    from dfd_train.prediction.tiling import Tiling

    refocus, lens = options.pop("refocus"), _lens(options)
    config = PredictConfig(
        images=images,
        size=None if size is None else parse_shape(size),
        tiling=Tiling(tile=tile, overlap=overlap),
        refocus_m=refocus or (),
        lens=lens if refocus else None,
        **options,
    )
    failed = 0
    for outcome in predict_files(config):
        failed += outcome.error is not None
        text = f"{outcome.source}: {outcome.text}" if outcome.error is None else f"Error: {outcome.error}"
        click.echo(text, err=outcome.error is not None)
    return EXIT_SOME_FAILED if failed else 0


@main.command(cls=OneLineCommand, examples=("dfd-predict export --checkpoint runs/a --onnx net.onnx --torch net.pt2",))
@click.option("--checkpoint", metavar="RUN|FILE", required=True, help="A run's folder (newest checkpoint) or a file.")
@click.option("--onnx", metavar="FILE", type=OutputPath(dir_okay=False), help="Write the network as ONNX.")
@click.option(
    "--torch",
    "program",
    metavar="FILE",
    type=OutputPath(dir_okay=False),
    help="Write the network as a torch.export program (.pt2).",
)
def export(checkpoint: str, onnx: Path | None, program: Path | None) -> None:
    """Write a checkpoint's network for other programs; height and width of the image stay free."""
    if onnx is None and program is None:
        raise click.UsageError("there is nothing to write: give --onnx FILE, --torch FILE or both")
    for path in (onnx, program):
        if path is not None and path.resolve() == Path(checkpoint).resolve():
            raise click.UsageError(f"{path} is the checkpoint itself: write to another FILE")
    from dfd_train.model.load import load_network
    from dfd_train.prediction.export import write_onnx, write_program
    from dfd_train.runs.checkpoint import load_checkpoint

    read = load_checkpoint(Path(checkpoint))
    net = load_network(read.config.model, read.evaluated)
    for path, write in ((onnx, write_onnx), (program, write_program)):
        if path is not None:
            write(net, path)
            channels = 3 * net.config.about.pictures
            click.echo(f"{path}: input image (1, {channels}, H, W) sRGB in [0, 1], {path.stat().st_size:,} bytes")


def _lens(options: dict[str, Any]) -> Any:
    """The camera that the options describe, which are taken out of `options`."""
    from defocus_sim.lens import Lens

    aperture: Aperture = options.pop("aperture")
    return Lens(
        # Any distance beyond the focal length: every picture is focused by --refocus.
        focus_distance_m=1e3,
        focal_length_mm=options.pop("focal_length"),
        sensor_width_mm=options.pop("sensor_width"),
        aperture_mm=aperture.diameter_mm,
        f_number=aperture.f_number,
    )


if __name__ == "__main__":
    main()
