"""Numbers that stand for "nothing was measured", and other signs that a depth file is not what it is taken for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import SourceError

# What programs write where they saw nothing; each counts only where it repeats, far beyond the rest.
_KNOWN = frozenset({
    99.0, 255.0, 999.0, 1000.0, 9999.0, 10000.0, 99999.0, 100000.0, 999999.0, 1000000.0, 32767.0, 32768.0, 65500.0,
    65504.0, 65535.0, 65536.0, 16777216.0, *(2.0**k - 1 for k in range(10, 17)),
})  # fmt: skip
_BEYOND = 3.0
# No unit of length makes a depth of it.
_IMPOSSIBLE = 1e8
_MOST_MARKS = 3
_REPEATED = 16


def marks_of_nothing(numbers: NDArray[Any], seen: NDArray[np.bool_]) -> list[Any]:
    """Those of the `seen` numbers that mean a hole.

    The largest number of an integer type of 16 bit or more; numbers of 1e8 and more; and known marks (65504, 999, 10000
    and others) that are there more than once and three times as large as everything else.
    """
    found: list[Any] = []
    rest = numbers[seen]
    while rest.size and len(found) < _MOST_MARKS:
        top = rest.max()
        below = rest[rest < top]
        if numbers.dtype.kind in "ui" and numbers.dtype.itemsize > 1:
            is_mark = top in (np.iinfo(numbers.dtype).max, np.iinfo(f"i{numbers.dtype.itemsize}").max)
        else:
            is_mark = float(top) >= _IMPOSSIBLE
        far = below.size > 0 and float(top) >= _BEYOND * float(below.max())
        if not is_mark and not (float(top) in _KNOWN and far and rest.size - below.size > 1):
            break
        found.append(top)
        rest = below
    return found


def suspicions(numbers: NDArray[Any], seen: NDArray[np.bool_], *, packed: bool) -> list[str]:
    """What looks odd about the `seen` numbers, a line each. `packed`: whether to look at the order of bits.

    Raises `SourceError` where the two bytes of 16-bit numbers are in the wrong order.
    """
    rest = numbers[seen]
    if rest.size < _REPEATED:
        return []
    lines = []
    low, high = rest.min(), rest.max()
    between = rest[(rest > low) & (rest < high)]
    if between.size:
        at_high, at_low = int((rest == high).sum()), int((rest == low).sum())
        if at_high >= _REPEATED and float(high) >= _BEYOND * float(between.max()):
            lines.append(
                f"{at_high / rest.size:.0%} of depth is exactly {float(high):g}, the rest up to {float(between.max()):g}: "
                f"if it means that nothing was seen, --depth-invalid {float(high):g}"
            )
        if at_low >= _REPEATED and float(low) * 10 <= float(between.min()):
            lines.append(
                f"{at_low / rest.size:.0%} of depth is exactly {float(low):g}, the rest at least {float(between.min()):g}: "
                f"if it means that nothing was seen, --depth-invalid {float(low):g}"
            )
    if packed and numbers.dtype.kind in "ui" and numbers.dtype.itemsize == 2:
        lines += _bit_order(numbers, seen)
    return lines


def _bit_order(numbers: NDArray[Any], seen: NDArray[np.bool_]) -> list[str]:
    words = numbers.astype(np.uint16)
    swapped = words.byteswap()
    both = seen[:, 1:] & seen[:, :-1]
    if both.sum() >= _REPEATED and _roughness(swapped, seen, both) < 0.2 * _roughness(words, seen, both):
        raise SourceError("its two bytes are in the wrong order, as neighbours tell: give --depth-bits swapped")
    values = np.unique(words[seen])
    if len(values) >= 64 and np.mean(values % 8 == 0) > 0.9:
        return [
            "every depth is a multiple of 8: shifted by 3 bits, as SUN RGB-D's (--depth-bits rotated) or a Kinect's raw "
            "depth (--depth-bits shifted)?"
        ]
    return []


def _roughness(words: NDArray[np.uint16], seen: NDArray[np.bool_], both: NDArray[np.bool_]) -> float:
    """Mean step between neighbours as a share of the spread of all."""
    values = words.astype(np.float64)
    spread = float(values[seen].std())
    return float(np.abs(np.diff(values, axis=1))[both].mean()) / spread if spread > 0 else 0.0
