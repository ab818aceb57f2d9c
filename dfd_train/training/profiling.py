"""Where a training step's time goes: `dfd-train --profile` measures some steps by part and writes a trace of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

# The first steps choose algorithms, compile and fill caches.
SKIPPED, MEASURED = 3, 10
PARTS = ("data wait", "copy and transforms", "forward and losses", "backward", "optimizer")
TRACE, TABLE = "trace.json", "profile.txt"


class StepProfile:
    """Measures `MEASURED` steps after the first `SKIPPED`; before and after that it does nothing.

    `folder`: where `trace.json` (for chrome://tracing or Perfetto) and `profile.txt` (the costliest operators) go; None =
    never measure. While it measures, every part ends by waiting for the GPU, so the shares are of the work itself and
    the steps are slower than usual.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._step = 0
        self._profiler: profile | None = None
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._began = 0.0
        self.summary: str | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens within the block belongs to `name` of `PARTS`."""
        if self._profiler is None:
            yield
            return
        began = time.perf_counter()
        with record_function(name):
            yield
            self._wait()
        self._seconds[name] += time.perf_counter() - began

    def step_ended(self) -> str | None:
        """To be called after each step; returns the lines to print where this was the last that is measured."""
        if self._folder is None or self.summary is not None:
            return None
        self._step += 1
        if self._step == SKIPPED:
            self._start()
        elif self._profiler is not None and self._step == SKIPPED + MEASURED:
            return self.finish()
        return None

    def finish(self) -> str | None:
        """End the measurement, also before its last step; returns the lines to print, None where there are none."""
        if self._profiler is None or self._folder is None:
            return None
        profiler, self._profiler = self._profiler, None
        self._wait()
        seconds, steps = time.perf_counter() - self._began, self._step - SKIPPED
        profiler.stop()
        if steps == 0:
            return None
        profiler.export_chrome_trace(str(self._folder / TRACE))
        sort = f"self_{self._device.type}_time_total"
        (self._folder / TABLE).write_text(profiler.key_averages().table(sort_by=sort, row_limit=40) + "\n")
        shares = ", ".join(f"{name} {self._seconds[name] / seconds:.1%}" for name in PARTS)
        shares += f", rest (sums, scores, checkpoints) {1 - sum(self._seconds.values()) / seconds:.1%}"
        self.summary = (
            f"profile of {steps} steps, {1000 * seconds / steps:.1f} ms each while measured: {shares}\n"
            f"trace: {self._folder / TRACE} (chrome://tracing), operators: {self._folder / TABLE}"
        )
        return self.summary

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._profiler.start()
        self._wait()
        self._began = time.perf_counter()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
