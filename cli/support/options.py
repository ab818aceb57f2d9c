"""Options that several `dfd-prepare` commands share, and what they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from dfd_cli.support.help import under
from dfd_cli.support.parameters import (
    DEPTH_INVALID,
    DEPTH_SCALE,
    INTRINSICS,
    LENGTH_M,
    NOISE,
    LengthScale,
    SizeParam,
)

from defocus_sim.blur.options import Rendering
from defocus_sim.datasets.formats.depth_units import DepthUnits
from defocus_sim.shards.layout import COMPRESSIONS, DEFAULT_SAMPLES_PER_SHARD

F = TypeVar("F", bound=Callable[..., Any])

DATA_SET, BLUR, PICTURE, STORE_HEADING, WORK = "Data set", "Blur", "Pictures", "Store", "Work"
DEPTH_HEADING = "Depth files"

RENDERING = (
    under(
        BLUR,
        "--mode",
        type=click.Choice(["gather", "layered"]),
        default="gather",
        help="gather: each pixel by its own depth (the paper's). layered: right at occlusion edges.",
    ),
    under(
        BLUR,
        "--psf",
        type=click.Choice(["gaussian", "disc"]),
        default="gaussian",
        help="gaussian: the paper's. disc: what a lens does.",
    ),
    under(
        BLUR,
        "--linear-light",
        is_flag=True,
        show_default="off, as the paper",
        help="Blur in linear light (images are sRGB).",
    ),
    under(
        BLUR, "--truncate", type=float, metavar="SIGMAS", default=4.0, help="Reach of the Gaussian in sigmas, 2 to 8."
    ),
    under(
        BLUR,
        "--noise",
        type=NOISE,
        metavar="SHOT,READ",
        show_default="none",
        help="Sensor noise, variance SHOT*value + READ^2 of values in [0,1].",
    ),
    under(BLUR, "--dither", is_flag=True, help="Quantise with dither instead of rounding."),
)
# What the numbers of depth files are; see `depth_units`.
DEPTH_FILES = (
    under(
        DEPTH_HEADING,
        "--depth-scale",
        type=DEPTH_SCALE,
        metavar="METRES",
        help="What a unit of the depth files is worth (0.001 or 1mm); of disparity in px, of inverse depth in 1/m.",
    ),
    under(
        DEPTH_HEADING,
        "--depth-kind",
        type=click.Choice(["z", "ray", "disparity", "inverse"]),
        default="z",
        help="z: along the axis. ray: distance from the camera. disparity: px. inverse: 1/z.",
    ),
    under(
        DEPTH_HEADING,
        "--depth-invalid",
        type=DEPTH_INVALID,
        metavar="VALUE,...|none",
        show_default="0, below, not finite, known marks far beyond the rest",
        help="Stored numbers that mean a hole; none: keep marks such as 65535 as depth.",
    ),
    under(
        DEPTH_HEADING,
        "--depth-bits",
        type=click.Choice(["stored", "rotated", "shifted", "swapped"]),
        default="stored",
        help="rotated: by 3, SUN RGB-D. shifted: by 3, a Kinect's raw depth. swapped: bytes.",
    ),
    under(
        DEPTH_HEADING,
        "--intrinsics",
        type=INTRINSICS,
        metavar="FX,FY,CX,CY",
        help="Camera of the depth maps in px, for ray and disparity.",
    ),
    under(DEPTH_HEADING, "--baseline", type=LENGTH_M, help="Distance of the two cameras, for disparity (12cm)."),
    under(
        DEPTH_HEADING,
        "--disparity-offset",
        type=float,
        metavar="PX",
        default=0.0,
        help="Added to disparity (Middlebury's doffs).",
    ),
)
# Where a sensor measured the depth.
SENSOR_DEPTH = (
    under(
        DEPTH_HEADING,
        "--guide-depth",
        is_flag=True,
        help="Move the edges of depth to those of the sharp picture before the blur (guided filter, 16 px).",
    ),
)
RESIZE = (
    under(
        PICTURE,
        "--size",
        "size_hw",
        type=SizeParam(),
        metavar="WxH",
        show_default="the source's size",
        help="Resize after the blur, in px.",
    ),
)
STORE = (
    under(
        STORE_HEADING,
        "--out",
        metavar="PLACE",
        show_default="./<data set>.zarr",
        help="The store: a path or s3://bucket/name.",
    ),
    under(
        STORE_HEADING,
        "--compression",
        type=click.Choice(COMPRESSIONS),
        default="fast",
        help="fast: LZ4 for the depth only. balanced: LZ4. small: Zstandard, slowest to read. none: largest, fastest.",
    ),
    under(
        STORE_HEADING,
        "--samples-per-shard",
        type=click.IntRange(min=1),
        metavar="N",
        default=DEFAULT_SAMPLES_PER_SHARD,
        help="Samples in one file of an array; also the unit of work and of resuming.",
    ),
    under(
        WORK,
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="all",
        help="About N frames only, spread over the splits: for a quick try.",
    ),
    under(STORE_HEADING, "--overwrite", is_flag=True, help="Replace an existing store."),
    under(WORK, "--seed", type=click.IntRange(min=0), metavar="N", default=0, help="Of everything random."),
    under(
        WORK,
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="one a core",
        help="Threads, or processes with --processes.",
    ),
    under(WORK, "--processes", is_flag=True, help="Worker processes instead of threads (seldom faster)."),
    under(WORK, "--scheduler", metavar="ADDRESS", help="dask scheduler (tcp://host:8786) instead of local workers."),
    under(
        WORK,
        "--on-error",
        type=click.Choice(["fail", "skip"]),
        default="fail",
        help="What a frame that cannot be used does; skipped ones are listed in the manifest.",
    ),
    under(WORK, "--profile", is_flag=True, help="Print where the time went: read, blur, encode, write."),
    under(WORK, "--resume", is_flag=True, help="Continue an unfinished conversion of the same settings."),
)


def _fraction(split: str, default: float, text: str) -> Any:
    kind = click.FloatRange(0, 1)
    return under(DATA_SET, f"--{split}-fraction", type=kind, metavar="0..1", default=default, help=text)


def val_fraction(default: float) -> Any:
    """The option `--val-fraction`."""
    return _fraction("val", default, "Share of the training scenes that goes into val, seeded.")


def splits(listed: str) -> tuple[Any, ...]:
    """The options that divide the `listed` (frames, pairs) of a data set which has no splits of its own."""
    names = click.Path(path_type=Path)
    return (
        _fraction("test", 0.0, "Share of the scenes that goes into test, seeded."),
        val_fraction(0.0),
        under(
            DATA_SET, "--test-list", type=names, metavar="FILE", help=f"Text file with the names of the test {listed}."
        ),
    )


def depth_units(options: dict[str, Any]) -> DepthUnits:
    """The `DEPTH_FILES` options but for the scale as one value, taken out of `options`."""
    invalid, guess = options.pop("depth_invalid") or ((), True)
    kind = options.pop("depth_kind")
    if kind in ("disparity", "inverse") and isinstance(options["depth_scale"], LengthScale):
        raise click.UsageError(f"--depth-scale of the kind {kind} is a plain number, not a length")
    return DepthUnits(
        kind=kind,
        invalid=invalid,
        guess=guess,
        bits=options.pop("depth_bits"),
        intrinsics=options.pop("intrinsics"),
        baseline_m=options.pop("baseline"),
        disparity_offset_px=options.pop("disparity_offset"),
    )


def with_options(*groups: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """Decorate a command with every option of `groups`, shown in their order."""

    def decorate(command: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def rendering_from_options(**options: Any) -> Rendering:
    """The `RENDERING` options as one value."""
    return Rendering(**{key: options[key] for key in ("mode", "psf", "linear_light", "truncate", "noise", "dither")})
