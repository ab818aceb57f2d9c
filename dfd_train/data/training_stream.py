"""The batches of a training run, epoch by epoch: which samples, in which order, read how."""

from __future__ import annotations

import os
from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from dfd_train.config.train import TrainConfig
from dfd_train.data.cache import CachedReader, choose_cache, sample_bytes
from dfd_train.data.order import MicroBatch, epoch_order, shard_order, shard_sequence, step_batches
from dfd_train.data.sequential import SequentialReader
from dfd_train.data.stream import Batch, Reader, ShardDataset, stream_batches
from dfd_train.distributed.world import World

# Threads that read and decode ahead, at most.
MOST_READERS = 4


class TrainingStream:
    """One process's part of the training split `dataset`, as `config` orders and caches it.

    `cache`: what its cache came to, "none", "ram" or "device".
    """

    def __init__(self, dataset: ShardDataset, config: TrainConfig, world: World) -> None:
        self._dataset, self._config, self._world = dataset, config, world
        self._per_shard = dataset.samples_per_shard
        size = sample_bytes(dataset.frame_hw, dataset.pictures) * len(dataset)
        self.cache = choose_cache(config.cache, size, world.device, sharers=world.local_size)
        place = torch.device("cpu") if self.cache == "ram" else world.device
        self._reader: Reader = dataset if self.cache == "none" else CachedReader(dataset, place)
        dataset.pinned = world.device.type == "cuda" and self.cache == "none"
        # A cache answers at once, and shard after shard is read by one; decoding for a fast GPU takes more than one core.
        several = self.cache == "none" and config.order == "random"
        self._threads = max(1, min(MOST_READERS, config.prefetch, _cores() // world.local_size)) if several else 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps that pass over the whole split once."""
        together = self._config.batch_size * self._config.engine.accumulate * self._world.size
        return -(-len(self._dataset) // together)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All sample indices in the order of `epoch`, the same on every process."""
        config, samples = self._config, len(self._dataset)
        if config.order == "random":
            return epoch_order(samples, seed=config.seed, epoch=epoch)
        buffer = config.shuffle_buffer
        return shard_order(samples, per_shard=self._per_shard, buffer=buffer, seed=config.seed, epoch=epoch)

    def steps(self, epoch: int, start: int) -> list[list[MicroBatch]]:
        """What this process computes in each step of `epoch`, from step `start` on."""
        config, world = self._config, self._world
        order = self.order(epoch)
        accumulate = config.engine.accumulate
        return step_batches(order, config.batch_size, accumulate=accumulate, rank=world.rank, world=world.size)[start:]

    def batches(self, epoch: int, steps: list[list[MicroBatch]]) -> Generator[Batch, None, None]:
        """The batches of `steps` of `epoch`, one after the other; to be closed where it is left early."""
        indices = [micro.indices for step in steps for micro in step]
        reader = self._reader
        if self._config.order == "shards":
            sequence = shard_sequence(
                len(self._dataset), per_shard=self._per_shard, seed=self._config.seed, epoch=epoch
            )
            reader = SequentialReader(reader, sequence, self._per_shard, indices)
        pin = self._world.device.type == "cuda"
        return stream_batches(reader, indices, prefetch=self._config.prefetch, pin=pin, threads=self._threads)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
