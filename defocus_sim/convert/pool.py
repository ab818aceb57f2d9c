"""Shards by threads of this process, or by worker processes: neither opens a socket.

The processes hang on pipes that they inherit, so that nobody else can hand them work, and end with their parent.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker

from defocus_sim.convert.plan import PlannedSample
from defocus_sim.convert.sample import BadFrame, MadeSample, sample_maker
from defocus_sim.convert.task import Made, ShardTask, run_shard
from defocus_sim.errors import ConversionInterruptedError, ConvertError, StorageTimeoutError
from defocus_sim.shards.timing import StageClock

# So often in a row may worker processes die without that a shard was finished in between.
MOST_DEATHS = 3
# Enough to have one shard written while another is flushed or sent; each holds as many samples as there are threads.
_MOST_WRITERS = 4


def run_in_threads(
    tasks: Sequence[ShardTask],
    threads: int,
    on_sample: Callable[[], None],
    release: Callable[[], None],
    clock: StageClock | None,
) -> list[BadFrame]:
    """Do the tasks; returns the frames that could not be used. `release`: called where it ends early, see `run`.

    A pool makes the samples of all shards; a few more threads, each with a shard at a time, write them in order.
    """
    bad: list[BadFrame] = []
    with ExitStack() as stack:
        makers = _Makers(tasks[0], threads, on_sample, clock or StageClock(), stack)
        writers = ThreadPoolExecutor(min(threads, _MOST_WRITERS), "write")
        futures = [writers.submit(run_shard, task, makers.in_order) for task in tasks]
        try:
            for future in as_completed(futures):
                bad += future.result()
        except BaseException as error:
            _release_unless_silent(release, error)
            raise
        finally:
            # On an error or an interrupt what is at work ends with its sample, and the shards clean up after themselves.
            makers.stop()
            writers.shutdown(cancel_futures=True)
    return bad


class _Makers:
    """Threads that make samples of any shard; each opens the source once, and `stack` closes it.

    `on_sample`: called for each that is taken, from any thread, one at a time; `clock`: gets its seconds before.
    """

    def __init__(
        self, task: ShardTask, threads: int, on_sample: Callable[[], None], clock: StageClock, stack: ExitStack
    ) -> None:
        self._task, self._on_sample, self._clock, self._stack = task, on_sample, clock, stack
        self._pool, self._own, self._counting = ThreadPoolExecutor(threads, "make"), threading.local(), threading.Lock()
        # All makers can be at work on one shard and finish in any order: beyond that, samples only take memory.
        self._ahead = threads + 1
        self._stopped = False

    def in_order(self, samples: Sequence[PlannedSample]) -> Iterator[Made]:
        """The samples made, in their order; raises what making one of them raises, or that it was stopped."""
        # A focal stack's samples share their frame, which is read once: they are made by one thread.
        stacks = (tuple(stack) for _, stack in itertools.groupby(samples, key=lambda sample: sample.frame))
        waiting: deque[Future[list[Made]]] = deque()
        while True:
            for stack in itertools.islice(stacks, self._ahead - len(waiting)):
                waiting.append(self._begin(stack))
            if not waiting:
                return
            for made in self._taken(waiting.popleft()):
                yield made
                if isinstance(made, MadeSample):
                    with self._counting:
                        self._clock.add(made.seconds)
                        self._on_sample()

    def stop(self) -> None:
        """Nothing more is made, and what is made is not taken."""
        self._stopped = True
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, samples: tuple[PlannedSample, ...]) -> Future[list[Made]]:
        try:
            return self._pool.submit(self._made, samples)
        except RuntimeError as error:
            if self._stopped:
                raise ConversionInterruptedError("interrupted") from error
            raise

    def _taken(self, future: Future[list[Made]]) -> list[Made]:
        if not self._stopped:
            with suppress(CancelledError):
                return future.result()
        raise ConversionInterruptedError("interrupted")

    def _made(self, samples: tuple[PlannedSample, ...]) -> list[Made]:
        if not hasattr(self._own, "make"):
            # Here, so that a source that does not open is an error of the shard.
            self._own.make = self._stack.enter_context(sample_maker(self._task.settings, self._task.on_error))
        return [self._own.make(sample) for sample in samples]


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
