"""A pool that makes samples for ordered writers: every sample once, in order, bounded, and nobody waits for ever."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from defocus_sim.convert import pool
from defocus_sim.convert.plan import PlannedSample
from defocus_sim.convert.sample import MadeSample
from defocus_sim.errors import ConversionInterruptedError, SourceError
from defocus_sim.shards.timing import StageClock


def tasks(shards, samples, stack=1):
    """Shards of so many samples each; `stack`: of one frame."""
    planned = [PlannedSample(i // stack, i % stack, str(i), str(i)) for i in range(shards * samples)]
    return [
        SimpleNamespace(samples=planned[k * samples : (k + 1) * samples], settings=None, on_error="fail")
        for k in range(shards)
    ]


@pytest.fixture
def run(monkeypatch):
    """`run(tasks, threads, make, ...)`: what every shard was written from, by its first sample's name."""

    def run(work, threads, make, write=lambda name: None, on_sample=lambda: None):
        written = {}

        @contextmanager
        def maker(settings, on_error):
            yield lambda sample: make(sample) or MadeSample({"name": sample.name}, {}, {"blur": 1.0})

        def run_shard(task, making):
            names = written.setdefault(task.samples[0].name, [])
            for made in making(task.samples):
                write(made.chunks["name"])
                names.append(made.chunks["name"])
            return []

        monkeypatch.setattr(pool, "sample_maker", maker)
        monkeypatch.setattr(pool, "run_shard", run_shard)
        clock = StageClock()
        pool.run_in_threads(work, threads, on_sample, lambda: None, clock)
        return written, clock

    return run


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_sample_is_made_once_and_written_in_order(run, threads):
    made, work = [], tasks(3, 20)

    def make(sample):
        time.sleep(sample.frame % 3 / 1000)
        made.append(sample.name)

    written, clock = run(work, threads, make)
    assert list(written.values()) == [[sample.name for sample in task.samples] for task in work]
    assert sorted(made, key=int) == [str(i) for i in range(60)]
    assert clock.seconds["blur"] == 60


def test_all_threads_make_the_samples_of_one_shard(run):
    together = threading.Barrier(4, timeout=60)
    run(tasks(1, 8), 4, lambda sample: together.wait() and None)


def test_samples_of_a_focal_stack_are_made_by_one_thread(run):
    by = {}
    run(tasks(1, 40, stack=4), 3, lambda sample: by.setdefault(sample.frame, set()).add(threading.get_ident()))
    assert {len(threads) for threads in by.values()} == {1}


def test_makers_do_not_run_ahead_of_what_is_written(run):
    made, most = [], []

    def write(name):
        time.sleep(0.002)
        most.append(len(made) - int(name))

    run(tasks(1, 60), 2, lambda sample: made.append(sample), write)
    assert max(most) <= 4


def test_a_sample_that_cannot_be_made_is_the_error_and_ends_the_rest(run):
    made = []

    def make(sample):
        made.append(sample)
        if sample.name == "7":
            raise SourceError("frame 7 is broken")
        time.sleep(0.001)

    with pytest.raises(SourceError, match="frame 7"):
        run(tasks(4, 500), 2, make)
    assert len(made) < 1000


def test_an_interrupt_between_samples_ends_all_writers(run):
    ended = []

    def write(name):
        if name == "5":
            raise KeyboardInterrupt

    def slow(sample):
        time.sleep(0.001)
        ended.append(sample)

    with pytest.raises(KeyboardInterrupt):
        run(tasks(3, 500), 2, slow, write)
    count = len(ended)
    time.sleep(0.05)
    assert len(ended) == count < 1000


def test_what_was_stopped_takes_and_makes_no_more(monkeypatch):
    monkeypatch.setattr(pool, "sample_maker", lambda settings, on_error: pytest.fail("was opened"))
    with pool.ExitStack() as stack:
        makers = pool._Makers(tasks(1, 1)[0], 1, lambda: None, StageClock(), stack)
        makers.stop()
        with pytest.raises(ConversionInterruptedError):
            list(makers.in_order(tasks(1, 3)[0].samples))


def test_samples_are_counted_one_at_a_time(run):
    count = []

    def slow():
        before = len(count)
        time.sleep(0.001)
        count.append(before)

    run(tasks(4, 10), 4, lambda sample: None, on_sample=slow)
    assert count == list(range(40))
