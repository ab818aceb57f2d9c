"""Ctrl-C and SIGTERM end a command in the same orderly way, however often they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Within it a second signal is the same wish: it must not tear apart what cleans up after the first.
_ONE_WISH_S = 2.0


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGINT and SIGTERM raise `KeyboardInterrupt` in the block; those that follow at once are ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked_s = float("-inf")

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked_s
        if time.monotonic() - asked_s < _ONE_WISH_S:
            return
        asked_s = time.monotonic()
        raise KeyboardInterrupt

    def on_unraisable(problem: sys.UnraisableHookArgs) -> None:
        # The interpreter drops what is raised while it clears up an object: the wish is still there.
        nonlocal asked_s
        if not issubclass(problem.exc_type, KeyboardInterrupt):
            hook(problem)
            return
        asked_s = float("-inf")
        again = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    hook = sys.unraisablehook
    # What the caller ignores (nohup, a shell's background jobs) stays ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    sys.unraisablehook = on_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            # The process is about to end as it was asked to: one more wish would only change how.
            signal.signal(number, handler if asked_s == float("-inf") else signal.SIG_IGN)
