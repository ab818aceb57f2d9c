"""The gather of `optics.gather` as one GPU kernel, without gradients; Triton comes with PyTorch for CUDA."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

_ROWS, _COLUMNS = 8, 64


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _kernel(  # type: ignore[no-untyped-def,unused-ignore]
    image, width_px, disc, out, height, width, truncate,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (y < height) & (x < width)
    plane = height * width
    size = tl.load(width_px + batch * plane + y * width + x, mask=inside, other=0.0)
    is_disc = tl.load(disc + batch) != 0
    sharp = size < 0.1
    gaussian_reach = tl.where(sharp, 0.0, tl.ceil(truncate * size))
    reach = tl.where(is_disc, tl.maximum(tl.ceil(size + 0.5) - 1.0, 0.0), gaussian_reach)
    safe = tl.where(sharp, 1.0, size)
    factor = -0.5 / (safe * safe)
    most = tl.cast(tl.max(reach), tl.int32)
    base = image + batch * CHANNELS * plane
    weights = tl.zeros((ROWS, COLUMNS), tl.float32)
    first = tl.zeros((ROWS, COLUMNS), tl.float32)
    second = tl.zeros((ROWS, COLUMNS), tl.float32)
    third = tl.zeros((ROWS, COLUMNS), tl.float32)
    for dy in range(-most, most + 1):
        row = (y + dy + 16 * height) % (2 * height)
        row = tl.minimum(row, 2 * height - 1 - row) * width
        for dx in range(-most, most + 1):
            column = (x + dx + 16 * width) % (2 * width)
            column = tl.minimum(column, 2 * width - 1 - column)
            square = tl.cast(dx * dx + dy * dy, tl.float32)
            bell = tl.exp(factor * square)
            far = tl.cast(tl.maximum(tl.abs(dx), tl.abs(dy)), tl.float32)
            bell = tl.where(far <= reach, bell, 0.0)
            flat = tl.minimum(tl.maximum(size + 0.5 - tl.sqrt(square), 0.0), 1.0)
            flat = tl.where(square == 0.0, 1.0, flat)
            share = tl.where(is_disc, flat, bell)
            weights += share
            at = base + row + column
            first += share * tl.load(at, mask=inside, other=0.0)
            if CHANNELS > 1:
                second += share * tl.load(at + plane, mask=inside, other=0.0)
                third += share * tl.load(at + 2 * plane, mask=inside, other=0.0)
    to = out + batch * CHANNELS * plane + y * width + x
    tl.store(to, first / weights, mask=inside)
    if CHANNELS > 1:
        tl.store(to + plane, second / weights, mask=inside)
        tl.store(to + 2 * plane, third / weights, mask=inside)


def gather_triton(image: Tensor, width_px: Tensor, disc: Tensor, truncate: float) -> Tensor:
    """As `gather.gather`, on a GPU; `image` (B, 1 or 3, H, W) and `width_px` (B, 1, H, W) float32, contiguous.

    A reach of up to 16 times the frame's smaller side.
    """
    batch, channels, height, width = image.shape
    out = torch.empty_like(image)
    grid = (triton.cdiv(width, _COLUMNS), triton.cdiv(height, _ROWS), batch)
    flags = disc.to(device=image.device, dtype=torch.int32)
    _kernel[grid](
        image, width_px, flags, out, height, width, float(truncate),
        CHANNELS=channels, ROWS=_ROWS, COLUMNS=_COLUMNS,
    )  # fmt: skip
    return out
