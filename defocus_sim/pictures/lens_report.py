"""A lens as people look at it: circle of confusion and sigma over depth, depth of field, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defocus_sim.lens import Lens, coc_diameter_px, depth_of_field_m, sigma_px
from defocus_sim.pictures.plots import plotted

DEFAULT_DEPTHS_M = (0.5, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0, 80.0)


def lens_table(lens: Lens, width_px: int, depths_m: Sequence[float] = DEFAULT_DEPTHS_M) -> list[str]:
    """Lines: what the lens is, its depth of field, then depth (m), signed CoC (px) and sigma (px), one depth a line.

    `width_px`: width of the image that is blurred. A lens whose aperture is solved for each image is solved for
    `depths_m`.
    """
    solved = lens.for_depth(np.array(depths_m), width_px)
    near_m, far_m = depth_of_field_m(solved, coc_limit_px=1.0, width_px=width_px)
    lines = [_description(solved, width_px)]
    if solved is not lens:
        lines.append(f"aperture solved so that the largest CoC over these depths is {lens.solve_max_coc_px:g} px")
    lines += [
        f"depth of field (CoC within 1 px): {near_m:.3f} m to {'infinity' if np.isinf(far_m) else f'{far_m:.3f} m'}",
        f"{'depth m':>9} {'CoC px':>9} {'sigma px':>9}",
    ]
    for depth_m in depths_m:
        coc = coc_diameter_px(depth_m, solved, width_px=width_px)
        lines.append(f"{depth_m:9.2f} {coc:+9.2f} {sigma_px(coc, solved):9.2f}")
    return lines


def save_lens_plot(
    lenses: Sequence[Lens], width_px: int, path: Path, depths_m: Sequence[float] = DEFAULT_DEPTHS_M
) -> Path:
    """Draw |CoC| (px) over depth (m, logarithmic) for each of `lenses` with its depth of field; returns `path`."""
    depth_m = np.geomspace(min(depths_m), max(depths_m), 800)
    title = _description(lenses[0].for_depth(depth_m, width_px), width_px, focus=len(lenses) == 1)
    y = f"circle of confusion [px, image {width_px} px wide]"
    with plotted(path, title=title, x="depth [m]", y=y) as axes:
        for lens in lenses:
            solved = lens.for_depth(depth_m, width_px)
            coc = np.abs(coc_diameter_px(depth_m, solved, width_px=width_px))
            (line,) = axes.plot(depth_m, coc, label=f"focus {lens.focus_distance_m:g} m")
            near_m, far_m = depth_of_field_m(solved, coc_limit_px=1.0, width_px=width_px)
            axes.axvspan(near_m, min(far_m, depth_m[-1]), color=line.get_color(), alpha=0.12)
        axes.set_xscale("log")
        ticks = [d for d in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if depth_m[0] <= d <= depth_m[-1]]
        axes.set_xticks(ticks, [f"{d:g}" for d in ticks])
        axes.minorticks_off()
        scale, sharp, least = lenses[0].sigma_per_coc, lenses[0].sharp_below_px, lenses[0].focus_blur_px

        def sigma_of(coc: Any) -> Any:
            return np.hypot(scale * (np.asarray(coc) - sharp), least)

        def coc_of(sigma: Any) -> Any:
            return np.sqrt(np.maximum(np.square(np.asarray(sigma)) - least**2, 0)) / scale + sharp

        axes.secondary_yaxis("right", functions=(sigma_of, coc_of)).set_ylabel("Gaussian sigma [px]")
        axes.legend(title="shaded: CoC within 1 px")
    return path


def _description(lens: Lens, width_px: int, *, focus: bool = True) -> str:
    parts = [lens.name]
    if lens.focal_length_mm is not None:
        focal_m = lens.focal_length_mm / 1e3
        parts.append(f"F {lens.focal_length_mm:g} mm, f/{focal_m / lens.aperture_diameter_m:.2f}")
    parts.append(f"aperture {lens.aperture_diameter_m * 1e3:.4g} mm")
    parts += [f"in-focus blur {lens.focus_blur_px:.3g} px"] if lens.focus_blur_px else []
    parts += [f"corner light {lens.corner_light:.3g}"] if lens.corner_light < 1 else []
    if focus:
        parts.append(f"focus {lens.focus_distance_m:g} m")
        parts.append(f"sensor at {lens.sensor_distance_px(width_px):.1f} px for {width_px} px of width")
    return ", ".join(parts)
