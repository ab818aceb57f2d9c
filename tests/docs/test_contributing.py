"""What docs/project/contributing.md shows somebody to add works as it stands there, on a copy of the packages."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "project" / "contributing.md").read_text()
NEW_FILE = re.compile(r'^```python title="(.+?)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Where a file of the repository lies in the copy.
ROOMS = {"cli": "dfd_cli", "defocus_sim": "defocus_sim", "dfd_train": "dfd_train"}


def place(folder, name):
    room, _, rest = name.partition("/")
    return folder / ROOMS[room] / rest


def apply(diff, folder):
    """Every hunk (between `@@` lines) of every file (after a `---` line), found by its own words."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        path = place(folder, name)
        text = path.read_text()
        for hunk in re.split(r"^@@\n", body, flags=re.MULTILINE):
            lines = hunk.splitlines()
            before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
            after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
            assert text.count(before) == 1, f"{name} does not hold exactly once:\n{before}"
            text = text.replace(before, after)
        path.write_text(text)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the packages with everything the page adds; returns a function that runs a command of it."""
    folder = tmp_path_factory.mktemp("copy")
    for room, package in ROOMS.items():
        shutil.copytree(ROOT / room, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in NEW_FILE.findall(PAGE):
        place(folder, name).write_text(text)
    for diff in DIFF.findall(PAGE):
        apply(diff, folder)

    def run(program, *arguments):
        module = {"dfd-prepare": "prepare", "dfd-train": "train", "dfd-eval": "evaluate"}[program]
        code = f"from dfd_cli.{module} import main; main(prog_name='{program}')"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    return folder, run


def test_what_the_page_adds_is_short():
    additions = [text for _, text in NEW_FILE.findall(PAGE)] + DIFF.findall(PAGE)
    assert len(additions) == 6
    assert max(len([line for line in text.splitlines() if line.strip(" +")]) for text in additions) < 30


def test_data_set_model_loss_and_metric_of_the_page_work_together(changed):
    folder, run = changed
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        rgb = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        np.savez(folder / "photos" / f"{i}.npz", rgb=rgb, depth_m=rng.uniform(1, 4, (40, 48)))
    commands = re.search(r"### And then\n\n<!--.*?-->\n```sh\n(.*?)```", PAGE, re.DOTALL).group(1).splitlines()
    assert len(commands) == 3
    for line in commands:
        result = run(*line.split())
        assert result.returncode == 0, f"{line}\n{result.stderr}"
    with open(folder / "run" / "metrics.csv") as file:
        assert float(list(csv.DictReader(file))[-1]["huber"]) > 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert 0 < report["rows"]["prediction"]["mae"] < report["rows"]["prediction"]["psnr"]
    assert "shallow" in (folder / "run" / "run.toml").read_text()
