"""A conversion's progress as people see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from dfd_cli.support.logging import speaking

from defocus_sim.progress import Meter


@contextmanager
def sample_progress(title: str | Callable[[], str], unit: str = "samples") -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that shows count, rate and remaining time on standard error.

    `title`: what is going on, or a function that says what is by now.
    """
    with ExitStack() as stack:
        meter: Meter | None = None

        def report(done: int, total: int) -> None:
            nonlocal meter
            name = title if isinstance(title, str) else title()
            if meter is None:
                meter = stack.enter_context(Meter(name, total, done=done, unit=unit, console=speaking(stderr=True)))
            meter.title = name
            for _ in range(done - meter.done):
                meter.step(1)

        yield report


def slowest_stage(seconds: Mapping[str, float], reading: str = "reading") -> str:
    """What a conversion spends most of its time on, "converting" while that is not known.

    `seconds`: by stage; `reading`: what the source does to get at a frame.
    """
    names = {"read": reading, "blur": "blurring", "encode": "encoding"}
    slowest = max(seconds, key=lambda stage: seconds[stage], default="")
    return names.get(slowest, "converting")
