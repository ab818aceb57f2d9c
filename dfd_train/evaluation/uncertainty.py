"""Whether a network knows how wrong its depths are: coverage, likelihood, calibration, and the sparsification curve.

The network answers a Laplace distribution for every pixel; its standard deviation sigma in metres has the scale
b = sigma / sqrt(2). An error r lies within k sigma with probability 1 - exp(-k sqrt(2)).

Sparsification (Ilg et al. 2018): take away the pixels with the largest sigma first, and look at the RMSE of those that are
left. The oracle takes away the largest errors first; the area between the two curves (AUSE) is 0 where sigma puts the
pixels in the order of their errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Shares of the pixels that are taken away, and the bins of central probability that an error falls into.
REMOVED = np.linspace(0.0, 0.95, 20)
LEVELS = np.linspace(0.0, 1.0, 21)
# A network may say that it is sure: no error is as small as this.
_LEAST_SIGMA_M = 1e-6


class UncertaintySums(NamedTuple):
    """Sums of one image over its scored pixels: `pixels`, `surprise` (negative log likelihood, of metres), `within1` and
    `within2` (|error| up to one and two sigmas), `sigma_m` and `error_m` (absolute).

    `levels` (20,): pixels by the central probability at which their error lies, in bins between `LEVELS`.
    `left` and `oracle` (20,): RMSE in metres of the pixels that are left after `REMOVED` of them, see the module.
    """

    pixels: float
    surprise: float
    within1: float
    within2: float
    sigma_m: float
    error_m: float
    levels: NDArray[np.float64]
    left: NDArray[np.float64]
    oracle: NDArray[np.float64]


def uncertainty_sums(error_m: NDArray[Any], sigma_m: NDArray[Any]) -> UncertaintySums | None:
    """The sums of an image with these errors and standard deviations at its scored pixels (N,); None without a pixel."""
    if not error_m.size:
        return None
    error = np.abs(np.asarray(error_m, np.float64))
    sigma = np.maximum(np.asarray(sigma_m, np.float64), _LEAST_SIGMA_M)
    scale = sigma / math.sqrt(2)
    central = -np.expm1(-error / scale)
    bins = np.clip((central * (len(LEVELS) - 1)).astype(int), 0, len(LEVELS) - 2)
    return UncertaintySums(
        pixels=float(error.size),
        surprise=float(np.sum(error / scale + np.log(2 * scale))),
        within1=float(np.count_nonzero(error <= sigma)),
        within2=float(np.count_nonzero(error <= 2 * sigma)),
        sigma_m=float(sigma.sum()),
        error_m=float(error.sum()),
        levels=np.bincount(bins, minlength=len(LEVELS) - 1).astype(np.float64),
        left=_rmse_left(error, sigma),
        oracle=_rmse_left(error, error),
    )


def _rmse_left(error: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """RMSE of the pixels with the smallest values of `by`, after each share of `REMOVED`; ties in any order count alike."""
    order = np.argsort(by, kind="stable")
    squares = error[order] ** 2
    # Pixels that are alike cannot be told apart: each counts as the mean of its like.
    _, first, count = np.unique(by[order], return_index=True, return_counts=True)
    squares = np.repeat(np.add.reduceat(squares, first) / count, count)
    total = np.cumsum(squares)
    left = np.maximum(np.round((1 - REMOVED) * error.size).astype(int), 1)
    return np.sqrt(total[left - 1] / left)


def summarise_uncertainty(every: Sequence[UncertaintySums]) -> dict[str, Any] | None:
    """What the images' sums come to, JSON-ready; None where there are none.

    `coverage_1_sigma`, `coverage_2_sigma`: shares of all pixels, beside those of a Laplace distribution
    (`..._expected`). `nll`: mean surprise of a pixel in nats, of depths in metres. `mean_sigma_m`, `mean_error_m`.
    `calibration`: share of the pixels whose error lies within each central probability of `levels`; `calibration_error`:
    mean distance of the two. `sparsification`: RMSE in m of the pixels that are left, and of the oracle's, means over
    images, after the shares `removed`; `ause_m`: mean distance of the two curves, `ause_relative`: over the whole RMSE.
    """
    if not every:
        return None
    pixels = sum(one.pixels for one in every)
    within = np.cumsum(np.sum([one.levels for one in every], axis=0)) / pixels
    left, oracle = (np.mean([getattr(one, name) for one in every], axis=0) for name in ("left", "oracle"))
    ause = float(np.mean(left - oracle))
    return {
        "coverage_1_sigma": sum(one.within1 for one in every) / pixels,
        "coverage_1_sigma_expected": 1 - math.exp(-math.sqrt(2)),
        "coverage_2_sigma": sum(one.within2 for one in every) / pixels,
        "coverage_2_sigma_expected": 1 - math.exp(-2 * math.sqrt(2)),
        "nll": sum(one.surprise for one in every) / pixels,
        "mean_sigma_m": sum(one.sigma_m for one in every) / pixels,
        "mean_error_m": sum(one.error_m for one in every) / pixels,
        "calibration": {"levels": LEVELS[1:].tolist(), "within": within.tolist()},
        "calibration_error": float(np.mean(np.abs(within - LEVELS[1:]))),
        "sparsification": {"removed": REMOVED.tolist(), "rmse_m": left.tolist(), "oracle_rmse_m": oracle.tolist()},
        "ause_m": ause,
        "ause_relative": ause / float(left[0]) if left[0] > 0 else 0.0,
    }


def uncertainty_line(found: Mapping[str, Any]) -> str:
    """The most of it in a line."""
    return (
        f"uncertainty: {found['coverage_1_sigma']:.1%} of the errors within 1 sigma "
        f"({found['coverage_1_sigma_expected']:.1%} expected), {found['coverage_2_sigma']:.1%} within 2 "
        f"({found['coverage_2_sigma_expected']:.1%}); mean sigma {found['mean_sigma_m']:.3f} m, NLL {found['nll']:.3f}; "
        f"AUSE {found['ause_m']:.3f} m ({found['ause_relative']:.0%} of the RMSE)"
    )
