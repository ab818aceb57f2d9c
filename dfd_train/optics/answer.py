"""What a depth head is to answer for a true depth, and the unit that its error is counted in."""

from __future__ import annotations

from torch import Tensor

from dfd_train.optics.camera import coc_px_from

# The unit of the depth head's raw answer: metres, 1/m, px.
_UNIT = {"depth": 1.0, "inverse": 0.25, "coc": 8.0, "coc+side": 8.0}


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
