"""Structural similarity with a Gaussian window: one implementation for the loss and for the metric.

Wang et al., IEEE TIP 13(4), 2004: 11x11 window, sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, population covariance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


def gaussian_window(dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
    """The 11 weights `exp(-x^2 / (2 sigma^2))` of one axis, normalised to sum 1."""
    x = torch.arange(WINDOW, dtype=torch.float64, device=device) - WINDOW // 2
    weights = torch.exp(-(x**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).to(dtype)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of each pair of images: the mean over channels and over the pixels whose window lies in the image.

    Per pixel `(2 m1 m2 + C1)(2 s12 + C2) / ((m1^2 + m2^2 + C1)(s1^2 + s2^2 + C2))` with windowed means, variances and
    covariance; this equals scikit-image's `structural_similarity(gaussian_weights=True, use_sample_covariance=False,
    sigma=1.5, data_range=1)`.

    Parameters
    ----------
    first, second
        (B, C, H, W) in [0, 1], of one floating type.

    Returns
    -------
    Tensor
        (B,).

    Raises
    ------
    ValueError
        For images smaller than the window or of different shapes.

    References
    ----------
    Wang et al., *Image quality assessment: from error visibility to structural similarity*, 2004.
    """
    if first.shape != second.shape or first.dim() != 4:
        raise ValueError(f"ssim needs two (B, C, H, W) arrays of one shape, not {first.shape} and {second.shape}")
    batch, channels, height, width = first.shape
    if min(height, width) < WINDOW:
        raise ValueError(f"ssim needs images of at least {WINDOW}x{WINDOW} pixels, not {height}x{width}")
    # Only s1^2 + s2^2 enters the formula, so four filtered maps do instead of five.
    maps = torch.stack([first, second, first * first + second * second, first * second])
    mean1, mean2, squares, product = _filter(maps.reshape(-1, height, width)).reshape(
        4, batch, channels, height - WINDOW + 1, width - WINDOW + 1
    )
    cross = mean1 * mean2
    powers = mean1 * mean1 + mean2 * mean2
    index = ((2 * cross + C1) * (2 * (product - cross) + C2)) / ((powers + C1) * (squares - powers + C2))
    return index.mean(dim=(1, 2, 3))


def _filter(maps: Tensor) -> Tensor:
    """Separable window over (N, H, W), valid positions only.

    As channels of one picture, each with its own window: what CPUs have fast kernels for, unlike pictures of one channel.
    """
    count = len(maps)
    weights = gaussian_window(maps.dtype, maps.device)
    rows = F.conv2d(maps[None], weights.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
    return F.conv2d(rows, weights.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)[0]
