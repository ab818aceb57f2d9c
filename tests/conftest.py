"""Fixtures shared by the whole suite."""

import os
import subprocess
from pathlib import Path

import faults
import hypothesis
import numpy as np
import pytest
from commands import BIN
from frames import textured_frame, write_store
from sources import small_settings

from defocus_sim.convert.run import convert

# No deadlines: the first call of a kernel compiles it. The same examples in every run: a red run can be repeated.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def rng():
    return np.random.default_rng(20230620)


@pytest.fixture
def real_data():
    """The folder of research-only data, or a skip."""
    if not os.environ.get("DFD_REAL_DATA"):
        pytest.skip("DFD_REAL_DATA is not set")
    return Path(os.environ["DFD_REAL_DATA"])


@pytest.fixture(scope="session")
def run_command():
    """Run an installed command; returns the finished process (text output)."""

    def run(*arguments, cwd=None, timeout=300, env=None):
        command = [str(BIN / arguments[0]), *map(str, arguments[1:])]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=env)

    return run


@pytest.fixture
def nyu_files(tmp_path):
    """A small file with the layout of the labelled set, and a split file of it."""
    return faults.write_nyu(tmp_path / "labelled.mat", frames=5), faults.write_splits(
        tmp_path / "splits.mat", train=[1, 3, 5], test=[2, 4]
    )


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    """A finished store of ten small frames, two samples a shard; not to be changed by a test."""
    out = tmp_path_factory.mktemp("store") / "small.zarr"
    return convert(small_settings(), out).store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """10 training, 5 test and 5 validation samples of 48x64 px with holes; not to be changed by a test."""
    rng = np.random.default_rng(0)
    counts = (("train", 10), ("test", 5), ("val", 5))
    splits = {name: [textured_frame(rng, 48, 64) for _ in range(count)] for name, count in counts}
    return write_store(tmp_path_factory.mktemp("stores") / "small.zarr", splits)
