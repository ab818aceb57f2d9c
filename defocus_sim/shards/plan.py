"""Which samples make up which shard: pure partitions, no I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardRange:
    """Shard `index` of a split holds its samples `start` to `stop - 1`."""

    index: int
    start: int
    stop: int


def plan_shards(count: int, per_shard: int) -> tuple[ShardRange, ...]:
    """`count` samples in consecutive ranges of `per_shard`, the last one shorter; empty for no sample."""
    return tuple(
        ShardRange(index, start, min(start + per_shard, count))
        for index, start in enumerate(range(0, count, per_shard))
    )
