"""Options that several `dfd-prepare` commands share, and what they make: a lens, a rendering, conversion settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from dfd_cli.support.help import under
from dfd_cli.support.logging import note
from dfd_cli.support.parameters import (
    Aperture,
    ApertureParam,
    CocLimitParam,
    DepthInvalidParam,
    DepthScaleParam,
    DistancesParam,
    IntrinsicsParam,
    LengthParam,
    LengthScale,
    NoiseParam,
    PixelsParam,
    PresetParam,
    SizeParam,
)

from defocus_sim.blur.options import Rendering
from defocus_sim.datasets.formats.depth_units import DepthUnits
from defocus_sim.lens import PRESET_ALIASES, PRESETS, Lens
from defocus_sim.shards.layout import COMPRESSIONS, DEFAULT_SAMPLES_PER_SHARD

F = TypeVar("F", bound=Callable[..., Any])

DATA_SET, LENS_HEADING, BLUR, PICTURE, STORE_HEADING, WORK = "Data set", "Lens", "Blur", "Pictures", "Store", "Work"
DEPTH_HEADING = "Depth files"

LENS = (
    under(
        LENS_HEADING,
        "--preset",
        type=PresetParam(),
        default="paper",
        help=f"Lens to start from: {', '.join(PRESETS)}; every option below replaces its value. none: give all yourself.",
    ),
    under(
        LENS_HEADING,
        "--lens",
        "lens_file",
        type=click.Path(path_type=Path),
        metavar="TOML",
        help="Lens to start from, as dfd-calibrate writes it, instead of a preset.",
    ),
    under(
        LENS_HEADING,
        "--aperture",
        type=ApertureParam(),
        metavar="LENGTH|f/N",
        help="Diameter of the entrance pupil (4.48cm), or f/N (f/1.56).",
    ),
    under(LENS_HEADING, "--f-number", type=float, metavar="N", help="Aperture as focal length / diameter."),
    under(LENS_HEADING, "--focal-length", type=LengthParam(1e3), help="Focal length of the thin lens (70mm)."),
    under(
        LENS_HEADING,
        "--focus",
        type=DistancesParam(),
        metavar="LENGTH,...",
        help="Focus distance (2m); several (1m,2m,4m) give a focal stack.",
    ),
    under(LENS_HEADING, "--sensor-width", type=LengthParam(1e3), help="Sensor width across the image's width (36mm)."),
    under(
        LENS_HEADING,
        "--pixel-pitch",
        type=LengthParam(1e6),
        help="Distance of two pixels (5.6um), for --sensor-width.",
    ),
    under(
        LENS_HEADING,
        "--focal-length-px",
        type=PixelsParam(),
        metavar="PX",
        help="Lens-to-sensor distance in px, for --sensor-width.",
    ),
    under(
        LENS_HEADING,
        "--max-coc",
        type=CocLimitParam(),
        metavar="PX|none",
        show_default="the frame's longer side",
        help="Cap on the circle of confusion (diameter in px); none: no cap.",
    ),
    under(
        LENS_HEADING,
        "--sensor-distance",
        type=click.Choice(["thin-lens", "infinity"]),
        show_default="the preset's: thin-lens",
        help="Lens to sensor: F*S/(S-F), or F as the paper writes it.",
    ),
    under(
        LENS_HEADING,
        "--sigma-per-coc",
        type=click.FloatRange(min=0, min_open=True),
        metavar="RATIO",
        show_default="the preset's",
        help="Sigma of the Gaussian for one px of CoC (0.25: of a disc's variance; 0.3: of real lenses).",
    ),
    under(
        LENS_HEADING,
        "--focus-blur",
        type=click.FloatRange(min=0),
        metavar="PX",
        show_default="the preset's: 0",
        help="Sigma of the blur that is there even in focus; adds to the defocus as variance.",
    ),
    under(
        LENS_HEADING,
        "--corner-light",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="SHARE",
        show_default="the preset's: 1",
        help="Light in the corners of the image as a share of that in its middle.",
    ),
    under(
        LENS_HEADING,
        "--sharp-aperture",
        type=ApertureParam(),
        metavar="LENGTH|f/N",
        show_default="pinhole",
        help="Aperture that the all-in-focus images were taken at: only what the lens adds to its blur is applied.",
    ),
)
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
        type=NoiseParam(),
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
        type=DepthScaleParam(),
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
        type=DepthInvalidParam(),
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
        type=IntrinsicsParam(),
        metavar="FX,FY,CX,CY",
        help="Camera of the depth maps in px, for ray and disparity.",
    ),
    under(DEPTH_HEADING, "--baseline", type=LengthParam(1), help="Distance of the two cameras, for disparity (12cm)."),
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


def val_fraction(default: float) -> Any:
    """The option `--val-fraction`."""
    return under(
        DATA_SET,
        "--val-fraction",
        type=click.FloatRange(0, 1),
        metavar="0..1",
        default=default,
        help="Share of the training scenes that goes into val, seeded.",
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


def lens_from_options(default_focus_m: float | None = None, **options: Any) -> tuple[Lens, tuple[float, ...]]:
    """The lens that the `LENS` options describe and its focus distances in metres.

    `default_focus_m`: for a data set whose usual focus is not the preset's.
    """
    preset = options["preset"]
    if options["lens_file"] is not None and _is_given("preset"):
        raise click.UsageError("--preset and --lens both say which lens to start from: give one")
    aperture = options["aperture"] or Aperture()
    if aperture.f_number is not None and options["f_number"] is not None:
        raise click.UsageError("--aperture f/N and --f-number say the same: give one")
    loaded = None if options["lens_file"] is None else Lens.load(options["lens_file"])
    focus_m = options["focus"] or (() if default_focus_m is None or loaded else (default_focus_m,))
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
        "sigma_per_coc": options["sigma_per_coc"],
        "focus_blur_px": options["focus_blur"],
        "corner_light": options["corner_light"],
    }
    given = {key: value for key, value in given.items() if value is not None}
    if loaded is not None:
        lens = loaded.changed(**given)
    elif preset == "none":
        if "focus_distance_m" not in given:
            raise click.UsageError("--preset none needs --focus")
        lens = Lens(**given)
    else:
        if preset in PRESET_ALIASES:
            note(
                f"note: the preset {preset} is {PRESET_ALIASES[preset]} now; the camera of its photographs is d3net-camera"
            )
        lens = Lens.preset(preset, **given)
    sharp = options["sharp_aperture"]
    if sharp is not None:
        lens = lens.beyond(aperture_mm=sharp.diameter_mm, f_number=sharp.f_number)
    return lens, focus_m or (lens.focus_distance_m,)


def photo_lens(source: Any, options: dict[str, Any]) -> tuple[Lens | None, tuple[float, ...]]:
    """The lens of photographs, that of the frames which are stored, or None where no option describes one."""
    named = ("preset", "lens_file", "aperture", "f_number", "focal_length", "focus", "sensor_width", "pixel_pitch")
    if not any(_is_given(name) for name in (*named, "focal_length_px")):
        return None, ()
    if not (_is_given("preset") or _is_given("lens_file")):
        # The paper's lens, which a simulation starts from, took none of them.
        options = options | {"preset": "none"}
    lens, focus_m = lens_from_options(**options)
    return source.stored_lens(lens), focus_m


def _is_given(name: str) -> bool:
    """Whether the user wrote the option `name`, and it is not there as its default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def rendering_from_options(**options: Any) -> Rendering:
    """The `RENDERING` options as one value."""
    return Rendering(**{key: options[key] for key in ("mode", "psf", "linear_light", "truncate", "noise", "dither")})
