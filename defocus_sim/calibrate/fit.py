"""The thin lens that explains measured blur over depth, with intervals from resampling scenes.

Blur is linear in 1/depth, `coc = P |1/S - 1/x|`, so the fit has three numbers for each kernel: 1/S, the power P, and the
blur in focus; the last two add as variances. Where focus distances are known (a focal stack), what is fitted instead of
1/S is how far the focus scale is off. What is minimised is the squared difference of the whole pictures at the blur that
the lens gives them, each scene in units of its own: the lens is the one with which simulated pictures reach the highest
mean PSNR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize

from defocus_sim.calibrate.curves import Curves
from defocus_sim.errors import CalibrationError

_BINS = 120
_FINE_PX = 0.02
_LEAST_PATCHES = 30
# Depths that differ by less than this share in 1/depth are one depth.
_LEAST_RANGE = 0.15
_FLOOR_PX = 1e-3
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval; `low` and `high` are NaN with fewer than three scenes."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What `fit_lens` finds.

    `focus_distance_m`; `coc_at_infinity_px`: diameter of the disc that agrees best; `sigma_at_infinity_px`: sigma of the
    Gaussian that does; `sigma_per_coc`: their ratio; `focus_blur_px`: sigma in focus. `per_m`, `measured_px`, `low_px`,
    `high_px` (N,): sigma over 1/depth as measured, for the plot; of a focal stack over the 1/depth that has this blur at
    the focus distance that is given. `patches`: how many have texture. `residual_px`: root of the weighted mean square of
    measured minus fitted sigma. `focus_offset_per_m`: of a focal stack, what has to be added to 1/distance as it was
    given; else None. `warnings`: what the data can hardly tell. `corner_light`: the median over the photographs, None
    where it was not measured.
    """

    focus_distance_m: Estimate
    coc_at_infinity_px: Estimate
    sigma_at_infinity_px: Estimate
    sigma_per_coc: Estimate
    focus_blur_px: Estimate
    per_m: NDArray[np.float64]
    measured_px: NDArray[np.float64]
    low_px: NDArray[np.float64]
    high_px: NDArray[np.float64]
    patches: int
    residual_px: float
    scenes: int
    width_px: int
    focus_offset_per_m: float | None
    warnings: tuple[str, ...]
    corner_light: Estimate | None = None

    def sigma_px(self, per_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sigma that the fitted lens gives 1/depth."""
        defocus = self.sigma_at_infinity_px.value * (1 - self.focus_distance_m.value * per_m)
        return np.asarray(np.hypot(defocus, self.focus_blur_px.value))


def fit_lens(curves: Curves, *, resamplings: int = 200, seed: int = 0) -> Fit:
    """Fit a thin lens to `curves`; raises `CalibrationError` where they cannot tell: no texture, or one depth."""
    _require_information(curves)
    everything = np.ones(len(curves.scenes))
    tables = _Tables.of(curves)
    best = _solve(tables, everything, None)
    # In units of what is left of each scene with this lens: of all scenes together, PSNR is what is raised.
    tables = tables.in_units_of(best)
    best = _solve(tables, everything, best)
    rng = np.random.default_rng(seed)
    drawn = []
    if len(curves.scenes) >= 3:
        for _ in range(resamplings):
            weights = np.bincount(rng.integers(len(everything), size=len(everything)), minlength=len(everything))
            drawn.append(_solve(tables, weights.astype(float), best))
    reference = curves.focus_per_m
    spread = np.array([_numbers(one, reference) for one in drawn]) if drawn else np.full((1, 5), np.nan)
    # Of resamplings whose focus lies beyond infinity there is no mean: one of the drawn values is taken.
    low, high = np.percentile(spread, INTERVAL, axis=0, method="nearest")
    names = ("focus_distance_m", "coc_at_infinity_px", "sigma_at_infinity_px", "sigma_per_coc", "focus_blur_px")
    estimates = {
        name: Estimate(value=float(value), low=float(lo), high=float(hi))
        for name, value, lo, hi in zip(names, _numbers(best, reference), low, high, strict=True)
    }
    offsets, measured, lows, highs, counts = _over_depth(curves, tables, rng)
    found = Fit(
        **estimates,
        per_m=offsets + reference,
        measured_px=measured,
        low_px=lows,
        high_px=highs,
        patches=len(curves.textured_per_m),
        residual_px=0.0,
        scenes=len(curves.scenes),
        width_px=curves.width_px,
        focus_offset_per_m=float(best[0]) if reference else None,
        warnings=_warnings(estimates, curves, reference),
        corner_light=_median(curves.corner_light, seed),
    )
    left = found.sigma_px(found.per_m) - measured
    return Fit(**{**vars(found), "residual_px": float(np.sqrt(np.average(left**2, weights=counts)))})


def _median(values: tuple[float, ...], seed: int) -> Estimate | None:
    if not values:
        return None
    every = np.array(values)
    drawn = np.random.default_rng(seed).choice(every, (500, len(every)))
    low, high = np.percentile(np.median(drawn, axis=1), INTERVAL) if len(every) >= 3 else (np.nan, np.nan)
    return Estimate(value=float(np.median(every)), low=float(low), high=float(high))


@dataclass(frozen=True)
class _Tables:
    """Summed curves on a fine scale, (scenes, bins, steps), and 1/depth of each bin, less that of the focus where known.

    `gaussian`, `disc`: shares of a scene's own difference at its best. `count` (scenes, bins): pixels.
    """

    gaussian: NDArray[np.float32]
    disc: NDArray[np.float32]
    per_m: NDArray[np.float64]
    count: NDArray[np.float64]

    @classmethod
    def of(cls, curves: Curves) -> _Tables:
        offset = curves.offset_per_m
        edges = np.linspace(offset.min(), offset.max(), _BINS + 1)
        place = np.clip(np.searchsorted(edges, offset, side="right") - 1, 0, _BINS - 1)
        fine = np.arange(0, curves.levels_px[-1], _FINE_PX)
        key = curves.scene * _BINS + place
        shape = len(curves.scenes) * _BINS
        count = np.bincount(key, weights=curves.pixels, minlength=shape).reshape(-1, _BINS)
        total = np.bincount(place, weights=offset * curves.pixels, minlength=_BINS)
        per_m = total / np.maximum(count.sum(axis=0), 1)
        tables = []
        for own in (curves.gaussian, curves.disc):
            summed = np.zeros((shape, own.shape[1]))
            np.add.at(summed, key, own)
            least = summed.reshape(-1, _BINS, own.shape[1]).min(axis=2).sum(axis=1)
            summed /= np.repeat(np.maximum(least, 1e-9), _BINS)[:, None]
            smooth = PchipInterpolator(curves.levels_px, summed, axis=1)(fine)
            tables.append(smooth.astype(np.float32).reshape(len(curves.scenes), _BINS, -1))
        return cls(tables[0], tables[1], per_m, count.astype(np.float64))

    def in_units_of(self, solution: NDArray[np.float64]) -> _Tables:
        """Each scene in units of its own difference with the lens `solution`."""
        zero, power, least, disc_power, disc_least = solution
        scaled = []
        for table, slope, floor in ((self.gaussian, power, least), (self.disc, disc_power, disc_least)):
            left = _looked_up(table, np.hypot(slope * (zero - self.per_m), floor)).sum(axis=1)
            scaled.append(table / np.maximum(left, 1e-9)[:, None, None].astype(np.float32))
        return _Tables(scaled[0], scaled[1], self.per_m, self.count)


def _looked_up(table: NDArray[Any], sigma_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """`table` (..., bins, steps) at one `sigma_px` (bins,) for each bin: (..., bins)."""
    position = np.minimum(sigma_px / _FINE_PX, table.shape[-1] - 1.001)
    low = position.astype(np.intp)
    share, rows = position - low, np.arange(len(sigma_px))
    return np.asarray((1 - share) * table[..., rows, low] + share * table[..., rows, low + 1])


def _solve(tables: _Tables, weights: NDArray[np.float64], start: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(1/S or the offset, power and sigma in focus of the Gaussian, and of the disc), in 1/m, px m, and px."""
    gaussian, disc = (
        np.tensordot(weights.astype(np.float32), table, axes=1) for table in (tables.gaussian, tables.disc)
    )
    used = (weights @ tables.count) > 0
    per_m, gaussian, disc = tables.per_m[used], gaussian[used], disc[used]

    def cost(table: NDArray[Any], zero: float, power: float, least: float) -> float:
        return float(_looked_up(table, np.hypot(power * (zero - per_m), least)).sum())

    def whole(x: NDArray[np.float64]) -> float:
        power, least, disc_power, disc_least = np.exp(x[1:])
        return cost(gaussian, x[0], power, least) + cost(disc, x[0], disc_power, disc_least)

    if start is None:
        span = per_m.max() - per_m.min()
        candidates = [
            (cost(gaussian, zero, power, least), zero, power, least)
            for zero in np.linspace(per_m.min() - 0.3 * span, per_m.max() + 0.3 * span, 60)
            for power in np.geomspace(0.1, 20, 25) / span
            for least in (0.1, 0.4, 0.8)
        ]
        _, zero, power, least = min(candidates)
        start = np.array([zero, power, least, power, least])
    x = np.array([start[0], *np.log(np.maximum(start[1:], _FLOOR_PX))])
    options = {"xatol": 1e-4, "fatol": 1e-7, "maxiter": 1500, "maxfev": 1500}
    for _ in range(2 if weights.min() < 1 else 3):
        x = minimize(whole, x, method="Nelder-Mead", options=options).x
    return np.array([x[0], *np.exp(x[1:])])


def _numbers(solution: NDArray[np.float64], reference_per_m: float) -> tuple[float, ...]:
    zero, power, least, disc_power, _ = solution.tolist()
    focus_per_m = zero + reference_per_m
    # A focus beyond infinity has no distance; the blur at infinity is that of a focus at infinity then.
    focus_m = 1 / focus_per_m if focus_per_m > 0 else np.inf
    # The disc's scale is a quarter of its diameter.
    coc = 4 * disc_power * max(focus_per_m, 0.0)
    return focus_m, coc, power * max(focus_per_m, 0.0), power / (4 * disc_power), least


def _over_depth(curves: Curves, tables: _Tables, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """1/depth, sigma at the minimum of the summed curves, its interval, and pixels, for some 24 parts of the pixels."""
    order = np.argsort(tables.per_m)
    amount = tables.count.sum(axis=0)[order]
    part = np.minimum((np.cumsum(amount) - amount / 2) / max(amount.sum(), 1) * 24, 23).astype(int)
    rows = []
    for number in range(24):
        bins = order[(part == number) & (amount > 0)]
        if not len(bins):
            continue
        table = tables.gaussian[:, bins].sum(axis=1)
        weight = tables.count[:, bins].sum(axis=0)
        fewest = len(curves.scenes)
        draws = [float(table[rng.integers(fewest, size=fewest)].sum(axis=0).argmin()) * _FINE_PX for _ in range(100)]
        low, high = np.percentile(draws, INTERVAL)
        per_m = np.average(tables.per_m[bins], weights=weight)
        rows.append((per_m, float(table.sum(axis=0).argmin()) * _FINE_PX, low, high, weight.sum()))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return tuple(columns)


def _require_information(curves: Curves) -> None:
    textured = len(curves.textured_per_m)
    if textured < _LEAST_PATCHES:
        raise CalibrationError(
            f"only {textured} of {curves.patches} patches with depth have texture, {_LEAST_PATCHES} are needed: blur "
            "cannot be seen on plain surfaces, photograph something with fine detail"
        )
    low, high = np.quantile(curves.textured_offset_per_m, (0.02, 0.98))
    if high - low < _LEAST_RANGE * np.median(curves.textured_per_m):
        near, far = (1 / np.quantile(curves.textured_per_m, q) for q in (0.98, 0.02))
        raise CalibrationError(
            f"all textured patches are at one depth ({near:.2f} to {far:.2f} m): focus and aperture cannot be told apart, "
            "photograph things at several distances"
        )


def _warnings(estimates: dict[str, Estimate], curves: Curves, reference_per_m: float) -> tuple[str, ...]:
    lines = []
    if len(curves.scenes) < 3:
        lines.append(
            f"{len(curves.scenes)} scenes give no interval: it comes from resampling scenes, use three or more"
        )
    focus = estimates["focus_distance_m"]
    low, high = np.quantile(curves.textured_offset_per_m, (0.01, 0.99)) + reference_per_m
    if not low <= 1 / focus.value <= high:
        lines.append(
            f"the focus at {focus.value:.2f} m lies outside of the measured depths ({1 / high:.2f} to "
            f"{1 / max(low, 1e-9):.2f} m): it is an extrapolation, and so is the blur in focus"
        )
    for name, one in estimates.items():
        if name != "focus_blur_px" and one.high - one.low > 0.3 * one.value:
            lines.append(f"the data can hardly tell {name}: {one.value:.3g}, 95 % {one.low:.3g} to {one.high:.3g}")
    if estimates["sigma_at_infinity_px"].value * 4 < 2:
        lines.append("the defocus is less than two pixels everywhere: hardly any to measure")
    if not np.isfinite(focus.value):
        raise CalibrationError(
            "blur falls towards infinity: no focus distance explains it, is the depth in metres and the focus before it?"
        )
    return tuple(lines)
