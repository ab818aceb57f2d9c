"""Shards by threads of this process, or by worker processes: neither opens a socket.

The processes hang on pipes that they inherit, so that nobody else can hand them work, and end with their parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

from defocus_sim.convert.allocator import keep_freed_memory
from defocus_sim.convert.plan import PlannedSample
from defocus_sim.convert.sample import BadFrame
from defocus_sim.convert.task import TEAMS, Made, ShardTask, help_with_shards, run_shard
from defocus_sim.convert.workers import Team
from defocus_sim.errors import ConvertError, DefocusSimError, StorageTimeoutError
from defocus_sim.shards.timing import StageClock

# So often in a row may worker processes die without that a shard was finished in between.
MOST_DEATHS = 3


def run_in_threads(
    tasks: Sequence[ShardTask],
    threads: int,
    on_sample: Callable[[], None],
    release: Callable[[], None],
    clock: StageClock | None,
) -> list[BadFrame]:
    """Do the tasks; returns the frames that could not be used. `release`: called where it ends early, see `run`."""
    keep_freed_memory()
    team: Team[PlannedSample, Made] = Team(len(tasks), threads, on_sample, clock)
    left, bad = deque(tasks), deque[BadFrame]()
    TEAMS[tasks[0].token] = team

    def work() -> None:
        while True:
            try:
                task = left.popleft()
            except IndexError:
                break
            bad.extend(run_shard(task))
        # What goes wrong with a sample is reported by the shard's owner, who tries it again.
        with suppress(DefocusSimError, OSError):
            help_with_shards(tasks[0])

    try:
        with ThreadPoolExecutor(threads, "convert") as pool:
            try:
                futures = [pool.submit(work) for _ in range(threads)]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException as error:
                _release_unless_silent(release, error)
                raise
            finally:
                # On an error or an interrupt the running tasks stop at their next sample and clean up after themselves.
                left.clear()
                team.stop()
    finally:
        # Only now: a task that no longer found its team would not know that it is to stop.
        TEAMS.pop(tasks[0].token, None)
    return list(bad)


def run_in_processes(
    tasks: Sequence[ShardTask], processes: int, on_shard: Callable[[ShardTask], None], release: Callable[[], None]
) -> list[BadFrame]:
    """As `run_in_threads`, by worker processes; the tasks of one that dies are done again.

    Raises `ConvertError` where workers die again and again.
    """
    bad: list[BadFrame] = []
    left, deaths = list(tasks), 0
    while left:
        with _signals_held_back():
            pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin_worker)
            futures = {pool.submit(run_shard, task): task for task in left}
        try:
            for future in as_completed(futures):
                bad += future.result()
                deaths = 0
                left.remove(futures[future])
                on_shard(futures[future])
        except BrokenProcessPool as error:
            deaths += 1
            if deaths > MOST_DEATHS:
                release()
                raise ConvertError("workers died again and again on one shard (is memory short?)") from error
            # What was at work may have been the reason: all others come before it.
            left = left[processes:] + left[:processes]
        except BaseException as error:
            _release_unless_silent(release, error)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return bad


def _release_unless_silent(release: Callable[[], None], error: BaseException) -> None:
    """A storage that does not answer would have to be waited for once more."""
    if not isinstance(error, StorageTimeoutError):
        release()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Ctrl-C and SIGTERM reach this process after the block, and never the processes that the block starts.

    A terminal sends Ctrl-C to every process of the command: without this, workers die with tracebacks of their own and
    are started anew, while the conversion tries to end.
    """
    # Begun by the first process that is spawned, it would let the signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    """End with the parent, also where that is killed; the end of its pipe is no sign, as the workers hold it as well."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
