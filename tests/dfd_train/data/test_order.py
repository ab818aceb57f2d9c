from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfd_train.data.order import batched, epoch_order, step_batches

counts, seeds, epochs, worlds = st.integers(0, 300), st.integers(0, 2**31), st.integers(0, 10_000), st.integers(1, 9)


def dealt_to(rank: int, world: int, order: np.ndarray, size: int) -> list[int]:
    """What one process computes in an epoch."""
    steps = step_batches(order, size, rank=rank, world=world)
    return [index for step in steps for micro in step if micro.counted for index in micro.indices.tolist()]


@given(counts, seeds, epochs, worlds)
def test_ranks_are_disjoint_cover_everything_and_differ_by_at_most_one(
    n: int, seed: int, epoch: int, world: int
) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    parts = [dealt_to(rank, world, order, 3) for rank in range(world)]
    assert sorted(index for part in parts for index in part) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(2, 300), seeds, epochs)
def test_the_order_is_a_function_of_seed_and_epoch(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    assert np.array_equal(order, epoch_order(n, seed=seed, epoch=epoch))
    if n >= 20:
        assert not np.array_equal(order, epoch_order(n, seed=seed, epoch=epoch + 1))
        assert not np.array_equal(order, epoch_order(n, seed=seed + 1, epoch=epoch))


@given(st.integers(1, 200), seeds, worlds, st.integers(1, 7))
def test_the_ranks_batches_together_are_the_batches_of_one_process(n: int, seed: int, world: int, size: int) -> None:
    order = epoch_order(n, seed=seed, epoch=3)
    ranks = [step_batches(order, size, rank=rank, world=world) for rank in range(world)]
    for k, together in enumerate(batched(order, size * world)):
        dealt = [i for steps in ranks for micro in steps[k] if micro.counted for i in micro.indices.tolist()]
        assert sorted(dealt) == sorted(together)


@given(counts, st.integers(1, 40))
def test_batches_keep_the_order_and_only_the_last_is_short(n: int, size: int) -> None:
    order = epoch_order(n, seed=1, epoch=0)
    batches = batched(order, size)
    assert np.array_equal(np.concatenate([*batches, np.zeros(0, np.int64)]), order)
    assert all(len(batch) == size for batch in batches[:-1])
