"""Where to focus: how well depth can be told from the width of the blur alone, over focus distances.

Two depths, one on each side of the focus, share a blur. Who knows its width, and how often which depth occurs, answers
best with the mean of the depths that it can come from; what error is left then is a bound that no reading of the width
beats, however good. (A network may beat it by what else it knows: the content of the picture.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defocus_sim.errors import LensError
from defocus_sim.lens import Lens, coc_diameter_px, sigma_px
from defocus_sim.pictures.plots import plotted

DEFAULT_ERRORS = (0.0, 0.1, 0.2)
DEFAULT_FOCUS_M = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 40.0, 80.0)
_CELLS = 4000
# Of the distribution of depths, in ln(depth): wide enough to close the gaps between the steps of an 8-bit depth map.
_SMOOTHING = 0.02
# An error of a width that is called known: in ln(width), as every error here.
_KNOWN = 0.002
# Below this sigma two blurs look alike.
_LEAST_SIGMA_PX = 0.02


@dataclass(frozen=True)
class FocusBound:
    """Least depth RMSE in metres, the mean over images: `rmse_m` (focus distances, errors).

    `focus_m`: the distances; `errors`: relative errors of the blur's width (standard deviations). `constant_m`: RMSE of
    one depth for every pixel, the mean. `depth_m`: nearest depth, median and farthest of the pixels (1st and 99th
    percentile for the ends).
    """

    focus_m: tuple[float, ...]
    errors: tuple[float, ...]
    rmse_m: NDArray[np.float64]
    constant_m: float
    depth_m: tuple[float, float, float]

    def best(self, error: float) -> float:
        """The focus distance in metres with the least RMSE for this error of the width."""
        return self.focus_m[int(np.argmin(self.rmse_m[:, self.errors.index(error)]))]


def focus_bound(
    depths_m: Sequence[NDArray[Any]],
    lens: Lens,
    width_px: int,
    *,
    focus_m: Sequence[float] = DEFAULT_FOCUS_M,
    errors: Sequence[float] = DEFAULT_ERRORS,
) -> FocusBound:
    """The bound for images with these depths, as `lens` sees them, focused at each of `focus_m`.

    `depths_m`: one array of any shape an image, metres, 0 or non-finite = hole, ignored. `width_px`: of the frame that is
    blurred. Caps, sharpness and in-focus blur of the lens count. Raises `LensError` for an impossible focus distance or
    error, or where no depth is valid.
    """
    valid = [flat[np.isfinite(flat) & (flat > 0)] for flat in (np.asarray(d, np.float64).ravel() for d in depths_m)]
    valid = [depth for depth in valid if depth.size]
    if not valid:
        raise LensError("there is no valid depth to focus on")
    for error in errors:
        if not (math.isfinite(error) and 0 <= error < 1):
            raise LensError(f"error={error:g} of the blur's width must lie in [0, 1)")
    shares, cells_m = _distributions(valid)
    pooled = ndimage.gaussian_filter1d(
        shares.mean(axis=0), _SMOOTHING / np.log(cells_m[1] / cells_m[0]), mode="constant"
    )
    pooled /= pooled.sum()
    rmse = np.empty((len(focus_m), len(errors)))
    for row, distance in enumerate(focus_m):
        focused = lens.at_focus(distance).for_depth(cells_m, width_px)
        sigma = sigma_px(coc_diameter_px(cells_m, focused, width_px=width_px), focused)
        width = np.log(np.maximum(sigma, _LEAST_SIGMA_PX))
        for column, error in enumerate(errors):
            rmse[row, column] = _mean_rmse(shares, _squares(pooled, cells_m, width, max(error, _KNOWN)))
    mean = float(pooled @ cells_m)
    low, middle, high = np.quantile(np.concatenate(valid), (0.01, 0.5, 0.99))
    return FocusBound(
        focus_m=tuple(focus_m),
        errors=tuple(errors),
        rmse_m=rmse,
        constant_m=_mean_rmse(shares, (cells_m - mean) ** 2),
        depth_m=(float(low), float(middle), float(high)),
    )


def _distributions(valid: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of each image's pixels in each cell (images, cells), and the cells' depths in metres, evenly in ln."""
    least, most = min(float(d.min()) for d in valid), max(float(d.max()) for d in valid)
    # Room for what the smoothing moves out.
    edges = np.linspace(math.log(least) - 4 * _SMOOTHING, math.log(most) + 4 * _SMOOTHING, _CELLS + 1)
    shares = np.stack([np.histogram(np.log(depth), edges)[0] / depth.size for depth in valid])
    return shares, np.exp((edges[1:] + edges[:-1]) / 2)


def _squares(
    share: NDArray[np.float64], depth_m: NDArray[np.float64], width: NDArray[np.float64], error: float
) -> NDArray[np.float64]:
    """Expected squared error (m^2) at each depth, where ln(width) is read with this error and answered with the mean."""
    step, reach = error / 4, 20
    first = np.floor((width - width.min()) / step).astype(np.int64) + reach
    numbers = first[:, None] + np.arange(-reach, reach + 1)
    read = width.min() + (numbers - reach) * step
    chance = np.exp(-0.5 * ((read - width[:, None]) / error) ** 2)
    chance /= chance.sum(axis=1, keepdims=True)
    flat, room = numbers.ravel(), int(numbers.max()) + 1
    often = np.bincount(flat, (chance * share[:, None]).ravel(), room)
    summed = np.bincount(flat, (chance * (share * depth_m)[:, None]).ravel(), room)
    answer = np.divide(summed, often, out=np.full(room, float(share @ depth_m)), where=often > 0)
    return np.asarray((chance * (depth_m[:, None] - answer[numbers]) ** 2).sum(axis=1))


def _mean_rmse(shares: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
    return float(np.sqrt(shares @ squares).mean())


def bound_lines(bound: FocusBound) -> list[str]:
    """The bound as a table, a focus distance a line, and where it is least."""
    low, middle, high = bound.depth_m
    lines = [
        f"depths {low:.2f} to {high:.2f} m (1st and 99th percentile), median {middle:.2f} m; one depth for all: RMSE "
        f"{bound.constant_m:.2f} m",
        "least RMSE in m that the width of the blur allows, known to within:",
        f"{'focus m':>9}" + "".join(f"{f'{error:.0%}':>9}" for error in bound.errors),
    ]
    for focus_m, row in zip(bound.focus_m, bound.rmse_m, strict=True):
        lines.append(f"{focus_m:9.2f}" + "".join(f"{value:9.2f}" for value in row))
    best = ", ".join(f"{bound.best(error):g} m for {error:.0%}" for error in bound.errors)
    return [*lines, f"least at {best}"]


def save_bound_plot(bound: FocusBound, path: Path, lens_name: str) -> Path:
    """Draw the bound over focus distance, with the depths shaded; returns `path`. Raises `LensError`."""
    title = f"What the width of the blur tells of depth, lens {lens_name}"
    x, y = "focus distance [m] (shaded: the depths)", "least depth RMSE [m]"
    with plotted(path, title=title, x=x, y=y) as axes:
        for column, error in enumerate(bound.errors):
            axes.plot(bound.focus_m, bound.rmse_m[:, column], marker="o", label=f"width known to {error:.0%}")
        axes.axhline(bound.constant_m, color="0.5", linestyle="--", label="one depth for all")
        axes.axvspan(bound.depth_m[0], bound.depth_m[2], color="0.5", alpha=0.12)
        axes.set_xscale("log")
        axes.set_xticks(bound.focus_m, [f"{focus:g}" for focus in bound.focus_m])
        axes.minorticks_off()
        axes.legend()
    return path
