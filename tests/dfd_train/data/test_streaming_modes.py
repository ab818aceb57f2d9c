from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from defocus_sim.datasets.base import RgbdFrame
from dfd_train.config.train import recipe_config
from dfd_train.data.cache import CachedReader, choose_cache, sample_bytes
from dfd_train.data.order import batched, shard_order, shard_sequence
from dfd_train.data.sequential import SequentialReader
from dfd_train.data.stream import Batch, ShardDataset, stream_batches
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.train import train

CPU = torch.device("cpu")


class Counting:
    """Reads like a dataset and notes every call."""

    def __init__(self, source: Any) -> None:
        self.source, self.calls = source, []

    def read(self, indices: np.ndarray) -> Batch:
        self.calls.append(indices.tolist())
        return self.source.read(indices)


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**31), st.integers(0, 1000))
def test_shard_order_is_a_permutation_and_no_sample_leaves_before_it_can(
    samples: int, per_shard: int, buffer: int, seed: int, epoch: int
) -> None:
    how = {"per_shard": per_shard, "seed": seed, "epoch": epoch}
    order = shard_order(samples, buffer=buffer, **how)
    assert sorted(order.tolist()) == list(range(samples))
    assert np.array_equal(order, shard_order(samples, buffer=buffer, **how))
    sequence = shard_sequence(samples, **how)
    arrival = [i for shard in sequence for i in range(shard * per_shard, min((shard + 1) * per_shard, samples))]
    turn = {index: place for place, index in enumerate(arrival)}
    assert all(turn[index] <= place + buffer for place, index in enumerate(order.tolist()))


def test_shards_are_read_whole_once_each_and_memory_is_the_buffer_and_one_shard(store: Path) -> None:
    data = ShardDataset(store)
    how = {"per_shard": 4, "seed": 2, "epoch": 0}
    batches = batched(shard_order(10, buffer=3, **how), 2)
    source = Counting(data)
    reader = SequentialReader(source, shard_sequence(10, **how), 4, batches)
    for indices in batches:
        batch = reader.read(indices)
        assert torch.equal(batch.aif, data.read(indices).aif)
        assert reader.held <= 3 + 4
    assert reader.held == 0
    assert sorted(map(tuple, source.calls)) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]


def test_a_later_start_reads_only_what_is_left(store: Path) -> None:
    how = {"per_shard": 4, "seed": 2, "epoch": 0}
    rest = batched(shard_order(10, buffer=3, **how), 2)[3:]
    source = Counting(ShardDataset(store))
    reader = SequentialReader(source, shard_sequence(10, **how), 4, rest)
    for indices in rest:
        assert reader.read(indices).indices.tolist() == indices.tolist()
    assert sorted(i for call in source.calls for i in call) == sorted(np.concatenate(rest).tolist())
    with pytest.raises(ValueError, match="none of the announced"):
        reader.read(np.array([int(rest[0][0])]))


def test_a_cache_returns_the_same_and_reads_every_sample_once(store: Path) -> None:
    data = ShardDataset(store)
    source = Counting(data)
    source.frame_hw, source.pictures = data.frame_hw, data.pictures
    Counting.__len__ = lambda self: len(self.source)
    reader = CachedReader(source, CPU)
    for indices in (np.array([3, 1, 3]), np.array([1, 2]), np.arange(10)):
        batch, direct = reader.read(indices), data.read(indices)
        for field in ("defocused", "aif", "depth_m"):
            assert torch.equal(getattr(batch, field), getattr(direct, field))
    assert sorted(i for call in source.calls for i in call) == list(range(10))


def test_auto_takes_memory_only_where_there_is_plenty() -> None:
    assert choose_cache("auto", 1000, CPU) == "ram"
    assert choose_cache("auto", 10**15, CPU) == "none"
    assert choose_cache("auto", 10**6, CPU, sharers=10**9) == "none"
    assert choose_cache("device", 1000, CPU) == "ram"
    assert choose_cache("none", 1000, CPU) == "none"
    assert sample_bytes((2, 3)) == 60


def test_an_epoch_of_a_store_larger_than_the_limit_stays_below_it(
    make_store: Callable[..., Path], textured: Callable[..., RgbdFrame]
) -> None:
    rng = np.random.default_rng(0)
    data = ShardDataset(make_store({"train": [textured(rng, 96, 128) for _ in range(64)]}))
    whole = 64 * sample_bytes(data.frame_hw)
    tracemalloc.start()
    for _ in stream_batches(data, batched(np.random.default_rng(1).permutation(64), 2), prefetch=2):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole / 6


@pytest.mark.parametrize("prefetch", [0, 3])
def test_cache_and_prefetch_change_no_bit_and_shard_order_resumes(store: Path, tmp_path: Path, prefetch: int) -> None:
    weights = []
    for cache in ("none", "ram"):
        out = tmp_path / cache
        config = recipe_config(
            "fast", shards=store, out=out, model="tiny", size="48x33", epochs=2, batch_size=3, device="cpu", cache=cache,
            order="shards", shuffle_buffer=3, prefetch=prefetch, tensorboard=False, keep=5,
        )  # fmt: skip
        train(config, console=Console(quiet=True))
        if cache == "ram":
            last = load_checkpoint(out).step
            for path in (out / "checkpoints").glob(f"step-*{last}.*"):
                path.unlink()
            train(config, resume=True, console=Console(quiet=True))
        weights.append(load_checkpoint(out).weights)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
