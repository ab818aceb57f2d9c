"""`dfd-prepare`: RGB-D data to shards of (defocused, all-in-focus, depth)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from dfd_cli.prepare_pairs import pairs
from dfd_cli.support.conversion import run_conversion
from dfd_cli.support.errors import OneLineCommand, OneLineGroup
from dfd_cli.support.focus import depths_of
from dfd_cli.support.help import under
from dfd_cli.support.options import (
    DATA_SET,
    DEPTH_FILES,
    DEPTH_HEADING,
    LENS,
    RENDERING,
    RESIZE,
    SENSOR_DEPTH,
    STORE,
    depth_units,
    lens_from_options,
    val_fraction,
    with_options,
)
from dfd_cli.support.output import say
from dfd_cli.support.parameters import DistancesParam, OutputPath, SizeParam, not_an_input
from dfd_cli.support.progress import sample_progress
from dfd_cli.support.summary import info_json, info_lines

from defocus_sim.errors import ShardCorruptError
from defocus_sim.lens import Lens

SPLITS_NONE = "none"
WHAT = "Options"


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
    type=click.Choice(["rooms", "varied"]),
    default="rooms",
    help="rooms: furnished spaces. varied: many kinds of scene, light and exposure, as photographs have.",
)
@under(
    DATA_SET,
    "--scale",
    type=click.Choice(["tabletop", "room", "hall", "street", "mixed"]),
    show_default="room; mixed where varied",
    help="tabletop: 0.3-1.5 m. room: 0.7-10 m. hall, street: 2-60 m. mixed: one of them a scene. "
    "Varied tabletops reach to 2 m, streets to 80 m.",
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
def synthetic(count: int, size: tuple[int, int], scenes: str, scale: str | None, **options: Any) -> None:
    """Procedural scenes with exact depth; needs no data set."""
    from defocus_sim.datasets.synthetic.source import SyntheticSource

    fractions = {name: options.pop(name) for name in ("test_fraction", "val_fraction")}
    source = SyntheticSource(
        count=count, size_wh=size[::-1], scenes=scenes, scale=scale, seed=options["seed"], **fractions
    )
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
@under(
    DATA_SET,
    "--test-fraction",
    type=click.FloatRange(0, 1),
    metavar="0..1",
    default=0.0,
    help="Share of the scenes that goes into test, seeded.",
)
@val_fraction(0.0)
@under(
    DATA_SET,
    "--test-list",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text file with the names of the test frames.",
)
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


@main.command(
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
    type=DistancesParam(),
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


@main.command(cls=OneLineCommand, examples=("dfd-prepare preview nyu.zarr --samples 4 --out sheet.png",))
@click.argument("store")
@under(WHAT, "--samples", type=click.IntRange(min=1), metavar="N", default=8, help="Rows of the sheet.")
@under(
    WHAT,
    "--out",
    type=OutputPath(dir_okay=False),
    metavar="FILE",
    show_default="<STORE>_contact_sheet.png",
    help="The picture.",
)
def preview(store: str, samples: int, out: Path | None) -> None:
    """A contact sheet: defocused, all in focus, depth, signed sigma."""
    from defocus_sim.pictures.preview import save_contact_sheet, sheet_path
    from defocus_sim.shards.store import open_store

    not_an_input(out, store)
    say(save_contact_sheet(open_store(store), out or sheet_path(store), samples))


@main.command(cls=OneLineCommand, examples=("dfd-prepare info nyu.zarr",))
@click.argument("store")
@under(WHAT, "--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(store: str, as_json: bool) -> None:
    """What a store holds and how it was made."""
    from defocus_sim.shards.store import open_store

    if as_json:
        say(json.dumps(info_json(open_store(store)), indent=2))
        return
    say("\n".join(info_lines(open_store(store))))


@main.command(cls=OneLineCommand, examples=("dfd-prepare verify nyu.zarr",))
@click.argument("store")
@under(WHAT, "--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(store: str, as_json: bool) -> None:
    """Read every byte of a store and check it; names what is damaged."""
    from defocus_sim.shards.store import open_store, verify_store

    opened = open_store(store, check_files=False)
    counts = {
        "shard_files": sum(1 for _ in opened.records()),
        "metadata_files": len(opened.metadata_records()),
        # Of other programs' stores, of which nobody says what was written.
        "samples": sum(len(opened.split(name)) for name in opened.split_names) if opened.foreign else 0,
    }
    total, damaged = sum(counts.values()), list[str]()
    with sample_progress("verifying", unit="samples" if opened.foreign else "files") as report:
        for done, (_, problem) in enumerate(verify_store(opened), start=1):
            report(done - 1, total)
            if problem is not None:
                damaged.append(problem)
                if not as_json:
                    say(problem)
    if as_json:
        say(json.dumps({"store": store, **counts, "damaged": damaged}, indent=2))
    if damaged:
        raise ShardCorruptError(
            f"{len(damaged)} of {total} {'samples' if opened.foreign else 'files'} of {store} are damaged"
        )
    if not as_json:
        say(f"{store}: {_sound_text(**counts)}")


def _sound_text(shard_files: int, metadata_files: int, samples: int) -> str:
    if samples:
        return f"all {samples} samples can be read; there are no checksums of ours that say what was written"
    more = (
        f"the {metadata_files} of metadata too"
        if metadata_files
        else "metadata are not covered: an earlier version wrote it"
    )
    return f"all {shard_files} shard files are as they were written; {more}"


@main.command(cls=OneLineCommand, examples=("dfd-prepare merge a.zarr b.zarr --out both.zarr",))
@click.argument("stores", nargs=-1, required=True)
@under(WHAT, "--out", required=True, metavar="PLACE", help="The joined store.")
@under(WHAT, "--overwrite", is_flag=True, help="Replace an existing store.")
def merge(stores: tuple[str, ...], out: str, overwrite: bool) -> None:
    """Join STORES of one image size, without compressing again; each sample keeps its lens."""
    from defocus_sim.convert.merge import merge as merge_stores

    with sample_progress("merging") as report:
        joined = merge_stores(stores, out, overwrite=overwrite, on_progress=report)
    say("\n".join(info_lines(joined)))


main.add_command(pairs)


if __name__ == "__main__":
    main()
