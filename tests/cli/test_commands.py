from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dfd_cli import evaluate as eval_command
from dfd_cli import train as train_command

SMALL = ("--model", "tiny", "--recipe", "fast", "--size", "48x33", "--batch-size", "5", "--device", "cpu")


def dfd_train(*arguments: object) -> Result:
    return CliRunner().invoke(train_command.main, list(map(str, arguments)))


def dfd_eval(*arguments: object) -> Result:
    return CliRunner().invoke(eval_command.main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "a"
    result = dfd_train("--shards", store, "--out", out, *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    return out


def test_training_prints_progress_and_where_the_checkpoint_is(store: Path, tmp_path: Path) -> None:
    result = dfd_train("--shards", store, "--out", tmp_path / "a", *SMALL, "--epochs", 2, "--validate-every", 1)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert re.match(
        r"tiny network \([\d,]+ parameters, heads depth \+ aif\), recipe fast, 10 training samples", lines[0]
    )
    assert "val split, 5 samples" in lines[1]
    assert re.match(r"epoch 1/2  total .*val: rmse .* m \(mean depth .*\)  psnr .* dB \(input .*\)", lines[2])
    assert "2 epochs, 4 steps in" in result.output
    assert str(next((tmp_path / "a" / "checkpoints").glob("*4.pt"))) in result.output


def test_evaluating_prints_the_table(store: Path, run: Path, tmp_path: Path) -> None:
    result = dfd_eval(
        "--shards", store, "--checkpoint", run, "--out", tmp_path / "r", "--device", "cpu", "--size", "native"
    )
    assert result.exit_code == 0
    assert "5 images" in result.output
    assert "at 64x48" in result.output
    for title in ("RMSE (m)", "AbsRel", "delta < 1.25", "PSNR (dB)", "SSIM"):
        assert title in result.output
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        "report.json", "report.md", "report.html", "per_image.csv", "predictions.png",
    }  # fmt: skip
    assert f"report: {tmp_path / 'r'}" in result.output


def assert_one_line(result: Result, pattern: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert re.search(pattern, result.stderr), result.stderr


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("--shards", "{store}"), "--out"),
        ((), "--shards STORE.*--out RUN"),
        (("--out", "{new}"), "give the shard store: --shards"),
        (("--out", "{new}", "--shards", "nowhere.zarr"), "nowhere.zarr is not there"),
        (("--out", "{run}", "--shards", "{store}"), "--resume, or discard it with --overwrite"),
        (("--out", "{run}", "--resume", "--overwrite"), "exclude each other"),
        (("--out", "{run}", "--resume", "--lr", "1"), "another --lr"),
        (("--out", "{new}", "--resume"), "holds no run to resume"),
        (("--out", "{new}", "--shards", "{store}", "--model", "huge"), "'huge'"),
        (("--out", "{new}", "--shards", "{store}", "--size", "12x"), "width x height"),
        (
            ("--out", "{new}", "--shards", "{store}", "--crop", "64", "--model", "tiny"),
            "larger than the store's frames",
        ),
        (("--out", "{new}", "--shards", "{store}", "--epochs", "0"), "--epochs 0"),
        (("--out", "{new}", "--shards", "{store}", "--device", "cuda:77", "--model", "tiny"), "cuda:77"),
        (("--out", "{new}", "--shards", "{store}", "--pretrained", "gone.pth", "--model", "tiny"), "gone.pth"),
    ],
)
def test_wrong_training_is_one_line_and_exit_code_2_and_leaves_nothing(
    store: Path, run: Path, tmp_path: Path, arguments: tuple[str, ...], pattern: str
) -> None:
    places = {"store": store, "run": run, "new": tmp_path / "new"}
    assert_one_line(dfd_train(*(argument.format(**places) for argument in arguments)), pattern)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("--shards", "{store}"), "--checkpoint"),
        ((), "--shards STORE and --checkpoint RUN"),
        (("--shards", "nowhere.zarr", "--checkpoint", "{run}"), "nowhere.zarr"),
        (("--shards", "{store}", "--checkpoint", "gone"), "gone not found"),
        (("--shards", "{store}", "--checkpoint", "{text}"), "cannot be read"),
        (("--shards", "{store}", "--checkpoint", "{run}", "--split", "extra"), "extra"),
        (("--shards", "{store}", "--checkpoint", "{run}", "--size", "large"), "width x height"),
        (("--shards", "{store}", "--checkpoint", "{run}", "--size", "8"), "at least 11 pixels"),
        (("--shards", "{store}", "--checkpoint", "{run}", "--limit", "0"), "--limit 0"),
        (("--shards", "{store}", "--checkpoint", "{run}", "--cap-m", "0.5"), "no depth below 0.5 m"),
    ],
)
def test_wrong_evaluation_is_one_line_and_exit_code_2(
    store: Path, run: Path, tmp_path: Path, arguments: tuple[str, ...], pattern: str
) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    places = {"store": store, "run": run, "text": tmp_path / "text.pt"}
    result = dfd_eval(*(argument.format(**places) for argument in arguments), "--out", tmp_path / "r")
    assert_one_line(result, pattern)
    assert not (tmp_path / "r").exists()


def test_the_installed_command_saves_on_sigterm_exits_with_130_and_resumes(store: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("dfd-train")), "--out", str(tmp_path / "run")]
    arguments = ["--shards", str(store), *SMALL, "--epochs", "4000", "--checkpoint-every", "1000"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while (
            not (tmp_path / "run" / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    said = (tmp_path / "log").read_text()
    assert re.search(r"stopped in epoch \d+ after \d+ steps?; go on with: dfd-train --out .* --resume", said)
    assert "Traceback" not in said
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.pt"))) == 1


def test_help_shows_every_option_with_its_default() -> None:
    for command in (dfd_train, dfd_eval):
        text = command("--help").output
        assert text.count("--") > 9
        assert "default: " in text


def test_evaluating_as_json_prints_the_report_alone(store: Path, run: Path, tmp_path: Path) -> None:
    result = dfd_eval(
        "--shards", store, "--checkpoint", run, "--out", tmp_path / "r", "--device", "cpu", "--split", "val", "--json"
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["settings"]["split"] == "val"
    assert report["rows"]["prediction"]["silog"] > 0
    assert report == json.loads((tmp_path / "r/report.json").read_text())
