"""Threads that help each other: every item once, in order, bounded, and nobody waits for ever."""

import threading
import time

import pytest

from defocus_sim.convert.workers import Share, Team


def square(item):
    return item * item


def started(call, *arguments):
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def joined(*threads):
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_alone_an_owner_makes_everything_one_at_a_time():
    begun = []
    share = Share(range(5), ahead=1)
    for index, made in enumerate(share.in_order(lambda item: begun.append(item) or square(item))):
        assert made == index * index
        assert begun == list(range(index + 1))


@pytest.mark.parametrize("threads", [2, 5])
def test_every_item_is_made_once_and_taken_in_order(threads):
    team, made = Team(3, threads, lambda: None), []

    def make(item):
        time.sleep(item % 3 / 1000)
        made.append((item, threading.get_ident()))
        return item

    helpers = [started(team.help, make) for _ in range(threads - 1)]
    for shard in range(3):
        items = range(shard * 20, shard * 20 + 20)
        with team.share(items) as share:
            assert list(share.in_order(make)) == list(items)
    joined(*helpers)
    assert sorted(item for item, _ in made) == list(range(60))
    assert len({ident for _, ident in made}) == threads


def test_helpers_do_not_run_ahead_of_what_is_written():
    team, made = Team(1, 2, lambda: None), []
    helper = started(team.help, lambda item: made.append(item) or item)
    with team.share(range(100)) as share:
        time.sleep(0.2)
        assert len(made) == 4
        assert list(share.in_order(lambda item: item)) == list(range(100))
    joined(helper)


def test_an_item_that_a_helper_fails_to_make_is_made_by_the_owner():
    team, owner, failed = Team(1, 2, lambda: None), threading.get_ident(), threading.Event()

    def make(item):
        if threading.get_ident() != owner:
            failed.set()
            raise MemoryError
        return item

    def help_once():
        with pytest.raises(MemoryError):
            team.help(make)

    with team.share(range(4)) as share:
        helper = started(help_once)
        assert failed.wait(30)
        assert list(share.in_order(make)) == [0, 1, 2, 3]
    joined(helper)


def test_an_owner_that_fails_ends_its_helpers_when_the_team_stops():
    team, waiting = Team(2, 2, lambda: None), threading.Event()

    def make(item):
        waiting.set()
        time.sleep(0.01)
        return item

    helper = started(team.help, make)
    with pytest.raises(OSError, match="disk"), team.share(range(50)) as share:
        waiting.wait(30)
        for _ in share.in_order(make):
            raise OSError("disk")
    team.stop()
    joined(helper)
    assert not team.written()


def test_samples_are_counted_one_at_a_time():
    count = []

    def slow():
        before = len(count)
        time.sleep(0.001)
        count.append(before)

    team = Team(1, 4, slow)
    joined(*(started(lambda: [team.written() for _ in range(10)]) for _ in range(4)))
    assert count == list(range(40))
