"""From stored bytes to the network's tensors, on the device: uint8 travels, everything else happens there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.data.geometry import Geometry
from dfd_train.data.stream import Batch


class Frames(NamedTuple):
    """One batch for the network: `defocused`, `aif` (B, 3, H, W) in [0, 1]; `depth_m` (B, 1, H, W), 0 = hole."""

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


def augment(frames: Frames, geometry: Geometry, indices: np.ndarray, *, seed: int, epoch: int) -> Frames:
    """Cut `geometry.crop` and flip left-right, the three arrays of a sample together; nothing here changes blur.

    What happens to a sample is drawn from `numpy.random.default_rng([seed, epoch, index])` of that sample alone, so it
    depends neither on the batch size nor on the rank or on where a run was resumed.
    """
    height, width = frames.depth_m.shape[-2:]
    crop_h, crop_w = geometry.crop or (height, width)
    flips, tops, lefts = [], [], []
    for index in indices:
        rng = np.random.default_rng([seed, epoch, int(index)])
        flips.append(bool(rng.random() < geometry.flip))
        tops.append(int(rng.integers(height - crop_h + 1)))
        lefts.append(int(rng.integers(width - crop_w + 1)))
    if geometry.crop is not None:
        frames = Frames(
            *(
                torch.stack([x[:, t : t + crop_h, s : s + crop_w] for x, t, s in zip(array, tops, lefts, strict=True)])
                for array in frames
            )
        )
    if not any(flips):
        return frames
    mask = torch.tensor(flips, device=frames.depth_m.device)[:, None, None, None]
    return Frames(*(torch.where(mask, array.flip(-1), array) for array in frames))


def training_frames(batch: Batch, geometry: Geometry, device: torch.device, *, seed: int, epoch: int) -> Frames:
    """What the network trains on: `batch` on `device`, resized or cropped, and flipped."""
    return augment(resize(to_frames(batch, device), geometry.size), geometry, batch.indices, seed=seed, epoch=epoch)


def evaluation_frames(batch: Batch, size: tuple[int, int] | None, device: torch.device) -> Frames:
    """What the network is scored on: `batch` on `device`, resized to `size` (None = native), nothing random."""
    return resize(to_frames(batch, device), size)
