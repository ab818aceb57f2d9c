"""mypy, in a folder that knows nothing of this one, sees the types of the three packages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = """
from defocus_sim import Lens
from dfd_cli.support.parameters import SizeParam
from dfd_train import recipe_config
reveal_type(Lens.preset("paper"))
reveal_type(SizeParam().parse("3x4"))
recipe_config(shards="s", out=3.5)
"""


@pytest.fixture(params=["make venv", "wheel"])
def python(request, tmp_path):
    """The interpreter of a new environment with the packages as that leaves them, and nothing else."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    found = venv / "bin" / "python"
    if request.param == "make venv":
        subprocess.run(["make", "typed", f"VENV={venv}"], cwd=ROOT, check=True, capture_output=True)
        return found
    source = tmp_path / "source"
    for name in ("cli", "defocus_sim", "dfd_train"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    (site,) = venv.glob("lib/python*/site-packages")
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    return found


def test_types_are_seen_from_elsewhere(python, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    check = [
        sys.executable,
        "-m",
        "mypy",
        "--cache-dir",
        tmp_path / "cache",
        "--python-executable",
        python,
        "script.py",
    ]
    result = subprocess.run(check, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()
    assert len(lines) == 4, result.stdout
    assert 'Revealed type is "defocus_sim.lens.thin_lens.Lens"' in lines[0]
    assert 'Revealed type is "tuple[int, int]' in lines[1]
    assert 'Argument "out" to "recipe_config" has incompatible type "float"' in lines[2]
