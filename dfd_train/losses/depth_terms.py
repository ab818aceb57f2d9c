"""Losses of a depth head: residuals without holes, L1, Laplace, gradient, side of the focus, and SILog."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.optics.answer import Output, answer_target, answer_unit
from dfd_train.optics.camera import FOCUS_M

# Share of the mean log error that is forgiven, the nearest depth that has a logarithm, and what rounds the root.
SILOG_FOCUS, SILOG_NEAREST_M, SILOG_EPS = 0.85, 1e-3, 1e-3
# From this CoC on the side of the focus counts in full.
_FULL_SIDE_PX = 2.0
# What limits the weight of a pixel.
_MOST_WEIGHT = 4.0


def depth_residual(predicted_m: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor]:
    """The error of a depth map with 0 in the holes.

    The holes are replaced before the subtraction: `0 * NaN` would otherwise reach the gradient.

    Parameters
    ----------
    predicted_m, depth_m
        (B, 1, H, W) metres; a pixel is valid where the true depth is finite and positive.

    Returns
    -------
    tuple[Tensor, Tensor]
        `predicted_m - depth_m`, and where it counts (bool).
    """
    valid = where_known(depth_m)
    return torch.where(valid, predicted_m, 0.0) - torch.where(valid, depth_m, 0.0), valid


def answer_residual(output: Output, depth_m: Tensor, predict: str, camera: Tensor | None) -> tuple[Tensor, Tensor]:
    """`depth_residual` of what the depth head answers, in its unit.

    Parameters
    ----------
    output, depth_m, predict, camera
        As for `compute_losses`.

    Returns
    -------
    tuple[Tensor, Tensor]
        The residual, and where it counts (bool).
    """
    if output.answer is None:
        if output.depth_m is None:
            raise ValueError("the network returned no depth")
        return depth_residual(output.depth_m, depth_m)
    valid = where_known(depth_m)
    target = answer_target(torch.where(valid, depth_m, 1.0), predict, camera)
    said = output.answer
    if output.side_logit is not None:
        # The side is learned apart: a width that is right on the wrong side is right.
        said, target = said.abs(), target.abs()
    return torch.where(valid, (said - target) / answer_unit(predict), 0.0), valid


def relative_weight(depth_m: Tensor, camera: Tensor) -> Tensor:
    """What an error of a CoC counts for, where errors relative to the depth matter: focus distance over depth.

    Parameters
    ----------
    depth_m
        (B, 1, H, W) metres, 0 or non-finite = hole.
    camera
        (B, 10).

    Returns
    -------
    Tensor
        (B, 1, H, W), from 1/4 to 4.
    """
    valid = where_known(depth_m)
    nearness = camera[:, FOCUS_M, None, None, None] / torch.where(valid, depth_m, 1.0)
    return nearness.clamp(1 / _MOST_WEIGHT, _MOST_WEIGHT)


def side_loss(
    logit: Tensor,
    depth_m: Tensor,
    camera: Tensor | None,
    count: Tensor | None = None,
    relative: Tensor | None = None,
) -> Tensor:
    """Mean over the valid pixels of the surprise by the true side of the focus.

    A blur below `_FULL_SIDE_PX` weighs less, in proportion: at the focus the side means nothing.

    Parameters
    ----------
    logit
        (B, 1, H, W) log-odds of nearer.
    depth_m, camera
        As for `compute_losses`.
    count
        Of how many pixels it is the mean; None: those of this batch.
    relative
        (B, 1, H, W) further weights; None: 1.

    Returns
    -------
    Tensor
        A scalar.
    """
    valid = where_known(depth_m)
    coc_px = answer_target(torch.where(valid, depth_m, 1.0), "coc", camera)
    weight = torch.where(valid, (coc_px.abs() / _FULL_SIDE_PX).clamp(max=1), 0.0)
    weight = weight if relative is None else relative * weight
    surprise = weight * F.binary_cross_entropy_with_logits(logit, (coc_px < 0).to(logit), reduction="none")
    return _mean(surprise, valid, count)


def masked_laplace(
    residual: Tensor,
    log_scale: Tensor,
    valid: Tensor,
    count: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean of `|r|/b + ln b` over the valid pixels: the surprise of a Laplace distribution.

    Parameters
    ----------
    residual, valid
        As of `depth_residual`.
    log_scale
        ln b.
    count
        Of how many pixels it is the mean; None: those of this batch.
    weight
        (B, 1, H, W) of each pixel; None: 1.

    Returns
    -------
    Tensor
        A scalar.
    """
    surprise = torch.where(valid, residual.abs() * torch.exp(-log_scale) + log_scale, 0.0)
    surprise = surprise if weight is None else weight * surprise
    return _mean(surprise, valid, count)


def masked_l1(residual: Tensor, valid: Tensor, count: Tensor | None = None) -> Tensor:
    """Equation 1: `sum |residual| / n` over the n valid pixels of the whole batch.

    Parameters
    ----------
    residual, valid
        As of `depth_residual`.
    count
        In place of n.

    Returns
    -------
    Tensor
        A scalar, 0 where no pixel is valid.
    """
    return _mean(residual.abs(), valid, count)


def masked_gradient(
    residual: Tensor, valid: Tensor, across: Tensor | None = None, down: Tensor | None = None
) -> Tensor:
    """Equation 2's smoothing: mean |difference of the residual| along x plus the same along y, in metres.

    A difference counts only where both of its neighbours are valid; each direction is divided by its own number of such
    pairs (the paper leaves the edges open).

    Parameters
    ----------
    residual, valid
        As of `depth_residual`.
    across, down
        In place of these numbers.

    Returns
    -------
    Tensor
        A scalar.
    """
    along_x = _masked_differences(residual, valid, -1, across)
    return along_x + _masked_differences(residual, valid, -2, down)


def silog_loss(predicted_m: Tensor, depth_m: Tensor, images: Tensor | None = None) -> Tensor:
    """Mean over images of `sqrt(mean d^2 - 0.85 (mean d)^2)`, d = ln predicted - ln true over an image's valid pixels.

    Parameters
    ----------
    predicted_m, depth_m
        (B, 1, H, W) metres; an image without a valid pixel counts 0.
    images
        Of how many these are some.

    Returns
    -------
    Tensor
        A scalar.

    References
    ----------
    Eigen et al. 2014, under the root and with the weight of BTS (Lee et al. 2019).
    """
    valid = where_known(depth_m)
    # Replaced before the logarithm: 0 * NaN would otherwise reach the gradient.
    log = torch.where(valid, predicted_m, 1.0).clamp(min=SILOG_NEAREST_M).log() - torch.where(valid, depth_m, 1.0).log()
    count = valid.sum(dim=(1, 2, 3)).clamp(min=1)
    square, mean = (log**2).sum(dim=(1, 2, 3)) / count, log.sum(dim=(1, 2, 3)) / count
    # The slope of a root is without bound at 0.
    spread = (square - SILOG_FOCUS * mean**2 + SILOG_EPS**2).sqrt() - SILOG_EPS
    return spread.mean() if images is None else spread.sum() / images


def neighbours(valid: Tensor, dim: int) -> Tensor:
    """Where a pixel and its next neighbour along `dim` are both valid."""
    size = valid.shape[dim]
    return valid.narrow(dim, 1, size - 1) & valid.narrow(dim, 0, size - 1)


def _masked_differences(residual: Tensor, valid: Tensor, dim: int, count: Tensor | None) -> Tensor:
    both = neighbours(valid, dim)
    return _mean(torch.where(both, residual.diff(dim=dim), 0.0).abs(), both, count)


def where_known(depth_m: Tensor) -> Tensor:
    """Where there is a depth: bool, shaped like `depth_m` in metres, 0 or non-finite = hole."""
    return torch.isfinite(depth_m) & (depth_m > 0)


def _mean(values: Tensor, valid: Tensor, count: Tensor | None) -> Tensor:
    """`values`, 0 where not `valid`, over `count` pixels, or as many as are valid."""
    return values.sum() / (valid.sum().clamp(min=1) if count is None else count)
