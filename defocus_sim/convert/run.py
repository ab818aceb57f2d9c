"""A source to a finished shard store: plan, one idempotent task per shard, finalise.

Locally the store is built in `OUT.partial` and becomes `OUT` by one rename, so that `OUT` is either absent, or the earlier
store, or complete; in an object store, which cannot rename, the manifest that is written last does the same. What is
done is known by markers (`conversion_state`); resuming trusts them only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from defocus_sim.convert.place import check_apart
from defocus_sim.convert.plan import ConversionSettings, PlannedSample, plan_samples, settings_digest
from defocus_sim.convert.pool import run_in_processes, run_in_threads
from defocus_sim.convert.sample import BadFrame, OnError
from defocus_sim.convert.state import ConversionState, failed_write, finished_manifest
from defocus_sim.convert.task import ShardTask
from defocus_sim.datasets.base import SampleRef
from defocus_sim.errors import (
    ConversionInterruptedError,
    ConversionTakenOverError,
    ConvertError,
    DefocusSimError,
    SourceError,
    StorageTimeoutError,
)
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.store import ShardStore, open_store
from defocus_sim.shards.timing import StageClock, add_up
from defocus_sim.simulate import compile_kernels

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """A finished conversion: the open store and the seconds it took, without those to compile kernels.

    `planning_seconds`: of them, until the samples of every shard were known: the files listed and looked at.
    `stage_seconds`: what all workers together spent on reading, blurring, encoding and writing; none where nothing was left
    to do.
    """

    store: ShardStore
    seconds: float
    planning_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the tasks.

    `count`: threads of this process (default: one a core), which is fastest on one machine, as kernels and codecs
    release the GIL; with `processes`, that many processes of one thread. Neither opens a socket.
    `scheduler`: address of a dask.distributed scheduler instead, whose workers see the same paths. `announce`: called
    with the link of the scheduler's dashboard.
    """

    count: int | None = None
    processes: bool = False
    scheduler: str | None = None
    announce: Callable[[str], None] | None = None

    @property
    def number(self) -> int:
        """How many threads or processes, where it is not a cluster that decides."""
        return self.count or len(os.sched_getaffinity(0))

    @property
    def in_process(self) -> bool:
        """Whether it is threads of this process."""
        return self.scheduler is None and not self.processes


def convert(
    settings: ConversionSettings,
    out: str | Path,
    *,
    workers: Workers | int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_error: OnError = "fail",
    on_progress: Progress | None = None,
    clock: StageClock | None = None,
) -> Conversion:
    """Write the triples of a source as a shard store.

    Parameters
    ----------
    settings
        What is to be made of which source.
    out
        A path or an fsspec URL (`s3://bucket/nyu.zarr`).
    workers
        Who does it; a number means that many threads.
    resume
        Continue an unfinished conversion of the same settings; nothing happens where it is finished.
    overwrite
        Replace a store (locally the old one stays until the new one is complete).
    on_error
        "fail" at the first frame that cannot be used, or "skip" such frames and list them in the manifest.
    on_progress
        Called with the samples done and all, from worker threads.
    clock
        Gets the seconds that every stage of those samples took, before that call, where it is threads of this process that
        make them.

    Returns
    -------
    Conversion
        The open store, and what it took.

    Raises
    ------
    ConvertError
        For the target, changed settings, or a failed write.
    ConversionInterruptedError
        Where it was interrupted; before the first shard is complete nothing is left behind.
    DefocusSimError
        Whatever the source, the lens or the blur find wrong with their input.
    """
    started = time.monotonic()
    who = workers if isinstance(workers, Workers) else Workers(count=workers)
    state = ConversionState(out)
    tasks: list[ShardTask] = []
    if who.scheduler is not None:
        settings = _with_absolute_paths(settings)
    try:
        check_apart(out, _paths(settings.source).values(), staged=False)
        state.check_target(resume=resume, overwrite=overwrite)
        description, samples = _planned(settings)
        planning_seconds = time.monotonic() - started
        if resume and state.is_finished():
            state.publish(description)
            return Conversion(open_store(out), time.monotonic() - started, planning_seconds)
        if who.scheduler is None:
            started += _compile(settings)
        skipped = state.begin(description, resume=resume)
        while True:
            planned = plan_samples(samples, settings.lenses, {bad.frame for bad in skipped}, settings.limit)
            tasks = _tasks(settings, who, planned, state, settings_digest(description), on_error)
            todo = state.unfinished(tasks)
            total, left = (sum(len(task.samples) for task in some) for some in (tasks, todo))
            found = _run(todo, who, _counting(total - left, total, on_progress), state.release, clock)
            if not found:
                break
            # Named as the source does: a focal stack has several samples of one frame, maybe in several shards.
            found = [replace(bad, name=samples[bad.frame].name) for bad in found]
            skipped = state.add_skipped(skipped, found)
        state.check_owner()
        state.write_skeleton({split: len(content) for split, content in planned.items()}, settings, description)
        results = state.results(tasks)
        state.write_manifest(finished_manifest(settings, description, results, skipped))
        state.publish(description)
    except (DefocusSimError, OSError, KeyboardInterrupt) as error:
        raise _explain(error, state, tasks) from error
    stage_seconds = add_up(result.seconds for _, result in results)
    return Conversion(open_store(out), time.monotonic() - started, planning_seconds, stage_seconds)


def _planned(settings: ConversionSettings) -> tuple[dict[str, Any], tuple[SampleRef, ...]]:
    """What is to be made of which samples; raises `SourceError` where the source cannot be read."""
    try:
        return settings.to_json(), settings.source.samples()
    except OSError as error:
        if isinstance(error, DefocusSimError):
            raise
        where = "the source" if error.filename is None else os.fsdecode(error.filename)
        raise SourceError(f"reading {where} failed: {error.strerror or error}") from error


def _compile(settings: ConversionSettings) -> float:
    """Compile here what workers would at their first sample, where an interrupt had to wait for it; returns the seconds."""
    began = time.monotonic()
    if not settings.measured:
        compile_kernels(settings.rendering)
    # A source may have kernels of its own.
    with settings.source.open():
        return time.monotonic() - began


def _tasks(
    settings: ConversionSettings,
    who: Workers,
    planned: dict[str, tuple[PlannedSample, ...]],
    state: ConversionState,
    fingerprint: str,
    on_error: OnError,
) -> list[ShardTask]:
    return [
        ShardTask(
            settings=settings if who.in_process else _narrowed(settings, samples[shard.start : shard.stop]),
            # Workers elsewhere have a current folder of their own.
            place=os.path.abspath(state.place) if state.final.renames else state.place,
            split=split,
            index=shard.index,
            samples=samples[shard.start : shard.stop],
            on_error=on_error,
            fingerprint=fingerprint,
            token=state.run,
        )
        for split, samples in planned.items()
        for shard in plan_shards(len(samples), settings.samples_per_shard)
    ]


def _narrowed(settings: ConversionSettings, samples: Sequence[PlannedSample]) -> ConversionSettings:
    """The settings for a task in another process, where the listing of a whole source would travel with every task."""
    narrowed_to = getattr(settings.source, "narrowed_to", None)
    if narrowed_to is None:
        return settings
    return replace(settings, source=narrowed_to(dict.fromkeys(sample.frame for sample in samples)))


def _with_absolute_paths(settings: ConversionSettings) -> ConversionSettings:
    """The same settings for a process with another current folder."""
    source, paths = settings.source, _paths(settings.source)
    if not is_dataclass(source) or isinstance(source, type):
        return settings
    return replace(settings, source=replace(source, **{name: path.absolute() for name, path in paths.items()}))


def _paths(source: Any) -> dict[str, Path]:
    """The files and folders that a source is made from, by the name of its field."""
    return {name: value for name, value in getattr(source, "__dict__", {}).items() if isinstance(value, Path)}


def _counting(done: int, total: int, on_progress: Progress | None) -> Callable[[int], None]:
    """A function to tell of so many samples more that are done; not for several threads at once."""

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if on_progress is not None:
            on_progress(done, total)

    advance(0)
    return advance


def _run(
    tasks: list[ShardTask],
    who: Workers,
    advance: Callable[[int], None],
    release: Callable[[], None],
    clock: StageClock | None,
) -> list[BadFrame]:
    """Do the tasks; returns the frames that could not be used. `release` tells tasks in other processes to end."""
    if not tasks:
        return []
    if who.in_process:
        return run_in_threads(tasks, who.number, lambda: advance(1), release, clock)

    def on_shard(task: ShardTask) -> None:
        advance(len(task.samples))

    if who.scheduler is None:
        return run_in_processes(tasks, who.number, on_shard, release)
    # A second that only a cluster's conversion has to wait for.
    from defocus_sim.convert.cluster import run_on_cluster

    return run_on_cluster(tasks, who.scheduler, who.announce, on_shard, release)


def _explain(error: BaseException, state: ConversionState, tasks: list[ShardTask]) -> DefocusSimError:
    """The error to raise, with what is left and how to go on; an attempt that finished no shard leaves nothing."""
    if isinstance(error, StorageTimeoutError):
        # It is not asked what it has.
        return StorageTimeoutError(f"{error}; what is finished is kept, continue with --resume")
    if isinstance(error, OSError) and state.taken_over:
        # Its files were renamed under its hands.
        return ConversionTakenOverError(f"another conversion has begun at {state.place}: it goes on, this one ends")
    if isinstance(error, FileNotFoundError) and state.is_inside(error.filename) and state.is_gone:
        # Between two of another's renames there is no folder to ask whose it is.
        return ConversionTakenOverError(
            f"{state.place} no longer belongs to this conversion: another has begun or ended there, or it was removed"
        )
    kept = state.clean_up(tasks)
    rest = f"; {kept} of {len(tasks)} shards are kept, continue with --resume" if kept else ""
    if isinstance(error, KeyboardInterrupt | ConversionInterruptedError):
        return ConversionInterruptedError(f"interrupted{rest or '; nothing is left behind'}")
    if isinstance(error, DefocusSimError):
        return type(error)(f"{error}{rest}")
    return ConvertError(failed_write(state.place, error) + rest)
