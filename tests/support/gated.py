"""Sources whose reading can be watched, held up and made to fail; importable by workers (PYTHONPATH=tests)."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sources import SmoothSource

from defocus_sim.errors import SourceError


@dataclass(frozen=True, kw_only=True)
class GatedSource(SmoothSource):
    """`SmoothSource` that leaves the reader's process id in `gate` at frame `at` and waits there for the file `open`."""

    gate: Path
    at: int = 5
    kind: ClassVar[str] = "gated"

    def read(self, index):
        if index == self.at:
            (self.gate / f"reader-{os.getpid()}").touch()
            for _ in range(3000):
                if (self.gate / "open").exists():
                    break
                time.sleep(0.01)
        return super().read(index)


@dataclass(frozen=True, kw_only=True)
class TornSource(SmoothSource):
    """`SmoothSource` whose frame 5 cannot be read."""

    def read(self, index):
        if index == 5:
            raise SourceError("frame 5 is torn")
        return super().read(index)


@dataclass(frozen=True, kw_only=True)
class DeadlySource(SmoothSource):
    """`SmoothSource` whose frame 5 kills its reader."""

    def read(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)
