"""Whether a network says anything: one that is untrained or has collapsed gives one depth everywhere, or its input back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Depth that varies by less than a hundredth of itself, and pictures that differ by less than half a grey level.
_LEAST_SPREAD = 0.01
_LEAST_CHANGE = 0.5 / 255


class Collapse:
    """Sums over pictures of what a network made of them; `lines()` says what is wrong, nothing where all is well."""

    def __init__(self) -> None:
        self._depths: list[NDArray[np.float64]] = []
        self._changes: list[float] = []

    def add_depth(self, depth_m: NDArray[np.floating]) -> None:
        """A predicted depth map (H, W) in metres."""
        values = depth_m.astype(np.float64)
        self._depths.append(np.array([values.size, values.sum(), (values**2).sum()]))

    def add_restored(self, restored: NDArray[np.floating], given: NDArray[np.floating]) -> None:
        """A restored picture and the one it was made of, alike in shape, in [0, 1]."""
        self._changes.append(float(np.sqrt(np.mean((restored.astype(np.float64) - given) ** 2))))

    def lines(self, steps: int | None = None) -> list[str]:
        """What there is to say, a line each. `steps`: how many the network was trained for, where that is known."""
        found: list[str] = ["the network is untrained: 0 steps"] if steps == 0 else []
        if self._depths:
            count, total, squares = np.sum(self._depths, axis=0).tolist()
            mean = total / count
            spread = max(squares / count - mean**2, 0.0) ** 0.5
            if spread <= _LEAST_SPREAD * abs(mean):
                found.append(
                    f"the predicted depth is {mean:.3g} m everywhere (it varies by {spread:.2g} m): the network is "
                    "untrained or has collapsed"
                )
        if self._changes and max(self._changes) < _LEAST_CHANGE:
            found.append(
                "the restored pictures are the input itself (less than half a grey level apart): the network does not "
                "restore, or nothing is blurred"
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
