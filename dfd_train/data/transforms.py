"""From stored bytes to the network's tensors, on the device: uint8 travels, everything else happens there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.config.geometry import Geometry
from dfd_train.data.stream import Batch


class Frames(NamedTuple):
    """One batch for the network: `defocused` (B, 3 or, of two pictures, 6, H, W) and `aif` (B, 3, H, W) in [0, 1];
    `depth_m` (B, 1, H, W), 0 = hole.
    """

    defocused: Tensor
    aif: Tensor
    depth_m: Tensor


def to_frames(batch: Batch, device: torch.device) -> Frames:
    """`batch` on `device` as float32, images divided by 255, channels first."""
    defocused, aif = (
        tensor.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div(255)
        for tensor in (batch.defocused, batch.aif)
    )
    return Frames(defocused, aif, batch.depth_m.to(device, non_blocking=True)[:, None])


def resize(frames: Frames, size: tuple[int, int] | None) -> Frames:
    """`frames` at height and width `size`, or as they are for None.

    Images bilinear with antialiasing (a weighted mean, so the range stays). Depth takes the nearest pixel's
    value, so that a hole stays a hole and no edge gets a depth that neither side has.
    """
    if size is None or tuple(frames.depth_m.shape[-2:]) == tuple(size):
        return frames
    defocused, aif = (
        F.interpolate(image.contiguous(), size=size, mode="bilinear", antialias=True, align_corners=False)
        for image in (frames.defocused, frames.aif)
    )
    return Frames(defocused, aif, F.interpolate(frames.depth_m, size=size, mode="nearest-exact"))


class Draws(NamedTuple):
    """What chance decided for each sample of a batch: whether it is flipped, and the corner of its window."""

    flips: list[bool]
    tops: list[int]
    lefts: list[int]


def draw(geometry: Geometry, indices: np.ndarray, frame_hw: tuple[int, int], *, seed: int, epoch: int) -> Draws:
    """Flips and windows of the samples `indices` in frames of height and width `frame_hw`; nothing here changes blur.

    What happens to a sample is drawn from `numpy.random.default_rng([seed, epoch, index])` of that sample alone, so it
    depends neither on the batch size nor on the rank or on where a run was resumed.
    """
    crop_h, crop_w = geometry.crop or frame_hw
    draws = Draws([], [], [])
    for index in indices:
        rng = np.random.default_rng([seed, epoch, int(index)])
        draws.flips.append(bool(rng.random() < geometry.flip))
        draws.tops.append(int(rng.integers(frame_hw[0] - crop_h + 1)))
        draws.lefts.append(int(rng.integers(frame_hw[1] - crop_w + 1)))
    return draws


def first_rows(batch: Batch, geometry: Geometry, *, seed: int, epoch: int) -> list[int]:
    """Where the window of each sample that `training_frames` cuts begins."""
    height, width = batch.depth_m.shape[-2:]
    return draw(geometry, batch.indices, (height, width), seed=seed, epoch=epoch).tops


def cut(batch: Batch, crop: tuple[int, int] | None, draws: Draws) -> Batch:
    """The window of height and width `crop` of each sample, the three arrays together; None = the whole frame."""
    if crop is None:
        return batch
    height, width = crop
    windows = [(slice(t, t + height), slice(x, x + width)) for t, x in zip(draws.tops, draws.lefts, strict=True)]
    defocused, aif, depth_m = (
        torch.stack([one[window] for one, window in zip(array, windows, strict=True)]) for array in batch[1:]
    )
    return Batch(batch.indices, defocused, aif, depth_m)


def flip(frames: Frames, draws: Draws) -> Frames:
    """`frames`, mirrored left-right where it was drawn."""
    if not any(draws.flips):
        return frames
    mask = torch.tensor(draws.flips)[:, None, None, None]
    device = frames.depth_m.device
    if device.type == "cuda":
        # From ordinary memory the copy would wait for the GPU.
        mask = mask.pin_memory()
    mask = mask.to(device, non_blocking=True)
    return Frames(*(torch.where(mask, array.flip(-1), array) for array in frames))


def training_frames(batch: Batch, geometry: Geometry, device: torch.device, *, seed: int, epoch: int) -> Frames:
    """What the network trains on: `batch` on `device`, cut or resized, and flipped."""
    height, width = batch.depth_m.shape[-2:]
    draws = draw(geometry, batch.indices, (height, width), seed=seed, epoch=epoch)
    # Cut while the samples are still bytes; from page-locked memory the copy does not wait.
    there = Batch(batch.indices, *(tensor.to(device, non_blocking=True) for tensor in batch[1:]))
    return flip(resize(to_frames(cut(there, geometry.crop, draws), device), geometry.size), draws)


def evaluation_frames(batch: Batch, size: tuple[int, int] | None, device: torch.device) -> Frames:
    """What the network is scored on: `batch` on `device`, resized to `size` (None = native), nothing random."""
    return resize(to_frames(batch, device), size)
