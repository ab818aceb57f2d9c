"""Memory of the CPU is used again, not given back and zeroed for every image."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from dfd_train.distributed.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
def image():
    return sum(float(torch.ones(size * 2**18)[0]) for size in (8, 40, 64))
for _ in range(4):
    image()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    image()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this switch")
def test_blocks_of_any_size_are_taken_from_the_system_once() -> None:
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    )
    # 5 images of 112 MiB; how many pages a fault brings is the system's affair.
    assert kept < 200
    assert given_back > 2 * kept
