"""The charts of a report as SVG: the spread of a metric over the images, and errors against depth and blur."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dfd_train.evaluation.metrics import psnr_db
from dfd_train.evaluation.report import TITLES, Comparison, Report
from dfd_train.evaluation.scoring import DEPTH_EDGES_M, PROFILE_COLUMNS, SIGMA_EDGES_PX

COLOURS = ("#1f6fb4", "#c44e2b", "#3c8f4f", "#8a5fb0", "#b8892b", "#4aa3a8")
GREY = "#8a8a8a"
HISTOGRAMS = ("rmse", "abs_rel", "delta1", "psnr", "ssim")
# Fewer pixels than this in a bin say nothing about it.
FEWEST_PIXELS = 50
_BINS = 24
_SIZE_INCHES = (4.1, 2.05)
# Text stays text, and the same chart has the same bytes.
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "dfd", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
Drawn = tuple[str, str]


def colours(comparison: Comparison) -> list[str]:
    """One colour for each checkpoint."""
    return [COLOURS[k % len(COLOURS)] for k in range(len(comparison.reports))]


def _coloured(comparison: Comparison) -> list[tuple[Report, str]]:
    return list(zip(comparison.reports.values(), colours(comparison), strict=True))


def histograms(comparison: Comparison) -> list[Drawn]:
    """(caption, SVG) for each metric that was measured; the input, and the mean depth, in grey."""
    drawn = []
    for metric in HISTOGRAMS:
        every = [(comparison.first.input_per_image, GREY)]
        every += [(report.per_image, colour) for report, colour in _coloured(comparison)]
        # An image restored exactly has no finite PSNR to draw.
        series = [
            ([row[metric] for row in images.values() if math.isfinite(row.get(metric, math.nan))], colour)
            for images, colour in every
        ]
        series = [(values, colour) for values, colour in series if values]
        if series and any(metric in report.rows["prediction"] for report in comparison.reports.values()):
            drawn.append((f"{TITLES[metric].rstrip(' ↓↑')}, images", _svg(partial(_histogram, series=series))))
    return drawn


def curves(comparison: Comparison) -> list[Drawn]:
    """(caption, SVG) of depth RMSE, AbsRel and PSNR against depth and against sigma."""
    drawn = []
    for field, edges, unit in (("by_depth", DEPTH_EDGES_M, "depth (m)"), ("by_sigma", SIGMA_EDGES_PX, "sigma (px)")):
        for title, value in (
            ("depth RMSE (m)", _Mean("rmse", "depth_square_m2", "scored", math.sqrt)),
            ("AbsRel", _Mean("rmse", "depth_relative", "scored", float)),
            ("PSNR (dB)", _Mean("psnr", "restored_square", "pixels", psnr_db)),
        ):
            lines = [(_points(report, field, edges, value), colour) for report, colour in _coloured(comparison)]
            if value.head == "psnr":
                of_input = value._replace(sums="input_square")
                lines.insert(0, (_points(comparison.first, field, edges, of_input), GREY))
            lines = [(points, colour) for points, colour in lines if points]
            if lines:
                drawn.append((f"{title} against {unit}", _svg(partial(_lines, lines=lines))))
    return drawn


def uncertainty(comparison: Comparison) -> list[Drawn]:
    """(caption, SVG) of calibration and sparsification, where a network answers an uncertainty; the ideal in grey."""
    known = [(r.uncertainty, colour) for r, colour in _coloured(comparison) if r.uncertainty is not None]
    if not known:
        return []
    lines = [([(0.0, 0.0), (1.0, 1.0)], GREY)]
    lines += [(_pairs(found["calibration"], "levels", "within"), colour) for found, colour in known]
    curves = []
    for found, colour in known:
        curves.append((_pairs(found["sparsification"], "removed", "oracle_rmse_m"), GREY))
        curves.append((_pairs(found["sparsification"], "removed", "rmse_m"), colour))
    return [
        ("share of errors within a central probability", _svg(partial(_lines, lines=lines))),
        ("RMSE (m) after the least sure share is taken away", _svg(partial(_lines, lines=curves))),
    ]


def _pairs(found: Mapping[str, Sequence[float]], x: str, y: str) -> list[tuple[float, float]]:
    return list(zip(found[x], found[y], strict=True))


def _svg(draw: Callable[[Axes], None]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y", color="#e4e4e4")
        axes.set_axisbelow(True)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    # Without the XML declaration, which has no place within a page.
    return text.getvalue()[text.getvalue().index("<svg") :]


def _histogram(axes: Axes, series: Sequence[tuple[Sequence[float], str]]) -> None:
    values = np.concatenate([one for one, _ in series])
    # The tail of a constant prediction would squeeze everything else into one bar.
    low, high = (float(v) for v in np.percentile(values, (0, 99)))
    edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
    for one, colour in series:
        axes.hist(np.clip(one, edges[0], edges[-1]), edges.tolist(), color=colour, alpha=0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _lines(axes: Axes, lines: Sequence[tuple[list[tuple[float, float]], str]]) -> None:
    for points, colour in lines:
        axes.plot(*zip(*points, strict=True), color=colour, marker=".")
    ys = [y for points, _ in lines for _, y in points]
    if min(ys) <= max(ys) / 3:
        axes.set_ylim(bottom=0)


class _Mean(NamedTuple):
    """A mean over the pixels of a bin: the column `sums` over the column `number`, and what is shown of it.

    `head`: the metric that a report has where this was measured.
    """

    head: str
    sums: str
    number: str
    shown: Callable[[float], float]


def _points(report: Report, field: str, edges: Sequence[float], value: _Mean) -> list[tuple[float, float]]:
    """(middle of the bin, value) for the bins with enough pixels; none where the head is missing."""
    if report.profiles is None or value.head not in report.rows["prediction"]:
        return []
    points = []
    for k, row in enumerate(getattr(report.profiles, field)):
        sums = dict(zip(PROFILE_COLUMNS, row.tolist(), strict=True))
        if sums[value.number] < FEWEST_PIXELS:
            continue
        found = value.shown(sums[value.sums] / sums[value.number])
        if math.isfinite(found):
            points.append(((edges[k] + edges[k + 1]) / 2 if k + 1 < len(edges) else edges[k], found))
    return points
