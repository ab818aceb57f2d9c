"""The paper's Tables II, III and IV with a user's runs laid beside the printed rows; missing runs with their command."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defocus_sim.errors import parse_json
from dfd_train.config.loss import TABLE_II
from dfd_train.config.model import METHODS
from dfd_train.config.reproduction import TABLES
from dfd_train.errors import ConfigError, EvaluationError
from dfd_train.evaluation.page.html import render
from dfd_train.evaluation.paper_tables import FAULTS, MAKE3D, TABLE2, TABLE3, TABLE4, PublishedRow
from dfd_train.evaluation.report import markdown_table, pictures_text, size_text, text_table, trained_text, write_files

_NYU_COLUMNS = {
    "rmse": "RMSE", "abs_rel": "AbsRel", "delta1": "d1", "delta2": "d2", "delta3": "d3", "psnr": "PSNR", "ssim": "SSIM",
}  # fmt: skip
_MAKE3D_COLUMNS = {
    "c1_rmse": "C1 RMSE", "c1_abs_rel": "C1 AbsRel", "c2_rmse": "C2 RMSE", "c2_abs_rel": "C2 AbsRel", "psnr": "PSNR",
    "ssim": "SSIM",
}  # fmt: skip
_CAPS = {70.0: "c1", 80.0: "c2"}
# What two runs must share for their figures to be comparable.
_SHARED = ("source", "store_checksum", "split", "images", "size_wh", "convention", "depth_scored_on", "border_px")
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One evaluated run: its name, its `settings` (with "source"), and figures by metric."""

    name: str
    settings: Mapping[str, Any]
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table to show: `title`, `cells` (a header, then lines), and `notes`, one a line."""

    title: str
    cells: list[list[str]]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        return "\n".join([self.title, "", text_table(self.cells), "", *self.notes])

    def markdown(self) -> str:
        """As Markdown."""
        return f"## {self.title}\n\n{markdown_table(self.cells)}\n\n" + "".join(f"- {note}\n" for note in self.notes)

    def latex(self) -> str:
        """As a LaTeX `tabular` between rules of the package booktabs, the notes as comments."""
        header, *body = ([_latex(cell) for cell in line] for line in self.cells)
        lines = [" & ".join(line) + r" \\" for line in body]
        columns = "ll" + "r" * (len(header) - 2)
        notes = [f"% {note}" for note in (self.title, *self.notes)]
        table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule", *lines]
        return "\n".join([*notes, *table, r"\bottomrule", r"\end{tabular}", ""])

    def html(self) -> str:
        """As a self-contained page."""
        return render("paper_table.html", title=self.title, cells=self.cells, notes=self.notes)


def paper_table(name: str, runs: Sequence[str], *, shards: str = "STORE") -> PaperTable:
    """Table `name` ("table2", "table3", "table4") with the results of `runs` below the rows they belong to.

    `runs`: folders of `dfd-train` with reports of `dfd-eval` inside, folders of reports, or report.json files. Runs on
    Make3D fill the Make3D rows of Table IV, which needs a report with `--cap-m 70` or 80 for each of C1 and C2. `shards`:
    the store in the commands for what is missing. Raises `ConfigError` for an unknown table and `EvaluationError` for a
    run without a readable report.
    """
    if name not in TABLES:
        raise ConfigError(f"table={name!r} must be one of {', '.join(TABLES)}")
    results = [result for run in runs for result in read_results(run)]
    make3d = [r for r in results if r.settings["source"] == "make3d"]
    if make3d and len(make3d) < len(results):
        raise EvaluationError("runs on Make3D and on other data cannot share a table: give one kind")
    if make3d and name != "table4":
        raise EvaluationError(f"{name} is of NYU-Depth v2: runs on Make3D belong to table4")
    rows: Mapping[str, PublishedRow] = {"table2": TABLE2, "table3": TABLE3, "table4": MAKE3D if make3d else TABLE4}[
        name
    ]
    columns = _MAKE3D_COLUMNS if make3d else _NYU_COLUMNS
    results = _merged(results)
    placed = {key: [r for r in results if _row_of(name, r.settings["training"]) == key] for key in rows}
    cells = [["method", "figures of", *columns.values()]]
    missing = []
    for key, row in rows.items():
        cells.append([row.method, "paper", *(row.printed.get(name, "-") for name in columns)])
        cells += [["", r.name + _input(r), *_values(r.figures, columns)] for r in placed[key]]
        if not placed[key]:
            command = _command(name, key, shards)
            # What this program cannot train is not missing.
            if command is not None:
                cells.append(["", "missing", *["-"] * len(columns)])
                missing.append(f"missing {row.method}: {command}")
    lost = [r.name for r in results if not any(r in group for group in placed.values())]
    notes = [
        f"paper: as published on the official {'Make3D' if make3d else 'NYU-Depth v2'} (Nazir et al. 2023), with a "
        "defocus that the paper does not fully specify; not comparable unless data and settings are the same",
        FAULTS,
        *(f"{r.name}: {_data(r)}" for r in results),
        *([_differences(results)] if _differences(results) else []),
        *([f"without a row in this table: {', '.join(lost)}"] if lost else []),
        *missing,
    ]
    numeral = {"table2": "II: losses", "table3": "III: heads", "table4": "IV: methods"}[name]
    return PaperTable(title=f"Table {numeral}{' (Make3D)' if make3d else ''}", cells=cells, notes=tuple(notes))


def write_tables(table: PaperTable, name: str, folder: Path) -> None:
    """Write NAME.md, NAME.tex and NAME.html; raises `EvaluationError` where the folder cannot be written."""
    contents = {"md": table.markdown(), "tex": table.latex(), "html": table.html()}
    files = {f"{name}.{ending}": content.encode(errors="backslashreplace") for ending, content in contents.items()}
    write_files("table", folder, files)


def read_results(run: str) -> list[RunResult]:
    """Every report of `run`: the file itself, or report.json in the folder and in the folders inside it.

    Raises `EvaluationError` where there is none, or one cannot be read.
    """
    path = Path(run)
    files = [path] if path.is_file() else sorted({*path.glob("report.json"), *path.glob("*/report.json")})
    if not files and path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        # `glob` finds nothing there and says nothing.
        raise EvaluationError(f"{run} cannot be read: Permission denied")
    if not files:
        raise EvaluationError(
            f"{run} has no report yet: dfd-eval --shards STORE --checkpoint {run} --out {path / 'report'}"
        )
    results = []
    for file in files:
        try:
            content = parse_json(file.read_bytes())
            parts = content.get("reports") or {path.name if path.is_dir() else file.parent.name: content}
            for name, part in parts.items():
                settings = {
                    "depth_scored_on": "the frames", "border_px": 0, **_size_wh(part["settings"]), **part["settings"],
                    "source": part["source"],
                }  # fmt: skip
                results.append(RunResult(name=name, settings=settings, figures=part["rows"]["prediction"]))
                lacking = [key for key in (*_SHARED, "cap_m", "shards", "epochs", "training") if key not in settings]
                if lacking:
                    raise KeyError(", ".join(lacking))
                _check_report(settings, part["rows"]["prediction"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(f"{file} is no report of dfd-eval: {type(error).__name__} {error}") from error
    return results


def _size_wh(settings: Mapping[str, Any]) -> dict[str, list[int]]:
    """The size that reports of before had as a text, height first."""
    sides = str(settings.get("size", "")).split("x")
    return {"size_wh": [int(side) for side in reversed(sides)]} if len(sides) == 2 else {}


def _check_report(settings: Mapping[str, Any], figures: Any) -> None:
    """Raise `TypeError` or `ValueError` where a report's figures or settings are not what tables are made from."""
    if not isinstance(figures, dict):
        raise TypeError("its rows are no tables")
    for key, value in figures.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"{key} = {value!r} is no number")
    for key in ("cap_m", "epochs"):
        float(settings[key])
    _, _ = settings["size_wh"]
    if not isinstance(settings["training"], dict) or not isinstance(settings["source"], str):
        raise TypeError("its settings are of another kind")
    for table in ("table2", "table3", "table4"):
        # What it raises says that the run cannot be placed in any.
        _row_of(table, settings["training"])


def _merged(results: Sequence[RunResult]) -> list[RunResult]:
    """Make3D's depth figures under C1 or C2 by their cap, the reports of one run as one; others as they are."""
    merged: dict[str, RunResult] = {}
    others = []
    for result in results:
        if result.settings["source"] != "make3d":
            others.append(result)
            continue
        cap = _CAPS.get(float(result.settings["cap_m"]))
        figures = {k: v for k, v in result.figures.items() if k in ("psnr", "ssim")}
        figures |= {f"{cap}_{k}": v for k, v in result.figures.items() if k not in figures and cap}
        before = merged[result.name].figures if result.name in merged else {}
        merged[result.name] = RunResult(name=result.name, settings=result.settings, figures={**before, **figures})
    return [*others, *merged.values()]


def _row_of(table: str, training: Mapping[str, Any]) -> str | None:
    """The key of the row that a run with this training configuration belongs to."""
    method, heads = training["model"].get("method", "2hded"), tuple(training["model"].get("heads", ()))
    single = {("depth",): "depth", ("aif",): "deblur"}.get(heads, "both")
    if table == "table4":
        # The two-headed network with the depth head alone is D3-Net.
        return method if method != "2hded" else {"depth": "d3net", "both": "2hded"}.get(single)
    if method != "2hded":
        return None
    if table == "table3":
        return single
    loss = training["loss"]
    own = (loss["depth"], loss["image"]) if single == "both" else None
    return next((name for name, terms in TABLE_II.items() if (terms.depth, terms.image) == own), None)


def _command(table: str, key: str, shards: str) -> str | None:
    """The command that would make the run of a row, None where this version of `dfd-train` has no such model."""
    if table == "table4" and key not in METHODS:
        return None
    own = "" if key == "2hded" else f"--model {key} "
    options = {"table2": f"--loss {key} ", "table3": f"--heads {key} ", "table4": own}[table]
    run = f"runs/{table}-{key.replace('+', '-')}"
    pairs = table == "table4" and METHODS[key].pictures > 1
    return (
        f"dfd-train --shards {shards} {options}--out {run} && "
        f"dfd-eval --shards {shards} --checkpoint {run} --out {run}/report"
        + (f" ({shards} made with two focus distances: dfd-prepare ... --focus 1m,4m)" if pairs else "")
    )


def _values(figures: Mapping[str, float], columns: Mapping[str, str]) -> list[str]:
    return [
        "-" if name not in figures else f"{figures[name]:.2f}" if name == "psnr" else f"{figures[name]:.3f}"
        for name in columns
    ]


def _input(result: RunResult) -> str:
    """A word about a run whose input was not defocused: it belongs to the row by its network, not by its task."""
    return " (sharp input)" if result.settings["training"]["model"].get("input") == "aif" else ""


def _data(result: RunResult) -> str:
    s = result.settings
    return (
        f"{pictures_text(s)} of {s['shards']} ({s['source']}, {s['split']}) at {size_text(s)}, {s['convention']} "
        f"metrics, depth up to {s['cap_m']:g} m on {s['depth_scored_on']}, {trained_text(s)}, "
        f"{s['training']['model']['name']} network"
    )


def _differences(results: Sequence[RunResult]) -> str:
    """In what the runs differ that makes them incomparable, or nothing."""
    differing = [key for key in _SHARED if len({str(r.settings[key]) for r in results}) > 1]
    return f"the runs cannot be compared with one another: they differ in {', '.join(differing)}" if differing else ""


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in cell)
