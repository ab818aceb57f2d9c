"""What a camera does to every picture beside the defocus, from softness to JPEG, on batches, on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# The quantisation tables of ITU-T T.81, annex K, which libjpeg scales by quality.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *(99,) * 32,
)  # fmt: skip
# Sixteenths: green at red or blue; a colour whose pixels lie left and right of a green one, and above and below it; red
# at blue, and blue at red.
_MALVAR = (
    ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0)),
    ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0)),
    ((0, 0, -2, 0, 0), (0, -2, 8, -2, 0), (1, 0, 10, 0, 1), (0, -2, 8, -2, 0), (0, 0, -2, 0, 0)),
    ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0)),
)
# JFIF's RGB -> YCbCr.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def softened(image: Tensor, sigma_px: Tensor) -> Tensor:
    """`image` (B, C, H, W) under a Gaussian of `sigma_px` (B,), each 0 to 1.5; at the border mirrored."""
    reach = 5
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernels = torch.exp(-(at**2) / (2 * sigma_px.to(image)[:, None].clamp(min=1e-3) ** 2))
    kernels /= kernels.sum(1, keepdim=True)
    batch, channels, height, width = image.shape
    weights = kernels.repeat_interleave(channels, dim=0)
    planes = image.reshape(1, batch * channels, height, width)
    planes = F.pad(planes, (reach, reach, reach, reach), mode="reflect")
    planes = F.conv2d(planes, weights[:, None, None, :], groups=batch * channels)
    return F.conv2d(planes, weights[:, None, :, None], groups=batch * channels).reshape(image.shape)


def demosaiced(image: Tensor) -> Tensor:
    """`image` (B, 3, H, W) as one colour a pixel would give it, red first (RGGB), the other two filled in linearly.

    The 5x5 filters of Malvar, He and Cutler, "High-quality linear interpolation for demosaicing" (ICASSP 2004); at the
    border mirrored.
    """
    height, width = image.shape[-2:]
    down, right = (torch.arange(size, device=image.device) % 2 for size in (height, width))
    odd_row, odd_column = (down == 1)[:, None], (right == 1)[None]
    red, blue = ~odd_row & ~odd_column, odd_row & odd_column
    seen = torch.where(red, image[:, 0], torch.where(blue, image[:, 2], image[:, 1]))[:, None]
    green, across, along, opposite = F.conv2d(
        F.pad(seen, (2, 2, 2, 2), mode="reflect"), image.new_tensor(_MALVAR)[:, None] / 16
    ).unbind(1)
    seen = seen[:, 0]
    # In a row of red pixels red lies beside a green one, and blue above and below it.
    red_at_green, blue_at_green = (torch.where(odd_row, one, two) for one, two in ((along, across), (across, along)))
    return torch.stack(
        [
            torch.where(red, seen, torch.where(blue, opposite, red_at_green)),
            torch.where(red | blue, green, seen),
            torch.where(blue, seen, torch.where(red, opposite, blue_at_green)),
        ],
        dim=1,
    )


def denoised(image: Tensor, levels: Tensor) -> Tensor:
    """`image` (B, C, H, W) with the contrast below some grey `levels` (B,) of 255 taken for noise; 0 = untouched.

    The guided filter of each channel by itself in windows of 5x5 (He, Sun and Tang, TPAMI 2013), eps = levels^2.
    """
    noise = ((levels / 255) ** 2)[:, None, None, None].to(image)
    mean = _box_mean(image, 2)
    spread = (_box_mean(image * image, 2) - mean * mean).clamp(min=0)
    kept = torch.where(noise > 0, spread / (spread + noise.clamp(min=1e-12)), 1.0)
    return _box_mean(kept, 2) * image + _box_mean((1 - kept) * mean, 2)


def _box_mean(image: Tensor, reach: int) -> Tensor:
    """Means of the pixels of `image` (B, C, H, W) up to `reach` away in x and y, at the border of those that are there.

    Sums of the shifted picture: on a CPU four times as fast as average pooling, which takes pixel by pixel.
    """
    for dim in (-1, -2):
        size = image.shape[dim]
        total = image.clone()
        for shift in range(1, min(reach, size - 1) + 1):
            total.narrow(dim, 0, size - shift).add_(image.narrow(dim, shift, size - shift))
            total.narrow(dim, shift, size - shift).add_(image.narrow(dim, 0, size - shift))
        at = torch.arange(size, device=image.device)
        there = (at.clamp(max=reach) + (size - 1 - at).clamp(max=reach) + 1).to(image)
        image = total / (there if dim == -1 else there[:, None])
    return image


def sharpened(image: Tensor, weight: Tensor) -> Tensor:
    """`image + weight * (image - its 3x3 mean)`, (B, C, H, W); `weight` (B,)."""
    return image + weight[:, None, None, None] * (image - _box_mean(image, 1))


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """`image` (B, 3, H, W) in [0, 1] as a JPEG with 4:2:0 chroma of `quality` (B,) 1..100 gives it back; 100 = untouched.

    Baseline JPEG's transform and quantisation; entropy coding loses nothing and is left out.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = image.new_tensor(_TO_YCC)
    ycc = torch.einsum("ij,bjhw->bihw", matrix, padded * 255)
    luma, chroma = ycc[:, :1] - 128, F.avg_pool2d(ycc[:, 1:], 2)
    luma = _quantised(luma, _LUMA, quality) + 128
    chroma = F.interpolate(_quantised(chroma, _CHROMA, quality), scale_factor=2, mode="bilinear", align_corners=False)
    back = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(matrix), torch.cat([luma, chroma], dim=1)) / 255
    kept = (quality >= 100)[:, None, None, None]
    return torch.where(kept, image, back[..., :height, :width].clamp(0, 1))


def _quantised(planes: Tensor, table: tuple[int, ...], quality: Tensor) -> Tensor:
    """8x8 DCT blocks of `planes` (B, C, H, W) rounded to multiples of `table` scaled as libjpeg scales it."""
    batch, channels, height, width = planes.shape
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = ((planes.new_tensor(table)[None] * scale[:, None] + 50) / 100).floor().clamp(1, 255)
    steps = steps.reshape(batch, 1, 1, 8, 1, 8)
    dct = _dct(planes)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8)
    spectrum = torch.einsum("ui,bcyixj,vj->bcyuxv", dct, blocks, dct)
    spectrum = (spectrum / steps).round() * steps
    return torch.einsum("ui,bcyuxv,vj->bcyixj", dct, spectrum, dct).reshape(planes.shape)


def _dct(like: Tensor) -> Tensor:
    """The orthonormal DCT-II of 8 points, (8, 8)."""
    k = torch.arange(8, dtype=like.dtype, device=like.device)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis
