"""What a model takes of a store: its samples as they are, two focus distances as one sample, or the sharp picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defocus_sim.lens import Lens
from dfd_train.config.model import ModelConfig
from dfd_train.data.stream import Batch, ShardDataset
from dfd_train.errors import ConfigError


class FocusPairs(ShardDataset):
    """One split of a focal stack, a sample for every frame: as focused nearest and as focused farthest.

    As `ShardDataset`, but "defocused" has six channels, the nearest focus first. A frame's samples are those whose names
    are alike before the "@" (`frame@1m`, `frame@4m`). Raises `ConfigError` where a frame has one focus distance only.
    """

    pictures = 2

    def __init__(
        self,
        store: str | Path,
        split: str = "train",
        *,
        samples: Sequence[int] | NDArray[np.int64] | None = None,
        **how: Any,
    ) -> None:
        super().__init__(store, split, samples=samples, **how)
        stacks: dict[str, list[int]] = {}
        for index, name in enumerate(super().names):
            stacks.setdefault(name.rpartition("@")[0] or name, []).append(index)
        focus_m = super().focus_distance_m
        ends = [sorted(stack, key=lambda k: focus_m[k]) for stack in stacks.values()]
        self._ends = np.array([(stack[0], stack[-1]) for stack in ends], dtype=np.int64)
        for frame, (near, far) in zip(stacks, self._ends.tolist(), strict=True):
            if focus_m[near] == focus_m[far]:
                raise ConfigError(
                    f"{self.path}: frame {frame} is there at one focus distance only ({focus_m[near]:g} m), this model "
                    f"compares two: make the store with dfd-prepare ... --focus 1m,4m"
                )
        self._names = tuple(stacks)

    @property
    def names(self) -> tuple[str, ...]:
        """The frames' names in the order of their indices."""
        return self._names

    @property
    def samples_per_shard(self) -> int:
        """How many samples to read together: about as many as are in a shard."""
        together = super().__len__() / max(len(self), 1)
        return max(int(super().samples_per_shard / together), 1)

    @property
    def focus_distance_m(self) -> NDArray[np.float64]:
        """(N,) nearest focus distance of every frame in metres."""
        return super().focus_distance_m[self._ends[:, 0]]

    def stored_index(self, index: int) -> int:
        """The index in the stored split of sample `index` at its nearest focus."""
        return super().stored_index(int(self._ends[index, 0]))

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """The samples `indices` (B,) in that order; raises `ShardCorruptError` for damaged bytes."""
        near, far = self._ends[np.asarray(indices)].T
        first = super().read(near)
        (second,) = self.read_fields(far, ("defocused",))
        return Batch(indices, torch.cat([first.defocused, second], dim=-1), first.aif, first.depth_m)

    def read_depth_m(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, H, W) float32 depth of the frames `indices` in metres, 0 = hole; raises as `read` does."""
        return super().read_depth_m(self._ends[np.asarray(indices), 0])


class SharpInputs(ShardDataset):
    """One split with the all-in-focus picture in place of the defocused one: what a network finds without defocus."""

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """The samples `indices` (B,) in that order; raises `ShardCorruptError` for damaged bytes."""
        aif, depth_m = self.read_fields(indices, ("aif", "depth_m"))
        return Batch(indices, aif, aif, depth_m)


def samples_of(
    model: ModelConfig,
    store: str | Path,
    split: str,
    *,
    samples: NDArray[np.int64] | None = None,
    sharp: bool = False,
    lens: Lens | None = None,
) -> ShardDataset:
    """One split of `store`, or its `samples`, as `model` takes it; raises as the datasets do.

    `sharp`: with the all-in-focus picture in place of the defocused one, which is then not read. `lens`: of the samples of
    which the store does not say theirs.
    """
    if model.about.pictures == 2:
        return FocusPairs(store, split, samples=samples, lens=lens)
    return (SharpInputs if sharp or model.input == "aif" else ShardDataset)(store, split, samples=samples, lens=lens)
