"""A conversion's progress as people see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from dfd_cli.support.logging import speaking

from defocus_sim.progress import Meter


@contextmanager
def sample_progress(title: str, unit: str = "samples") -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that shows count, rate and remaining time on standard error."""
    with ExitStack() as stack:
        meter: Meter | None = None

        def report(done: int, total: int) -> None:
            nonlocal meter
            if meter is None:
                meter = stack.enter_context(Meter(title, total, done=done, unit=unit, console=speaking(stderr=True)))
            for _ in range(done - meter.done):
                meter.step(1)

        yield report
