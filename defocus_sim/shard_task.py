"""The work of one conversion task: read frames, blur them, write one shard of every array, leave a marker.

Idempotent: run twice, or twice at once, it leaves the same bytes. It needs this package and the places by name, nothing
else, so that it runs in a thread, in another process or on another machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.conversion_plan import ConversionSettings, PlannedSample
from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.errors import (
    ConversionInterruptedError,
    ConversionTakenOverError,
    ConvertError,
    DepthError,
    ImageError,
    LensError,
    SourceError,
)
from defocus_sim.lens import Lens, coc_diameter_px
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import ShardFile, digest
from defocus_sim.shards.read import STATE_FOLDER
from defocus_sim.shards.storage import Storage, storage_at
from defocus_sim.shards.write import write_shard
from defocus_sim.simulate import defocus
from defocus_sim.stages import StageClock

OnError = Literal["fail", "skip"]

# Holds the token of the conversion at work, which every task compares with its own: the only word that reaches a task
# on another machine when its conversion was interrupted or begun anew.
RUN = f"{STATE_FOLDER}/run"
_SECONDS_BETWEEN_LOOKS = 0.25

# Who wants to hear of each finished sample, by token; says whether to go on. Only a task in the process of the caller
# finds its token here: tasks elsewhere are followed by shard.
WATCHERS: dict[str, Callable[[], bool]] = {}


@dataclass(frozen=True)
class BadFrame:
    """A frame that could not be used. `frame`: its index in the source."""

    frame: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Shard `index` of `split`: `samples` of `settings`, in the store at `place`.

    `fingerprint`: SHA-256 of the settings with the source's checksums. `token`: of the conversion, see `RUN`, `WATCHERS`.
    """

    settings: ConversionSettings
    place: str
    split: str
    index: int
    samples: tuple[PlannedSample, ...]
    on_error: OnError
    fingerprint: str
    token: str

    @property
    def marker(self) -> str:
        """Name of the file that says that the shard is done."""
        return f"{STATE_FOLDER}/{self.split}-{self.index}.json"

    @property
    def plan(self) -> str:
        """Checksum of what the shard is to hold: a marker of another plan does not count."""
        return digest([self.fingerprint, *(asdict(sample) for sample in self.samples)])


@dataclass(frozen=True)
class ShardResult:
    """What a finished shard adds to the manifest: its files, and statistics of each sample. `seconds`: by stage."""

    files: dict[str, ShardFile]
    samples: list[dict[str, float]]
    seconds: dict[str, float]


class _BadFramesError(Exception):
    """Ends the writing of a shard that cannot be complete."""


def run_shard(task: ShardTask) -> list[BadFrame]:
    """Do the task; returns the frames that cannot be used (then no shard is written), none when all is well.

    With `on_error="fail"` the first such frame raises its error, which names it.
    """
    # Parallel at one level only: the tasks are the threads.
    cv2.setNumThreads(1)
    storage = storage_at(task.place)
    statistics: list[dict[str, float]] = []
    bad: list[BadFrame] = []
    settings, clock = task.settings, StageClock()
    try:
        files = write_shard(
            storage,
            task.split,
            task.index,
            _render(task, storage, clock, statistics, bad),
            settings.samples_per_shard,
            settings.compression,
            clock,
        )
    except _BadFramesError:
        return bad
    content = {
        "plan": task.plan,
        "files": {name: asdict(file) for name, file in files.items()},
        "samples": statistics,
        "seconds": clock.seconds,
    }
    storage.write(task.marker, json.dumps(content | {"checksum": digest(content)}).encode())
    return []


def owner(storage: Storage) -> str | None:
    """The token of the conversion at work in `storage`, None where there is none."""
    try:
        return storage.read(RUN).decode("ascii", "replace")
    except FileNotFoundError:
        return None


def finished_shard(task: ShardTask, sizes: Mapping[str, int]) -> ShardResult | None:
    """What the task's marker says, where it is there, of this plan, and the files have their sizes; else None.

    `sizes`: the storage's listing.
    """
    if task.marker not in sizes:
        return None
    try:
        content = json.loads(storage_at(task.place).read(task.marker))
        checksum = content.pop("checksum")
        if content["plan"] != task.plan or checksum != digest(content):
            return None
        files = {name: ShardFile(**file) for name, file in content["files"].items()}
        result = ShardResult(files, content["samples"], content["seconds"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    names = {name: ARRAYS[name].shard_name(task.split, task.index) for name in files}
    return result if all(sizes.get(names[name]) == file.bytes for name, file in files.items()) else None


def _render(
    task: ShardTask, storage: Storage, clock: StageClock, statistics: list[dict[str, float]], bad: list[BadFrame]
) -> Iterator[dict[str, NDArray[Any]]]:
    settings, lenses = task.settings, task.settings.lenses
    _check_owner(storage, task)
    looked = time.monotonic()
    with settings.source.open() as reader:
        current, frame = -1, None
        for sample in task.samples:
            watcher = WATCHERS.get(task.token)
            if any(one.frame == sample.frame for one in bad):
                continue
            try:
                if frame is None or sample.frame != current:
                    with clock.stage("read"):
                        current, frame = sample.frame, reader.read(sample.frame)
                seed = (settings.seed, sample.frame, sample.lens)
                with clock.stage("blur"):
                    arrays, facts = render_sample(settings, frame, lenses[sample.lens], seed)
            except (SourceError, DepthError, ImageError, LensError) as error:
                if task.on_error == "fail":
                    if isinstance(error, SourceError):
                        raise
                    raise ConvertError(f"frame {sample.name}: {error}") from error
                bad.append(BadFrame(sample.frame, sample.name, str(error)))
                continue
            statistics.append(facts)
            yield arrays
            if watcher is not None and not watcher():
                raise ConversionInterruptedError("interrupted")
            if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                _check_owner(storage, task)
                looked = time.monotonic()
    if bad:
        raise _BadFramesError
    # The last look: after it the files get their names.
    _check_owner(storage, task)


def _check_owner(storage: Storage, task: ShardTask) -> None:
    if owner(storage) != task.token:
        raise ConversionTakenOverError(
            f"{task.place} no longer belongs to this conversion: it has ended, another has begun there, or a worker does "
            "not see the same files"
        )


def render_sample(
    settings: ConversionSettings, frame: RgbdFrame, lens: Lens, seed: tuple[int, ...]
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """One triple as it is stored, by array name, and its statistics. Raises what `defocus` raises."""
    height, width = frame.depth_m.shape
    if (frame.depth_m <= 0).all():
        raise DepthError("its depth has no valid pixel")
    lens = lens.for_depth(frame.depth_m, width)
    blurred = defocus(frame.aif, frame.depth_m, lens, **vars(settings.rendering), rng=np.random.default_rng(seed))
    arrays: dict[str, NDArray[Any]] = {"defocused": blurred, "aif": frame.aif, "depth_m": frame.depth_m}
    if settings.size_hw is not None and settings.size_hw != (height, width):
        arrays = {name: _resize(array, settings.size_hw) for name, array in arrays.items()}
    # The signed CoC grows with depth: its range follows from the range of depth.
    depth_range_m = [frame.depth_m.min(where=frame.depth_m > 0, initial=np.inf), frame.depth_m.max()]
    nearest, farthest = coc_diameter_px(depth_range_m, lens, width_px=width)
    squares = cv2.norm(arrays["defocused"], arrays["aif"], cv2.NORM_L2SQR)
    facts = {
        "coc_min_px": float(nearest),
        "coc_max_px": float(farthest),
        "mse": squares / arrays["aif"].size / 255**2,
        "focus_distance_m": lens.focus_distance_m,
        "aperture_mm": lens.aperture_diameter_m * 1e3,
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, facts


def _resize(array: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    # Depth is never averaged: the mean of a near and a far surface is a place where nothing is.
    method = cv2.INTER_AREA if array.dtype == np.uint8 else cv2.INTER_NEAREST_EXACT
    return cv2.resize(array, size_hw[::-1], interpolation=method)
