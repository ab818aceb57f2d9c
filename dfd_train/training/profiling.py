"""Where a training step's time goes: `dfd-train --profile` measures some steps by part and writes a trace of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from defocus_sim.progress import counted

# The first steps choose algorithms, compile and fill caches; the last of them warms the profiler up.
SKIPPED, MEASURED = 3, 10
PARTS = ("data wait", "copy and transforms", "forward and losses", "backward", "optimizer")
TRACE, TABLE = "trace.json", "profile.txt"


class StepProfile:
    """Measures `MEASURED` steps after the first `SKIPPED`; after that it does nothing.

    `folder`: where `trace.json` (for chrome://tracing or Perfetto) and `profile.txt` (the costliest operators) go; None =
    never measure. Until it has measured, every part ends by waiting for the GPU, so the shares are of the work itself and
    the steps are slower than usual.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._steps = 0
        self._told: str | None = None
        self._profiler: profile | None = None
        if folder is not None:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
            self._profiler = profile(
                activities=activities,
                schedule=schedule(wait=SKIPPED - 1, warmup=1, active=MEASURED, repeat=1),
                on_trace_ready=self._write,
            )
            self._profiler.start()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens within the block belongs to `name` of `PARTS`."""
        if self._profiler is None:
            yield
            return
        with record_function(name):
            yield
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

    def step_ended(self) -> str | None:
        """To be called after each step; returns the lines to print where this was the last that is measured."""
        if self._profiler is None:
            return None
        self._steps += 1
        self._profiler.step()
        return self.finish() if self._told is not None else None

    def finish(self) -> str | None:
        """End the measurement, also before its last step; returns the lines to print, None where there are none."""
        if self._profiler is None:
            return None
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        told, self._told = self._told, None
        return told

    def _write(self, profiler: profile) -> None:
        seconds = dict.fromkeys(PARTS, 0.0)
        steps = []
        for event in profiler.events() or ():
            if event.device_type.name != "CPU":
                continue
            if event.name.startswith("ProfilerStep"):
                steps.append((event.time_range.start, event.time_range.elapsed_us() / 1e6))
            elif event.name in seconds:
                seconds[event.name] += event.time_range.elapsed_us() / 1e6
        # What was begun when the measurement was ended early is no step.
        whole = [length for _, length in sorted(steps)][: self._steps - SKIPPED]
        if not whole or self._folder is None:
            return
        profiler.export_chrome_trace(str(self._folder / TRACE))
        sort = f"self_{self._device.type}_time_total"
        (self._folder / TABLE).write_text(profiler.key_averages().table(sort_by=sort, row_limit=40) + "\n")
        shares = ", ".join(f"{name} {seconds[name] / sum(whole):.1%}" for name in PARTS)
        shares += f", rest (sums, scores, checkpoints) {1 - sum(seconds.values()) / sum(whole):.1%}"
        self._told = (
            f"profile of {counted(len(whole), 'step')}, "
            f"{1000 * sum(whole) / len(whole):.1f} ms each while measured: {shares}\n"
            f"trace: {self._folder / TRACE} (chrome://tracing), operators: {self._folder / TABLE}"
        )
