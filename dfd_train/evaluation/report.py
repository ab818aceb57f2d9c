"""The result of an evaluation: as a table for the terminal, as Markdown, as JSON, and as files in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.progress import counted
from dfd_train.errors import EvaluationError
from dfd_train.evaluation.metrics import DEPTH_METRICS, IMAGE_METRICS
from dfd_train.evaluation.paper_tables import published_figures
from dfd_train.evaluation.scoring import Profile
from dfd_train.evaluation.uncertainty import uncertainty_line
from dfd_train.files import write_atomically

PUBLISHED_NAME = "paper"
TITLES = {
    "rmse": "RMSE (m) ↓", "abs_rel": "AbsRel ↓", "sq_rel": "SqRel (m) ↓", "rmse_log": "RMSE-log ↓", "silog": "SILog ↓",
    "log10": "log10 ↓", "delta1": "delta < 1.25 ↑", "delta2": "delta < 1.25² ↑", "delta3": "delta < 1.25³ ↑",
    "psnr": "PSNR (dB) ↑", "ssim": "SSIM ↑",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found.

    `rows`: metrics by name for "prediction" and, where they exist, "input" (the defocused image left as it is) and
    "mean depth" (the train split's mean everywhere). `per_image`: the prediction's metrics by sample name;
    `input_per_image`: those of doing nothing. `profiles`: sums by depth and by sigma over all images.
    `by_side`: depth errors nearer than the focus and beyond it (`summarise_sides`); `uncertainty`: how well the network
    knows its error (`uncertainty.summarise_uncertainty`), None where it answers none.
    `constant_depth_m`: that mean in metres. `source`: kind of data set. `settings`: everything that the numbers depend
    on, JSON-ready.
    """

    rows: Mapping[str, Mapping[str, float]]
    per_image: Mapping[str, Mapping[str, float]]
    constant_depth_m: float | None
    source: str
    settings: Mapping[str, Any]
    input_per_image: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    profiles: Profile | None = None
    by_side: Mapping[str, Mapping[str, float]] | None = None
    uncertainty: Mapping[str, Any] | None = None

    @property
    def published(self) -> dict[str, float]:
        """The paper's figures for this method and data, NYU's for other data; Make3D's depth for C1 or C2 by the cap."""
        return published_figures(self.source, self.method, cap_m=self.settings["cap_m"])

    @property
    def method(self) -> str:
        """Of the model that was scored, a key of `model.config.METHODS`."""
        return str(self.settings["training"]["model"].get("method", "2hded"))

    @property
    def footnote(self) -> str:
        """What the paper's column is and is not."""
        data = "Make3D" if self.source == "make3d" else "NYU-Depth v2"
        return (
            f"{PUBLISHED_NAME}: as published on the official {data} (Nazir et al. 2023), with a defocus that the paper "
            f"does not fully specify; not comparable unless data and settings are the same"
        )

    def headline(self) -> str:
        """One line: how many images of what, at which size, under which convention."""
        s = self.settings
        mean = "" if self.constant_depth_m is None else f", mean train depth {self.constant_depth_m:.3f} m"
        grid = "" if s["depth_scored_on"] == "the frames" else f" on {s['depth_scored_on']}"
        return (
            f"{pictures_text(s)} of {s['shards']} [{s['split']}] at {size_text(s)}, {s['convention']} metrics, "
            f"depth up to {s['cap_m']:g} m{grid}{mean}; {s['training']['model']['name']}, {trained_text(s)}"
            + (", given the sharp picture" if s["training"]["model"].get("input") == "aif" else "")
        )

    def remarks(self) -> list[str]:
        """What a reader of the table should know beside it, a line each."""
        differs = self.settings.get("store_differs") or []
        return [*([differs_line(differs)] if differs else []), *(self.settings.get("collapsed") or [])]

    def findings(self) -> list[str]:
        """What is known of the depths beyond the table, a line each: by side of the focus, and of their uncertainty."""
        lines = []
        if self.by_side is not None:
            lines.append(sides_line(self.by_side))
        if self.uncertainty is not None:
            lines.append(uncertainty_line(self.uncertainty))
        return lines

    def text(self) -> str:
        """The table for a terminal, some 70 characters wide; methods are columns."""
        return Comparison(reports={"prediction": self}).text()

    def markdown(self) -> str:
        """The same as Markdown."""
        return Comparison(reports={"prediction": self}).markdown()

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready; the paper's figures apart from the measured ones."""
        return {
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "published": {"note": self.footnote, **self.published},
            "by_side": None if self.by_side is None else {name: dict(side) for name, side in self.by_side.items()},
            "uncertainty": None if self.uncertainty is None else dict(self.uncertainty),
            "constant_depth_m": self.constant_depth_m,
            "source": self.source,
            "settings": dict(self.settings),
            "per_image": {name: dict(row) for name, row in self.per_image.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Reports of several checkpoints on the same samples, by name, one at least."""

    reports: Mapping[str, Report]

    @property
    def first(self) -> Report:
        """The report that stands for what all share: data, settings, doing nothing."""
        return next(iter(self.reports.values()))

    def rows(self) -> dict[str, Mapping[str, float]]:
        """A row for each checkpoint, then those of doing nothing."""
        rows = {name: report.rows["prediction"] for name, report in self.reports.items()}
        # One that has no depth head cannot tell what the constant depth scores: another may.
        for report in self.reports.values():
            for name, row in report.rows.items():
                if name != "prediction":
                    rows.setdefault(name, row)
        return rows

    def headline(self) -> str:
        """What the first report says of data and settings, or of itself where it is alone."""
        headline = self.first.headline()
        return headline if len(self.reports) == 1 else headline.rpartition(";")[0]

    def cells(self) -> list[list[str]]:
        """The table: a header, then a line for each metric; a column for each checkpoint.

        Beside several methods stands the paper's own.
        """
        methods = {report.method for report in self.reports.values()}
        method = methods.pop() if len(methods) == 1 else "2hded"
        return metric_cells(
            self.rows(), published_figures(self.first.source, method, cap_m=self.first.settings["cap_m"])
        )

    def text(self) -> str:
        """The table for a terminal."""
        return "\n".join(
            [self.headline(), *self.remarks(), "", text_table(self.cells()), "", *self.findings(), self.first.footnote]
        )

    def markdown(self) -> str:
        """The same as Markdown."""
        head = "\n\n".join([self.headline(), *self.remarks()])
        foot = "\n\n".join([*self.findings(), self.first.footnote])
        return f"# Evaluation\n\n{head}\n\n{markdown_table(self.cells())}\n\n{foot}\n"

    def remarks(self) -> list[str]:
        """Those of every report, under its name where there are several."""
        return self._named(Report.remarks)

    def findings(self) -> list[str]:
        """Those of every report, under its name where there are several."""
        return self._named(Report.findings)

    def _named(self, lines_of: Callable[[Report], list[str]]) -> list[str]:
        several = len(self.reports) > 1
        return [
            f"{name}: {line}" if several else line for name, report in self.reports.items() for line in lines_of(report)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Every report's content by name, JSON-ready."""
        return {"reports": {name: report.to_dict() for name, report in self.reports.items()}}


SIDES = ("near", "far")


def summarise_sides(every: Sequence[NDArray[np.float64]]) -> dict[str, dict[str, float]] | None:
    """`SampleScore.sides` of all images as `near` and `far`, pixels pooled; None without a pixel.

    Each side has `share` of the scored pixels and, where it has any, `rmse` (m), `abs_rel` and `wrong_side`, the share of
    its pixels that were predicted on the other side of the focus.
    """
    sums = np.sum(every, axis=0) if every else np.zeros((2, 4))
    total = float(sums[:, 0].sum())
    if total == 0:
        return None
    found = {}
    for name, (pixels, square, relative, wrong) in zip(SIDES, sums.tolist(), strict=True):
        found[name] = {"share": pixels / total}
        if pixels:
            found[name] |= {
                "rmse": (square / pixels) ** 0.5,
                "abs_rel": relative / pixels,
                "wrong_side": wrong / pixels,
            }
    return found


def sides_line(by_side: Mapping[str, Mapping[str, float]]) -> str:
    """Both sides in a line."""
    parts = []
    for name, what in zip(SIDES, ("nearer than the focus", "beyond it"), strict=True):
        side = by_side[name]
        scores = (
            f": RMSE {side['rmse']:.3f} m, {side['wrong_side']:.0%} taken for the other side" if "rmse" in side else ""
        )
        parts.append(f"{side['share']:.0%} of the pixels {what}{scores}")
    return f"by side of the focus, pixels pooled: {'; '.join(parts)}"


def differs_line(differs: Sequence[str]) -> str:
    """That a store is not like the one that was trained on, in one line."""
    return f"this store differs from the one that was trained on: {'; '.join(differs)}"


def pictures_text(settings: Mapping[str, Any]) -> str:
    """How many images were scored: "5 images", "3 of 5 images"."""
    images, whole = settings["images"], settings.get("images_in_split", settings["images"])
    return counted(whole, "image") if images == whole else f"{images} of {counted(whole, 'image')}"


def trained_text(settings: Mapping[str, Any]) -> str:
    """For how long the network was trained, where its file says so."""
    if settings["epochs"] is None:
        return "weights that do not say how long they were trained"
    steps = settings.get("steps")
    return f"after {counted(settings['epochs'], 'epoch')}" + ("" if steps is None else f", {counted(steps, 'step')}")


def size_text(settings: Mapping[str, Any]) -> str:
    """At which size they were scored: "320x240", and what was left out at its sides."""
    wide, high = settings["size_wh"]
    border = settings.get("border_px")
    return f"{wide}x{high}" + (f", {border} px left out at each side" if border else "")


def metric_cells(
    rows: Mapping[str, Mapping[str, float]], published: Mapping[str, float], name: str = PUBLISHED_NAME
) -> list[list[str]]:
    """A header, then a line for each metric that any of `rows` has; the published figures are the last column."""
    columns = {**rows, name: published}
    measured = [m for m in (*DEPTH_METRICS, *IMAGE_METRICS) if any(m in row for row in rows.values())]
    return [
        ["", *columns],
        *([TITLES[m], *(_number(m, row[m]) if m in row else "-" for row in columns.values())] for m in measured),
    ]


def text_table(cells: list[list[str]]) -> str:
    """`cells` aligned for a terminal, the first column to the left."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        line[0].ljust(widths[0]) + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
        for line in cells
    )


def markdown_table(cells: list[list[str]]) -> str:
    """`cells` as Markdown."""
    header, *body = cells
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))


def write_report(
    report: Report | Comparison,
    folder: Path,
    sheet: NDArray[np.uint8] | None,
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Write report.json, report.md, from `sheet` (H, W, 3) RGB predictions.png, and the files `extra` by name.

    Raises `EvaluationError` where the folder cannot be written.
    """
    files = {
        "report.json": (json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n").encode(),
        "report.md": report.markdown().encode(errors="backslashreplace"),
        **(extra or {}),
    }
    if sheet is not None:
        files["predictions.png"] = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()
    write_files("report", folder, files)


def write_files(what: str, folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` by name; raises `EvaluationError`, saying `what` they are, where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise EvaluationError(f"cannot write the {what} to {folder}: {error.strerror or error}") from error


def _number(metric: str, value: float) -> str:
    return f"{value:.2f}" if metric == "psnr" else f"{value:.4f}"
