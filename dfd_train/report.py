"""The result of an evaluation: as a table for the terminal, as Markdown, as JSON, and as files in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_train.checkpoint import write_atomically
from dfd_train.errors import EvaluationError
from dfd_train.metrics import DEPTH_METRICS, IMAGE_METRICS

# Nazir et al. 2023, Tables II and V: the last row of II for NYU, the network's own row (C1 for depth) for Make3D.
PUBLISHED: dict[str, dict[str, float]] = {
    "nyu": {
        "rmse": 0.241, "abs_rel": 0.025, "delta1": 0.914, "delta2": 0.979, "delta3": 0.995,
        "psnr": 34.84, "ssim": 0.989,
    },
    "make3d": {"rmse": 4.178, "abs_rel": 0.153, "psnr": 24.76, "ssim": 0.78},
}  # fmt: skip
PUBLISHED_NAME = "paper"
TITLES = {
    "rmse": "RMSE (m) ↓", "abs_rel": "AbsRel ↓", "sq_rel": "SqRel (m) ↓", "rmse_log": "RMSE-log ↓", "log10": "log10 ↓",
    "delta1": "delta < 1.25 ↑", "delta2": "delta < 1.25² ↑", "delta3": "delta < 1.25³ ↑", "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found.

    `rows`: metrics by name for "prediction" and, where they exist, "input" (the defocused image left as it is) and
    "mean depth" (the train split's mean everywhere). `per_image`: the prediction's metrics by sample name.
    `constant_depth_m`: that mean in metres. `source`: kind of data set. `settings`: everything that the numbers depend
    on, JSON-ready.
    """

    rows: Mapping[str, Mapping[str, float]]
    per_image: Mapping[str, Mapping[str, float]]
    constant_depth_m: float | None
    source: str
    settings: Mapping[str, Any]

    @property
    def published(self) -> dict[str, float]:
        """The paper's figures for this kind of data, NYU's where it has none."""
        return PUBLISHED.get(self.source, PUBLISHED["nyu"])

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
        some = "" if s["images"] == s["images_in_split"] else f" of {s['images_in_split']}"
        mean = "" if self.constant_depth_m is None else f", mean train depth {self.constant_depth_m:.3f} m"
        return (
            f"{s['images']}{some} images of {s['shards']} [{s['split']}] at {s['size']}, {s['convention']} metrics, "
            f"depth up to {s['cap_m']:g} m{mean}; checkpoint after {s['epochs']} epochs, {s['steps']} steps"
        )

    def cells(self) -> list[list[str]]:
        """The table: a header, then one line a metric; methods are columns."""
        columns = {**self.rows, PUBLISHED_NAME: self.published}
        measured = [name for name in (*DEPTH_METRICS, *IMAGE_METRICS) if any(name in row for row in self.rows.values())]
        return [
            ["", *columns],
            *([TITLES[m], *(_number(m, row[m]) if m in row else "-" for row in columns.values())] for m in measured),
        ]

    def text(self) -> str:
        """The table for a terminal, some 70 characters wide."""
        cells = self.cells()
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = [
            line[0].ljust(widths[0]) + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
            for line in cells
        ]
        return "\n".join([self.headline(), "", *lines, "", self.footnote])

    def markdown(self) -> str:
        """The same as Markdown."""
        header, *body = self.cells()
        rule = ["---", *["---:"] * (len(header) - 1)]
        table = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))
        return f"# Evaluation\n\n{self.headline()}\n\n{table}\n\n{self.footnote}\n"

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready; the paper's figures apart from the measured ones."""
        return {
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "published": {"note": self.footnote, **self.published},
            "constant_depth_m": self.constant_depth_m,
            "source": self.source,
            "settings": dict(self.settings),
            "per_image": {name: dict(row) for name, row in self.per_image.items()},
        }


def write_report(report: Report, folder: Path, sheet: NDArray[np.uint8] | None) -> None:
    """Write report.json, report.md and, from `sheet` (H, W, 3) RGB, predictions.png.

    Raises `EvaluationError` where the folder cannot be written.
    """
    files = {
        "report.json": (json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n").encode(),
        "report.md": report.markdown().encode(),
    }
    if sheet is not None:
        files["predictions.png"] = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise EvaluationError(f"cannot write the report to {folder}: {error.strerror or error}") from error


def _number(metric: str, value: float) -> str:
    return f"{value:.2f}" if metric == "psnr" else f"{value:.4f}"
