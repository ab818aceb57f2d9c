"""Reading a store shard by shard while handing out samples in the order of a shuffle buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfd_train.data.stream import Batch, Reader


class SequentialReader:
    """Serves batches of one epoch in their order, and reads from `source` whole shards in theirs.

    `sequence`: the shards, as in `order.shard_sequence`, `per_shard` samples each. `batches`: every batch that will be
    asked for, in order; only their samples are read, each shard's at once and in ascending order. With batches in
    `order.shard_order` no more than its buffer and one shard are in memory. For one thread at a time.
    """

    def __init__(
        self, source: Reader, sequence: Sequence[int], per_shard: int, batches: Sequence[NDArray[np.int64]]
    ) -> None:
        self._source = source
        needed: dict[int, list[int]] = {}
        for index in np.unique(np.concatenate([*batches, np.zeros(0, np.int64)])).tolist():
            needed.setdefault(index // per_shard, []).append(index)
        self._coming = iter([needed[shard] for shard in sequence if shard in needed])
        self._uses: dict[int, int] = {}
        for batch in batches:
            for index in batch.tolist():
                self._uses[index] = self._uses.get(index, 0) + 1
        self._held: dict[int, tuple[Tensor, ...]] = {}

    @property
    def held(self) -> int:
        """Samples in memory."""
        return len(self._held)

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """The samples `indices` (B,) in that order; raises `ValueError` for one that no batch announced."""
        rows = []
        for index in indices.tolist():
            while index not in self._held:
                self._read_shard(index)
            rows.append(self._held[index])
            self._uses[index] -= 1
            if self._uses[index] == 0:
                del self._held[index]
        return Batch(indices, *(torch.stack(arrays) for arrays in zip(*rows, strict=True)))

    def _read_shard(self, wanted: int) -> None:
        coming = next(self._coming, None)
        if coming is None:
            raise ValueError(f"sample {wanted} is in none of the announced batches")
        arrays = self._source.read(np.array(coming, dtype=np.int64))[1:]
        # Each sample its own memory: a view would keep the whole shard alive until its last sample has left.
        for row, index in enumerate(coming):
            self._held[index] = tuple(array[row].clone() for array in arrays)
