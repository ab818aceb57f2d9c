"""`dfd-prepare lens`: what a lens does, and where best to focus it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import OneLineCommand
from dfd_cli.support.focus import depths_of
from dfd_cli.support.help import under
from dfd_cli.support.lens_options import LENS, lens_from_options
from dfd_cli.support.options import with_options
from dfd_cli.support.output import say
from dfd_cli.support.parameters import DISTANCES, OutputPath, not_an_input

from defocus_sim.lens import Lens

WHAT = "Options"


@click.command(
    cls=OneLineCommand,
    examples=(
        "dfd-prepare lens --preset paper --focus 1m,2m,4m --width 561 --plot lens.png",
        "dfd-prepare lens --preset none --focal-length 50mm --aperture f/2 --sensor-width 36mm --focus 2m",
        "dfd-prepare lens --bound nyu.zarr --plot bound.png",
    ),
)
@under(WHAT, "--width", type=click.IntRange(min=1), metavar="PX", default=640, help="Image width in px.")
@under(
    WHAT,
    "--depths",
    type=DISTANCES,
    metavar="LENGTH,...",
    show_default="0.5 m to 80 m",
    help="Depths to list (0.5m,1m,4m).",
)
@under(
    WHAT,
    "--plot",
    type=OutputPath(dir_okay=False),
    metavar="FILE",
    help="Also draw it, as PNG, PDF or SVG.",
)
@under(
    WHAT,
    "--bound",
    metavar="STORE|DEPTHS",
    help="Where to focus: the least depth RMSE that the width of the blur allows over focus distances, for the depths of a "
    "store, a file (.mat of NYU, .npy, .png, .exr, ...) or a folder.",
)
@under(
    WHAT,
    "--depth-scale",
    type=click.FloatRange(min=0, min_open=True),
    metavar="METRES",
    help="Metres per unit of integer depth files for --bound (0.001 for mm).",
)
@with_options(LENS)
def lens(
    width: int,
    depths: tuple[float, ...] | None,
    plot: Path | None,
    bound: str | None,
    depth_scale: float | None,
    **options: Any,
) -> None:
    """A lens in numbers: circle of confusion and sigma over depth, depth of field; or where best to focus it."""
    from defocus_sim.pictures.lens_report import DEFAULT_DEPTHS_M, lens_table, save_lens_plot

    not_an_input(plot, bound, options["lens_file"])
    camera, focus_m = lens_from_options(**options)
    if bound is not None:
        _say_bound(camera, options["focus"] or (), bound, depth_scale, width, plot)
        return
    if depth_scale is not None:
        raise click.UsageError("--depth-scale belongs to --bound")
    lenses = [camera.at_focus(s) for s in focus_m]
    for one in lenses:
        say("\n".join(lens_table(one, width, depths or DEFAULT_DEPTHS_M)))
    if plot is not None:
        say(f"drawn as {save_lens_plot(lenses, width, plot, depths or DEFAULT_DEPTHS_M)}")


def _say_bound(
    camera: Lens, asked_m: tuple[float, ...], place: str, depth_scale: float | None, width: int, plot: Path | None
) -> None:
    """Print and draw the bound for the depths at `place`; the focus distances asked for are added to the usual ones."""
    from defocus_sim.pictures.focus_bound import DEFAULT_FOCUS_M, bound_lines, focus_bound, save_bound_plot

    nearest_m = 2e-3 * (camera.focal_length_mm or 0.0)
    focus_m = sorted({*asked_m, *(distance for distance in DEFAULT_FOCUS_M if distance > nearest_m)})
    found = focus_bound(depths_of(place, depth_scale), camera, width, focus_m=focus_m)
    say("\n".join(bound_lines(found)))
    if plot is not None:
        say(f"drawn as {save_bound_plot(found, plot, camera.name)}")
