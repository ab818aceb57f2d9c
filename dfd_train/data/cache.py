"""Keeping samples that were read once: in memory, on the device, or not at all."""

from __future__ import annotations

import os
import threading

import numpy as np
import torch
from numpy.typing import NDArray

from dfd_train.data.stream import Batch, ShardDataset

# What "auto" may take of the memory that is free: the network and other programs need the rest.
SHARE_OF_FREE = 0.4


def sample_bytes(frame_hw: tuple[int, int], pictures: int = 1) -> int:
    """Size of one decoded sample: its defocused `pictures` and one image in uint8, and a float32 depth map."""
    return frame_hw[0] * frame_hw[1] * (3 * pictures + 3 + 4)


def choose_cache(wanted: str, size: int, device: torch.device, *, sharers: int = 1) -> str:
    """What "auto" means for a split of `size` bytes: "device", "ram" or "none"; anything else is what was wanted.

    A cache must fit into `SHARE_OF_FREE` of the free memory; `sharers` processes divide the machine's RAM.
    """
    if wanted != "auto":
        return "ram" if wanted == "device" and device.type == "cpu" else wanted
    if device.type == "cuda" and size <= SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "ram" if size * sharers <= SHARE_OF_FREE * free else "none"


class CachedReader:
    """Reads like `dataset.read`, and every sample from the store only once; the batches live on `device`.

    Memory is taken as samples come in, up to `sample_bytes(dataset.frame_hw) * len(dataset)`. Damage that a shard
    suffers after a sample was read goes unnoticed for that sample. Safe to share between threads.
    """

    def __init__(self, dataset: ShardDataset, device: torch.device) -> None:
        self._dataset = dataset
        count, (height, width) = len(dataset), dataset.frame_hw
        channels = 3 * dataset.pictures + 3
        self._images = torch.empty((count, height, width, channels), dtype=torch.uint8, device=device)
        self._depth = torch.empty((count, height, width), device=device)
        self._there = np.zeros(count, dtype=bool)
        self._lock = threading.Lock()

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """The samples `indices` (B,) in that order; raises what the dataset's `read` raises."""
        with self._lock:
            missing = np.unique(indices[~self._there[indices]])
            if len(missing):
                batch = self._dataset.read(missing)
                rows = torch.from_numpy(missing).to(self._depth.device)
                self._images[rows] = torch.cat([batch.defocused, batch.aif], dim=-1).to(rows.device)
                self._depth[rows] = batch.depth_m.to(rows.device)
                self._there[missing] = True
        rows = torch.from_numpy(np.ascontiguousarray(indices)).to(self._depth.device)
        images = self._images[rows]
        return Batch(indices, images[..., :-3], images[..., -3:], self._depth[rows])
