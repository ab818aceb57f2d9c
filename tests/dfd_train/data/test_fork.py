"""A process that is forked while other threads take and give back memory does not wait for their locks."""

import os
import threading
import time

import numpy as np
import pytest

from dfd_train.data.buffers import BufferPool


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_change_does_not_wait_for_ever() -> None:
    pool = BufferPool()
    wanted = (((64, 64), np.dtype(np.uint8)),)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with pool._lock:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        pool.take(wanted)
        os._exit(7)
    try:
        limit = time.monotonic() + 20
        ended, status = 0, 0
        while not ended and time.monotonic() < limit:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        if not ended:
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert ended == child
    finally:
        release.set()
        thread.join()
    arrays = pool.take(wanted)
    assert arrays[0].shape == (64, 64)
