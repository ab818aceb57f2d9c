from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defocus_sim.datasets.formats.images import read_colour
from defocus_sim.errors import SourceError


@pytest.mark.parametrize("largest", [1, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_a_ppm_is_read_against_its_own_largest_value(tmp_path: Path, largest: int, plain: bool) -> None:
    stored = np.random.default_rng(0).integers(0, largest, (6, 5, 3), endpoint=True)
    body = (
        " ".join(map(str, stored.ravel())).encode()
        if plain
        else stored.astype(">u2" if largest > 255 else "u1").tobytes()
    )
    path = tmp_path / "a.ppm"
    path.write_bytes((b"P3" if plain else b"P6") + b"\n# 7 bits\n5 6\n%d\n" % largest + body)
    assert np.abs(read_colour(path) - stored / largest * 255).max() <= 1


def test_a_ppm_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6\n5 6\n100\n" + bytes(20))
    with pytest.raises(SourceError, match=r"a\.ppm"):
        read_colour(path)
