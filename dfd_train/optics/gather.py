"""A blur of its own width at every pixel, in torch: `defocus_sim`'s gather on tensors, differentiable.

Every output pixel is the normalised mean of its neighbourhood under its own kernel, with mirrored borders. Gradients reach
the image and the widths. Where no gradient is asked for and the tensors are on a GPU, one kernel of Triton does it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# As `defocus_sim.blur.options`: reach of a Gaussian in sigmas, and the sigma below which a pixel is left as it is.
TRUNCATE = 4.0
IDENTITY_SIGMA_PX = 0.1


def gather(image: Tensor, width_px: Tensor, disc: Tensor, *, truncate: float = TRUNCATE, aspect: float = 1.0) -> Tensor:
    """`image` (B, C, H, W) blurred by a kernel of `width_px` (B, 1, H, W) px at every pixel; shaped like `image`.

    `disc` (B,) bool: a disc of radius `width_px` with a rim one pixel soft, weights clip(r + 1/2 - d, 0, 1), or a Gaussian
    of sigma `width_px`, cut at `truncate` sigmas. `aspect`: how many times as wide along y, in a frame whose shape a resize
    has changed. Below sigma 0.1 px and radius 1/2 px a pixel keeps its value.
    """
    needs_grad = torch.is_grad_enabled() and (image.requires_grad or width_px.requires_grad)
    if image.is_cuda and not needs_grad and aspect == 1.0:
        from dfd_train.optics.gather_triton import gather_triton

        return gather_triton(image.float().contiguous(), width_px.float().contiguous(), disc, truncate)
    if bool(disc.all()):
        return _disc(image, width_px, aspect)
    if not bool(disc.any()):
        return _gaussian(image, width_px, truncate, aspect)
    of_disc = disc[:, None, None, None]
    none = torch.zeros_like(width_px)
    as_disc = _disc(image, torch.where(of_disc, width_px, none), aspect)
    return torch.where(of_disc, as_disc, _gaussian(image, torch.where(of_disc, none, width_px), truncate, aspect))


def _gaussian(image: Tensor, sigma: Tensor, truncate: float, aspect: float) -> Tensor:
    sharp = sigma < IDENTITY_SIGMA_PX
    safe = torch.where(sharp, 1.0, sigma)
    reach = torch.where(sharp, 0.0, (truncate * sigma.detach()).ceil())
    exponent = -0.5 / safe**2

    def weight(dy: int, dx: int) -> Tensor:
        inside = (reach >= abs(dx)) & (reach * aspect >= abs(dy))
        return torch.where(inside, torch.exp(exponent * (dx**2 + (dy / aspect) ** 2)), 0.0)

    return _summed(image, weight, int(reach.max()), aspect)


def _disc(image: Tensor, radius: Tensor, aspect: float) -> Tensor:
    largest = max(int((radius.detach().max() + 0.5).ceil()) - 1, 0)

    def weight(dy: int, dx: int) -> Tensor:
        distance = (dx**2 + (dy / aspect) ** 2) ** 0.5
        return torch.ones_like(radius) if dx == dy == 0 else (radius + 0.5 - distance).clamp(0, 1)

    return _summed(image, weight, largest, aspect)


def _summed(image: Tensor, weight: Callable[[int, int], Tensor], reach: int, aspect: float) -> Tensor:
    height, width = image.shape[-2:]
    down = int(-(-reach * aspect // 1))
    rows, columns = mirrored(height, down, image.device), mirrored(width, reach, image.device)
    padded = image[..., rows[:, None], columns]
    total = torch.zeros_like(image)
    weights = torch.zeros_like(image[:, :1])
    for dy in range(-down, down + 1):
        for dx in range(-reach, reach + 1):
            share = weight(dy, dx)
            window = padded[..., down + dy : down + dy + height, reach + dx : reach + dx + width]
            total = total + share * window
            weights = weights + share
    return total / weights


def mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices of d c b a | a b c d | d c b a, to and fro as often as `radius` asks for."""
    phase = torch.arange(-radius, size + radius, device=device).remainder(2 * size)
    return torch.minimum(phase, 2 * size - 1 - phase)
