from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from dfd_cli.reproduce import main
from rich.console import Console

from dfd_train.config.loss import TABLE_II
from dfd_train.config.reproduction import Plan, runs
from dfd_train.errors import ConfigError
from dfd_train.training import reproduce as module
from dfd_train.training.reproduce import reproduce

ROOT = Path(__file__).parents[3]
QUIET = Console(quiet=True)
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 10, "size": "48x33", "device": "cpu", "tensorboard": False}
FLAGS = ("--model", "tiny", "--epochs", "1", "--batch-size", "10", "--size", "48x33", "--device", "cpu")


def plan(table: str, store: Path, out: Path, **changes: Any) -> Plan:
    options = {**QUICK, **changes.pop("options", {})}
    return Plan(table=table, shards=str(store), out=out, model="tiny", options=options, **changes)


def test_each_row_is_trained_as_its_table_says(store: Path, stack: Path, tmp_path: Path) -> None:
    losses = runs(plan("table2", store, tmp_path))
    assert [(c.loss.depth, c.loss.image) for c in losses.values()] == [(t.depth, t.image) for t in TABLE_II.values()]
    heads = runs(plan("table3", store, tmp_path, seeds=(0, 3)))
    assert {name: (c.model.heads, c.seed) for name, c in heads.items()} == {
        "both-seed0": (("depth", "aif"), 0), "both-seed3": (("depth", "aif"), 3),
        "depth-seed0": (("depth",), 0), "depth-seed3": (("depth",), 3),
        "deblur-seed0": (("aif",), 0), "deblur-seed3": (("aif",), 3),
    }  # fmt: skip
    methods = runs(plan("table4", store, tmp_path, options={"balance": "auto"}))
    assert {name: c.model.name for name, c in methods.items()} == {
        "2hded": "tiny", "dncnn": "dncnn", "ircnn": "ircnn", "d3net": "d3net-tiny", "anwar": "anwar-tiny",
        "gur": "gur-tiny",
    }  # fmt: skip
    assert runs(plan("table4", store, tmp_path, stack=str(stack)))["song"].shards == str(stack)


def test_the_command_trains_scores_and_writes_the_table(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table3"
    command = ["table3", "--shards", str(store), "--out", str(out), "--only", "depth,deblur", *FLAGS]
    monkeypatch.setattr(sys, "argv", ["dfd-reproduce", *command])
    assert CliRunner().invoke(main, command).exit_code == 0
    text = (out / "table3.md").read_text()
    assert "after 1 epoch where the paper has 500" in text
    assert "the blurred input as it is scores psnr" in text
    assert "the mean depth everywhere scores rmse" in text
    results = json.loads((out / "results.json").read_text())
    assert results["command"].endswith("--device cpu")
    assert results["command"].startswith("dfd-reproduce table3")
    assert (results["commit"] is None) is not (ROOT / ".git").exists()
    assert list(results["runs"]) == ["depth", "deblur"]
    for name, facts in results["runs"].items():
        own = json.loads((out / name / "report" / "report.json").read_text())["rows"]["prediction"]
        assert facts["scores"]["prediction"] == own
        assert facts["samples_per_s"] > 0
        shown = f"{own['rmse']:.3f}" if name == "depth" else f"{own['psnr']:.2f}"
        assert shown in next(line for line in text.splitlines() if line.startswith(f"|  | {name} |"))

    # Again: nothing is trained or scored anew, and the same table comes out.
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/*.pt")}
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/*.pt")} == before
    assert "image  " not in again.output
    assert (out / "table3.md").read_text() == text

    # What is gathered to be published says everything but where it lay.
    script = ROOT / "benchmarks" / "paper" / "collect_results.py"
    published = tmp_path / "published"
    subprocess.run([sys.executable, script, out, "--out", published], check=True)
    assert {path.name for path in published.iterdir()} == {"table3.json", "table3.md"}
    assert (
        json.loads((published / "table3.json").read_text())["runs"]["depth"]["scores"]
        == results["runs"]["depth"]["scores"]
    )
    assert not [path for path in published.iterdir() if str(out.parent) in path.read_text().replace(str(store), "")]

    # Other settings are not passed off as the ones asked for.
    other = CliRunner().invoke(main, [*command, "--lr", "1e-3"])
    assert other.exit_code == 2
    assert "the run depth in" in other.stderr
    assert "another --lr" in other.stderr


def test_a_table_without_defocus_says_so(store: Path, tmp_path: Path) -> None:
    table = reproduce(plan("table3", store, tmp_path, only=("depth",), options={"input": "aif"}), console=QUIET)
    assert table is not None
    assert "the network is given the all-in-focus picture" in table.text()
    with pytest.raises(ConfigError, match="input=aif"):
        runs(plan("table3", store, tmp_path, options={"input": "aif"}))


def test_a_stopped_reproduction_goes_on_where_it_was(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan("table2", store, tmp_path, only=("l1+charb", "l1+l1"), limit=2, options={"epochs": 2})
    trained = []
    original = module.train

    def stopping(config: Any, **how: Any) -> Any:
        trained.append((Path(config.out).name, how.get("resume", False)))
        result = original(config, **how)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(module, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        reproduce(wanted, console=QUIET)
    # As after a crash in the middle of the second run: its last epoch is gone.
    last = sorted((tmp_path / "l1-l1" / "checkpoints").glob("step-*"))[-2:]
    for file in last:
        file.unlink()
    table = reproduce(wanted, console=QUIET)
    assert trained == [("l1-charb", False), ("l1-l1", False), ("l1-l1", True)]
    assert table is not None
    assert [line[1] for line in table.cells if line[1] in ("l1-charb", "l1-l1")] == ["l1-charb", "l1-l1"]
    assert json.loads((tmp_path / "results.json").read_text())["runs"]["l1-l1"]["images"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "table9"}, "table='table9' must be one of table2, table3, table4"),
        ({"only": ("l2",)}, "only='l2' must be one of l1+charb"),
        ({"options": {"heads": "depth"}}, "heads is decided by the table"),
        ({"seeds": (1, 1)}, "seeds=(1, 1) must be different numbers"),
        ({"table": "table4", "only": ("song",)}, "--stack STORE made with dfd-prepare"),
    ],
)
def test_an_impossible_plan_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan(**{"table": "table2", "shards": "s.zarr", "out": tmp_path, **changes})
    assert message in str(caught.value)


def test_a_wrong_command_line_ends_in_one_line(store: Path, tmp_path: Path) -> None:
    for words in (
        ("table2", "--shards", tmp_path / "no.zarr", "--out", tmp_path / "out", *FLAGS),
        ("table5", "--shards", store, "--out", tmp_path),
        ("table2", "--shards", store, "--out", tmp_path, "--seeds", "one"),
        ("table2", "--shards", store, "--out", tmp_path, "--only", "l1+charb,l9"),
        ("table2", "--shards", store, "--out", "s3://bucket/folder"),
    ):
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
