"""Whether a network says anything: one that is untrained or has collapsed gives one depth everywhere, or its input back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Depth that varies by less than a hundredth of itself, and pictures that differ by less than half a grey level.
_LEAST_SPREAD = 0.01
_LEAST_CHANGE = 0.5 / 255
# Of the true depths' variation; and of the depth itself, where a flat scene would do as much.
_LEAST_SHARE = 0.1
_SUSPICIOUS_SPREAD = 0.05


class Collapse:
    """Sums over pictures of what a network made of them; `lines()` says what is wrong, nothing where all is well."""

    def __init__(self) -> None:
        self._depths: list[NDArray[np.float64]] = []
        self._truths: list[NDArray[np.float64]] = []
        self._changes: list[float] = []

    def add_depth(self, depth_m: NDArray[np.floating], true_m: NDArray[np.floating] | None = None) -> None:
        """A predicted depth map (H, W) in metres, and the true one where it is known, 0 = hole."""
        self._depths.append(_sums(depth_m))
        if true_m is not None and (true_m > 0).any():
            self._truths.append(_sums(true_m[true_m > 0]))

    def add_restored(self, restored: NDArray[np.floating], given: NDArray[np.floating]) -> None:
        """A restored picture and the one it was made of, alike in shape, in [0, 1]."""
        self._changes.append(float(np.sqrt(np.mean((restored.astype(np.float64) - given) ** 2))))

    def lines(self, steps: int | None = None) -> list[str]:
        """What there is to say, a line each. `steps`: how many the network was trained for, where that is known."""
        found: list[str] = ["the network is untrained: 0 steps"] if steps == 0 else []
        if self._depths:
            mean, spread = _mean_and_spread(self._depths)
            true_spread = _mean_and_spread(self._truths)[1] if self._truths else None
            if spread <= _LEAST_SPREAD * abs(mean):
                found.append(
                    f"the predicted depth is {mean:.3g} m everywhere (it varies by {spread:.2g} m): the network is "
                    "untrained or has collapsed"
                )
            elif true_spread is not None and spread < _LEAST_SHARE * true_spread:
                found.append(
                    f"the predicted depth hardly varies (by {spread:.2g} m around {mean:.3g} m, the true one by "
                    f"{true_spread:.2g} m): the network is barely trained or has collapsed"
                )
            elif true_spread is None and spread <= _SUSPICIOUS_SPREAD * abs(mean):
                found.append(
                    f"the predicted depth hardly varies (by {spread:.2g} m around {mean:.3g} m): a flat scene, or a "
                    "network that is barely trained or has collapsed"
                )
        if self._changes and max(self._changes) < _LEAST_CHANGE:
            found.append(
                "the restored pictures are the input itself (less than half a grey level apart): the network does not "
                "restore, or nothing is blurred"
            )
        return found


def _sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    exact = values.astype(np.float64)
    return np.array([exact.size, exact.sum(), (exact**2).sum()])


def _mean_and_spread(sums: list[NDArray[np.float64]]) -> tuple[float, float]:
    count, total, squares = np.sum(sums, axis=0).tolist()
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5


def lines_of_scores(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What a report's `rows` ("prediction", "input", "mean depth") say of a network that does worse than nothing."""
    net, given, constant = (rows.get(name, {}) for name in ("prediction", "input", "mean depth"))
    found = []
    if "rmse" in net and "rmse" in constant and net["rmse"] >= constant["rmse"]:
        found.append(
            f"the predicted depth is no better than the mean depth everywhere (RMSE {net['rmse']:.3f} m against "
            f"{constant['rmse']:.3f} m): here the network knows nothing of depth"
        )
    if "psnr" in net and "psnr" in given and net["psnr"] < given["psnr"]:
        found.append(
            f"the restored pictures are farther from the sharp ones than the input is (PSNR {net['psnr']:.2f} dB "
            f"against {given['psnr']:.2f} dB): here the network harms"
        )
    return found


def lines_of_picture(
    depth_m: NDArray[np.floating] | None, restored: NDArray[Any] | None, given: NDArray[Any]
) -> list[str]:
    """`Collapse.lines` of a single picture; `restored` and `given` of one type, integers or in [0, 1]."""
    seen = Collapse()
    if depth_m is not None:
        seen.add_depth(depth_m)
    if restored is not None:
        scale = np.iinfo(given.dtype).max if given.dtype.kind == "u" else 1
        seen.add_restored(restored / np.float32(scale), given / np.float32(scale))
    return seen.lines()
