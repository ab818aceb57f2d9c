"""`dfd-prepare`: RGB-D data to shards of (defocused, all-in-focus, depth)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from dfd_cli.prepare_lens import lens
from dfd_cli.prepare_pairs import pairs
from dfd_cli.prepare_store import info, merge, preview, verify
from dfd_cli.support.conversion import run_conversion
from dfd_cli.support.errors import OneLineCommand, OneLineGroup
from dfd_cli.support.help import under
from dfd_cli.support.lens_options import LENS
from dfd_cli.support.options import (
    DATA_SET,
    DEPTH_FILES,
    DEPTH_HEADING,
    RENDERING,
    RESIZE,
    SENSOR_DEPTH,
    STORE,
    depth_units,
    splits,
    val_fraction,
    with_options,
)
from dfd_cli.support.parameters import SizeParam

SPLITS_NONE = "none"


@click.group(
    cls=OneLineGroup,
    examples=(
        "dfd-prepare synthetic --count 64 --out demo.zarr",
        "dfd-prepare nyu nyu_depth_v2_labeled.mat --aperture 4.48cm --focus 2m",
        "dfd-prepare lens --preset paper --focus 2m --plot lens.png",
    ),
)
def main() -> None:
    """Turn all-in-focus images with metric depth into defocused training data: a store of Zarr shards.

    Lengths take a unit (4.48cm, 70mm, 2m, 5.6um); a bare number is refused.
    """


@main.command(
    cls=OneLineCommand,
    examples=(
        "dfd-prepare nyu --aperture 4.48cm",
        "dfd-prepare nyu nyu_depth_v2_labeled.mat --splits splits.mat --aperture f/1.56 --focus 1m,2m,4m",
        "dfd-prepare nyu --mode layered --psf disc --linear-light --out nyu-physical.zarr",
    ),
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@under(
    DATA_SET,
    "--splits",
    metavar="FILE|none",
    show_default="splits.mat beside FILE",
    help="Official splits.mat, or `none` for no test split.",
)
@under(
    DATA_SET,
    "--crop",
    type=click.Choice(["official", "eigen", "none"]),
    default="official",
    help="official: 561x427, where depth projects. eigen: 560x426. none: 640x480.",
)
@under(
    DATA_SET,
    "--depth",
    type=click.Choice(["filled", "raw"]),
    default="filled",
    help="filled: in-painted depths. raw: rawDepths, with holes.",
)
@val_fraction(0.1)
@with_options(SENSOR_DEPTH, LENS, RENDERING, RESIZE, STORE)
def nyu(file: Path | None, splits: str | None, crop: Any, depth: Any, val_fraction: float, **options: Any) -> None:
    """NYU-Depth v2: the labelled set, nyu_depth_v2_labeled.mat.

    Without FILE it is looked for in the current folder, ./data and $DFD_DATA.
    """
    from defocus_sim.datasets.nyu import NyuSource, require_official_files

    given = None if splits in (None, SPLITS_NONE) else Path(splits)
    labelled, split_file = require_official_files(file, given, everything_in_train=splits == SPLITS_NONE)
    source = NyuSource(
        path=labelled, splits=split_file, crop=crop, depth=depth, val_fraction=val_fraction, seed=options["seed"]
    )
    run_conversion(source, options)


@main.command(
    cls=OneLineCommand,
    examples=(
        "dfd-prepare synthetic --count 64 --out demo.zarr",
        "dfd-prepare synthetic --count 16 --scale tabletop --preset d3net-script --focus 50cm --out tabletop.zarr",
        "dfd-prepare synthetic --count 2000 --size 480x360 --scenes varied --out varied.zarr",
    ),
)
@under(DATA_SET, "--count", type=click.IntRange(min=1), metavar="N", default=64, help="Number of scenes.")
@under(DATA_SET, "--size", type=SizeParam(), metavar="WxH", default="320x240", help="Size of the images in px.")
@under(
    DATA_SET,
    "--scenes",
    type=click.Choice(["rooms", "varied", "interiors"]),
    default="rooms",
    help="rooms: furnished spaces. varied: many kinds of scene, light and exposure, as photographs have. "
    "interiors: offices, corridors, shelves and living rooms as people furnish them.",
)
@under(
    DATA_SET,
    "--scale",
    type=click.Choice(["tabletop", "room", "hall", "street", "mixed"]),
    show_default="room; mixed where varied",
    help="tabletop: 0.3-1.5 m. room: 0.7-10 m. hall, street: 2-60 m. mixed: one of them a scene. "
    "Varied tabletops reach to 2 m, streets to 80 m. interiors: room only.",
)
@under(
    DATA_SET,
    "--field-of-view",
    "field_of_view_deg",
    type=click.FloatRange(20, 57),
    metavar="DEG",
    default=57.0,
    help="Angle that the longer side sees, in degrees, 20 to 57; a narrower one is a longer lens.",
)
@under(
    DATA_SET,
    "--test-fraction",
    type=click.FloatRange(0, 1),
    metavar="0..1",
    default=0.25,
    help="Share of the scenes that goes into test.",
)
@val_fraction(0.1)
@with_options(LENS, RENDERING, STORE)
def synthetic(count: int, size: tuple[int, int], **options: Any) -> None:
    """Procedural scenes with exact depth; needs no data set."""
    from defocus_sim.datasets.synthetic.source import SyntheticSource

    drawn = {
        name: options.pop(name) for name in ("scenes", "scale", "field_of_view_deg", "test_fraction", "val_fraction")
    }
    source = SyntheticSource(count=count, size_wh=size[::-1], seed=options["seed"], **drawn)
    run_conversion(source, options)


@main.command(
    cls=OneLineCommand,
    examples=("dfd-prepare make3d Make3D --out make3d.zarr", "dfd-prepare make3d Make3D --focus 5m,10m,20m"),
)
@click.argument("folder", type=click.Path(path_type=Path))
@under(
    DATA_SET,
    "--size",
    type=SizeParam(),
    metavar="WxH",
    default="345x460",
    help="Working size in px, read directly.",
)
@val_fraction(0.1)
@with_options(SENSOR_DEPTH, LENS, RENDERING, STORE)
def make3d(folder: Path, size: tuple[int, int], val_fraction: float, **options: Any) -> None:
    """Make3D: the FOLDER with Train400Img, Train400Depth, Test134 and Test134Depth.

    Pairs are found by id; what cannot be paired or read is left out and listed. Focus: 10 m unless given.
    """
    from defocus_sim.datasets.make3d import Make3dSource

    source = Make3dSource(root=folder, size_hw=size, val_fraction=val_fraction, seed=options["seed"])
    run_conversion(source, options, default_focus_m=10.0)


@main.command(
    cls=OneLineCommand,
    examples=(
        "dfd-prepare rgbd photos --depth-scale 0.001 --test-fraction 0.2 --aperture f/2 --focal-length 50mm",
        "dfd-prepare rgbd colour --depth-dir depth --size 640x480",
        "dfd-prepare rgbd --pairs list.csv --on-error skip",
    ),
)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@under(
    DATA_SET,
    "--depth-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    show_default="FOLDER",
    help="Folder of the depth files, or the name of such folders in every scene.",
)
@under(
    DATA_SET,
    "--pairs",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="List of colour,depth[,split[,scene]] instead of names; TUM's, BTS's and Open3D's lists as they are. "
    "FOLDER may say where its paths begin.",
)
@under(
    DATA_SET,
    "--max-difference",
    "max_difference_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    show_default="0.02",
    help="How far apart a picture and its depth may be that are paired by their times.",
)
@with_options(splits("frames"))
@under(
    DEPTH_HEADING,
    "--mask",
    "mask_dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Masks named as the depth files (NPY or PNG), 0 where depth is not valid.",
)
@under(
    DEPTH_HEADING,
    "--turn-depth",
    is_flag=True,
    help="Turn depth as the EXIF of its picture says: it was made of the picture as stored.",
)
@with_options(DEPTH_FILES, SENSOR_DEPTH, LENS, RENDERING, RESIZE, STORE)
def rgbd(folder: Path | None, pairs: Path | None, **options: Any) -> None:
    """Your own images with metric depth: a FOLDER, paired by name, or a list with --pairs.

    Colour as JPEG, PNG, TIFF or BMP; depth as 16-bit PNG, PGM or TIFF, NPY, or EXR (a.png + a.npy, a.jpg + a.depth.png).
    Everything goes into train unless a test or val split is asked for.
    """
    from defocus_sim.datasets.rgbd_folder import RgbdFolderSource

    units = depth_units(options)
    names = ("depth_dir", "max_difference_s", "depth_scale", "mask_dir", "turn_depth", "test_fraction", "val_fraction")
    own = {name: options.pop(name) for name in (*names, "test_list")} | {"units": units}
    run_conversion(RgbdFolderSource(root=folder, pairs_csv=pairs, seed=options["seed"], **own), options)


for command in (pairs, lens, preview, info, verify, merge):
    main.add_command(command)


if __name__ == "__main__":
    main()
