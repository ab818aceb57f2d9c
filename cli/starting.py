"""What has to be in order before a command imports anything: its signals and its standard streams."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_EXIT_INTERRUPTED = 130


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Error: interrupted\n")
    # Nothing has begun that would have to be put in order, and a half-imported library cannot end in one.
    os._exit(_EXIT_INTERRUPTED)


def _is_command() -> bool:
    """Whether this process is one of the commands, by its script or by `python -m`, and not a worker of one."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return False
    named = os.path.basename(sys.argv[0]) if sys.argv else ""
    return named.startswith("dfd-") or (named == "-m" and any(word.startswith("dfd_cli.") for word in sys.orig_argv))


def keep_standard_streams() -> None:
    """Let standard input, output and error that were closed lead nowhere; in what is no command do nothing.

    Else the next file that is opened takes their number, and what libraries print goes into it: into a shard.
    """
    if not _is_command():
        return
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, so this one.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - open as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def end_in_one_line() -> None:
    """Until a command's own handlers are there, let SIGINT and SIGTERM end it in one line; elsewhere do nothing."""
    if _is_command():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, _end_at_once)
