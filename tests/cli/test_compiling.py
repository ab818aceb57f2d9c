"""What a user sees of the kernels' compiling, and that no rate holds its time."""

import os
import pty
import re
import subprocess
import sys
import time

import pytest
from commands import BIN

SIZE = ("--count", "8", "--size", "64x48")


def prepare(folder, cache, *options):
    """One conversion with the compiled kernels in `cache`: (standard error, seconds of the closing line, all seconds)."""
    began = time.monotonic()
    done = subprocess.run(
        [BIN / "dfd-prepare", "synthetic", *SIZE, "--out", folder / "a.zarr", "--overwrite", *options],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    seconds = float(re.search(r"time +([\d.]+) s,", done.stdout)[1])
    return done.stderr, seconds, time.monotonic() - began


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def cold(tmp_path_factory, cache):
    return prepare(tmp_path_factory.mktemp("cold"), cache)


def test_first_use_says_what_it_waits_for_and_the_second_does_not(cold, cache, tmp_path):
    lines = [line for line in cold[0].splitlines() if line.startswith("compiling")]
    assert "compiling the blur, once: about 7 s" in lines
    assert "compiling the procedural scenes, once: about 8 s" in lines
    assert len(lines) == len(set(lines))
    assert "compiling" not in prepare(tmp_path, cache)[0]


def test_no_rate_holds_the_time_of_compiling(cold):
    _, seconds, everything = cold
    assert seconds < everything / 3


def test_quiet_says_nothing(cold, cache, tmp_path):
    assert prepare(tmp_path, cache, "--psf", "disc", "--quiet")[0] == ""


def test_a_terminal_shows_it_too(cold, cache, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [BIN / "dfd-prepare", "synthetic", *SIZE, "--mode", "layered", "--out", tmp_path / "a.zarr"],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache), "TERM": "xterm-256color"}, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    output = b""
    try:
        while block := os.read(ours, 4096):
            output += block
    except OSError:  # what Linux says when the other side is closed
        pass
    os.close(ours)
    assert process.wait() == 0, output.decode()
    assert output.count(b"compiling the blur, once: about 20 s") == 1


# What each command has compiled before its clock starts, and the work that is timed afterwards.
WORK = """
import gc, sys
import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from defocus_sim.blur.options import Rendering
from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.lens import PRESETS, Lens
from defocus_sim.simulate import compile_kernels, defocus
from dfd_train.optics.blurred import _by_the_simulator, blurred_by, compile_blur
from dfd_train.optics.camera import camera_of
from dfd_train.prediction.refocus import compile_refocus, refocus

rng = np.random.default_rng(0)
depth = rng.uniform(1, 5, (40, 50)).astype(np.float32)
depth[:3] = 0
lens = Lens(aperture_mm=50, focal_length_mm=50, focus_distance_m=2, pixel_pitch_um=200)

def kernels():
    found = [one for one in gc.get_objects() if isinstance(one, Dispatcher) and "defocus_sim" in one.py_func.__module__]
    return {one.py_func.__qualname__: len(one.overloads) for one in found}

def report(what, before):
    print(what, {name: n for name, n in kernels().items() if n != before.get(name)})

before = kernels() if compile_blur(torch.device("cpu")) is None else None
sigma = torch.rand(2, 1, 40, 50) * 6
_by_the_simulator(torch.rand(2, 3, 40, 50), sigma, 4 * sigma, torch.tensor([True, False]))
report("train", before)
before = kernels() if compile_blur(torch.device("cpu"), layered=True) is None else None
camera = camera_of(lens, (40, 50))[None].expand(2, -1)
both = torch.tensor([True, False])
blurred_by(torch.rand(2, 3, 40, 50), torch.rand(2, 1, 40, 50) * 4 + 1, camera, both, torch.tensor([True, True]))
report("train in layers", before)
before = kernels() if compile_refocus() is None else None
for dtype, largest in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1)):
    refocus((rng.random((40, 50, 3)) * largest).astype(dtype), depth, lens)
report("refocus", before)
for mode in ("gather", "layered"):
    for psf in ("gaussian", "disc"):
        for linear in (False, True):
            rendering = Rendering(mode=mode, psf=psf, linear_light=linear)
            before = kernels() if compile_kernels(rendering) is None else None
            defocus((rng.random((40, 50, 3)) * 255).astype(np.uint8), depth, lens, **vars(rendering))
            report(f"{mode} {psf} {linear}", before)
for scenes in ("rooms", "varied"):
    with SyntheticSource(count=6, size_wh=(48, 40), scenes=scenes).open() as reader:
        before = kernels()
        for index in range(6):
            reader.read(index)
        report(scenes, before)
"""


def test_what_is_compiled_before_the_clock_starts_is_all_that_the_work_needs():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True, timeout=600)
    lines = done.stdout.splitlines()
    assert len(lines) == 13
    assert [line for line in lines if not line.endswith(" {}")] == []
