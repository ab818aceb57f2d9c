"""Lenses by name, and how changes are laid over the settings of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from defocus_sim.errors import LensError

PRESETS: dict[str, dict[str, Any]] = {
    # The paper's lens; 36 mm and S are our choice (docs/reference/optics.md), as the paper names neither.
    "paper": {"focal_length_mm": 70.0, "aperture_mm": 44.8, "sensor_width_mm": 36.0, "focus_distance_m": 2.0},
    # The paper's lens for studies of depth: beyond every surface of an indoor room no two depths share a blur.
    "paper-far": {"focal_length_mm": 70.0, "aperture_mm": 44.8, "sensor_width_mm": 36.0, "focus_distance_m": 10.0},
    # SYNDOF: the aperture follows from the largest CoC; a CoC of one pixel or less is sharp.
    "syndof": {
        "focal_length_mm": 50.0,
        "solve_max_coc_px": 29.0,
        "sensor_width_mm": 36.0,
        "focus_distance_m": 2.0,
        "sharp_below_px": 1.0,
    },
    # D3-Net's simulation script. Its real photographs come from another camera: the next one.
    "d3net-script": {
        "focal_length_mm": 15.0,
        "f_number": 2.8,
        "pixel_pitch_um": 5.6,
        "focus_distance_m": 2.0,
        "sigma_per_coc": 0.3,
    },
    # Nikon D200 with a 35 mm lens, as published with D3-Net's real photographs; the script's 0.3 is what they show, too.
    "d3net-camera": {
        "focal_length_mm": 35.0,
        "f_number": 2.8,
        "sensor_width_mm": 23.6,
        "focus_distance_m": 1.7,
        "sigma_per_coc": 0.3,
    },
    # The geometry of the very picture: 519 px is the Kinect colour camera's calibrated lens-to-sensor distance.
    "kinect": {"focal_length_mm": 70.0, "aperture_mm": 44.8, "focal_length_px": 519.0, "focus_distance_m": 2.0},
}
# Earlier names that still work.
PRESET_ALIASES = {"d3net": "d3net-script"}
_ALTERNATIVES = (
    ("aperture_mm", "f_number", "solve_max_coc_px"),
    ("sensor_width_mm", "pixel_pitch_um", "focal_length_px"),
)


def laid_over(settings: dict[str, Any], changes: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """`settings` of a lens with `changes` that are not None; one replaces the alternatives of its group.

    `known`: the names of all properties of a lens. Raises `LensError` for another.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    unknown = given.keys() - set(known)
    if unknown:
        raise LensError(f"{', '.join(sorted(unknown))} is not a property of a lens")
    kept = dict(settings)
    for group in _ALTERNATIVES:
        if given.keys() & set(group):
            for key in group:
                kept.pop(key, None)
    changed = any(settings.get(k) != v for k, v in given.items() if k not in ("focus_distance_m", "name"))
    name = str(settings["name"])
    return kept | ({"name": f"{name.removesuffix(', changed')}, changed"} if changed else {}) | given
