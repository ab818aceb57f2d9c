from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from defocus_sim.datasets.formats.images import depth_header, read_colour, read_depth_units
from defocus_sim.errors import SourceError


def pgm(stored: np.ndarray, largest: int, *, text: bool, comment: bytes = b"") -> bytes:
    height, width = stored.shape
    head = (b"P2" if text else b"P5") + b"\n" + comment + b"%d %d\n%d\n" % (width, height, largest)
    if text:
        return head + b" ".join(b"%d" % value for value in stored.ravel())
    return head + stored.astype("u1" if largest < 256 else ">u2").tobytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    largest=st.sampled_from([1, 100, 200, 255, 256, 1023, 10000, 65535]),
    text=st.booleans(),
    commented=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_depth_is_what_the_file_holds_whatever_its_largest_value(
    tmp_path: Path, largest: int, text: bool, commented: bool, seed: int
) -> None:
    stored = np.random.default_rng(seed).integers(0, largest, (6, 7), endpoint=True)
    path = tmp_path / "a.pgm"
    path.write_bytes(pgm(stored, largest, text=text, comment=b"# 5 6 255\n" if commented else b""))
    read = read_depth_units(path)
    assert read.dtype == (np.uint8 if largest < 256 else np.uint16)
    assert np.array_equal(read, stored)
    assert depth_header(path) == (6, 7, True)
    # As a picture, the largest value is white.
    assert np.abs(read_colour(path) - (stored / largest * 255)[..., None]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"P5\n4 4\n255\n" + bytes(15), "15 of 16 bytes"), (b"P2\n2 2\n9\n1 2 3", "not all of its 4 pixels"),
        (b"P2\n2 2\n9\n1 2 3 x", "whole numbers"), (b"P2\n2 2\n9\n1 2 3 10", "exceeds the largest value 9"),
        (b"P5\n2 2\n70000\n" + bytes(8), "cannot be decoded"), (b"P5 two 2 255 ", "cannot be decoded"),
        (b"P5\n2 2\n100\n\xff\0\0\0", "255 exceeds"),
    ],
)  # fmt: skip
def test_a_damaged_one_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.pgm") as error:
        read_depth_units(path)
    assert named in str(error.value)
