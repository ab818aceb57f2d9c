"""What a camera does to every picture beside the defocus: softness, sharpening and JPEG, on batches, on the device."""

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


def sharpened(image: Tensor, weight: Tensor) -> Tensor:
    """`image + weight * (image - its 3x3 mean)`, (B, C, H, W); `weight` (B,)."""
    mean = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    return image + weight[:, None, None, None] * (image - mean)


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
