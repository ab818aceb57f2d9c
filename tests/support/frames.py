"""Small stores with known content, made by the project's own conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.lens import Lens


@dataclass(frozen=True)
class FrameSource:
    """Frames in memory; frame k of a split is called `SPLIT-00k`."""

    frames: tuple[tuple[str, RgbdFrame], ...]
    kind: str

    def samples(self) -> tuple[SampleRef, ...]:
        seen: dict[str, int] = {}
        refs = []
        for split, _ in self.frames:
            name = f"{split}-{seen.setdefault(split, 0):03d}"
            seen[split] += 1
            refs.append(SampleRef(name=name, scene=name, split=split))
        return tuple(refs)

    def frame_hw(self) -> tuple[int, int]:
        return self.frames[0][1].depth_m.shape

    def provenance(self) -> dict[str, Any]:
        return {"kind": self.kind, "depth_sum": sum(float(frame.depth_m.sum()) for _, frame in self.frames)}

    @contextmanager
    def open(self) -> Iterator[FrameSource]:
        yield self

    def read(self, index: int) -> RgbdFrame:
        return self.frames[index][1]


def textured_frame(rng: np.random.Generator, height: int, width: int) -> RgbdFrame:
    """A slanted plane under blocks of colour, 1 to 5 m away, with a hole in one corner."""
    blocks = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    depth = 1 + 4 * (rng.uniform(0.2, 1) * x / width + rng.uniform(0.2, 1) * y / height) / 2
    depth[: height // 6, : width // 5] = 0
    return RgbdFrame(blocks.repeat(4, 0).repeat(4, 1)[:height, :width].copy(), depth.astype(np.float32))


def write_store(
    path: Path,
    splits: Mapping[str, Sequence[RgbdFrame]],
    kind: str = "synthetic",
    aperture_mm: float = 200.0,
    focus_m: tuple[float, ...] = (2.0,),
) -> Path:
    """A finished store of these frames, four samples a shard; the lens is wide, as a CoC shrinks with the frame."""
    source = FrameSource(tuple((split, frame) for split, frames in splits.items() for frame in frames), kind)
    lens = Lens.preset("paper", aperture_mm=aperture_mm)
    convert(ConversionSettings(source=source, lens=lens, focus_distances_m=focus_m, samples_per_shard=4), path)
    return path
