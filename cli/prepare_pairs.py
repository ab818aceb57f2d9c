"""`dfd-prepare pairs`: photographs that a camera defocused, beside the same scenes sharp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from dfd_cli.support.conversion import run_conversion
from dfd_cli.support.errors import OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.lens_options import LENS
from dfd_cli.support.options import (
    DATA_SET,
    DEPTH_FILES,
    RESIZE,
    SENSOR_DEPTH,
    STORE,
    depth_units,
    splits,
    with_options,
)

MATCH = "Laying the sharp picture on the defocused one"
_FOLDER = click.Path(path_type=Path)


@click.command(
    cls=OneLineCommand,
    examples=(
        "dfd-prepare pairs --defocused f2.8 --sharp f8 --depth-dir depth --depth-scale 0.001 --preset d3net-camera",
        "dfd-prepare pairs DPDD/dd_dp_dataset_png --out dpdd.zarr",
        "dfd-prepare pairs --pairs list.csv --register none --exposure none",
    ),
)
@click.argument("folder", required=False, type=_FOLDER)
@under(DATA_SET, "--defocused", type=_FOLDER, metavar="FOLDER", help="Folder of the defocused photographs.")
@under(DATA_SET, "--sharp", type=_FOLDER, metavar="FOLDER", help="Folder of the same scenes, sharp.")
@under(
    DATA_SET,
    "--depth-dir",
    "depth",
    type=_FOLDER,
    metavar="FOLDER",
    show_default="no depth",
    help="Folder of depth files that lie on the defocused photographs.",
)
@under(
    DATA_SET,
    "--pairs",
    "pairs_csv",
    type=_FOLDER,
    metavar="CSV",
    help="List of defocused,sharp[,depth[,split[,scene]]] instead of folders.",
)
@under(DATA_SET, "--by-order", is_flag=True, help="First with first, second with second, whatever the names.")
@with_options(splits("pairs"))
@under(
    MATCH,
    "--register",
    "motion",
    type=click.Choice(["affine", "shift", "none"]),
    default="affine",
    help="How the two may lie on each other; none: they are aligned already.",
)
@under(
    MATCH,
    "--border",
    "border_px",
    type=click.IntRange(min=0),
    metavar="PX",
    show_default="16; 0 with --register none",
    help="Cut off at each side; pairs that are farther apart are left out.",
)
@under(
    MATCH,
    "--exposure",
    type=click.Choice(["match", "none"]),
    default="match",
    help="match: give the sharp picture the defocused one's light, a gain a channel in linear light.",
)
@under(MATCH, "--falloff", is_flag=True, help="Match the light of the corners, too.")
@with_options(DEPTH_FILES, SENSOR_DEPTH, LENS, RESIZE, STORE)
def pairs(folder: Path | None, exposure: str, **options: Any) -> None:
    """Real photographs: pairs of a defocused and a sharp picture, with depth or without.

    From --defocused and --sharp, from a FOLDER in the layout of DPDD (train_c/source, train_c/target, ...), or from a
    list. The lens is stored where an option says which it was. Pairs that do not register, are damaged or incomplete are
    named and left out (--on-error fail stops instead).
    """
    from defocus_sim.datasets.pairs import PairsSource

    units = depth_units(options)
    names = ("defocused", "sharp", "depth", "pairs_csv", "by_order", "depth_scale", "test_fraction", "val_fraction")
    own = {name: options.pop(name) for name in (*names, "test_list", "motion", "border_px", "falloff")}
    own["units"] = units
    if click.get_current_context().get_parameter_source("on_error") is click.core.ParameterSource.DEFAULT:
        options["on_error"] = "skip"
    source = PairsSource(root=folder, exposure=exposure == "match", seed=options["seed"], **own)
    run_conversion(source, options)
