"""Files of a data set's folder: their order, what was left out, what identifies them, which split they are of."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from defocus_sim.datasets.base import SampleRef
from defocus_sim.errors import SourceError
from defocus_sim.progress import one_line

# Up to this many bytes are hashed by content (a few seconds); beyond it names and sizes have to do.
HASHED_BYTES = 2 * 10**9
# The share of the training frames that the data sets with official splits hold out.
VAL_FRACTION = 0.1
# Another stream of random numbers than the test split is drawn from.
_VAL_STREAM = 7
_SCENES_FOR_VAL = 4


T = TypeVar("T")
File = TypeVar("File")


class Skipped(NamedTuple):
    """A file that gives no sample, and why, in one line."""

    name: str
    reason: str


def natural_key(text: str) -> tuple[Any, ...]:
    """Sort key: runs of digits by value (`a2` before `a10`), the rest without regard to case, then the text itself."""
    parts = re.split(r"(\d+)", text)
    return tuple((int(p), "") if i % 2 else (-1, p.casefold()) for i, p in enumerate(parts)), text


def grouped(items: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """`items` by their `key`, in their order."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def printable(name: str) -> str:
    """`name` with bytes that are no UTF-8 and control characters as `\\xe9`: it can be written and shown anywhere."""
    return one_line(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def identity(files: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    """Number, total size and SHA-256 of (name, path) pairs: over names and contents, or names and sizes beyond 2 GB.

    The names are the caller's (relative ones), so that the digest does not depend on where the data lies. Times of
    change are never part of it: a copy is the same data.
    """
    listed = [(name, path, path.stat().st_size) for name, path in files]
    total = sum(size for _, _, size in listed)
    by_content = total <= HASHED_BYTES
    digest = hashlib.sha256()
    for name, path, size in listed:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        if by_content:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    over = "names and contents" if by_content else "names and sizes"
    return {"files": len(listed), "bytes": total, "sha256": digest.hexdigest(), "sha256_over": over}


def looked_at(path: Path, look: Callable[[Path], T]) -> tuple[T | None, str]:
    """What `look` says of a file, or None and why it cannot be used, in one line that names it without its folder."""
    try:
        return look(path), ""
    except (SourceError, OSError) as error:
        if path.is_symlink() and not path.exists():
            reason = f"{path.name} is a link to {os.readlink(path)}, which is not there"
        elif isinstance(error, SourceError):
            reason = str(error).replace(str(path), path.name)
        else:
            reason = f"{path.name} cannot be read: {error.strerror or error}"
        return None, printable(reason)


@dataclass(frozen=True)
class Listing(Generic[File]):
    """What was found: the files of every frame, in the order of frames, and what gives none.

    `notes`: how files were paired where their names did not say it plainly. `hint`: what would pair the others.
    """

    frames: tuple[File, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()
    hint: str = ""


class ListedOnce(ABC, Generic[File]):
    """A source whose files are listed, and looked at, once: the first time that anything asks for them.

    What is found stays with the source and travels with it, so that listing costs no more for many shards than for one.
    """

    @abstractmethod
    def _list(self) -> Listing[File]:
        """List the files and look at each."""

    @cached_property
    def listing(self) -> Listing[File]:
        """What `_list` found."""
        return self._list()

    @cached_property
    def files(self) -> Mapping[int, File]:
        """The files that a reader can be asked for, by the index of their frame."""
        return dict(enumerate(self.listing.frames))

    def narrowed_to(self, frames: Iterable[int]) -> Self:
        """The same source for a reader of `frames` in another process: it brings their files along and no others."""
        part = copy.copy(self)
        part.__dict__.pop("listing", None)
        part.__dict__["files"] = {frame: self.files[frame] for frame in frames}
        return part


class Listed(Protocol):
    """A pair of files, with its split and scene where a list says them."""

    @property
    def name(self) -> str:
        """Unique among the pairs."""
        ...

    @property
    def split(self) -> str | None:
        """ "train", "val", "test", or None."""
        ...

    @property
    def scene(self) -> str | None:
        """None: it is of its own."""
        ...


def samples_of(
    pairs: Sequence[Listed], test: Collection[str] | None, test_fraction: float, val_fraction: float, seed: int
) -> tuple[SampleRef, ...]:
    """`pairs` in their order, each in the split that is said of it; where none is said of any, by the names `test`.

    Where there are none either, `test_fraction` of them are drawn with `seed`; then `val_fraction` of the training, see
    `hold_out_val`. Raises `SourceError` for a scene in two splits, and where a single scene would have to be divided.
    """
    scenes = [pair.scene or pair.name for pair in pairs]
    if any(pair.split for pair in pairs):
        splits = [pair.split or "train" for pair in pairs]
    elif test is not None:
        splits = ["test" if pair.name in test else "train" for pair in pairs]
    else:
        require_divisible(scenes, test_fraction, "--test-fraction")
        drawn = draw_scenes(scenes, test_fraction, seed)
        splits = ["test" if scene in drawn else "train" for scene in scenes]
    together: dict[str, str] = {}
    for scene, split in zip(scenes, splits, strict=True):
        if together.setdefault(scene, split) != split:
            raise SourceError(f"scene {scene} would be in two splits: keep its frames together")
    samples = [SampleRef(name=p.name, scene=c, split=s) for p, c, s in zip(pairs, scenes, splits, strict=True)]
    require_divisible([s.scene for s in samples if s.split == "train"], val_fraction, "--val-fraction")
    return hold_out_val(samples, val_fraction, seed)


def draw_scenes(scenes: Sequence[str], fraction: float, seed: int | Sequence[int]) -> frozenset[str]:
    """A seeded draw of whole scenes until `round(fraction * len(scenes))` frames are held out.

    `scenes` names the scene of every frame. Where `fraction` is neither 0 nor 1 and there are two scenes or more, both
    the split and what is left get one at least. With one frame a scene the fraction is held exactly.
    """
    sizes: dict[str, int] = {}
    for scene in scenes:
        sizes[scene] = sizes.get(scene, 0) + 1
    names = list(sizes)
    wanted = round(fraction * len(scenes))
    both = 0 < fraction < 1 and len(names) >= 2
    chosen: list[str] = []
    frames = 0
    for position in np.random.default_rng(seed).permutation(len(names)).tolist():
        if (frames >= wanted and not (both and not chosen)) or (both and len(chosen) == len(names) - 1):
            break
        chosen.append(names[position])
        frames += sizes[names[position]]
    return frozenset(chosen)


def hold_out_val(samples: Sequence[SampleRef], fraction: float, seed: int) -> tuple[SampleRef, ...]:
    """`samples` in their order, with `fraction` of the training frames in `val`: whole scenes, drawn with `seed`.

    Nothing is moved where there is a validation split already, or where `fraction` comes to less than half a frame of
    fewer than four scenes; of more scenes it is at least one.
    """
    scenes = [sample.scene for sample in samples if sample.split == "train"]
    if len(set(scenes)) == 1 < len(scenes) and fraction < 1:
        # All of it would be gone from the training.
        return tuple(samples)
    few = len(set(scenes)) < _SCENES_FOR_VAL and round(fraction * len(scenes)) == 0
    if few or any(sample.split == "val" for sample in samples):
        return tuple(samples)
    held_out = draw_scenes(scenes, fraction, [seed, _VAL_STREAM])
    return tuple(
        replace(sample, split="val") if sample.split == "train" and sample.scene in held_out else sample
        for sample in samples
    )


def val_note(samples: Sequence[SampleRef], seed: int) -> list[str]:
    """What was held out of the training frames, in a line; none where nothing was."""
    held_out = [sample.scene for sample in samples if sample.split == "val"]
    together = len(held_out) + sum(sample.split == "train" for sample in samples)
    if not held_out:
        return []
    return [
        f"val: {len(held_out)} of the {together} training frames, by scene ({len(set(held_out))} scenes), drawn with "
        f"seed {seed}"
    ]


def require_divisible(scenes: Sequence[str], fraction: float, option: str) -> None:
    """Raises `SourceError` where a part of the frames is wanted and all are of one scene, which stays together."""
    if 0 < fraction < 1 and len(set(scenes)) == 1 < len(scenes):
        raise SourceError(
            f"{option} {fraction:g}: all {len(scenes)} frames are of one scene ({scenes[0]}), which cannot be divided; "
            "name several scenes in a list, or say in its column which frames are train, val and test"
        )


def check_fraction(fraction: float, name: str = "test_fraction") -> None:
    """Raises `SourceError` unless `fraction` lies in 0..1."""
    if not 0 <= fraction <= 1:
        raise SourceError(f"{name}={fraction} must lie in 0..1")
