"""`dfd-predict`: pictures in; restored pictures, depth maps and refocused pictures out. `dfd-predict export`: a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import CommandOrDefault, OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.output import say
from dfd_cli.support.parameters import (
    APERTURE,
    FOCUS,
    LENGTH_M,
    LENGTH_MM,
    Aperture,
    FocusPoints,
    OutputPath,
    SizeParam,
    not_an_input,
)

from dfd_train.config.model import DEFAULT_WEIGHTS

EXIT_SOME_FAILED = 1
EXIT_CODES = (
    ("0", "all pictures done"),
    ("1", "some pictures failed, one line each on standard error; the others are done"),
    ("2", "nothing was done: a wrong option, a checkpoint that cannot be used"),
    ("130", "interrupted (Ctrl-C)"),
)
WHAT, LENS, MEMORY, REFOCUS = (
    "What to do",
    "Lens of the photographs, in place of EXIF",
    "Memory and device",
    "Refocusing",
)


@click.group(cls=CommandOrDefault, default="images")
def main() -> None:
    """Restore pictures and predict their depth, or export a network."""


@main.command(
    cls=OneLineCommand,
    examples=(
        "dfd-predict photo.jpg",
        "dfd-predict photos/ 'more/*.tif' --checkpoint runs/a --out results",
        "dfd-predict photo.jpg --focus 1.2m --refocus @640,360,4m --aperture f/1.4 --film mp4 --ply",
    ),
    exit_codes=EXIT_CODES,
    epilog="See also: dfd-predict export --help",
)
@click.argument("images", nargs=-1, required=True)
@under(
    WHAT,
    "--checkpoint",
    metavar="RUN|FILE|NAME",
    default=DEFAULT_WEIGHTS,
    help="A run's folder (best checkpoint), RUN@last, a file, or the name of packaged weights.",
)
@under(WHAT, "--out", metavar="DIR", default="results", help="Folder for the results.")
@under(
    WHAT,
    "--page/--no-page",
    default=None,
    show_default="on a terminal",
    help="One HTML file for each picture, to refocus it in a browser.",
)
@under(WHAT, "--ply", is_flag=True, help="A point cloud for each picture.")
@under(
    WHAT,
    "--size",
    type=SizeParam(square=True),
    metavar="PX|WxH",
    help="Reduce pictures to this first.  [default: as they are]",
)
@under(
    WHAT,
    "--scale",
    type=float,
    metavar="SHARE",
    show_default="chosen from the picture's blur",
    help="Work at this share of the sides; 1 for all pixels.",
)
@under(
    LENS,
    "--lens",
    "whole_lens",
    metavar="PRESET|FILE",
    help="A whole lens: paper, lens.toml or NAME.json.",
)
@under(LENS, "--focus", "focus_distance_m", type=LENGTH_M, help="Focus distance (1.5m); makes depth metric.")
@under(LENS, "--f-number", "photo_f_number", type=float, metavar="N", help="Aperture.")
@under(LENS, "--focal-length", type=LENGTH_MM, help="Focal length, not its 35 mm equivalent (6.8mm).")
@under(LENS, "--sensor-width", type=LENGTH_MM, help="Sensor width across the upright picture's width (9.8mm).")
@under(
    REFOCUS,
    "--refocus",
    type=FOCUS,
    metavar="LENGTH|@X,Y,...",
    help="Render the restored picture focused at 1.5m, 1m,2m,4m, or a pixel: @640,360.",
)
@under(
    REFOCUS,
    "--aperture",
    type=APERTURE,
    metavar="LENGTH|f/N",
    default="f/2",
    help="Of --refocus, on full frame with the photograph's field of view.",
)
@under(
    REFOCUS, "--film", type=click.Choice(("gif", "mp4")), default="gif", help="Rack focus through several distances."
)
@under(
    MEMORY, "--tile", type=int, metavar="PX", default=1024, help="Side of a tile in px: memory grows with its square."
)
@under(MEMORY, "--overlap", type=int, metavar="PX", default=384, help="Pixels that neighbouring tiles share.")
@under(MEMORY, "--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N.")
def images(images: tuple[str, ...], tile: int, overlap: int, page: bool | None, **options: Any) -> int:
    """Restore IMAGES (files, folders, patterns) and predict their depth.

    For each picture: NAME_restored.png (its own bit depth), NAME_depth.png (16 bit, millimetres), NAME_depth.npy (float32
    metres), NAME_depth_colour.png and NAME_uncertainty.png with a bar, NAME_sheet.jpg (before and after), NAME.json (what
    is known of the lens) and NAME.html (a page to refocus it). The lens is read from EXIF; without a focus distance depths
    are in units of it.
    """
    # Threads that wait by spinning make torch 10 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dfd_train.prediction.files import PredictConfig, predict_files
    from dfd_train.prediction.tiling import Tiling

    points: FocusPoints = options.pop("refocus") or FocusPoints()
    aperture: Aperture = options.pop("aperture")
    config = PredictConfig(
        images=images,
        tiling=Tiling(tile=tile, overlap=overlap),
        photo_lens=_lens(options),
        refocus_m=points.distances_m,
        refocus_at=points.pixels,
        f_number=aperture.f_number,
        aperture_mm=aperture.diameter_mm,
        page=sys.stdout.isatty() if page is None else page,
        **options,
    )
    failed = 0
    for outcome in predict_files(config):
        failed += outcome.error is not None
        if outcome.error is not None:
            say(f"Error: {outcome.error}", err=True)
            continue
        say(f"{outcome.source}: {outcome.text}")
        for line in outcome.details:
            say(f"  {line}")
        for path in outcome.files:
            if path.suffix == ".html":
                say(f"  open {path} in a browser")
    return EXIT_SOME_FAILED if failed else 0


@main.command(cls=OneLineCommand, examples=("dfd-predict export --checkpoint runs/a --onnx net.onnx --torch net.pt2",))
@click.option(
    "--checkpoint",
    metavar="RUN|FILE|NAME",
    default=DEFAULT_WEIGHTS,
    help="A run's folder (best checkpoint), RUN@last, a file, or the name of packaged weights.",
)
@click.option("--onnx", metavar="FILE", type=OutputPath(dir_okay=False), help="Write the network as ONNX.")
@click.option(
    "--torch",
    "program",
    metavar="FILE",
    type=OutputPath(dir_okay=False),
    help="Write the network as a torch.export program (.pt2).",
)
@click.option(
    "--weights",
    metavar="FILE",
    type=OutputPath(dir_okay=False),
    help="Write the weights alone in half precision (.safetensors), for --checkpoint and dfd_train.load.",
)
def export(checkpoint: str, onnx: Path | None, program: Path | None, weights: Path | None) -> None:
    """Write a checkpoint's network for other programs; height and width of the image stay free."""
    if onnx is None and program is None and weights is None:
        raise click.UsageError("there is nothing to write: give --onnx FILE, --torch FILE or --weights FILE")
    # By their kinds they can be no checkpoint and no other file of a run.
    for name, path, suffix in (
        ("onnx", onnx, ".onnx"),
        ("torch", program, ".pt2"),
        ("weights", weights, ".safetensors"),
    ):
        if path is not None and path.suffix != suffix:
            raise click.UsageError(f"--{name} {path} must end in {suffix}")
        not_an_input(path, checkpoint)
    from dfd_train.prediction.export import write_onnx, write_program
    from dfd_train.prediction.predict import load
    from dfd_train.runs.weights_file import write_weights

    net = load(checkpoint)
    if weights is not None:
        write_weights(weights, net.config, net.state_dict())
        say(f"{weights}: {net.config.name}, half precision, {weights.stat().st_size:,} bytes")
    for path, write in ((onnx, write_onnx), (program, write_program)):
        if path is not None:
            write(net, path)
            channels = 3 * net.config.about.pictures
            say(f"{path}: input image (1, {channels}, H, W) sRGB in [0, 1], {path.stat().st_size:,} bytes")


def _lens(options: dict[str, Any]) -> Any:
    """What the options say about the photographs' lens; they are taken out of `options`."""
    from dfd_train.prediction.photo.lens import LensChoice, parse_lens

    whole = options.pop("whole_lens")
    return LensChoice(
        lens=None if whole is None else parse_lens(whole),
        focus_distance_m=options.pop("focus_distance_m"),
        f_number=options.pop("photo_f_number"),
        focal_length_mm=options.pop("focal_length"),
        sensor_width_mm=options.pop("sensor_width"),
    )


if __name__ == "__main__":
    main()
