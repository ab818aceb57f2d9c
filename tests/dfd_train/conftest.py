"""Fixtures of the training package's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from frames import textured_frame, write_store

from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.shards.store import open_store

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small gain nothing from a second thread, and two of them suffer badly where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 training and 2 test frames of 48x64 px, each focused at 4 m and at 1 m; not to be changed by a test."""
    return focal_stack(tmp_path_factory.mktemp("stores") / "stack.zarr", train=4, test=2)


@pytest.fixture(scope="session")
def stack_with_val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stack` with two frames more, which are its split val."""
    return focal_stack(tmp_path_factory.mktemp("stores") / "stack.zarr", train=4, test=2, val=2)


def focal_stack(path: Path, **counts: int) -> Path:
    rng = np.random.default_rng(5)
    splits = {name: [textured_frame(rng, 48, 64) for _ in range(count)] for name, count in counts.items()}
    return write_store(path, splits, focus_m=(4.0, 1.0))


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
