"""What a person sees of a long run: a live bar on a terminal, plain lines at intervals in a file or a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_EVERY_S = 10.0


class Meter:
    """Progress of `total` steps, of which `done` were made earlier.

    `title`: what the steps are for, may change; `unit`: what the rate counts. Rate and remaining time are those of
    the steps made since the meter started.
    """

    def __init__(
        self, title: str, total: int, *, done: int = 0, unit: str = "samples", console: Console | None = None
    ) -> None:
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self.console = console or Console()
        self._first = done
        self._samples = 0
        self._began = self._printed = time.perf_counter()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def samples_per_s(self) -> float:
        """Samples a second since the meter started."""
        return self._samples / max(time.perf_counter() - self._began, 1e-9)

    def step(self, samples: int, text: str = "") -> None:
        """One more step, of `samples` samples; `text` is shown beside rate and remaining time."""
        self.done += 1
        self._samples += samples
        now = time.perf_counter()
        if self._bar is None and (now - self._printed < LINE_EVERY_S or self.done >= self.total):
            return
        remaining = (self.total - self.done) * (now - self._began) / (self.done - self._first)
        text = "  ".join(
            part for part in (text, f"{self.samples_per_s:.1f} {self.unit}/s", f"ETA {clock(remaining)}") if part
        )
        if self._bar is not None:
            self._bar.update(self._task, description=self.title, completed=self.done, text=text)
        else:
            self._printed = now
            self.say(f"{self.title}  {self.done}/{self.total}  {text}")

    def say(self, line: str) -> None:
        """Print one line above the bar, or just print it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as "0:07", "12:34" or "3:25:45"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
