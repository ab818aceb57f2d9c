from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_train.data.order import batched, epoch_order

counts, seeds, epochs, worlds = st.integers(0, 300), st.integers(0, 2**31), st.integers(0, 10_000), st.integers(1, 9)


@given(counts, seeds, epochs, worlds)
def test_ranks_are_disjoint_cover_everything_and_differ_by_at_most_one(
    n: int, seed: int, epoch: int, world: int
) -> None:
    parts = [epoch_order(n, seed=seed, epoch=epoch, rank=rank, world=world) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
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
    ranks = [batched(epoch_order(n, seed=seed, epoch=3, rank=r, world=world), size) for r in range(world)]
    for k, together in enumerate(batched(epoch_order(n, seed=seed, epoch=3), size * world)):
        dealt = np.concatenate([batches[k] for batches in ranks if k < len(batches)])
        assert sorted(dealt) == sorted(together)


@given(counts, st.integers(1, 40))
def test_batches_keep_the_order_and_only_the_last_is_short(n: int, size: int) -> None:
    order = epoch_order(n, seed=1, epoch=0)
    batches = batched(order, size)
    assert np.array_equal(np.concatenate([*batches, np.zeros(0, np.int64)]), order)
    assert all(len(batch) == size for batch in batches[:-1])


def test_without_shuffling_the_order_is_the_stores() -> None:
    assert epoch_order(5, seed=3, epoch=9, shuffle=False).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrong", [{"rank": 2, "world": 2}, {"epoch": -1}, {"seed": -1}])
def test_impossible_arguments_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        epoch_order(10, **{"seed": 0, "epoch": 0, **wrong})
    with pytest.raises(ValueError, match="batch_size=0"):
        batched(np.arange(3), 0)
