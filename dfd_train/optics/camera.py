"""What a lens does to a depth map, in torch: the few numbers of a `Lens` as a tensor, so that a loss can go through it.

A camera is (10,), or (B, 10) for a batch: `FOCUS_M` focus distance in metres; `COC_PX` diameter of the circle of confusion
at infinity, `MOST_PX` its cap, `SHARP_PX` the diameter that is still sharp, in pixels of the frame that was blurred;
`PER_COC` sigma per diameter; `SCALE_Y`, `SCALE_X` pixels of the frame at hand for one of the blurred frame; `IN_FOCUS_PX`
the sigma that is there even in focus, in pixels of the blurred frame; `TOP`, `BOTTOM` where the rows at hand begin and
end in the picture that they were cut from, -1 = its upper edge, 1 = its lower one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from defocus_sim.lens import Lens, coc_at_infinity_px, coc_limit_px

FOCUS_M, COC_PX, MOST_PX, SHARP_PX, PER_COC, SCALE_Y, SCALE_X, IN_FOCUS_PX, TOP, BOTTOM = range(10)
# Depths below this share of the focus distance count as this: the blur of something at the lens has no bound. Far below
# whatever a picture shows: focused at 10 m, most of a room is nearer than a quarter of that.
NEAREST_SHARE = 0.01
# The focus distance over the farthest depth that a CoC is turned into.
FARTHEST_NEARNESS = 0.01
# Finite, as the camera is part of averages of weights, where infinities would become NaN.
NO_CAP_PX = 1e9
# The nearest that a network answers which learns by blurring again: a quarter of the focus distance. Whatever is wider
# blurred has no detail left that could correct it.
ANSWERED_NEARNESS = 4.0


def camera_of(lens: Lens, blurred_hw: tuple[int, int], frame_hw: tuple[int, int] | None = None) -> Tensor:
    """`lens` as a camera, (10,) float32, for frames blurred at `blurred_hw` and resized to `frame_hw` (None = as they are).

    `lens`: in pixels of the blurred frame, as `ShardSplit.blurred_lens` gives it. Its aperture must be known: see
    `Lens.for_depth`. A window cut out of a frame has the camera of the frame, with `rows_of` its own.
    """
    height, width = frame_hw or blurred_hw
    numbers = [
        lens.focus_distance_m,
        coc_at_infinity_px(lens, blurred_hw[1]),
        min(coc_limit_px(lens, blurred_hw), NO_CAP_PX),
        lens.sharp_below_px,
        lens.sigma_per_coc,
        height / blurred_hw[0],
        width / blurred_hw[1],
        lens.focus_blur_px,
        -1.0,
        1.0,
    ]
    return torch.tensor(numbers, dtype=torch.float32)


def rows_of(cameras: Tensor, first: Sequence[int], count: int, height: int) -> Tensor:
    """`cameras` (B, 10) of whole frames for the `count` rows of each that begin at row `first` of `height`."""
    start = torch.tensor(first, dtype=cameras.dtype, device=cameras.device)
    windows = cameras.clone()
    windows[:, TOP], windows[:, BOTTOM] = 2 * start / height - 1, 2 * (start + count) / height - 1
    return windows


def sigma_px(depth_m: Tensor, camera: Tensor) -> Tensor:
    """Standard deviation of the blur along x, in pixels of the frame at hand, shaped like `depth_m` (B, 1, H, W) metres.

    As `defocus_sim.lens.sigma_px`, but depths below 1/100 of the focus distance count as that. `camera`: (B, 10).
    Along y the blur is `aspect` times as wide.
    """
    at = camera[:, :, None, None, None]
    # S/x: the blur is linear in it, and infinity is 0.
    nearness = at[:, FOCUS_M] / depth_m.clamp(min=NEAREST_SHARE * at[:, FOCUS_M])
    coc = torch.minimum(at[:, COC_PX] * (1 - nearness).abs(), at[:, MOST_PX])
    own = at[:, PER_COC] * (coc - at[:, SHARP_PX]).clamp(min=0)
    if bool((camera[:, IN_FOCUS_PX] > 0).any()):
        # The slope of a root has no value at 0, where the plain case has one.
        own = (own**2 + at[:, IN_FOCUS_PX] ** 2 + 1e-12).sqrt()
    return at[:, SCALE_X] * own


def coc_px_from(depth_m: Tensor, camera: Tensor) -> Tensor:
    """Signed CoC diameter along x in px of the frame at hand, shaped like `depth_m` (B, 1, H, W) metres, > 0.

    `COC_PX * (1 - S/x)`, negative nearer than the focus S, without the cap; depths below 1/100 of the focus distance
    count as that. `camera`: (B, 10).
    """
    at = camera[:, :, None, None, None]
    nearness = at[:, FOCUS_M] / depth_m.clamp(min=NEAREST_SHARE * at[:, FOCUS_M])
    return at[:, SCALE_X] * at[:, COC_PX] * (1 - nearness)


def depth_from_coc(coc_px: Tensor, camera: Tensor) -> Tensor:
    """Metres from a signed CoC in px of the frame at hand: the inverse of `coc_px_from`, `S / (1 - coc/COC_PX)`.

    A CoC beyond that of a point 100 focus distances away, or more negative than at 1/100 of one, counts as those.
    """
    at = camera[:, :, None, None, None]
    nearness = (1 - coc_px / (at[:, SCALE_X] * at[:, COC_PX])).clamp(FARTHEST_NEARNESS, 1 / NEAREST_SHARE)
    return at[:, FOCUS_M] / nearness


def depth_per_coc(depth_m: Tensor, camera: Tensor) -> Tensor:
    """d depth / d coc in metres per px at `depth_m`: `x^2 / (S * COC_PX)`."""
    at = camera[:, :, None, None, None]
    return depth_m**2 / (at[:, FOCUS_M] * at[:, SCALE_X] * at[:, COC_PX])


def largest_sigma_px(camera: Tensor, most_nearness: float = 1 / NEAREST_SHARE) -> float:
    """The largest value that `sigma_px` can take for any of the cameras (B, 10), of depths from S/`most_nearness` on."""
    coc = torch.minimum(camera[:, COC_PX] * (most_nearness - 1), camera[:, MOST_PX])
    own = camera[:, PER_COC] * (coc - camera[:, SHARP_PX]).clamp(min=0)
    return float((camera[:, SCALE_X] * torch.hypot(own, camera[:, IN_FOCUS_PX])).max())


def aspect(camera: Tensor) -> Tensor:
    """(B,): how many times as wide along y as along x a blur is, where a resize has changed the frame's shape."""
    return camera[:, SCALE_Y] / camera[:, SCALE_X]
