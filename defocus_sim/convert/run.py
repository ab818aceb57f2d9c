"""A source to a finished shard store: plan, one idempotent dask task per shard, finalise. The only file with dask.

Locally the store is built in `OUT.partial` and becomes `OUT` by one rename, so that `OUT` is either absent, or the earlier
store, or complete; in an object store, which cannot rename, the manifest that is written last does the same. What is
done is known by markers (`conversion_state`); resuming trusts them only.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed.comm.core import CommClosedError

from defocus_sim.convert.allocator import keep_freed_memory
from defocus_sim.convert.place import check_apart
from defocus_sim.convert.plan import ConversionSettings, PlannedSample, plan_samples
from defocus_sim.convert.sample import BadFrame, OnError
from defocus_sim.convert.state import ConversionState, failed_write, finished_manifest
from defocus_sim.convert.task import TEAMS, Made, ShardTask, help_with_shards, run_shard
from defocus_sim.convert.workers import Team
from defocus_sim.errors import ConversionInterruptedError, ConversionTakenOverError, ConvertError, DefocusSimError
from defocus_sim.shards import crc
from defocus_sim.shards.manifest import digest
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.store import ShardStore, open_store
from defocus_sim.simulate import compile_kernels
from defocus_sim.timing import StageClock, add_up

Progress = Callable[[int, int], None]

# By default dask looks at the stack of each worker thread a hundred times a second, and at its own health more often still:
# 3 to 5 % of two threads' time, as all wait meanwhile.
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
}


@dataclass(frozen=True)
class Conversion:
    """A finished conversion: the open store and the seconds it took.

    `stage_seconds`: what all workers together spent on reading, blurring, encoding and writing; none where nothing was left
    to do.
    """

    store: ShardStore
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the tasks.

    `count`: threads of this process (default: one a core), which is fastest on one machine, as kernels and codecs
    release the GIL; with `processes`, that many processes of one thread. `scheduler`: address of a dask.distributed
    scheduler instead, whose workers see the same paths. `announce`: called with the link of the scheduler's dashboard.
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
    """Write the triples of `settings` as a shard store at `out`, a path or an fsspec URL (`s3://bucket/nyu.zarr`).

    `workers`: who does it; a number means that many threads. `resume`: continue an unfinished conversion of the same
    settings; nothing happens where it is finished. `overwrite`: replace a store (locally the old one stays until the new
    one is complete). `on_error`: "fail" at the first frame that cannot be used, or "skip" such frames and list them in the
    manifest. `on_progress(done, total)`: called with samples, from worker threads. `clock`: gets the seconds that every
    stage of those samples took, before that call, where it is threads of this process that make them.

    Raises `ConvertError` (the target, changed settings, a failed write), `ConversionInterruptedError`, and whatever the
    source, the lens or the blur find wrong with their input; before the first shard is complete nothing is left behind.
    """
    started = time.monotonic()
    who = workers if isinstance(workers, Workers) else Workers(count=workers)
    state = ConversionState(out)
    tasks: list[ShardTask] = []
    try:
        check_apart(out, _paths(settings.source).values(), staged=False)
        state.check_target(resume=resume, overwrite=overwrite)
        description = settings.to_json()
        samples = settings.source.samples()
        if resume and state.is_finished():
            state.publish(description)
            return Conversion(open_store(out), time.monotonic() - started)
        if who.in_process:
            # Here, not in a worker thread, whose compiling an interrupt would have to wait for.
            if not settings.measured:
                compile_kernels(settings.rendering)
            crc.prepare(crc.LEAST_BYTES)
        skipped = state.begin(description, resume=resume)
        while True:
            planned = plan_samples(samples, settings.lenses, {bad.frame for bad in skipped}, settings.limit)
            tasks = _tasks(settings, who, planned, state, digest(description), on_error)
            todo = state.unfinished(tasks)
            total, left = (sum(len(task.samples) for task in some) for some in (tasks, todo))
            found = _run(todo, who, _Progress(total - left, total, on_progress), state.release, clock)
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
    return Conversion(open_store(out), time.monotonic() - started, stage_seconds)


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
            settings=settings if who.scheduler is None else _with_absolute_paths(settings),
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


def _with_absolute_paths(settings: ConversionSettings) -> ConversionSettings:
    """The same settings for a process with another current folder."""
    source, paths = settings.source, _paths(settings.source)
    if not is_dataclass(source) or isinstance(source, type):
        return settings
    return replace(settings, source=replace(source, **{name: path.absolute() for name, path in paths.items()}))


def _paths(source: Any) -> dict[str, Path]:
    """The files and folders that a source is made from, by the name of its field."""
    return {name: value for name, value in getattr(source, "__dict__", {}).items() if isinstance(value, Path)}


class _Progress:
    """Counts samples as tasks finish them; not for several threads at once."""

    def __init__(self, done: int, total: int, on_progress: Progress | None) -> None:
        self._done, self._total, self._on_progress = done, total, on_progress
        self.advance(0)

    def advance(self, samples: int) -> None:
        """`samples` more are done."""
        self._done += samples
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _run(
    tasks: list[ShardTask],
    who: Workers,
    progress: _Progress,
    release: Callable[[], None],
    clock: StageClock | None,
) -> list[BadFrame]:
    """Do the tasks; returns the frames that could not be used. `release` tells tasks in other processes to end."""
    if not tasks:
        return []
    token = tasks[0].token
    team: Team[PlannedSample, Made] = Team(len(tasks), who.number, lambda: progress.advance(1), clock)
    if who.in_process:
        TEAMS[token] = team
    bad: list[BadFrame] = []
    try:
        with _client(who) as client:
            # In one message the tasks of 230,000 frames are larger than a scheduler likes.
            futures = dict(zip(client.map(run_shard, tasks, pure=False, batch_size=1000), tasks, strict=True))
            helpers: list[Any] = []
            left = len(futures)
            try:
                done = distributed.as_completed(futures)
                while left:
                    # Not before a thread is free for it: dask would begin it while there are shards to begin.
                    while who.in_process and len(helpers) < who.number - left:
                        helpers.append(client.submit(help_with_shards, tasks[0], pure=False))
                    future = next(done)
                    bad += _result(future)
                    left -= 1
                    if not who.in_process:
                        progress.advance(len(futures[future].samples))
            except BaseException:
                release()
                raise
            finally:
                # On an error or an interrupt the running tasks stop at their next sample and clean up after themselves.
                team.stop()
                client.cancel([*futures, *helpers], force=True)
    finally:
        # Only now: a task that no longer found its team would not know that it is to stop.
        TEAMS.pop(token, None)
    return bad


def _result(future: Any) -> list[BadFrame]:
    try:
        found: list[BadFrame] = future.result()
    except distributed.KilledWorker as error:
        raise ConvertError(f"workers died again and again on one shard (is memory short?): {error}") from error
    except (distributed.CancelledError, CommClosedError) as error:
        raise ConvertError("the connection to the dask scheduler is lost") from error
    except ImportError as error:
        raise ConvertError(f"a worker lacks a package, install the same everywhere: {error}") from error
    except RuntimeError as error:
        # The scheduler, too, unpacks the tasks.
        if str(error).startswith("Error during deserialization"):
            raise ConvertError("the dask scheduler cannot load the tasks: it needs dfd-toolkit as well") from error
        raise
    return found


@contextmanager
def _client(who: Workers) -> Iterator[distributed.Client]:
    if who.scheduler is not None:
        # What it has to say comes as an error; its log would add tracebacks.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            client = distributed.Client(who.scheduler, timeout=10)
        except (OSError, ValueError) as error:
            raise ConvertError(f"no dask scheduler answers at {who.scheduler} ({error})") from error
        with client:
            if who.announce is not None:
                who.announce(client.dashboard_link)
            yield client
        return
    if who.in_process:
        keep_freed_memory()
    with dask.config.set(_QUIET), _interrupt_held_back():
        cluster = distributed.LocalCluster(
            n_workers=who.number if who.processes else 1,
            threads_per_worker=1 if who.processes else who.number,
            processes=who.processes,
            # Any free port of this machine only: two conversions at once would quarrel over the usual one.
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    with cluster, distributed.Client(cluster) as client:
        yield client


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C reaches this process after the block, and never the processes and threads that the block starts.

    A terminal sends it to every process of the command: without this, workers die with tracebacks of their own and are
    started anew, while the conversion tries to end.
    """
    # Begun by the first process that is spawned, it would let the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _explain(error: BaseException, state: ConversionState, tasks: list[ShardTask]) -> DefocusSimError:
    """The error to raise, with what is left and how to go on; an attempt that finished no shard leaves nothing."""
    if isinstance(error, OSError) and state.taken_over:
        # Its files were renamed under its hands.
        return ConversionTakenOverError(f"another conversion has begun at {state.place}: it goes on, this one ends")
    kept = state.clean_up(tasks)
    rest = f"; {kept} of {len(tasks)} shards are kept, continue with --resume" if kept else ""
    if isinstance(error, KeyboardInterrupt | ConversionInterruptedError):
        return ConversionInterruptedError(f"interrupted{rest or '; nothing is left behind'}")
    if isinstance(error, DefocusSimError):
        return type(error)(f"{error}{rest}")
    return ConvertError(failed_write(state.place, error) + rest)
