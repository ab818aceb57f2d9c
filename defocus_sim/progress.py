"""What a person sees of a long run: a live bar on a terminal, plain lines at intervals in a file or a pipe."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

# C0, DEL, C1, what ends lines elsewhere, what turns the direction of writing, and halves of pairs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LINE_EVERY_S = 10.0
# Columns of the bar, and from which width of the terminal on it is the wide one.
_NARROW_BAR, _WIDE_BAR, _WIDE_FROM = 10, 24, 100
# How many of the numbers stand before the rate: what is worth most comes first, the rest goes where there is no room.
_BEFORE_RATE = 2


class Meter:
    """Progress of `total` steps, of which `done` were made earlier; bar, count and remaining time at any width.

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
                TextColumn("{task.fields[text]}", markup=False),
                BarColumn(bar_width=_NARROW_BAR if self.console.width < _WIDE_FROM else _WIDE_BAR),
                TextColumn("{task.fields[always]}", markup=False),
                console=self.console,
            )
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, text=self.title, always=""
            )
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
        rate = f"{self.samples_per_s:.1f} {self.unit}/s"
        count, eta = f"{self.done}/{self.total}", f"ETA {clock(remaining)}"
        if self._bar is not None:
            always = f"{count} {eta}"
            bar = _NARROW_BAR if self.console.width < _WIDE_FROM else _WIDE_BAR
            parts = text.split("  ") if text else [self.title]
            parts.insert(_BEFORE_RATE, rate)
            # A space between three columns, and the terminal's last column left free.
            numbers = fitting(parts, self.console.width - bar - len(always) - 3)
            self._bar.update(self._task, completed=self.done, text=numbers, always=always)
        else:
            self._printed = now
            self.say("  ".join(part for part in (self.title, count, text, rate, eta) if part))

    def say(self, line: str) -> None:
        """Print one line above the bar, or just print it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of `parts` as fit into `width` characters, in their order, two spaces between them."""
    line = ""
    for part in filter(None, parts):
        longer = f"{line}  {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line


def clock(seconds: float) -> str:
    """Seconds as "0:07", "12:34" or "3:25:45"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def counted(number: int, noun: str) -> str:
    """`number` and `noun` as one says it: "1 epoch", "2 epochs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_line(text: str, keep: str = "") -> str:
    """A text as it can be shown anywhere.

    Parameters
    ----------
    text
        Such as the name of a file.
    keep
        Control characters that stay.

    Returns
    -------
    str
        `text` with control characters as escapes that can be read (`\\x1b`).
    """
    return _CONTROL.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text
    )
