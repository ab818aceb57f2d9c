"""Threads of one process that have no shard left of their own make samples for the shards of the others.

A shard is written by one thread, its owner, in order. Its samples may be made by any: whoever is free takes the next one
that nobody has begun. Without that, the last shards keep one thread each and all others wait: with two threads and eight
shards, a fifteenth of the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Generic, TypeVar

from defocus_sim.shards.timing import StageClock

Item = TypeVar("Item")
Made = TypeVar("Made")


class Share(Generic[Item, Made]):
    """The items of one shard: each is made once, by its owner or a helper, and taken by the owner in order.

    At most `ahead` items wait to be taken, which bounds memory. `condition`: notified of every change.
    """

    def __init__(self, items: Sequence[Item], ahead: int, condition: threading.Condition | None = None) -> None:
        self._items, self._ahead = items, ahead
        self._condition = condition or threading.Condition()
        self._begun = self._taken = 0
        self._closed = False
        self._made: dict[int, Made] = {}
        self._failed: list[int] = []

    @property
    def left(self) -> int:
        """How many items nobody has begun."""
        return 0 if self._closed else len(self._items) - self._begun

    def claim(self) -> int | None:
        """The next item to make, None where there is none now. The caller holds `condition`, and makes the item."""
        if not self.left or self._begun >= self._taken + self._ahead:
            return None
        self._begun += 1
        return self._begun - 1

    def make_for_owner(self, index: int, make: Callable[[Item], Made]) -> None:
        """Make a claimed item. Where that fails the owner will try, so that the error is the owner's."""
        try:
            made = make(self._items[index])
        except BaseException:
            with self._condition:
                self._failed.append(index)
                self._condition.notify_all()
            raise
        self._store(index, made)

    def in_order(self, make: Callable[[Item], Made]) -> Iterator[Made]:
        """For the owner: every item in order, made here where no helper has. Raises what `make` raises."""
        try:
            for index in range(len(self._items)):
                yield self._take(index, make)
        finally:
            with self._condition:
                self._closed = True
                self._condition.notify_all()

    def _take(self, wanted: int, make: Callable[[Item], Made]) -> Made:
        while (index := self._next_to_make(wanted)) is not None:
            self._store(index, make(self._items[index]))
        with self._condition:
            self._taken = wanted + 1
            self._condition.notify_all()
            return self._made.pop(wanted)

    def _next_to_make(self, wanted: int) -> int | None:
        """An item that the owner is to make before `wanted` can be taken; None where it can be, maybe after a wait."""
        with self._condition:
            while wanted not in self._made:
                index = self._failed.pop() if self._failed else self.claim()
                if index is not None:
                    return index
                self._condition.wait()
        return None

    def _store(self, index: int, made: Made) -> None:
        with self._condition:
            self._made[index] = made
            self._condition.notify_all()


class Team(Generic[Item, Made]):
    """The threads of a conversion in one process.

    `shards`: how many they have to write. `threads`: how many they are. `on_sample`: called for each sample that is
    written, from any of them. `clock`: gets the seconds of every stage of those samples.
    """

    def __init__(
        self, shards: int, threads: int, on_sample: Callable[[], None], clock: StageClock | None = None
    ) -> None:
        self._left, self._threads, self._on_sample = shards, threads, on_sample
        self._clock = clock or StageClock()
        self._condition, self._counting = threading.Condition(), threading.Lock()
        self._shares: list[Share[Item, Made]] = []
        self._stopped = False

    def stop(self) -> None:
        """Every thread ends before its next sample."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def written(self, seconds: Mapping[str, float] = MappingProxyType({})) -> bool:
        """One more sample is, whose stages took `seconds`; false where it is time to stop."""
        with self._counting:
            self._clock.add(seconds)
            self._on_sample()
        return not self._stopped

    @contextmanager
    def share(self, items: Sequence[Item]) -> Iterator[Share[Item, Made]]:
        """The items of a shard whose owner is the calling thread; once for each of `shards`."""
        # As many as there are threads can be at work on one shard, and finish in any order.
        share: Share[Item, Made] = Share(items, 2 * self._threads, self._condition)
        with self._condition:
            self._shares.append(share)
            self._condition.notify_all()
        try:
            yield share
        finally:
            with self._condition:
                self._shares.remove(share)
                self._left -= 1
                self._condition.notify_all()

    def help(self, make: Callable[[Item], Made]) -> None:
        """Make items for whoever has most left, until no shard is left, `stop`, or what `make` raises."""
        while (found := self._find()) is not None:
            share, index = found
            share.make_for_owner(index, make)

    def _find(self) -> tuple[Share[Item, Made], int] | None:
        with self._condition:
            while self._left and not self._stopped:
                for share in sorted(self._shares, key=lambda share: -share.left):
                    if (index := share.claim()) is not None:
                        return share, index
                self._condition.wait()
        return None
