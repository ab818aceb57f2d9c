"""Which sample comes when: pure functions of (seed, epoch, rank, world), so that any run can go on from any batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def epoch_order(
    samples: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1, shuffle: bool = True
) -> NDArray[np.int64]:
    """The sample indices that `rank` of `world` sees in `epoch`, in order.

    One permutation of `samples` for all ranks, from `numpy.random.default_rng([seed, epoch])`, dealt out like cards:
    rank r takes every `world`-th from r. So the ranks are disjoint, cover everything, differ by at most one sample, and
    their k-th batches together are the k-th batch of one process with `world` times the batch size.

    Raises `ValueError` for a negative count, seed or epoch, or a rank outside the world.
    """
    if min(samples, seed, epoch) < 0:
        raise ValueError(f"samples={samples}, seed={seed} and epoch={epoch} must not be negative")
    if not 0 <= rank < world:
        raise ValueError(f"rank={rank} must lie in 0..{world - 1}")
    if not shuffle:
        return np.arange(rank, samples, world, dtype=np.int64)
    return np.random.default_rng([seed, epoch]).permutation(samples)[rank::world].astype(np.int64)


def batched(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """`order` cut into batches of `batch_size`, the last one shorter where it does not divide."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
