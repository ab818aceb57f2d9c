"""The work of one conversion task: read frames, blur them, write one shard of every array, leave a marker.

Idempotent: run twice, it writes the same bytes. It needs this package and the paths, nothing else, so that it runs in a
thread, in another process or on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.conversion_plan import ConversionSettings, PlannedSample
from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.errors import ConversionInterruptedError, ConvertError, DepthError, ImageError, LensError
from defocus_sim.lens import Lens, coc_diameter_px
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import ShardFile
from defocus_sim.shards.write import write_bytes, write_shard
from defocus_sim.simulate import defocus

MARKERS = ".markers"

# Who wants to hear of each finished sample, by token; says whether to go on. Only a task in the process of the caller
# finds its token here: tasks elsewhere are followed by shard.
WATCHERS: dict[str, Callable[[], bool]] = {}


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Shard `index` of `split`: `samples` of `settings`, below `root`. `token`: see `WATCHERS`."""

    settings: ConversionSettings
    root: Path
    split: str
    index: int
    samples: tuple[PlannedSample, ...]
    token: str

    @property
    def marker(self) -> Path:
        """The file that says that the shard is done."""
        return self.root / MARKERS / f"{self.split}-{self.index}.json"


@dataclass(frozen=True)
class ShardResult:
    """What a finished shard adds to the manifest: its files, and statistics of each sample."""

    files: dict[str, ShardFile]
    samples: list[dict[str, float]]


def run_shard(task: ShardTask) -> None:
    """Do the task; raises what reading or blurring a frame raises, as an error that names the frame."""
    # Parallel at one level only: the tasks are the threads.
    cv2.setNumThreads(1)
    statistics: list[dict[str, float]] = []
    files = write_shard(
        task.root,
        task.split,
        task.index,
        _render(task, statistics),
        task.settings.samples_per_shard,
        task.settings.compression,
    )
    content = {"files": {name: asdict(file) for name, file in files.items()}, "samples": statistics}
    write_bytes(task.marker, json.dumps(content).encode())


def finished_shard(task: ShardTask) -> ShardResult | None:
    """What the task's marker says, where it is there and the files have their sizes; else None: to be done again."""
    try:
        content = json.loads(task.marker.read_bytes())
        files = {name: ShardFile(**file) for name, file in content["files"].items()}
        for name, file in files.items():
            if ARRAYS[name].shard_path(task.root, task.split, task.index).stat().st_size != file.bytes:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ShardResult(files, content["samples"])


def _render(task: ShardTask, statistics: list[dict[str, float]]) -> Iterator[dict[str, NDArray[Any]]]:
    settings, lenses = task.settings, task.settings.lenses
    with settings.source.open() as reader:
        current, frame = -1, None
        for sample in task.samples:
            if frame is None or sample.frame != current:
                current, frame = sample.frame, reader.read(sample.frame)
            try:
                arrays, facts = render_sample(
                    settings, frame, lenses[sample.lens], (settings.seed, current, sample.lens)
                )
            except (DepthError, ImageError, LensError) as error:
                raise ConvertError(f"frame {sample.name}: {error}") from error
            statistics.append(facts)
            yield arrays
            watcher = WATCHERS.get(task.token)
            if watcher is not None and not watcher():
                raise ConversionInterruptedError("interrupted")


def render_sample(
    settings: ConversionSettings, frame: RgbdFrame, lens: Lens, seed: tuple[int, ...]
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """One triple as it is stored, by array name, and its statistics. Raises what `defocus` raises."""
    height, width = frame.depth_m.shape
    lens = lens.for_depth(frame.depth_m, width)
    blurred = defocus(frame.aif, frame.depth_m, lens, **vars(settings.rendering), rng=np.random.default_rng(seed))
    arrays = {"defocused": blurred, "aif": frame.aif, "depth_m": frame.depth_m}
    if settings.size_hw not in (None, (height, width)):
        arrays = {name: _resize(array, settings.size_hw) for name, array in arrays.items()}
    valid = frame.depth_m[frame.depth_m > 0]
    # The signed CoC grows with depth: its range follows from the range of depth.
    nearest, farthest = coc_diameter_px([valid.min(), valid.max()], lens, width_px=width)
    difference = arrays["defocused"].astype(np.float32) - arrays["aif"]
    facts = {
        "coc_min_px": float(nearest),
        "coc_max_px": float(farthest),
        "mse": float(np.mean(np.square(difference, dtype=np.float64))) / 255**2,
        "focus_distance_m": lens.focus_distance_m,
        "aperture_mm": lens.aperture_diameter_m * 1e3,
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, facts


def _resize(array: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    # Depth is never averaged: the mean of a near and a far surface is a place where nothing is.
    method = cv2.INTER_AREA if array.dtype == np.uint8 else cv2.INTER_NEAREST_EXACT
    return cv2.resize(array, size_hw[::-1], interpolation=method)
