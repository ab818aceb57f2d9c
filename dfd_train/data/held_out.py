"""What a run trains on and what it is watched on: the store's `val` split, or a part of `train` held out for it.

The test split is never looked at here: whatever is chosen during training is chosen on other pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defocus_sim.lens import Lens
from defocus_sim.progress import counted
from dfd_train.config.model import ModelConfig
from dfd_train.data.focus_pairs import samples_of
from dfd_train.data.stream import ShardDataset

# The same whatever the run's seed, so that runs of several seeds are watched on the same pictures.
_SEED = (0, 7)
_FEWEST_SCENES = 4


@dataclass(frozen=True, kw_only=True)
class Divided:
    """`train`: what is trained on. `val`: what scores are taken on, None for nothing. `told`: how that came, in a line."""

    train: ShardDataset
    val: ShardDataset | None
    told: str


def train_and_val(
    model: ModelConfig, store: str | Path, val_fraction: float, *, sharp_train: bool = False, lens: Lens | None = None
) -> Divided:
    """The training and validation samples of `store` as `model` takes them.

    `val` is the store's own split where it has one. Else it is `val_fraction` of the training samples, whole scenes
    drawn with a fixed seed, at least one scene; nothing with `val_fraction=0` or fewer than four scenes.
    `sharp_train`: training blurs by itself and needs no defocused pictures. `lens`: of the samples of which the store does
    not say theirs. Raises as the datasets do.
    """
    train = samples_of(model, store, "train", sharp=sharp_train, lens=lens)
    if "val" in train.store.split_names:
        val = samples_of(model, store, "val", lens=lens)
        return Divided(train=train, val=val, told=f"validation: the store's val split, {counted(len(val), 'sample')}")
    scenes = train.split.scenes
    if val_fraction == 0 or len(set(scenes)) < _FEWEST_SCENES:
        why = "--val-fraction 0" if val_fraction == 0 else f"fewer than {_FEWEST_SCENES} training scenes"
        return Divided(train=train, val=None, told=f"validation: none, the store has no val split ({why})")
    held_out = _drawn(scenes, val_fraction)
    chosen = np.array([scene in held_out for scene in scenes])
    kept = samples_of(model, store, "train", samples=np.flatnonzero(~chosen), sharp=sharp_train, lens=lens)
    val = samples_of(model, store, "train", samples=np.flatnonzero(chosen), lens=lens)
    told = (
        f"validation: the store has no val split, {len(val)} of its {len(kept) + len(val)} training samples "
        f"({counted(len(held_out), 'scene')}, drawn with a fixed seed) are held out for it; --val-fraction 0 trains on all"
    )
    return Divided(train=kept, val=val, told=told)


def _drawn(scenes: Sequence[str], fraction: float) -> frozenset[str]:
    """Whole scenes until `fraction` of the samples is in them; one at least, and one at least stays."""
    names, counts = np.unique(np.array(scenes), return_counts=True)
    order: NDArray[np.int64] = np.random.default_rng(_SEED).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    number = int(np.sum(before < round(fraction * len(scenes))))
    return frozenset(names[order[: min(max(number, 1), len(names) - 1)]].tolist())
