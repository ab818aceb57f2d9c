"""The options that describe a lens, and the lens that they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from dfd_cli.support.help import under
from dfd_cli.support.logging import note
from dfd_cli.support.parameters import (
    APERTURE,
    COC_LIMIT,
    DISTANCES,
    LENGTH_MM,
    LENGTH_UM,
    PIXELS,
    Aperture,
    PresetParam,
)

from defocus_sim.lens import PRESET_ALIASES, PRESETS, Lens

LENS_HEADING = "Lens"
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
        type=APERTURE,
        metavar="LENGTH|f/N",
        help="Diameter of the entrance pupil (4.48cm), or f/N (f/1.56).",
    ),
    under(LENS_HEADING, "--f-number", type=float, metavar="N", help="Aperture as focal length / diameter."),
    under(LENS_HEADING, "--focal-length", type=LENGTH_MM, help="Focal length of the thin lens (70mm)."),
    under(
        LENS_HEADING,
        "--focus",
        type=DISTANCES,
        metavar="LENGTH,...",
        help="Focus distance (2m); several (1m,2m,4m) give a focal stack.",
    ),
    under(LENS_HEADING, "--sensor-width", type=LENGTH_MM, help="Sensor width across the image's width (36mm)."),
    under(
        LENS_HEADING,
        "--pixel-pitch",
        type=LENGTH_UM,
        help="Distance of two pixels (5.6um), for --sensor-width.",
    ),
    under(
        LENS_HEADING,
        "--focal-length-px",
        type=PIXELS,
        metavar="PX",
        help="Lens-to-sensor distance in px, for --sensor-width.",
    ),
    under(
        LENS_HEADING,
        "--max-coc",
        type=COC_LIMIT,
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
        type=APERTURE,
        metavar="LENGTH|f/N",
        show_default="pinhole",
        help="Aperture that the all-in-focus images were taken at: only what the lens adds to its blur is applied.",
    ),
)


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
