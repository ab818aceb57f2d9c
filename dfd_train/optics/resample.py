"""A picture brought to another size and back without loss, by its cosine transform."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def resampled(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`image` (B, C, H, W) at `size` (height, width): the cosine series of each axis, with borders mirrored, read off anew.

    Where a side grows nothing is lost: to bring the result back to the former size gives `image` again. Where it shrinks,
    what the smaller size cannot hold is cut off. Sharp edges overshoot in a picture that has grown.
    """
    for dim, side in ((-2, size[0]), (-1, size[1])):
        if side != image.shape[dim]:
            matrix = _matrix(image.shape[dim], side).to(image)
            image = torch.einsum("ij,...jw->...iw", matrix, image) if dim == -2 else image @ matrix.T
    return image


@lru_cache(maxsize=64)
def _matrix(before: int, after: int) -> Tensor:
    """(after, before) float32: the first min(before, after) terms of the cosine series of one grid on another."""
    terms = torch.arange(min(before, after), dtype=torch.float64)

    def basis(side: int) -> Tensor:
        centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        waves = torch.cos(math.pi * centres[:, None] * terms) * math.sqrt(2 / side)
        waves[:, 0] /= math.sqrt(2)
        return waves

    return (math.sqrt(after / before) * basis(after) @ basis(before).T).float()
