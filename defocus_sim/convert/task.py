"""The work of one conversion task: read frames, blur them, write one shard of every array, leave a marker.

Idempotent: run twice, or twice at once, it leaves the same bytes. It needs this package and the places by name, nothing
else, so that it runs in a thread, in another process or on another machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from defocus_sim.convert.plan import ConversionSettings, PlannedSample
from defocus_sim.convert.sample import BadFrame, MadeSample, OnError, sample_maker
from defocus_sim.errors import ConversionTakenOverError, parse_json
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import ShardFile, digest
from defocus_sim.shards.storage import Storage, storage_at
from defocus_sim.shards.store import STATE_FOLDER
from defocus_sim.shards.timing import StageClock
from defocus_sim.shards.write import write_encoded_shard

# Holds the token of the conversion at work, which every task compares with its own: the only word that reaches a task
# on another machine when its conversion was interrupted or begun anew.
RUN = f"{STATE_FOLDER}/run"
_SECONDS_BETWEEN_LOOKS = 0.25

Made = MadeSample | BadFrame
# The samples of a shard made, in order.
Making = Callable[[Sequence[PlannedSample]], Iterator[Made]]


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Shard `index` of `split`: `samples` of `settings`, in the store at `place`.

    `fingerprint`: SHA-256 of the settings with the source's checksums. `token`: of the conversion, see `RUN`.
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
    samples: list[dict[str, Any]]
    seconds: dict[str, float]


class _BadFramesError(Exception):
    """Ends the writing of a shard that cannot be complete."""


def run_shard(task: ShardTask, making: Making | None = None) -> list[BadFrame]:
    """Do the task; returns the frames that cannot be used (then no shard is written), none when all is well.

    `making`: who makes the samples; by default the calling thread does, and holds one in memory and not more. With
    `on_error="fail"` the first frame that cannot be used raises its error, which names it.
    """
    storage = storage_at(task.place)
    statistics: list[dict[str, Any]] = []
    bad: list[BadFrame] = []
    clock = StageClock()
    # Before a file is begun: the place may be another conversion's, which is about to give it its name.
    _check_owner(storage, task)
    try:
        files = write_encoded_shard(
            storage,
            task.split,
            task.index,
            _written(task, storage, clock, statistics, bad, making or _one_by_one(task)),
            task.settings.samples_per_shard,
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
        content = parse_json(storage_at(task.place).read(task.marker))
        checksum = content.pop("checksum")
        if content["plan"] != task.plan or checksum != digest(content):
            return None
        files = {name: ShardFile(**file) for name, file in content["files"].items()}
        if not all("blurred_hw" in facts for facts in content["samples"]):
            # Of an earlier version, which did not write down what the manifest needs.
            return None
        result = ShardResult(files, content["samples"], content["seconds"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    names = {name: ARRAYS[name].shard_name(task.split, task.index) for name in files}
    return result if all(sizes.get(names[name]) == file.bytes for name, file in files.items()) else None


def _one_by_one(task: ShardTask) -> Making:
    def making(samples: Sequence[PlannedSample]) -> Iterator[Made]:
        with sample_maker(task.settings, task.on_error) as make:
            yield from map(make, samples)

    return making


def _written(
    task: ShardTask,
    storage: Storage,
    clock: StageClock,
    statistics: list[dict[str, Any]],
    bad: list[BadFrame],
    making: Making,
) -> Iterator[dict[str, bytes]]:
    """The samples of the shard in order, each to be written before the next is asked for."""
    looked = time.monotonic()
    for made in making(task.samples):
        if isinstance(made, BadFrame):
            bad += [] if any(one.frame == made.frame for one in bad) else [made]
            continue
        clock.add(made.seconds)
        statistics.append(made.facts)
        yield made.chunks
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
