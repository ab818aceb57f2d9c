"""The losses of Nazir et al. 2023 (equations 1, 2, 4, 5) as pure functions.

Holes in depth give neither value nor gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.config.loss import LossConfig
from dfd_train.losses.ssim import ssim
from dfd_train.optics.answer import answer_target, answer_unit
from dfd_train.optics.camera import FOCUS_M, aspect, largest_sigma_px, sigma_px
from dfd_train.optics.reblur import reblur


class Output(Protocol):
    """What a network makes of images: depth (B, 1, H, W) in metres, the all-in-focus image (B, 3, H, W), or both.

    `answer`, `log_scale`: what the depth head said where that is not metres, and the log of its error's scale.
    """

    @property
    def depth_m(self) -> Tensor | None:
        """None without a depth head."""

    @property
    def aif(self) -> Tensor | None:
        """None without an image head."""

    @property
    def answer(self) -> Tensor | None:
        """In the unit of the answer; None where it is the depth."""

    @property
    def log_scale(self) -> Tensor | None:
        """None without uncertainty."""

    @property
    def side_logit(self) -> Tensor | None:
        """None where the answer has no side of its own."""


class LossTerms(NamedTuple):
    """What one batch costs, all scalars.

    `depth` and `deblur` are the two sides of the loss before lambda (None without that head); `parts` holds each
    unweighted term by name: "l1", "laplace", "side", "grad" (metres), "silog", "image_l1", "charb", "ssim", "reblur",
    "smooth".
    """

    depth: Tensor | None
    deblur: Tensor | None
    parts: dict[str, Tensor]

    def total(self, deblur_weight: float) -> Tensor:
        """`depth + deblur_weight * deblur`, which is minimised.

        With one head it is that head's loss, unweighted: lambda balances two terms and means nothing for one.
        """
        if self.depth is None or self.deblur is None:
            only = self.deblur if self.depth is None else self.depth
            if only is None:
                raise ValueError("the network returned neither depth nor AiF")
            return only
        return self.depth + deblur_weight * self.deblur


# Gur and Wolf's weight of SSIM beside L1, and our weight of smoothness (theirs is of another depth).
REBLUR_SSIM_SHARE = 0.85
REBLUR_SMOOTHNESS = 1e-2
# Share of the mean log error that is forgiven, the nearest depth that has a logarithm, and what rounds the root.
SILOG_FOCUS, SILOG_NEAREST_M, SILOG_EPS = 0.85, 1e-3, 1e-3
# From this CoC on the side of the focus counts in full.
_FULL_SIDE_PX = 2.0
# What limits the weight of a pixel.
_MOST_WEIGHT = 4.0
# How fast an edge of the image lets go of the smoothness, per unit of [0, 1].
_EDGE_SHARPNESS = 10.0
REBLUR_TERMS = ("depth", "reblur", "smooth")


def term_names(
    config: LossConfig, heads: tuple[str, ...], *, uncertainty: bool = False, sided: bool = False
) -> tuple[str, ...]:
    """Names of all that `compute_losses` finds: the two sides, then their parts.

    Parameters
    ----------
    config
        The losses.
    heads
        Those of the network.
    uncertainty, sided
        Whether it gives a scale of its error, and a side of the focus.

    Returns
    -------
    tuple[str, ...]
        The names in the order of the columns.
    """
    names: tuple[str, ...] = ()
    if "depth" in heads:
        l1 = ("l1", *(["laplace"] if uncertainty else []), *(["side"] if sided else []))
        names += ("depth", *{"l1": l1, "l1+grad": (*l1, "grad"), "silog": ("silog",)}[config.depth])
    if "aif" in heads:
        image = {"l1": ("image_l1",), "charb": ("charb",), "charb+ssim": ("charb", "ssim")}
        names += ("deblur", *image[config.image])
    return names


def count_pixels(depth_m: Tensor) -> Tensor:
    """What a batch's losses are means of.

    Parameters
    ----------
    depth_m
        (B, 1, H, W) metres, 0 or non-finite = hole.

    Returns
    -------
    Tensor
        (4,) = images, valid pixels, valid neighbours along x, and along y; float64, so that sums over many batches
        stay exact.
    """
    valid = torch.isfinite(depth_m) & (depth_m > 0)
    # Filled in on the device: a number copied there would wait for it.
    images = valid.new_full((), len(depth_m), dtype=torch.int64)
    return torch.stack([images, valid.sum(), _pairs(valid, -1).sum(), _pairs(valid, -2).sum()]).double()


def compute_losses(
    output: Output,
    depth_m: Tensor,
    aif: Tensor,
    config: LossConfig,
    counts: Tensor | None = None,
    *,
    predict: str = "depth",
    camera: Tensor | None = None,
) -> LossTerms:
    """All terms of one batch.

    With a scale of the error the depth term is the surprise of a Laplace distribution, `|r|/b + ln b`, in place of L1.

    Parameters
    ----------
    output
        Of the network.
    depth_m
        (B, 1, H, W) metres, 0 or non-finite = hole.
    aif
        (B, 3, H, W) in [0, 1].
    config
        Which terms, and their weights.
    counts
        `count_pixels` of a larger batch that this one is a part of; every term is then this part's share of the larger
        batch's, so that the terms of all parts add up to it exactly, whatever holes each has.
    predict
        What the depth head answers, see `ModelConfig`; a residual of another answer is counted in its unit (8 px of CoC,
        1/4 per m), which then stands for the metre of the equations.
    camera
        (B, 8), where the answer is a CoC.

    Returns
    -------
    LossTerms
        The terms by name, and what is minimised.
    """
    images, valid_pixels, across, down = (None,) * 4 if counts is None else counts.float().clamp(min=1).unbind()
    parts: dict[str, Tensor] = {}
    depth = deblur = None
    if output.depth_m is not None:
        if config.depth == "silog":
            parts["silog"] = depth = silog_loss(output.depth_m, depth_m, images)
        else:
            residual, valid = answer_residual(output, depth_m, predict, camera)
            weight = relative_weight(depth_m, camera) if config.relative and camera is not None else None
            parts["l1"] = depth = masked_l1(residual if weight is None else weight * residual, valid, valid_pixels)
            if output.log_scale is not None:
                log_scale = output.log_scale - math.log(answer_unit(predict))
                parts["laplace"] = depth = masked_laplace(residual, log_scale, valid, valid_pixels, weight)
            if output.side_logit is not None:
                parts["side"] = side_loss(output.side_logit, depth_m, camera, valid_pixels, weight)
                depth = depth + parts["side"]
        if config.depth == "l1+grad":
            parts["grad"] = masked_gradient(residual, valid, across, down)
            depth = depth + config.mu * parts["grad"]
    if output.aif is not None:
        if config.image == "l1":
            parts["image_l1"] = deblur = _mean((output.aif - aif).abs(), images)
        else:
            parts["charb"] = deblur = charbonnier(output.aif, aif, config.eps, images)
        if config.image == "charb+ssim":
            parts["ssim"] = ssim_loss(output.aif, aif, images)
            deblur = deblur + config.psi * parts["ssim"]
    return LossTerms(depth, deblur, parts)


def reblur_losses(
    output: Output, defocused: Tensor, aif: Tensor, camera: Tensor, counts: Tensor | None = None
) -> LossTerms:
    """The loss without labels: `aif`, blurred by `camera` under the predicted depth, must look like `defocused`.

    0.85 (1 - SSIM)/2 + 0.15 L1, plus how much S/depth changes from pixel to pixel where the image does not.

    Parameters
    ----------
    output
        Of the network.
    defocused, aif
        (B, 3, H, W) in [0, 1].
    camera
        (B, 8), see `camera`.
    counts
        As for `compute_losses`.

    Returns
    -------
    LossTerms
        "reblur", "smooth", and as "depth" what is minimised. No true depth enters.

    References
    ----------
    Gur and Wolf, *Single image depth estimation trained via depth from defocus cues*, CVPR 2019.
    """
    if output.depth_m is None:
        raise ValueError("re-blurring needs a predicted depth")
    images = None if counts is None else counts.float().clamp(min=1)[0]
    made = reblur(aif, sigma_px(output.depth_m, camera), largest_px=largest_sigma_px(camera), aspect=aspect(camera))
    structure = _mean((1 - ssim(made, defocused)) / 2, images)
    look = REBLUR_SSIM_SHARE * structure + (1 - REBLUR_SSIM_SHARE) * _mean((made - defocused).abs(), images)
    nearness = camera[:, FOCUS_M, None, None, None] / output.depth_m
    smooth = sum(
        (
            _mean(nearness.diff(dim=dim).abs() * torch.exp(-_EDGE_SHARPNESS * _change(aif, dim)), images)
            for dim in (-1, -2)
        ),
        start=look.new_zeros(()),
    )
    return LossTerms(look + REBLUR_SMOOTHNESS * smooth, None, {"reblur": look, "smooth": smooth})


def _change(image: Tensor, dim: int) -> Tensor:
    """(B, 1, ...): mean over channels of |difference of neighbours| along `dim`."""
    return image.diff(dim=dim).abs().mean(dim=1, keepdim=True)


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
    valid = torch.isfinite(depth_m) & (depth_m > 0)
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
    valid = torch.isfinite(depth_m) & (depth_m > 0)
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
        (B, 8).

    Returns
    -------
    Tensor
        (B, 1, H, W), from 1/4 to 4.
    """
    valid = torch.isfinite(depth_m) & (depth_m > 0)
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
    valid = torch.isfinite(depth_m) & (depth_m > 0)
    coc_px = answer_target(torch.where(valid, depth_m, 1.0), "coc", camera)
    weight = torch.where(valid, (coc_px.abs() / _FULL_SIDE_PX).clamp(max=1), 0.0)
    weight = weight if relative is None else relative * weight
    surprise = weight * F.binary_cross_entropy_with_logits(logit, (coc_px < 0).to(logit), reduction="none")
    return surprise.sum() / (valid.sum().clamp(min=1) if count is None else count)


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
    return surprise.sum() / (valid.sum().clamp(min=1) if count is None else count)


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
    return residual.abs().sum() / (valid.sum().clamp(min=1) if count is None else count)


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
    valid = torch.isfinite(depth_m) & (depth_m > 0)
    # Replaced before the logarithm: 0 * NaN would otherwise reach the gradient.
    log = torch.where(valid, predicted_m, 1.0).clamp(min=SILOG_NEAREST_M).log() - torch.where(valid, depth_m, 1.0).log()
    count = valid.sum(dim=(1, 2, 3)).clamp(min=1)
    square, mean = (log**2).sum(dim=(1, 2, 3)) / count, log.sum(dim=(1, 2, 3)) / count
    # The slope of a root is without bound at 0.
    spread = (square - SILOG_FOCUS * mean**2 + SILOG_EPS**2).sqrt() - SILOG_EPS
    return spread.mean() if images is None else spread.sum() / images


def _pairs(valid: Tensor, dim: int) -> Tensor:
    """Where a pixel and its next neighbour along `dim` are both valid."""
    size = valid.shape[dim]
    return valid.narrow(dim, 1, size - 1) & valid.narrow(dim, 0, size - 1)


def _masked_differences(residual: Tensor, valid: Tensor, dim: int, count: Tensor | None) -> Tensor:
    both = _pairs(valid, dim)
    total = torch.where(both, residual.diff(dim=dim), 0.0).abs().sum()
    return total / (both.sum().clamp(min=1) if count is None else count)


def charbonnier(predicted: Tensor, target: Tensor, eps: float, images: Tensor | None = None) -> Tensor:
    """Equation 4: mean of `sqrt((predicted - target)^2 + eps^2)` over all pixels and channels.

    Parameters
    ----------
    predicted, target
        (B, C, H, W).
    eps
        Where the square becomes a modulus.
    images
        How many images the mean is over, where these are only some of them.

    Returns
    -------
    Tensor
        A scalar.
    """
    return _mean(torch.sqrt((predicted - target) ** 2 + eps**2), images)


def ssim_loss(predicted: Tensor, target: Tensor, images: Tensor | None = None) -> Tensor:
    """Equation 5 without its weight: `1 - SSIM`, the mean over the batch.

    Parameters
    ----------
    predicted, target
        (B, C, H, W) in [0, 1].
    images
        How many images the mean is over, where these are only some of them.

    Returns
    -------
    Tensor
        A scalar.
    """
    return _mean(1 - ssim(predicted, target), images)


def _mean(values: Tensor, images: Tensor | None) -> Tensor:
    """Mean of `values` (B, ...); with `images` as if the others of so many images were 0."""
    return values.mean() if images is None else values.sum() / (images * values[0].numel())
