"""`report.html` in one file: tables, drawn histograms and curves, pictures inside; it asks for nothing from a network."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_train.evaluation.figures import Picture, Shown
from dfd_train.evaluation.metrics import DEPTH_METRICS, IMAGE_METRICS, psnr_db
from dfd_train.evaluation.report import TITLES, Comparison, Report
from dfd_train.evaluation.scoring import DEPTH_EDGES_M, PROFILE_COLUMNS, SIGMA_EDGES_PX

COLOURS = ("#1f6fb4", "#c44e2b", "#3c8f4f", "#8a5fb0", "#b8892b", "#4aa3a8")
GREY = "#8a8a8a"
HISTOGRAMS = ("rmse", "abs_rel", "delta1", "psnr", "ssim")
_BINS = 24
_PLOT_W, _PLOT_H, _LEFT, _BOTTOM, _TOP, _RIGHT = 418, 205, 52, 34, 10, 18
_PICTURE_PX, _PATCH_PX, _JPEG_QUALITY = 300, 190, 88
# Fewer pixels than this in a bin say nothing about it.
_FEWEST_PIXELS = 50
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:1320px;margin:24px auto;padding:0 16px}
h1{font-size:24px}h2{font-size:19px;margin-top:34px;border-bottom:1px solid #ddd}h3{font-size:15px;margin:22px 0 4px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}.table{overflow-x:auto}
td,th{padding:3px 10px;text-align:right;border-bottom:1px solid #eee}
td:first-child,th:first-child{text-align:left;white-space:nowrap}tr:hover td{background:#f4f7fa}
thead th{border-bottom:2px solid #999;background:#fff;position:sticky;top:0}
.row{display:flex;flex-wrap:wrap;gap:8px}figure{margin:0}figcaption{font-size:12px;color:#555}
.pictures{display:grid;gap:8px;grid-template-columns:repeat(auto-fill,minmax(max(165px,15%),1fr));margin:0 0 8px}
svg{max-width:100%;height:auto}.pictures img{width:100%;height:auto;display:block}
figure.patch img{image-rendering:pixelated}.scroll{max-height:480px;overflow:auto;border:1px solid #ddd}
.scroll .table{overflow:visible}
.note{color:#666;font-size:13px}svg text{font:11px system-ui,sans-serif;fill:#444}.key span{margin-right:16px}
pre{font-size:12px;background:#f6f6f6;padding:8px;overflow:auto;max-height:400px}
@media(max-width:600px){body{margin:12px auto;padding:0 10px;font-size:14px}td,th{padding:3px 5px;font-size:13px}}
"""


def per_image_csv(comparison: Comparison) -> str:
    """A line for every image and checkpoint: image, checkpoint, its metrics, and the same of doing nothing."""
    text = io.StringIO(newline="")
    measured = _measured(comparison)
    columns = ["image", "checkpoint", *measured, *(f"untouched_{name}" for name in measured)]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for name, report in comparison.reports.items():
        for image, metrics in report.per_image.items():
            untouched = {f"untouched_{k}": v for k, v in report.input_per_image.get(image, {}).items()}
            writer.writerow({"image": _cell(image), "checkpoint": _cell(name), **metrics, **untouched})
    return text.getvalue()


def _cell(text: str) -> str:
    """`text` so that a spreadsheet takes it for text: a name may begin like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def html_page(comparison: Comparison, shown: Sequence[Shown]) -> str:
    """`comparison`, with the pictures `shown`, as a page that holds all it needs."""
    parts = [
        "<h1>Depth from defocus: evaluation</h1>",
        f"<p>{escape(comparison.headline())}</p>",
        *(f'<p class="note">{escape(line)}</p>' for line in comparison.remarks()),
        html_table(comparison.cells()),
        f'<p class="note">{escape(comparison.first.footnote)}. "input": the defocused image left as it is; '
        '"mean depth": the training split\'s mean as every depth.</p>',
        "<h2>Spread over the images</h2>",
        _key(comparison),
        f'<div class="row">{"".join(_histograms(comparison))}</div>',
        "<h2>Error against depth and against blur</h2>",
        '<p class="note">Pixels of all images pooled; sigma in pixels of the stored frame; bins with fewer than '
        f"{_FEWEST_PIXELS} pixels are left out. Grey: the untouched input.</p>",
        f'<div class="row">{"".join(_curves(comparison))}</div>',
    ]
    if shown:
        parts.append("<h2>Images, from the best to the worst</h2>")
    for sample in shown:
        figures = [_figure(caption, picture, _PICTURE_PX) for caption, picture in sample.pictures.items()]
        patches = [_figure(f"{c}, enlarged", p, _PATCH_PX, patch=True) for c, p in sample.patches.items()]
        parts.append(f"<h3>{escape(sample.title)}</h3>")
        parts += [f'<div class="pictures">{"".join(group)}</div>' for group in (figures, patches)]
    parts += ["<h2>Every image</h2>", _per_image(comparison), "<h2>Settings</h2>", *_settings(comparison)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def html_table(cells: Sequence[Sequence[str]]) -> str:
    """`cells`, a header and lines, as an HTML table."""
    header, *body = cells
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in body)
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _measured(comparison: Comparison) -> list[str]:
    rows = [report.rows["prediction"] for report in comparison.reports.values()]
    return [name for name in (*DEPTH_METRICS, *IMAGE_METRICS) if any(name in row for row in rows)]


def _per_image(comparison: Comparison) -> str:
    measured = _measured(comparison)
    several = len(comparison.reports) > 1
    cells = [["image", *(["checkpoint"] if several else []), *(TITLES[m] for m in measured)]]
    for name, report in comparison.reports.items():
        for image, metrics in report.per_image.items():
            values = [f"{metrics[m]:.4g}" if m in metrics else "" for m in measured]
            cells.append([image, *([name] if several else []), *values])
    return f'<div class="scroll">{html_table(cells)}</div>'


def _settings(comparison: Comparison) -> list[str]:
    return [
        f"<details><summary>{escape(name)}</summary><pre>{escape(json.dumps(report.settings, indent=1))}</pre></details>"
        for name, report in comparison.reports.items()
    ]


def _key(comparison: Comparison) -> str:
    entries = [*zip(comparison.reports, _colours(comparison), strict=True), ("untouched", GREY)]
    return '<p class="key">' + "".join(f'<span style="color:{c}">■ {escape(n)}</span>' for n, c in entries) + "</p>"


def _colours(comparison: Comparison) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(len(comparison.reports))]


def _histograms(comparison: Comparison) -> list[str]:
    measured = _measured(comparison)
    plots = []
    for metric in (m for m in HISTOGRAMS if m in measured):
        series = [
            ([row[metric] for row in report.per_image.values() if metric in row], colour)
            for report, colour in zip(comparison.reports.values(), _colours(comparison), strict=True)
        ]
        untouched = [row[metric] for row in comparison.first.input_per_image.values() if metric in row]
        plots.append(_figure_of(f"{TITLES[metric].rstrip(' ↓↑')}, images", _histogram([(untouched, GREY), *series])))
    return plots


def _histogram(series: Sequence[tuple[Sequence[float], str]]) -> str:
    values = np.array([value for one, _ in series for value in one])
    # The tail of a constant prediction would squeeze everything else into one bar.
    low, high = (float(v) for v in np.percentile(values, (0, 99)))
    edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
    counts = [np.histogram(np.clip(one, edges[0], edges[-1]), edges)[0] for one, _ in series if len(one)]
    top = max(int(count.max()) for count in counts)
    plot = _Axes(float(edges[0]), float(edges[-1]), 0.0, float(top), whole=True)
    bars = []
    for count, colour in zip(counts, [c for one, c in series if len(one)], strict=True):
        for number, left, right in zip(count, edges[:-1], edges[1:], strict=True):
            x, y = plot.x(left), plot.y(float(number))
            width, height = plot.x(right) - x, plot.y(0.0) - y
            bars.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" '
                f'fill-opacity=".5"/>'
            )
    return plot.frame("".join(bars))


def _curves(comparison: Comparison) -> list[str]:
    plots = []
    for field, edges, unit in (("by_depth", DEPTH_EDGES_M, "depth (m)"), ("by_sigma", SIGMA_EDGES_PX, "sigma (px)")):
        for title, value in (("depth RMSE (m)", _rmse), ("AbsRel", _relative), ("PSNR (dB)", _psnr)):
            lines = [
                (_points(report, field, edges, value), colour)
                for report, colour in zip(comparison.reports.values(), _colours(comparison), strict=True)
            ]
            if title.startswith("PSNR"):
                lines.insert(0, (_points(comparison.first, field, edges, _psnr_input), GREY))
            lines = [(points, colour) for points, colour in lines if points]
            if lines:
                plots.append(_figure_of(f"{title} against {unit}", _line_plot(lines)))
    return plots


Sums = Mapping[str, float]


def _rmse(sums: Sums) -> float | None:
    return math.sqrt(sums["depth_square_m2"] / sums["scored"]) if sums["scored"] >= _FEWEST_PIXELS else None


def _relative(sums: Sums) -> float | None:
    return sums["depth_relative"] / sums["scored"] if sums["scored"] >= _FEWEST_PIXELS else None


def _psnr(sums: Sums) -> float | None:
    return psnr_db(sums["restored_square"] / sums["pixels"])


def _psnr_input(sums: Sums) -> float | None:
    return psnr_db(sums["input_square"] / sums["pixels"])


def _points(report: Report, field: str, edges: Sequence[float], value: object) -> list[tuple[float, float]]:
    """(middle of the bin, value) for the bins with enough pixels; none where the head is missing."""
    heads = report.rows["prediction"]
    if report.profiles is None or ("psnr" if value in (_psnr, _psnr_input) else "rmse") not in heads:
        return []
    points = []
    for k, row in enumerate(getattr(report.profiles, field)):
        sums = dict(zip(PROFILE_COLUMNS, row.tolist(), strict=True))
        found = value(sums) if sums["pixels"] >= _FEWEST_PIXELS and callable(value) else None
        if found is not None:
            middle = (edges[k] + edges[k + 1]) / 2 if k + 1 < len(edges) else edges[k]
            points.append((middle, found))
    return points


def _line_plot(lines: Sequence[tuple[list[tuple[float, float]], str]]) -> str:
    xs = [x for points, _ in lines for x, _ in points]
    ys = [y for points, _ in lines for _, y in points]
    low = min(ys) if min(ys) > max(ys) / 3 else 0.0
    plot = _Axes(min(xs), max(max(xs), min(xs) + 1e-6), low, max(max(ys), low + 1e-6))
    drawn = []
    for points, colour in lines:
        path = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in points)
        dots = "".join(
            f'<circle cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points
        )
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}')
    return plot.frame("".join(drawn))


class _Axes:
    """A frame with ticks, along y at whole numbers only if `whole`; `x` and `y` turn values into its pixels."""

    def __init__(self, left: float, right: float, low: float, high: float, *, whole: bool = False) -> None:
        self.whole = whole
        self.left, self.right, self.low, self.high = left, right, low, high * 1.05 if high > 0 else high

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (_PLOT_W - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _PLOT_H - _BOTTOM - (value - self.low) / (self.high - self.low) * (_PLOT_H - _BOTTOM - _TOP)

    def frame(self, content: str) -> str:
        """The drawing with its axes as SVG."""
        bottom, top = self.y(self.low), self.y(self.high)
        marks = []
        for value in _ticks(self.left, self.right, 7):
            x = self.x(value)
            marks.append(f'<text x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{value:.6g}</text>')
        for value in _ticks(self.low, self.high, 6, whole=self.whole):
            y = self.y(value)
            marks.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
            marks.append(f'<line x1="{_LEFT}" x2="{_PLOT_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        axes = f'<path d="M{_LEFT},{top:.1f}V{bottom:.1f}H{_PLOT_W - _RIGHT}" fill="none" stroke="#777"/>'
        size = f'width="{_PLOT_W}" height="{_PLOT_H}" viewBox="0 0 {_PLOT_W} {_PLOT_H}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(marks)}{content}{axes}</svg>'


def _ticks(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Some `about` round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(round(step), 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _figure_of(title: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _figure(caption: str, picture: Picture, width_px: int, *, patch: bool = False) -> str:
    height, width = picture.shape[:2]
    scale = min(1.0, width_px / width)
    if scale < 1:
        size = (width_px, max(round(height * scale), 1))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    shape = f'width="{width_px}" height="{max(round(height * width_px / width), 1)}"'
    source = f"data:image/{'png' if patch else 'jpeg'};base64,{_encoded(picture, patch)}"
    image = f'<img {shape} alt="{escape(caption)}" src="{source}">'
    name = ' class="patch"' if patch else ""
    return f"<figure{name}>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _encoded(picture: NDArray[np.uint8], exact: bool) -> str:
    ending, options = (".png", []) if exact else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    data = cv2.imencode(ending, np.ascontiguousarray(picture[..., ::-1]), options)[1].tobytes()
    return base64.b64encode(data).decode()
