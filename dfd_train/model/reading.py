"""What the heads' channels mean: metres, 1/m, or a circle of confusion that the sample's lens turns into metres."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfd_train.config.model import OF_THE_LENS, ModelConfig
from dfd_train.optics.answer import Output, answer_unit
from dfd_train.optics.camera import BOTTOM, COC_PX, FOCUS_M, SCALE_X, TOP, depth_from_coc, depth_per_coc

# Farthest and nearest depth that an answer in 1/m can mean: 0.01 and 10 per metre.
_LEAST_PER_M, _MOST_PER_M = 1e-2, 1e1
# Of the logarithm of an error's scale, so that the surprise of one pixel stays finite.
_LOG_SCALE_LIMIT = 7.0
# Where a network does not say how far it may be off; and of log-odds, so that certainty stays finite.
_USUAL_SCALE_PX, _MOST_ODDS = 1.0, 20.0
# How far log-odds are trusted: a decision that hangs on less is drawn out into a slope between near and far.
_UNDECIDED_ODDS = 0.3


def read_depth(raw: Tensor, config: ModelConfig, camera: Tensor | None = None, told: Tensor | None = None) -> Output:
    """What the depth head's channels `raw` (B, 1 to 3, H, W) mean, as an `Output` without an image.

    `camera`: (B, 10), needed where the answer is a CoC. `told`: (B,) bool, which of them are no guess (None = all).
    A raw 0 is 0 m, 0 px (in focus), or 4 m for an answer in 1/m.
    """
    if config.predict != "depth" or config.uncertainty:
        # Not in the half precision that the layers may have computed in: its steps would show in the depth.
        raw = raw.float()
    unit = answer_unit(config.predict)
    said = raw[:, :1] * unit if unit != 1 else raw[:, :1]
    log_scale = None
    if config.uncertainty:
        log_scale = raw[:, 1:2].clamp(-_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT) + math.log(unit)
    if config.predict in OF_THE_LENS:
        if camera is None:
            raise ValueError("a network that answers a CoC needs the lens: pass camera")
        if config.predict == "coc+side":
            return read_sides(said.abs(), log_scale, raw[:, -1:], camera, told)
        depth_m = depth_from_coc(said if log_scale is None else _told_apart(said, log_scale.exp(), camera), camera)
        sigma_m = None if log_scale is None else _sigma_m(log_scale, depth_per_coc(depth_m, camera))
        return Output(depth_m, None, said, log_scale, sigma_m)
    answer: Tensor | None = said
    if config.predict == "depth":
        depth_m, per_unit, answer = said, torch.ones_like(said), None
    else:
        answer = said + unit
        depth_m = 1 / answer.clamp(_LEAST_PER_M, _MOST_PER_M)
        per_unit = depth_m**2
    return Output(depth_m, None, answer, log_scale, None if log_scale is None else _sigma_m(log_scale, per_unit))


def read_sides(
    width_px: Tensor, log_scale: Tensor | None, logit: Tensor, camera: Tensor, told: Tensor | None
) -> Output:
    """Of the two depths that share a blur of `width_px` the one with the least relative error to be expected.

    Near is taken where its odds are above near over far: what is far and taken for near is off by less than its depth, what
    is near and taken for far by several of its own. Where the odds are at that limit depth is between the two, on a slope
    of logarithms, instead of an island's cliff. That there are two is part of the uncertainty.

    All (B, 1, H, W); `camera`, `told`: as for `read_depth`.

    A circle wider than that of infinity is of something near: each scale of the error by which it is too wide for
    something far adds 1 to the log-odds `logit` of near, where the lens is no guess.
    """
    at = camera[:, :, None, None, None]
    infinity_px = at[:, SCALE_X] * at[:, COC_PX]
    scale_px = torch.full_like(width_px, _USUAL_SCALE_PX) if log_scale is None else log_scale.exp()
    too_wide = ((width_px - infinity_px).clamp(min=0) / scale_px).clamp(max=_MOST_ODDS)
    odds = logit + (too_wide if told is None else torch.where(told[:, None, None, None], too_wide, 0.0))
    near_m = depth_from_coc(-width_px, camera)
    far_m = depth_from_coc(_told_apart(width_px, scale_px, camera), camera)
    above = odds - (near_m / far_m).log()
    near = above > 0
    depth_m = torch.lerp(far_m.log(), near_m.log(), torch.sigmoid(above / _UNDECIDED_ODDS)).exp()
    sigma_m = None
    if log_scale is not None:
        p = torch.sigmoid(odds)
        of_width, of_side = _sigma_m(log_scale, depth_per_coc(depth_m, camera)), (p * (1 - p)).sqrt() * (far_m - near_m)
        # Not `hypot`, which ONNX does not have.
        sigma_m = (of_width.square() + of_side.square()).sqrt()
    return Output(depth_m, None, torch.where(near, -width_px, width_px), log_scale, sigma_m, logit)


def _told_apart(coc_px: Tensor, scale_px: Tensor, camera: Tensor) -> Tensor:
    """`coc_px`, at most a standard deviation of its error below the circle of infinity: beyond that nothing tells one
    depth from another, and wider than infinity's is the circle of no depth. Never below that of twice the focus distance.
    """
    at = camera[:, :, None, None, None]
    infinity_px = at[:, SCALE_X] * at[:, COC_PX]
    return torch.minimum(coc_px, torch.maximum(infinity_px - math.sqrt(2) * scale_px, infinity_px / 2))


def _sigma_m(log_scale: Tensor, per_unit: Tensor) -> Tensor:
    """The standard deviation of a Laplace distribution of scale b is sqrt(2) b."""
    return math.sqrt(2) * log_scale.exp() * per_unit


def told_planes(
    config: ModelConfig, camera: Tensor, told: Tensor, height: int, padded_hw: tuple[int, ...]
) -> Tensor | None:
    """What a network is told beside the picture, as channels (B, 2 or 3, *padded_hw); None where that is nothing.

    `camera`, `told`: as for `lens_planes`; `height`, `padded_hw`: as for `height_plane`.
    """
    if not config.lens_input:
        return None
    planes = lens_planes(camera, told, padded_hw)
    if not config.height_input:
        return planes
    return torch.cat([planes, height_plane(camera, height, padded_hw)], dim=1)


def lens_planes(camera: Tensor, told: Tensor, hw: tuple[int, ...]) -> Tensor:
    """The lens as two constant channels (B, 2, *hw): log2 of the focus distance in m, and of the CoC at infinity in px.

    `told`: (B,) bool; a lens that is not told is -1, 6 cm and 1/256 px, which no lens of a photograph is.
    """
    numbers = torch.stack([camera[:, FOCUS_M].log2() / 4, (camera[:, COC_PX] * camera[:, SCALE_X]).log2() / 8], dim=1)
    numbers = torch.where(told[:, None], numbers, -1.0)
    return numbers[:, :, None, None].expand(-1, -1, *hw)


def height_plane(camera: Tensor, height: int, padded_hw: tuple[int, ...]) -> Tensor:
    """How high in the picture each pixel is, as a channel (B, 1, *padded_hw): -1 = its upper edge, 1 = its lower one.

    `camera`: (B, 10), which says where the `height` rows at hand lie; those of the padding go on below them.
    """
    top, bottom = camera[:, TOP, None], camera[:, BOTTOM, None]
    centres = (torch.arange(padded_hw[0], device=camera.device, dtype=camera.dtype) + 0.5) / height
    return (top + (bottom - top) * centres)[:, None, :, None].expand(-1, 1, *padded_hw)
