"""Which sample comes when: pure functions of (seed, epoch, rank, world), so that any run can go on from any batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def epoch_order(samples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """All sample indices in the order of `epoch`: a permutation from `numpy.random.default_rng([seed, epoch])`."""
    return np.random.default_rng([seed, epoch]).permutation(samples).astype(np.int64)


def batched(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """`order` cut into batches of `batch_size`, the last one shorter where it does not divide."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shard_order(samples: int, *, per_shard: int, buffer: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """All sample indices of `epoch`, shard after shard in random order, mixed by a shuffle buffer of `buffer` samples.

    The shards (`per_shard` samples each, the last one shorter) follow a permutation; their samples pass through the
    buffer, from which a random one leaves whenever it is full. So a sample leaves at most `buffer` places before its
    turn, and a reader that reads whole shards in `shard_sequence` holds at most `buffer + per_shard` samples.
    """
    sequence = shard_sequence(samples, per_shard=per_shard, seed=seed, epoch=epoch)
    rng = np.random.default_rng([seed, epoch, 1])
    incoming = (i for shard in sequence for i in range(shard * per_shard, min((shard + 1) * per_shard, samples)))
    held: list[int] = []
    leaving = []
    for index in incoming:
        held.append(index)
        if len(held) > buffer:
            place = int(rng.integers(len(held)))
            held[place], held[-1] = held[-1], held[place]
            leaving.append(held.pop())
    leaving += [held[place] for place in rng.permutation(len(held))]
    return np.array(leaving, dtype=np.int64)


def shard_sequence(samples: int, *, per_shard: int, seed: int, epoch: int) -> list[int]:
    """The shards in the order in which `shard_order` takes them up."""
    return [int(shard) for shard in np.random.default_rng([seed, epoch]).permutation(-(-samples // per_shard))]


class MicroBatch(NamedTuple):
    """What one process computes at once: `indices` (B,) of samples; they count in loss and gradient if `counted`.

    A process for which an epoch's last step has no sample left still takes part with one that does not count.
    """

    indices: NDArray[np.int64]
    counted: bool = True


def step_batches(
    order: NDArray[np.int64], batch_size: int, *, accumulate: int = 1, rank: int = 0, world: int = 1
) -> list[list[MicroBatch]]:
    """The steps of an epoch in `order` as process `rank` of `world` computes them.

    Step k takes the next `batch_size * accumulate * world` samples of `order`, dealt out to the processes like cards;
    each process computes its share in batches of `batch_size`. All have the same number of batches in a step.
    """
    together = batch_size * accumulate * world
    steps = []
    for start in range(0, len(order), together):
        samples = order[start : start + together]
        own = batched(samples[rank::world], batch_size)
        missing = len(batched(samples[::world], batch_size)) - len(own)
        steps.append([MicroBatch(batch) for batch in own] + [MicroBatch(samples[:1], counted=False)] * missing)
    return steps
