"""What a network answers; what its depth head is to answer for a true depth, and the unit of that error."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dfd_train.optics.camera import coc_px_from

# The unit of the depth head's raw answer: metres, 1/m, px.
_UNIT = {"depth": 1.0, "inverse": 0.25, "coc": 8.0, "coc+side": 8.0}


class Output(NamedTuple):
    """What the network returns; a head that was not asked for is None.

    `depth_m` (B, 1, H, W) metres, not limited in range. `aif` (B, 3, H, W) sRGB, nominally in [0, 1], not clamped.
    `answer` (B, 1, H, W): what the depth head said where that is not metres, 1/m or signed CoC in px. `log_scale`
    (B, 1, H, W): log of the scale b of a Laplace distribution around the answer, in the answer's unit. `depth_sigma_m`
    (B, 1, H, W): the standard deviation of the depth that follows, metres. `side_logit` (B, 1, H, W): log-odds of nearer
    than the focus, of an answer that has its side apart.
    """

    depth_m: Tensor | None
    aif: Tensor | None
    answer: Tensor | None = None
    log_scale: Tensor | None = None
    depth_sigma_m: Tensor | None = None
    side_logit: Tensor | None = None


def answer_target(depth_m: Tensor, predict: str, camera: Tensor | None) -> Tensor:
    """What the depth head should answer for the true `depth_m` (B, 1, H, W) metres, > 0 everywhere; same shape."""
    if predict == "depth":
        return depth_m
    if predict == "inverse":
        return 1 / depth_m
    if camera is None:
        raise ValueError("the CoC of a depth needs the lens: pass camera")
    return coc_px_from(depth_m, camera)


def answer_unit(predict: str) -> float:
    """The unit that the loss of an answer is counted in: 1 m, 1/4 per m or 8 px."""
    return _UNIT[predict]
