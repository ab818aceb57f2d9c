"""The losses of Nazir et al. 2023 (equations 1, 2, 4, 5) as pure functions.

Holes in depth give neither value nor gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dfd_train.config.loss import LossConfig
from dfd_train.losses.depth_terms import (
    answer_residual,
    depth_residual,
    masked_gradient,
    masked_l1,
    masked_laplace,
    neighbours,
    relative_weight,
    side_loss,
    silog_loss,
    where_known,
)
from dfd_train.losses.ssim import ssim
from dfd_train.optics.answer import Output, answer_unit
from dfd_train.optics.camera import ANSWERED_NEARNESS, FOCUS_M, aspect, largest_sigma_px, sigma_px
from dfd_train.optics.reblur import reblur

# Of the surprise by the side of the focus beside that by the width, whose slope is one over the scale of its error, ten
# times as steep and more: as they are, the side is learned last (docs/decisions/learning/one-network-for-every-lens.md).
_SIDE_WEIGHT = 5.0


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
    valid = where_known(depth_m)
    # Filled in on the device: a number copied there would wait for it.
    images = valid.new_full((), len(depth_m), dtype=torch.int64)
    return torch.stack([images, valid.sum(), neighbours(valid, -1).sum(), neighbours(valid, -2).sum()]).double()


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
        (B, 10), where the answer is a CoC.

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
                depth = depth + _SIDE_WEIGHT * parts["side"]
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
        (B, 10), see `camera`.
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
    largest_px = largest_sigma_px(camera, ANSWERED_NEARNESS)
    made = reblur(aif, sigma_px(output.depth_m, camera), largest_px=largest_px, aspect=aspect(camera))
    structure = _mean((1 - ssim(made, defocused)) / 2, images)
    look = REBLUR_SSIM_SHARE * structure + (1 - REBLUR_SSIM_SHARE) * _mean((made - defocused).abs(), images)
    nearness = camera[:, FOCUS_M, None, None, None] / output.depth_m
    smooth = look.new_zeros(())
    for dim in (-1, -2):
        change = aif.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        smooth = smooth + _mean(nearness.diff(dim=dim).abs() * torch.exp(-_EDGE_SHARPNESS * change), images)
    return LossTerms(look + REBLUR_SMOOTHNESS * smooth, None, {"reblur": look, "smooth": smooth})


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


__all__ = [
    "REBLUR_TERMS",
    "LossTerms",
    "answer_residual",
    "charbonnier",
    "compute_losses",
    "count_pixels",
    "depth_residual",
    "masked_gradient",
    "masked_l1",
    "masked_laplace",
    "reblur_losses",
    "relative_weight",
    "side_loss",
    "silog_loss",
    "ssim_loss",
    "term_names",
]
