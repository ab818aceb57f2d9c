"""What a calibration found, as a lens, as lines of text and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from defocus_sim.calibrate.fit import Estimate, Fit
from defocus_sim.lens import Lens, coc_at_infinity_px
from defocus_sim.pictures.plots import plotted
from defocus_sim.progress import counted

NAME = "calibrated"


def fitted_lens(fit: Fit, camera: Lens | None = None, sharp_aperture_mm: float | None = None) -> Lens:
    """The lens of `fit` with the focal length and the size of a pixel of `camera`.

    Without one, the lens-to-sensor distance is taken to be as many px as the photographs are wide: only its product with
    the aperture shows in pictures. `sharp_aperture_mm`: entrance pupil of the sharp photographs; what was measured is what
    the lens adds to their blur, and the lens that is returned does all of it. In px of the photographs that were measured.
    """
    focus_m, width = fit.focus_distance_m.value, fit.width_px
    geometry: dict[str, Any] = {"focal_length_px": float(width)}
    if camera is not None and camera.focal_length_mm is not None and camera.focal_length_px is None:
        # Of a pixel, not of the sensor, whose width is another in a cropped picture.
        pitch_um = camera.pixel_pitch_um or (camera.sensor_width_mm or 0) * 1e3 / width
        geometry = {"focal_length_mm": camera.focal_length_mm, "pixel_pitch_um": pitch_um}
    elif camera is not None:
        geometry = {"focal_length_px": camera.sensor_distance_px(width), "focal_length_mm": camera.focal_length_mm}
    unit = Lens(focus_distance_m=focus_m, aperture_mm=1.0, name=NAME, **geometry)
    added_mm = fit.coc_at_infinity_px.value / coc_at_infinity_px(unit, width)
    return unit.changed(
        aperture_mm=float(np.hypot(added_mm, sharp_aperture_mm or 0.0)),
        sigma_per_coc=fit.sigma_per_coc.value,
        focus_blur_px=fit.focus_blur_px.value,
        corner_light=1.0 if fit.corner_light is None else fit.corner_light.value,
        name=NAME,
    )


def fit_lines(fit: Fit, lens: Lens, camera: Lens | None = None) -> list[str]:
    """Lines: every number with its 95 % interval, the aperture, residuals, and what the data can hardly tell."""
    lines = [
        f"measured on {counted(fit.scenes, 'scene')}, {fit.patches} patches with texture; 95 % intervals by resampling",
        f"  focus distance        {_with_interval(fit.focus_distance_m)} m",
        f"  CoC at infinity       {_with_interval(fit.coc_at_infinity_px)} px, diameter of the disc that agrees best",
        f"  sigma at infinity     {_with_interval(fit.sigma_at_infinity_px)} px, of the Gaussian that does",
        f"  sigma per CoC         {_with_interval(fit.sigma_per_coc)}",
        f"  blur in focus         {_with_interval(fit.focus_blur_px)} px, sigma",
        f"  residual              {fit.residual_px:.3f} px of sigma, root mean square over depth",
    ]
    if fit.corner_light is not None:
        lines.append(f"  corner light          {_with_interval(fit.corner_light)} of the middle's, whole photograph")
    if fit.focus_offset_per_m is not None:
        lines.append(f"  focus scale           off by {fit.focus_offset_per_m:+.4f} /m (added to 1/distance as given)")
    if lens.focal_length_mm is None:
        lines.append("  aperture              not known without the camera (--focal-length, --sensor-width or --lens)")
    else:
        number = lens.focal_length_mm / (lens.aperture_diameter_m * 1e3)
        lines.append(f"  aperture              {lens.aperture_diameter_m * 1e3:.2f} mm, f/{number:.2f}")
    if camera is not None and camera.solve_max_coc_px is None:
        nominal = coc_at_infinity_px(camera.at_focus(fit.focus_distance_m.value), fit.width_px)
        share = fit.sigma_at_infinity_px.value / nominal
        lines.append(f"  beside {camera.name}: its CoC at this focus is {nominal:.2f} px, sigma {share:.3f} of it")
    return lines + [f"  warning: {text}" for text in fit.warnings]


def fit_record(fit: Fit) -> dict[str, dict[str, Any]]:
    """The tables that go into the lens's file beside the lens: numbers, intervals, how many scenes and patches."""
    record: dict[str, Any] = {"scenes": fit.scenes, "patches": fit.patches, "residual_px": fit.residual_px}
    for name in ("focus_distance_m", "coc_at_infinity_px", "sigma_at_infinity_px", "sigma_per_coc", "focus_blur_px"):
        one: Estimate = getattr(fit, name)
        record[name] = one.value
        record[f"{name}_95"] = [one.low, one.high]
    if fit.corner_light is not None:
        record["corner_light"] = fit.corner_light.value
        record["corner_light_95"] = [fit.corner_light.low, fit.corner_light.high]
    record["width_px"] = fit.width_px
    return {"calibration": record}


def save_fit_plot(fit: Fit, path: Path) -> Path:
    """Draw measured sigma (px) over depth (m, even in 1/m) with the fitted thin lens; returns `path`.

    Raises `LensError` where it cannot be written.
    """
    low, high = fit.per_m.min(), fit.per_m.max()
    margin = 0.04 * (high - low)
    per_m = np.linspace(low - margin, high + margin, 600)
    bars = np.maximum([fit.measured_px - fit.low_px, fit.high_px - fit.measured_px], 0)
    title = (
        f"focus {fit.focus_distance_m.value:.3f} m, sigma {fit.sigma_at_infinity_px.value:.2f} px at infinity, "
        f"{fit.focus_blur_px.value:.2f} px in focus"
    )
    y = f"Gaussian sigma [px, {fit.width_px} px wide]"
    with plotted(path, title=title, x="depth [m], even in 1/m", y=y) as axes:
        axes.errorbar(fit.per_m, fit.measured_px, bars, fmt="o", ms=4, lw=1, color="#215ab4", label="measured, 95 %")
        axes.plot(per_m, fit.sigma_px(per_m), color="#be1e2d", label="thin lens with blur in focus")
        axes.axvline(1 / fit.focus_distance_m.value, color="0.5", lw=0.8, ls=":")
        shown = [d for d in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 30) if per_m[0] <= 1 / d <= per_m[-1]]
        axes.set_xticks([1 / d for d in shown], [f"{d:g}" for d in shown])
        axes.invert_xaxis()
        axes.legend()
    return path


def _with_interval(one: Estimate) -> str:
    if not np.isfinite(one.low):
        return f"{one.value:.3f}"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
