"""Non-blind deconvolution by a known sigma at every pixel: the second half of an Anwar-style pipeline.

Depth -> circle of confusion -> sigma map -> some 32 levels of sigma -> the whole image deconvolved with each level's
Gaussian -> every pixel taken from its own level. The original's solver is not public; this one is half-quadratic
splitting with a total variation prior (Krishnan and Fergus 2009 for the scheme), or its first step alone ("wiener").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defocus_sim.lens import Lens, coc_diameter_px, sigma_px
from dfd_train.errors import ConfigError

# Also what a configuration may name; a test holds them equal.
SOLVERS = ("hqs", "wiener")
LEVELS = 32
# Below this a Gaussian changes a pixel by less than the rounding to eight bits does.
IDENTITY_SIGMA_PX = 0.3
# Weights of the gradients against the data; by trial on procedural scenes in eight bits.
WIENER_WEIGHT, PRIOR_WEIGHT = 4e-3, 1.2e-3
_BETAS = tuple(2.0**k for k in (-3, -1, 1, 3))


@torch.inference_mode()
def restore_with_depth(
    defocused: Tensor, depth_m: NDArray[Any], lens: Lens, *, method: str = "hqs", levels: int = LEVELS
) -> Tensor:
    """The image that a lens blurred, sharpened by its depth.

    Parameters
    ----------
    defocused
        (3, H, W) in [0, 1].
    depth_m
        (H, W) metres, > 0.
    lens
        Which blurred it.
    method, levels
        As for `deconvolve`.

    Returns
    -------
    Tensor
        (3, H, W) in [0, 1].

    Raises
    ------
    ConfigError
        As `deconvolve` does, and for depth that is not positive.
    """
    if not (np.isfinite(depth_m) & (depth_m > 0)).all():
        raise ConfigError("depth_m has holes: fill them before deconvolving, every pixel needs a sigma")
    sigma = sigma_px(coc_diameter_px(depth_m, lens.for_depth(depth_m)), lens)
    return deconvolve(defocused, torch.from_numpy(sigma).to(defocused), method=method, levels=levels)


@torch.inference_mode()
def deconvolve(
    defocused: Tensor, sigma: Tensor, *, method: str = "hqs", levels: int = LEVELS, aspect: float = 1.0
) -> Tensor:
    """An image with its Gaussian blur undone.

    Parameters
    ----------
    defocused
        (3, H, W) in [0, 1].
    sigma
        (H, W) px; a pixel of less than 0.3 px is left as it is.
    method
        "hqs" or "wiener" (ten times faster).
    levels
        How many sigmas, evenly spaced from the identity to the largest.
    aspect
        How many times as wide the blur is along y, in a frame that a resize has changed in shape.

    Returns
    -------
    Tensor
        (3, H, W) in [0, 1].

    Raises
    ------
    ConfigError
        For an impossible value.
    """
    if method not in SOLVERS:
        raise ConfigError(f"method={method!r} must be one of {', '.join(SOLVERS)}")
    if levels < 1:
        raise ConfigError(f"levels={levels} must be at least 1")
    if defocused.dim() != 3 or sigma.shape != defocused.shape[1:]:
        raise ConfigError(f"sigma {tuple(sigma.shape)} does not fit an image of shape {tuple(defocused.shape)}")
    largest = float(sigma.max())
    if not (math.isfinite(largest) and float(sigma.min()) >= 0):
        raise ConfigError(f"sigma spans {float(sigma.min()):g} to {largest:g} px: it must be finite and not negative")
    result = defocused.clone()
    if largest <= IDENTITY_SIGMA_PX:
        return result
    step = (largest - IDENTITY_SIGMA_PX) / levels
    level_of = ((sigma - IDENTITY_SIGMA_PX) / step).floor().clamp(-1, levels - 1)
    solver = _Solver(defocused, aspect)
    for level in level_of.unique().tolist():
        if level < 0:
            continue
        at = level_of == level
        # The middle of what the level holds, so that a level of one sigma uses that sigma.
        middle = (float(sigma[at].min()) + float(sigma[at].max())) / 2
        sharp = solver.wiener(middle) if method == "wiener" else solver.hqs(middle)
        result[:, at] = sharp[:, at]
    return result.clamp(0, 1)


class _Solver:
    """Deconvolutions of one image, in the frequency domain of its even extension.

    Mirrored at every border the image is periodic without a jump, which is what a reflecting border of the blur means;
    no taper is needed, and no ring starts at an edge.
    """

    def __init__(self, image: Tensor, aspect: float) -> None:
        self.height, self.width = image.shape[1:]
        rows = torch.cat([image, image.flip(1)], dim=1)
        self.image = torch.cat([rows, rows.flip(2)], dim=2)
        self.spectrum = torch.fft.rfft2(self.image)
        fy = torch.fft.fftfreq(2 * self.height, device=image.device, dtype=image.dtype)[:, None]
        fx = torch.fft.rfftfreq(2 * self.width, device=image.device, dtype=image.dtype)[None]
        # Of the blur: in units of its width along x.
        self.squared_frequency = (aspect * fy) ** 2 + fx**2
        # Of the forward differences along y and x.
        self.differences = (torch.exp(2j * math.pi * fy) - 1, torch.exp(2j * math.pi * fx) - 1)
        self.gradient_power = sum(abs(d) ** 2 for d in self.differences)

    def wiener(self, sigma: float) -> Tensor:
        """One step: least squares with small gradients."""
        otf = self._otf(sigma)
        return self._back(otf * self.spectrum / (otf**2 + WIENER_WEIGHT * self.gradient_power))

    def hqs(self, sigma: float) -> Tensor:
        """Least squares with sparse gradients: shrink the gradients, solve for the image, with growing coupling."""
        otf = self._otf(sigma)
        spectrum = otf * self.spectrum / (otf**2 + WIENER_WEIGHT * self.gradient_power)
        for beta in _BETAS:
            # The threshold of the gradients is 1/beta in units where the data term weighs 1/PRIOR_WEIGHT.
            coupling = beta * 32 * PRIOR_WEIGHT
            gradients = [torch.fft.irfft2(spectrum * d, s=self.image.shape[-2:]) for d in self.differences]
            length = torch.sqrt(sum(g**2 for g in gradients) + 1e-12)
            keep = (1 - PRIOR_WEIGHT / (coupling * length)).clamp(min=0)
            targets = [torch.fft.rfft2(g * keep) for g in gradients]
            pulled = sum(d.conj() * t for d, t in zip(self.differences, targets, strict=True))
            spectrum = (otf * self.spectrum + coupling * pulled) / (otf**2 + coupling * self.gradient_power)
        return self._back(spectrum)

    def _otf(self, sigma: float) -> Tensor:
        return torch.exp(-2 * math.pi**2 * sigma**2 * self.squared_frequency)

    def _back(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(spectrum, s=self.image.shape[-2:])[:, : self.height, : self.width]
