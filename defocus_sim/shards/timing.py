"""Where the time of a piece of work goes, by named stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class StageClock:
    """Adds up elapsed seconds by stage; one for each thread. `seconds`: {stage: seconds}, in order of first use."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block's time counts for `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - began})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Time that another clock has measured."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def add_up(many: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sums by stage."""
    total = StageClock()
    for seconds in many:
        total.add(seconds)
    return total.seconds
