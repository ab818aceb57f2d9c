"""The small form of `benchmarks/attack/fuzz.py`: damaged files end in a named error or in success."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "attack"))
from fuzz import KINDS, counted, fuzz

COUNTS = {"store": 30, "state": 12, "labelled": 60, "notes": 120}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_a_named_error_or_in_nothing(kind, tmp_path):
    count = COUNTS.get(kind, 80)
    results = fuzz(kind, count, tmp_path, seed=20240611)
    assert sorted(results) == list(range(count))
    found = counted(results)
    wrong = {number: text for number, text in results.items() if text.startswith(("BUG", "hang", "memory"))}
    assert found["tracebacks"] == found["hangs"] == found["over 1 GiB"] == 0, wrong
