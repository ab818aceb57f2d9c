from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defocus_sim.datasets.formats.images import read_depth_units


@pytest.mark.parametrize("scale", ["-1", "1", "-0.003922", "1000.0", "-1e-3"])
def test_a_pfm_keeps_its_values_whatever_its_scale(tmp_path: Path, scale: str) -> None:
    stored = np.random.default_rng(0).uniform(0.5, 80, (6, 5)).astype(np.float32)
    path = tmp_path / "a.pfm"
    body = stored[::-1].astype("<f4" if scale.startswith("-") else ">f4").tobytes()
    path.write_bytes(f"Pf\n5 6\n{scale}\n".encode() + body)
    np.testing.assert_array_equal(read_depth_units(path), stored)
