from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from dfd_cli.train import main
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError
from dfd_train.runs.curves import plot_runs, read_curves
from dfd_train.training.profiling import PARTS
from dfd_train.training.train import train


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sight") / "run"
    config = recipe_config(
        "fast", shards=store, out=out, model="tiny", size="48x33", epochs=2, device="cpu", validate_every=1
    )
    train(config, console=Console(quiet=True))
    return out


def test_tensorboard_has_the_losses_the_scores_and_pictures(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train/total", "train/depth", "train/wait_share", "val/rmse", "val/psnr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/total")] == [3, 6]
    assert events.Tags()["images"] == ["val/predictions"]


def test_plotting_needs_no_out_option_and_draws_a_picture(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["plot", str(run), str(run), "--out", str(tmp_path / "a.png")])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")).std() > 1
    assert plot_runs([run], run / "curves.png").is_file()


def test_what_cannot_be_plotted_is_named(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["plot", str(tmp_path)])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "no run of dfd-train" in result.stderr
    (tmp_path / "metrics.csv").write_text("epoch,total\n1,many\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_curves(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,total\n")
    with pytest.raises(ConfigError, match="no finished epoch"):
        read_curves(tmp_path)


def test_help_groups_the_options_and_stays_light() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for heading in ("Run:", "Network:", "Loss:", "Optimization:", "Data:", "Engine:", "Checkpoints and scores:"):
        assert heading in text
    assert "plot" in text
    code = (
        "import sys; from click.testing import CliRunner; from dfd_cli.train import main;"
        "CliRunner().invoke(main, ['--help']); print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_profile_names_the_parts_of_a_step_and_writes_a_trace(store: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    config = recipe_config(
        "fast", shards=store, out=tmp_path / "run", model="tiny", size="48x33", epochs=8, batch_size=5, device="cpu",
        validate_every=0, tensorboard=False, profile=True,
    )  # fmt: skip
    train(config, console=Console(file=said, width=400))
    line = next(line for line in said.getvalue().splitlines() if line.startswith("profile of 10 steps"))
    shares = {name: float(value) for name, value in re.findall(r"([a-z][a-z ,()]*) ([\d.]+)%", line)}
    assert [name.split(": ")[-1].lstrip(", ") for name in shares][-5:-1] == list(PARTS)[1:]
    assert 99 < sum(shares.values()) < 101
    names = {event.get("name") for event in json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]}
    assert set(PARTS) <= names
    assert "aten::convolution_backward" in (tmp_path / "run" / "profile.txt").read_text()


@pytest.mark.parametrize(("epochs", "measured"), [(1, 0), (3, 3)])
def test_a_run_shorter_than_the_profile_tells_the_steps_there_were(
    epochs: int, measured: int, store: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    config = recipe_config(
        "fast", shards=store, out=tmp_path / "run", model="tiny", size="48x33", epochs=epochs, batch_size=5, device="cpu",
        validate_every=0, tensorboard=False, profile=True,
    )  # fmt: skip
    train(config, console=Console(file=said, width=400))
    assert ("profile of" in said.getvalue()) is (measured > 0)
    assert measured == 0 or f"profile of {measured} steps" in said.getvalue()
