"""What each number of a lens may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from defocus_sim.errors import LensError

# Of any number of a lens in its unit; beyond, products of a few of them are no numbers any more.
_LEAST, _MOST = 1e-15, 1e15
# As the CoC is limited to the frame, so is the blur that is made of it, and the memory that the blur takes.
_MOST_OF = {"sigma_per_coc": 1.0, "focus_blur_px": 500.0}


def checked_number(name: str, value: Any) -> float:
    """`value` of the field `name` of a lens as a float; raises `LensError` where it is no number or out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise LensError(f"{name}={value!r} is not a number")
    try:
        value = float(value)
    except OverflowError:
        raise LensError(f"{name} is a number of hundreds of digits, beyond every lens") from None
    if name in ("sharp_below_px", "focus_blur_px"):
        if not (math.isfinite(value) and value >= 0):
            raise LensError(f"{name}={value:g} must be finite and >= 0")
    elif not (math.isfinite(value) and value > 0) and (name, value) != ("max_coc_px", math.inf):
        raise LensError(f"{name}={value:g} must be finite and > 0")
    if value and value != math.inf and not _LEAST <= value <= _MOST:
        raise LensError(f"{name}={value:g} is beyond every lens: give {_LEAST:g} to {_MOST:g}")
    if value > _MOST_OF.get(name, math.inf):
        raise LensError(f"{name}={value:g} must be at most {_MOST_OF[name]:g}")
    return value
