"""Options that several `dfd-prepare` commands share, and what they make: a lens, a rendering, conversion settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from dfd_cli.parameters import (
    Aperture,
    ApertureParam,
    DistancesParam,
    LengthParam,
    NoiseParam,
    PixelsParam,
    SizeParam,
)

from defocus_sim.lens import PRESETS, Lens
from defocus_sim.rendering import Rendering
from defocus_sim.shards.layout import COMPRESSIONS, DEFAULT_SAMPLES_PER_SHARD

F = TypeVar("F", bound=Callable[..., Any])

LENS = (
    click.option(
        "--preset",
        type=click.Choice([*PRESETS, "none"]),
        default="paper",
        show_default=True,
        help="Lens to start from; every option below replaces its value. none: give all yourself.",
    ),
    click.option("--aperture", type=ApertureParam(), help="Diameter of the entrance pupil (4.48cm), or f/N (f/1.56)."),
    click.option("--f-number", type=float, metavar="N", help="Aperture as focal length / diameter."),
    click.option("--focal-length", type=LengthParam(1e3), help="Focal length of the thin lens (70mm)."),
    click.option(
        "--focus",
        type=DistancesParam(),
        help="Focus distance (2m); several (1m,2m,4m) give a focal stack.",
    ),
    click.option("--sensor-width", type=LengthParam(1e3), help="Sensor width across the image's width (36mm)."),
    click.option("--pixel-pitch", type=LengthParam(1e6), help="Distance of two pixels (5.6um), for --sensor-width."),
    click.option("--focal-length-px", type=PixelsParam(), help="Lens-to-sensor distance in px, for --sensor-width."),
    click.option("--max-coc", type=PixelsParam(), help="Cap on the circle of confusion (diameter, px). [none]"),
    click.option(
        "--sensor-distance",
        type=click.Choice(["thin-lens", "infinity"]),
        help="Lens to sensor: F*S/(S-F), or F as the paper writes it. [default: thin-lens]",
    ),
)
RENDERING = (
    click.option(
        "--mode",
        type=click.Choice(["gather", "layered"]),
        default="gather",
        show_default=True,
        help="gather: each pixel by its own depth (the paper's). layered: right at occlusion edges.",
    ),
    click.option(
        "--psf",
        type=click.Choice(["gaussian", "disc"]),
        default="gaussian",
        show_default=True,
        help="gaussian: the paper's. disc: what a lens does.",
    ),
    click.option(
        "--linear-light", is_flag=True, help="Blur in linear light (images are sRGB). [default: off, as the paper]"
    ),
    click.option(
        "--truncate", type=float, default=4.0, show_default=True, help="Reach of the Gaussian in sigmas, 2 to 8."
    ),
    click.option(
        "--noise", type=NoiseParam(), help="Sensor noise, variance SHOT*value + READ^2 of values in [0,1]. [none]"
    ),
    click.option("--dither", is_flag=True, help="Quantise with dither instead of rounding."),
)
RESIZE = (
    click.option("--size", "size_hw", type=SizeParam(), help="Resize after the blur. [default: the source's size]"),
)
STORE = (
    click.option("--out", metavar="PLACE", help="The store: a path or s3://bucket/name. [default: ./<data set>.zarr]"),
    click.option("--compression", type=click.Choice(COMPRESSIONS), default="fast", show_default=True),
    click.option(
        "--samples-per-shard", type=click.IntRange(min=1), default=DEFAULT_SAMPLES_PER_SHARD, show_default=True
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random."),
    click.option("--workers", type=click.IntRange(min=1), help="Threads, or processes with --processes. [one a core]"),
    click.option("--processes", is_flag=True, help="Worker processes instead of threads (seldom faster)."),
    click.option("--scheduler", metavar="ADDRESS", help="dask scheduler (tcp://host:8786) instead of local workers."),
    click.option(
        "--on-error",
        type=click.Choice(["fail", "skip"]),
        default="fail",
        show_default=True,
        help="What a frame that cannot be used does; skipped ones are listed in the manifest.",
    ),
    click.option("--resume", is_flag=True, help="Continue an unfinished conversion of the same settings."),
    click.option("--overwrite", is_flag=True, help="Replace an existing store."),
)


def with_options(*groups: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """Decorate a command with every option of `groups`, shown in their order."""

    def decorate(command: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def lens_from_options(default_focus_m: float | None = None, **options: Any) -> tuple[Lens, tuple[float, ...]]:
    """The lens that the `LENS` options describe and its focus distances in metres.

    `default_focus_m`: for a data set whose usual focus is not the preset's.
    """
    preset = options["preset"]
    aperture = options["aperture"] or Aperture()
    if aperture.f_number is not None and options["f_number"] is not None:
        raise click.UsageError("--aperture f/N and --f-number say the same: give one")
    focus_m = options["focus"] or (() if default_focus_m is None else (default_focus_m,))
    given = {
        "aperture_mm": aperture.diameter_mm,
        "f_number": aperture.f_number if options["f_number"] is None else options["f_number"],
        "focal_length_mm": options["focal_length"],
        "focus_distance_m": focus_m[0] if focus_m else None,
        "sensor_width_mm": options["sensor_width"],
        "pixel_pitch_um": options["pixel_pitch"],
        "focal_length_px": options["focal_length_px"],
        "max_coc_px": options["max_coc"],
        "sensor_distance": options["sensor_distance"],
    }
    given = {key: value for key, value in given.items() if value is not None}
    if preset == "none":
        if "focus_distance_m" not in given:
            raise click.UsageError("--preset none needs --focus")
        lens = Lens(**given)
    else:
        lens = Lens.preset(preset, **given)
    return lens, focus_m or (lens.focus_distance_m,)


def rendering_from_options(**options: Any) -> Rendering:
    """The `RENDERING` options as one value."""
    return Rendering(**{key: options[key] for key in ("mode", "psf", "linear_light", "truncate", "noise", "dither")})
