"""A Gaussian blur of its own width at every pixel that gradients pass through: `defocus_sim`'s gather as torch sees it.

The image is blurred with a ladder of fixed sigmas, and every pixel lies between two rungs. A Gaussian blur is nearly linear
in its variance, so between two rungs a pixel is interpolated by variance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.optics.gather import mirrored

# The first rung above the identity, and how much wider each following one is.
_FIRST_PX, _RATIO = 0.3, 1.25
_TRUNCATE = 3.5


def reblur(aif: Tensor, sigma: Tensor, *, largest_px: float, aspect: Tensor | None = None) -> Tensor:
    """`aif` blurred by a Gaussian of `sigma` at every pixel, (B, C, H, W); differentiable in both.

    `aif`: (B, C, H, W). `sigma`: (B, 1, H, W) px along x, 0 to `largest_px`, which decides how many rungs there are;
    `aspect`: (B,), how many times as wide along y, None = as along x. The border is mirrored (d c b a | a b c d).
    """
    rungs = _rungs(largest_px)
    stack = [aif, *(_blurred(aif, rung, aspect) for rung in rungs[1:])]
    variances = torch.tensor([rung**2 for rung in rungs], dtype=sigma.dtype, device=sigma.device)
    variance = sigma.clamp(max=rungs[-1]) ** 2
    below = (torch.searchsorted(variances, variance.detach(), right=True) - 1).clamp(0, len(rungs) - 2)
    share = (variance - variances[below]) / (variances[below + 1] - variances[below])
    # Sum over the rungs instead of a gather: no copy of the whole ladder, and the same gradient.
    result = torch.zeros_like(aif)
    for k, image in enumerate(stack):
        weight = torch.where(below == k, 1 - share, 0.0) + torch.where(below + 1 == k, share, 0.0)
        result = result + weight * image
    return result


def _rungs(largest_px: float) -> list[float]:
    """0, then sigmas in equal ratios up to `largest_px` or just beyond."""
    steps = max(math.ceil(math.log(max(largest_px, _FIRST_PX) / _FIRST_PX, _RATIO)), 0)
    return [0.0, *(_FIRST_PX * _RATIO**k for k in range(steps + 1))]


def _blurred(image: Tensor, sigma: float, aspect: Tensor | None) -> Tensor:
    """`image` (B, C, H, W) under one Gaussian, separably."""
    across = torch.full((len(image),), sigma, device=image.device)
    down = across if aspect is None else across * aspect
    return _along(_along(image, across, sigma, 3), down, float(down.max()), 2)


def _along(image: Tensor, sigma: Tensor, largest: float, dim: int) -> Tensor:
    """`image` (B, C, H, W) under a Gaussian of `sigma` (B,) along `dim`."""
    radius = max(math.ceil(_TRUNCATE * largest), 1)
    at = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-(at**2) / (2 * sigma[:, None] ** 2))
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(image.dtype)
    size = image.shape[dim]
    padded = image.index_select(dim, mirrored(size, radius, image.device))
    batch, channels = image.shape[:2]
    kernel = weights.repeat_interleave(channels, dim=0)[:, None, None]
    kernel = kernel if dim == 3 else kernel.transpose(2, 3)
    folded = padded.reshape(1, batch * channels, *padded.shape[2:])
    return F.conv2d(folded, kernel, groups=batch * channels).reshape(image.shape)
