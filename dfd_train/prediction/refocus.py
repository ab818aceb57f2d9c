"""`refocus`: a sharp picture and its depth -> the picture as a lens would have taken it; films of moving focus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.blur.options import Rendering
from defocus_sim.lens import Lens
from defocus_sim.simulate import compile_kernels, defocus

# Blur wider than this share of the picture is never wanted, and one wild depth would cost minutes.
LARGEST_COC_SHARE = 0.1
FRAMES_BETWEEN = 10
_RENDERING = Rendering(mode="layered", psf="disc", linear_light=True)


def compile_refocus() -> None:
    """Have the kernels of `refocus` compiled, or loaded, now rather than at the first picture."""
    compile_kernels(_RENDERING)


def refocus(aif: NDArray[Any], depth_m: NDArray[np.float32], lens: Lens) -> NDArray[Any]:
    """A scene as a lens would have taken it: occlusion-aware layers, a disc, linear light.

    Parameters
    ----------
    aif
        (H, W, 3) uint8, uint16 or floating in [0, 1].
    depth_m
        (H, W) metres.
    lens
        Its circle of confusion is limited to a tenth of the picture's longer side.

    Returns
    -------
    NDArray[Any]
        As `aif`, in the same type.

    Raises
    ------
    DefocusSimError
        For an impossible lens or depth.
    """
    largest = max(LARGEST_COC_SHARE * max(depth_m.shape), 1.0)
    limited = replace(lens, max_coc_px=min(lens.max_coc_px or math.inf, largest))
    deep = aif.dtype == np.uint16
    image = aif.astype(np.float32) / np.float32(65535) if deep else aif
    seen = defocus(image, depth_m, limited, **vars(_RENDERING))
    return np.rint(seen * 65535).astype(np.uint16) if deep else seen


def rack_focus(
    aif: NDArray[Any], depth_m: NDArray[np.float32], lens: Lens, focus_m: Sequence[float], *, longest_px: int = 640
) -> list[NDArray[np.uint8]]:
    """Frames of a film whose focus goes from the first distance to the last and back.

    Between two distances it moves evenly in 1/distance, as a lens turns.

    Parameters
    ----------
    aif, depth_m, lens
        As for `refocus`.
    focus_m
        The distances, metres.
    longest_px
        Larger pictures are reduced; the blur shrinks with them, as `lens` is described by its sensor's width.

    Returns
    -------
    list[NDArray[np.uint8]]
        (H, W, 3) uint8 each.
    """
    scale = min(1.0, longest_px / max(depth_m.shape))
    size = (max(round(depth_m.shape[1] * scale), 1), max(round(depth_m.shape[0] * scale), 1))
    eight = (aif / 257).round().astype(np.uint8) if aif.dtype == np.uint16 else aif
    eight = (eight * 255).round().astype(np.uint8) if eight.dtype.kind == "f" else eight
    small = cv2.resize(eight, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    near = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32)
    frames = [refocus(small, near, lens.at_focus(distance)) for distance in focus_steps(focus_m)]
    return frames + frames[-2:0:-1]


def focus_steps(focus_m: Sequence[float], between: int = FRAMES_BETWEEN) -> list[float]:
    """Distances with others between any two neighbours, evenly spaced in 1/distance.

    Parameters
    ----------
    focus_m
        The distances, metres.
    between
        Steps from one to the next.

    Returns
    -------
    list[float]
        All of them, metres.
    """
    steps = [float(focus_m[0])]
    for start, stop in pairwise(focus_m):
        steps += [1 / (1 / start + (1 / stop - 1 / start) * k / between) for k in range(1, between + 1)]
    return steps
