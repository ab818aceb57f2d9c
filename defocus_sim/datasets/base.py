"""What every RGB-D source is: a picklable description that lists its samples and opens a reader of frames.

A source holds paths and options only, so that a conversion task on another thread or machine can be handed the source
and open it there. Splits are decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

# Weights are fitted on `train`, everything else is chosen on `val`, and `test` is for the last word.
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class SampleRef:
    """One frame of a source, before anything is read.

    `name` is unique in the source; frames that share a `scene` must not be divided between splits; `split` is one of
    `SPLITS`.
    """

    name: str
    scene: str
    split: str


@dataclass(frozen=True)
class RgbdFrame:
    """One all-in-focus image with its depth.

    `aif`: (H, W, 3) uint8 sRGB. `depth_m`: (H, W) float32 metres, 0 = hole (never negative, never non-finite).
    `defocused`: as `aif`, where a camera took it and nothing is to be simulated; depth may be all holes then. `found`:
    JSON-ready facts about such a pair, for the manifest. `notes`: what a user should know about its depth.
    """

    aif: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    defocused: NDArray[np.uint8] | None = None
    found: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


class FrameReader(Protocol):
    """An open source; not shared between threads."""

    def read(self, index: int) -> RgbdFrame:
        """Frame `index` of the source's `samples()`; raises `SourceError` naming the frame where it cannot be read."""
        ...


class RgbdSource(Protocol):
    """A data set of frames of one size. One whose frames come with their defocused picture has `measured = True`.

    One that must look at its files to know its frames does so once, and has `narrowed_to(frames)`: the source with what
    a reader of these frames needs, for a task in another process (`listing.ListedOnce`).
    """

    kind: ClassVar[str]

    def samples(self) -> tuple[SampleRef, ...]:
        """Every frame in a fixed order; raises `SourceError` where the data set is not what it should be."""
        ...

    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of everything that was found and gives no sample."""
        ...

    def notes(self) -> Sequence[str]:
        """What a user should know about the frames, a line each."""
        ...

    def frame_hw(self) -> tuple[int, int]:
        """Height and width in pixels of every frame; raises `SourceError` where they differ."""
        ...

    def provenance(self) -> dict[str, Any]:
        """JSON-ready facts that identify the data and options: kind, files, checksums, crop."""
        ...

    def open(self) -> AbstractContextManager[FrameReader]:
        """A reader for one thread."""
        ...


def depth_with_holes(depth_m: NDArray[Any]) -> NDArray[np.float32]:
    """A depth map with every invalid value (<= 0, NaN, infinite) set to 0.

    Parameters
    ----------
    depth_m
        Any shape and float type, metres.

    Returns
    -------
    NDArray[np.float32]
        Contiguous float32 of the same shape; may be `depth_m` itself.
    """
    depth = np.ascontiguousarray(depth_m, dtype=np.float32)
    if depth.size and depth.min() > 0 and depth.max() < np.inf:
        # Nothing to do; a NaN would have been both.
        return depth
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
