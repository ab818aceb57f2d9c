"""A small source and the settings of a small conversion."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.lens import Lens


@dataclass(frozen=True, kw_only=True)
class SmoothSource:
    """Ten random frames, six for training, with smooth depth and a few holes; quicker than a procedural scene."""

    hw: tuple[int, int] = (40, 48)
    kind_of: str = "smooth"
    test_from: int = 3
    kind: ClassVar[str] = "smooth"

    def samples(self):
        names = [f"frame-{i}" for i in range(10)]
        return tuple(
            SampleRef(name=n, scene=n, split="test" if i % 5 >= self.test_from else "train")
            for i, n in enumerate(names)
        )

    def skipped(self):
        return ()

    notes = skipped

    def frame_hw(self):
        return self.hw

    def provenance(self):
        return {"kind": self.kind_of, "hw": list(self.hw)}

    @contextmanager
    def open(self):
        yield self

    def read(self, index):
        rng = np.random.default_rng([index, 11])
        depth = cv2.GaussianBlur(rng.uniform(0, 12, self.hw), (0, 0), 4).astype(np.float32)
        depth[rng.random(self.hw) < 0.05] = 0
        return RgbdFrame(rng.integers(0, 256, (*self.hw, 3), dtype=np.uint8), depth)


def small_settings(**changes):
    """Settings of a conversion of ten 48x40 frames in five shards."""
    defaults = {
        "source": SmoothSource(),
        "lens": Lens.preset("paper"),
        "samples_per_shard": 2,
    }
    return ConversionSettings(**defaults | changes)
