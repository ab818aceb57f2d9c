"""Small stores with known content, made by the project's own conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.lens import Lens
from defocus_sim.shards.store import open_store

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small gain nothing from a second thread, and two of them suffer badly where cores are shared."""
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 training and 5 test samples of 48x64 px with holes; not to be changed by a test."""
    rng = np.random.default_rng(0)
    splits = {name: [textured_frame(rng, 48, 64) for _ in range(count)] for name, count in (("train", 10), ("test", 5))}
    return write_store(tmp_path_factory.mktemp("stores") / "small.zarr", splits)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 training and 2 test frames of 48x64 px, each focused at 4 m and at 1 m; not to be changed by a test."""
    rng = np.random.default_rng(5)
    splits = {name: [textured_frame(rng, 48, 64) for _ in range(count)] for name, count in (("train", 4), ("test", 2))}
    return write_store(tmp_path_factory.mktemp("stores") / "stack.zarr", splits, focus_m=(4.0, 1.0))


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """The function `write_store`, which tests cannot import from here."""
    return write_store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """A function (splits, kind, aperture_mm) -> path of a new store of this test."""

    def make(splits: Mapping[str, Sequence[RgbdFrame]], kind: str = "synthetic", aperture_mm: float = 200.0) -> Path:
        return write_store(tmp_path / "own.zarr", splits, kind, aperture_mm)

    return make


@pytest.fixture
def stored(store: Path) -> Arrays:
    """All training samples of `store` as one batch of arrays."""
    split = open_store(store).split("train")
    return split.read(range(len(split)))


@pytest.fixture(scope="session")
def textured() -> Callable[..., RgbdFrame]:
    """The function `textured_frame`, which tests cannot import from here."""
    return textured_frame
