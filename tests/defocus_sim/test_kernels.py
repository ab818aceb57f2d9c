import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import defocus_sim

# A kernel that takes another one from a second file, which numba alone would not look at again.
INNER = "from defocus_sim.kernels import njit\n\n\n@njit(cache=True)\ndef inner(x):\n    return x + {}\n"
OUTER = """
from defocus_sim.blur.inner_of_test import inner
from defocus_sim.kernels import njit


@njit(cache=True)
def outer(x):
    return inner(x) * 10
"""
SHOW = "from defocus_sim.blur.outer_of_test import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path):
    """A copy of the package with two kernels more, without anything compiled."""
    copy = tmp_path / "copy" / "defocus_sim"
    shutil.copytree(Path(defocus_sim.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "blur" / "inner_of_test.py").write_text(INNER.format(1))
    (copy / "blur" / "outer_of_test.py").write_text(OUTER)
    return copy


def run(package, code, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", code]
    env = {**kept, "PYTHONPATH": str(package.parent), **environment}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=300, cwd=package.parent
    )


def test_an_edited_kernel_never_runs_old_code_and_an_unchanged_one_is_not_compiled_again(package):
    assert run(package, SHOW).stdout.split() == ["20", "0"]
    assert run(package, SHOW).stdout.split() == ["20", "1"]
    (package / "blur" / "inner_of_test.py").write_text(INNER.format(4))
    assert run(package, SHOW).stdout.split() == ["50", "0"]
    # What the edit left behind is gone.
    assert len(list((package / "__pycache__").glob("kernels-*"))) == 1


def test_kernels_go_where_the_user_says(package, tmp_path):
    assert run(package, SHOW, NUMBA_CACHE_DIR=str(tmp_path / "mine")).stdout.split() == ["20", "0"]
    assert list((tmp_path / "mine" / "defocus_sim").glob("kernels-*/blur/*.nbi"))
    assert not list((package / "__pycache__").glob("kernels-*"))


def test_where_nothing_can_be_written_kernels_compile_with_one_note(package):
    # A file where each folder would have to be, also for root.
    for place in (package / "__pycache__", package.parent / "cache"):
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("in the way")
    done = run(
        package, "import sys; sys.dont_write_bytecode = True; " + SHOW, XDG_CACHE_HOME=str(package.parent / "cache")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["20", "0"]
    assert done.stderr.count("note: no folder for compiled kernels can be written") == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("compiling the blur, for this process")]
    assert len(said) == 1
    assert "NUMBA_CACHE_DIR" in done.stderr


def test_kernels_of_other_packages_are_kept_where_numba_keeps_them(package, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "theirs.py").write_text(
        "import numba\n\n\n@numba.njit(cache=True)\ndef f(x):\n    return x\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'other')!r}); import defocus_sim.kernels as k, theirs; "
    done = run(package, code + "k.folder(); theirs.f(1); print(theirs.f.stats.cache_path)")
    assert done.stdout.strip() == str(tmp_path / "other" / "__pycache__"), done.stderr


# Floats, whose last bits no rounding to bytes hides.
BITS = """
import hashlib
import numpy as np
from defocus_sim import Lens, defocus
rng = np.random.default_rng(3)
image, depth_m = rng.random((40, 50, 3), dtype=np.float32), rng.uniform(0.6, 6, (40, 50)).astype(np.float32)
lens = Lens(aperture_mm=50, focal_length_mm=50, focus_distance_m=2, pixel_pitch_um=100)
for mode in ("gather", "layered"):
    for psf in ("gaussian", "disc"):
        print(hashlib.sha256(defocus(image, depth_m, lens, mode=mode, psf=psf).tobytes()).hexdigest())
"""


def test_a_process_that_compiles_gets_the_bits_of_one_that_loads(package):
    """Else a store that was begun before and resumed after the first compilation differs in some bytes."""
    compiled, loaded = run(package, BITS), run(package, BITS)
    assert "compiling" in compiled.stderr
    assert "compiling" not in loaded.stderr
    assert len(compiled.stdout.split()) == 4
    assert compiled.stdout == loaded.stdout
