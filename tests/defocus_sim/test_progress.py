"""What a terminal shows of a long run, on a pseudo-terminal of its own."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from defocus_sim.progress import fitting, one_line

PROGRAM = """
from defocus_sim.progress import Meter
with Meter("step", 12000) as meter:
    for k in range(40):
        meter.done += 299
        meter.step(4, f"epoch {k + 1}/500  total 0.1234  depth 0.5678  deblur 0.01234  data wait 3%")
"""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def seen_on_a_terminal(columns):
    """The program's last line on a terminal so many columns wide, and its longest one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs, env=clean | {"TERM": "xterm-256color"}
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # what Linux says when the other side is closed
            break
        if not block:
            break
        output += block
    os.close(ours)
    assert process.wait() == 0, output.decode()
    lines = [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", output.decode())) if line.strip()]
    return lines[-1], max(map(len, lines))


@pytest.mark.parametrize(("columns", "numbers"), [
    (60, "epoch 40/500"),
    (80, "epoch 40/500  total 0.1234"),
    (100, "epoch 40/500  total 0.1234"),
    (120, "depth 0.5678"),
])  # fmt: skip
def test_bar_count_and_remaining_time_are_there_at_any_width(columns, numbers):
    line, longest = seen_on_a_terminal(columns)
    assert longest <= columns
    assert line.startswith("epoch 40/500")
    assert numbers in line
    assert re.search(r"━{10,}.* 12000/12000 ETA 0:00", line), line
    assert "…" not in line
    if columns >= 80:
        assert "samples/s" in line


def test_numbers_go_from_the_end_where_there_is_no_room():
    assert fitting(["one", "two", "three"], 8) == "one  two"
    assert fitting(["one", "", "two"], 100) == "one  two"
    assert fitting(["longer than that"], 5) == ""


def test_a_name_of_any_characters_is_one_line_without_commands_to_a_terminal():
    assert one_line("a\x1b[31m\x9b\u202e\n\udce9é") == r"a\x1b[31m\x9b\u202e\n\udce9é"
    assert one_line("a\tb\n", keep="\n\t") == "a\tb\n"
