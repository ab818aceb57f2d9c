from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dfd_cli import evaluate as eval_command
from rich.console import Console

from dfd_train.config.loss import TABLE_II
from dfd_train.config.model import METHODS, VARIANTS
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError, EvaluationError
from dfd_train.evaluation.evaluate import EvalConfig, default_out, evaluate
from dfd_train.evaluation.paper_tables import MAKE3D, TABLE2, TABLE3, TABLE4
from dfd_train.evaluation.tables import paper_table
from dfd_train.training.train import train

QUIET = Console(quiet=True)


def dfd_eval(*arguments: object) -> Result:
    return CliRunner().invoke(eval_command.main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny evaluated run for every row of Tables II and III."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    options = {name: {"loss": name} for name in TABLE_II} | {"depth": {"heads": "depth"}, "deblur": {"heads": "deblur"}}
    for name, option in options.items():
        out = folder / name.replace("+", "_")
        train(
            recipe_config(
                "fast", shards=store, out=out, model="tiny", size="48x33", epochs=1, batch_size=10, device="cpu",
                validate_limit=1, **option,
            ),
            console=QUIET,
        )  # fmt: skip
        evaluate(
            EvalConfig(shards=str(store), checkpoint=str(out), device="cpu", out=str(out / "report"), pictures=0),
            console=QUIET,
        )
        made[name] = out
    return made


def figures(run: Path) -> dict[str, float]:
    return json.loads((run / "report" / "report.json").read_text())["rows"]["prediction"]


def test_every_row_of_the_paper_is_there() -> None:
    assert tuple(TABLE2) == tuple(TABLE_II)
    assert (len(TABLE2), len(TABLE3), len(TABLE4), len(MAKE3D)) == (5, 3, 10, 5)
    assert TABLE2["l1+charbssim"].figures["psnr"] == 33.85
    assert TABLE3["deblur"].figures == {"psnr": 31.941, "ssim": 0.919}
    assert TABLE4["ircnn"].figures == {"psnr": 35.46, "ssim": 0.99}
    assert MAKE3D["2hded"].figures["c2_rmse"] == 6.132


def test_the_papers_figures_stand_as_it_prints_them() -> None:
    for name, row, cells in (
        ("table2", "L1 + L1", ["0.292", "0.068", "0.799", "0.819", "0.891", "30.38", "0.90"]),
        ("table3", "both heads", ["0.24", "-", "0.91", "0.97", "0.99", "34.849", "-"]),
        ("table3", "AiF head alone", ["-", "-", "-", "-", "-", "31.941", "0.919"]),
        ("table4", "IRCNN", ["-", "-", "-", "-", "-", "35.46", "0.99"]),
    ):
        (line,) = [line for line in paper_table(name, []).cells if line[0] == row]
        assert line[2:] == cells


def test_a_run_on_sharp_pictures_is_called_one_wherever_it_stands(runs: dict[str, Path], tmp_path: Path) -> None:
    report = json.loads((runs["depth"] / "report" / "report.json").read_text())
    report["settings"]["training"]["model"]["input"] = "aif"
    (tmp_path / "sharp").mkdir()
    (tmp_path / "sharp" / "report.json").write_text(json.dumps(report))
    names = [line[1] for line in paper_table("table3", [str(tmp_path / "sharp"), str(runs["depth"])]).cells]
    assert "sharp (sharp input)" in names
    assert runs["depth"].name in names


def test_table2_is_complete_with_a_run_for_every_loss(runs: dict[str, Path]) -> None:
    table = paper_table("table2", [str(runs[name]) for name in TABLE_II])
    assert len(table.cells) == 1 + 2 * 5
    for k, name in enumerate(TABLE_II):
        paper, own = table.cells[1 + 2 * k : 3 + 2 * k]
        assert paper[:2] == [TABLE2[name].method, "paper"]
        assert own[1] == runs[name].name
        assert own[2] == f"{figures(runs[name])['rmse']:.3f}"
        assert own[7] == f"{figures(runs[name])['psnr']:.2f}"
    assert not any("missing" in note for note in table.notes)
    assert not any("cannot be compared" in note for note in table.notes)


def test_table3_has_the_single_heads_and_both(runs: dict[str, Path]) -> None:
    given = [str(runs[name]) for name in ("l1grad+charbssim", "depth", "deblur")]
    result = dfd_eval("table3", "--runs", *given, "--format", "markdown")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("|")]
    assert [line.split("|")[2].strip() for line in lines[2:]] == [
        "paper", "deblur", "paper", "depth", "paper", "l1grad_charbssim",
    ]  # fmt: skip
    assert lines[3].split("|")[3].strip() == "-"
    assert lines[5].split("|")[8].strip() == "-"


@pytest.fixture(scope="module")
def methods(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny evaluated run for every method of Table IV that this program trains, on a store with two focus distances."""
    folder = tmp_path_factory.mktemp("methods")
    made = {}
    for key in METHODS:
        out = folder / key
        model = "tiny" if key == "2hded" else key if f"{key}-tiny" not in VARIANTS else f"{key}-tiny"
        train(
            recipe_config(
                "fast", shards=stack, out=out, model=model, size="48x33", epochs=1, batch_size=4, device="cpu",
                validate_limit=1, tensorboard=False,
            ),
            console=QUIET,
        )  # fmt: skip
        result = dfd_eval("--shards", stack, "--checkpoint", out, "--device", "cpu", "--no-html")
        assert result.exit_code == 0, result.output
        made[key] = out
    return made


def test_table4_is_complete_with_a_run_for_every_method(methods: dict[str, Path], tmp_path: Path) -> None:
    result = dfd_eval("table4", "--runs", *methods.values(), "--out", tmp_path / "t", "--format", "markdown")
    assert result.exit_code == 0, result.output
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.output.splitlines() if line[:1] == "|"]
    keys = list(TABLE4)
    assert [line[0] for line in lines[2:] if line[0]] == [row.method for row in TABLE4.values()]
    for key, run in methods.items():
        at = next(k for k, line in enumerate(lines) if line[0] == TABLE4[key].method)
        own, measured = lines[at + 1], figures(run)
        assert own[:2] == ["", key]
        assert own[2] == (f"{measured['rmse']:.3f}" if "rmse" in measured else "-")
        assert own[7] == (f"{measured['psnr']:.2f}" if "psnr" in measured else "-")
    assert "missing" not in result.output
    assert len(lines) == 2 + len(keys) + len(METHODS)
    # A frame at two distances is one sample for one method and two for the others.
    assert "they differ in images" in result.output
    for ending, mark in (("md", "| Song et al. |"), ("tex", "Song et al. &"), ("html", "<td>Song et al.</td>")):
        assert mark in (tmp_path / "t" / f"table4.{ending}").read_text()


def test_a_method_that_takes_other_samples_is_not_compared_in_one_report(
    methods: dict[str, Path], stack: Path, tmp_path: Path
) -> None:
    runs = (methods["song"], methods["d3net"])
    result = dfd_eval("--shards", stack, "--checkpoint", *runs, "--out", tmp_path / "r", "--device", "cpu")
    assert result.exit_code == 2
    assert re.search("d3net and song take other samples .* dfd-eval table4 --runs", result.stderr)
    assert not (tmp_path / "r").exists()


def test_a_report_without_a_place_goes_into_the_run(methods: dict[str, Path], tmp_path: Path) -> None:
    assert (methods["gur"] / "report" / "report.json").is_file()
    assert not (methods["gur"] / "report" / "report.html").exists()
    newest = next((methods["gur"] / "checkpoints").glob("*.pt"))
    assert default_out([str(newest)]) == methods["gur"] / "report"
    shutil.copy(newest, tmp_path / "best.pt")
    assert default_out([str(tmp_path / "best.pt")]) == tmp_path / "best-report"
    assert default_out([str(methods["gur"]), str(newest)]) == methods["gur"].parent / "comparison"


def test_missing_runs_are_shown_with_a_command_that_the_program_understands(runs: dict[str, Path]) -> None:
    table = paper_table("table2", [str(runs["l1+l1"])], shards="nyu.zarr")
    assert [line[1] for line in table.cells].count("missing") == 4
    commands = [note for note in table.notes if note.startswith("missing ")]
    assert "dfd-train --shards nyu.zarr --loss l1+charb --out runs/table2-l1-charb && dfd-eval" in commands[0]
    table = paper_table("table4", [], shards="s.zarr")
    assert "--model d3net" in next(note for note in table.notes if "D3-Net" in note)
    assert "--focus 1m,4m" in next(note for note in table.notes if "Song" in note)
    # Methods of other authors that this program does not train have a printed row and no command.
    assert not any("Tang" in note for note in table.notes)
    from dfd_cli.train import main as train_command

    options = {o for parameter in train_command.params for o in parameter.opts}
    for note in [n for name in ("table2", "table3", "table4") for n in paper_table(name, []).notes]:
        if note.startswith("missing "):
            assert set(re.findall(r"--\w+", note.split("&&")[0])) <= options


def test_three_formats_are_written(runs: dict[str, Path], tmp_path: Path) -> None:
    result = dfd_eval("table2", "--runs", runs["l1+l1"], runs["l1+charb"], "--out", tmp_path / "t", "--format", "latex")
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"table2.md", "table2.tex", "table2.html"}
    tex = (tmp_path / "t" / "table2.tex").read_text()
    assert r"l1\_l1 &" in tex
    assert r"\begin{tabular}{llrrrrrrr}" in tex
    assert tex.count(r"\\") == 1 + 5 + 2 + 3
    page = (tmp_path / "t" / "table2.html").read_text()
    assert page.count("<tr>") == 1 + 5 + 2 + 3
    assert "per-image" in page
    assert "src=" not in page


def test_runs_on_other_settings_are_told_apart(runs: dict[str, Path], store: Path, tmp_path: Path) -> None:
    evaluate(
        EvalConfig(
            shards=str(store), checkpoint=str(runs["l1+l1"]), device="cpu", out=str(tmp_path / "small"), pictures=0,
            limit=2, convention="pooled",
        ),
        console=QUIET,
    )  # fmt: skip
    table = paper_table("table2", [str(tmp_path / "small"), str(runs["l1+charb"])])
    assert any("they differ in images, convention" in note for note in table.notes)


def test_reports_of_before_which_had_the_height_first_compare_with_those_of_today(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    content = json.loads((runs["l1+l1"] / "report" / "report.json").read_text())
    wide, high = content["settings"].pop("size_wh")
    content["settings"]["size"] = f"{high}x{wide}"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text(json.dumps(content))
    assert (wide, high) == (48, 33)
    table = paper_table("table2", [str(tmp_path / "old"), str(runs["l1+charb"])])
    assert not any("they differ" in note for note in table.notes)
    assert sum(f"at {wide}x{high}," in note for note in table.notes) == 2


def test_make3d_figures_go_to_c1_and_c2_by_their_cap(runs: dict[str, Path], tmp_path: Path) -> None:
    for cap, rmse in ((70.0, 4.5), (80.0, 6.5)):
        content = json.loads((runs["l1+l1"] / "report" / "report.json").read_text())
        content["source"], content["settings"]["cap_m"] = "make3d", cap
        content["rows"]["prediction"]["rmse"] = rmse
        folder = tmp_path / "run" / f"report-{cap:g}"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(content))
    table = paper_table("table4", [str(tmp_path / "run")])
    own = next(line for line in table.cells if line[1] == "run")
    assert (own[2], own[4]) == ("4.500", "6.500")
    assert table.cells[table.cells.index(own) - 1][0] == "2HDED:NET"
    assert "Make3D" in table.title
    with pytest.raises(EvaluationError, match="cannot share a table"):
        paper_table("table4", [str(tmp_path / "run"), str(runs["l1+l1"])])
    with pytest.raises(EvaluationError, match="belong to table4"):
        paper_table("table2", [str(tmp_path / "run")])


def test_a_run_without_a_report_is_told_how_to_get_one(tmp_path: Path) -> None:
    result = dfd_eval("table2", "--runs", tmp_path)
    assert result.exit_code == 2
    assert "no report yet: dfd-eval --shards STORE" in result.stderr
    (tmp_path / "report.json").write_text('{"rows": 1}')
    result = dfd_eval("table2", "--runs", tmp_path)
    assert result.exit_code == 2
    assert "is no report of dfd-eval" in result.stderr
    with pytest.raises(ConfigError, match="table5"):
        paper_table("table5", [])


def test_a_run_that_no_row_fits_is_named(runs: dict[str, Path]) -> None:
    assert any(n == "without a row in this table: depth" for n in paper_table("table2", [str(runs["depth"])]).notes)
