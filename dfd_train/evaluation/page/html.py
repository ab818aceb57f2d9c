"""`report.html` in one file, with charts and pictures inside; it asks for nothing from a network."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader

from defocus_sim.progress import one_line
from dfd_train.evaluation.figures import Picture, Shown
from dfd_train.evaluation.metrics import DEPTH_METRICS, IMAGE_METRICS
from dfd_train.evaluation.page.charts import FEWEST_PIXELS, GREY, colours, curves, histograms, uncertainty
from dfd_train.evaluation.report import TITLES, Comparison

_PICTURE_PX, _PATCH_PX, _JPEG_QUALITY = 300, 190, 88


def per_image_csv(comparison: Comparison) -> str:
    """A line for every image and checkpoint: image, checkpoint, its metrics, and the same of doing nothing."""
    text = io.StringIO(newline="")
    measured = _measured(comparison)
    columns = ["image", "checkpoint", *measured, *(_of_nothing(name) for name in measured)]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for name, report in comparison.reports.items():
        for image, metrics in report.per_image.items():
            nothing = {_of_nothing(key): value for key, value in report.input_per_image.get(image, {}).items()}
            writer.writerow({"image": _cell(image), "checkpoint": _cell(name), **metrics, **nothing})
    return text.getvalue()


def _of_nothing(metric: str) -> str:
    """The column of what doing nothing scores, by the name of its row in the table."""
    return f"{'input' if metric in IMAGE_METRICS else 'mean_depth'}_{metric}"


def _cell(text: str) -> str:
    """`text` so that a spreadsheet takes it for text, and a terminal: a name may begin like a formula, or hold codes."""
    return one_line(f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text)


def html_page(comparison: Comparison, shown: Sequence[Shown]) -> str:
    """`comparison`, with the pictures `shown`, as a page that holds all it needs."""
    return render(
        "report.html",
        title="Depth from defocus: evaluation",
        comparison=comparison,
        key=[*zip(comparison.reports, colours(comparison), strict=True), ("input, mean depth", GREY)],
        histograms=histograms(comparison),
        curves=curves(comparison),
        uncertainty=uncertainty(comparison),
        fewest_pixels=FEWEST_PIXELS,
        shown=shown,
        embed=_embedded,
        per_image=_per_image(comparison),
        settings=[(name, json.dumps(report.settings, indent=1)) for name, report in comparison.reports.items()],
    )


def render(template: str, **content: Any) -> str:
    """The file `template` of `templates/` with its places filled; whatever is filled in is escaped."""
    places = Environment(
        loader=PackageLoader("dfd_train.evaluation.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return places.get_template(template).render(**content)


def _measured(comparison: Comparison) -> list[str]:
    rows = [report.rows["prediction"] for report in comparison.reports.values()]
    return [name for name in (*DEPTH_METRICS, *IMAGE_METRICS) if any(name in row for row in rows)]


def _per_image(comparison: Comparison) -> list[list[str]]:
    measured = _measured(comparison)
    several = len(comparison.reports) > 1
    cells = [["image", *(["checkpoint"] if several else []), *(TITLES[m] for m in measured)]]
    for name, report in comparison.reports.items():
        for image, metrics in report.per_image.items():
            values = [f"{metrics[m]:.4g}" if m in metrics else "" for m in measured]
            cells.append([one_line(image), *([one_line(name)] if several else []), *values])
    return cells


class _Image(NamedTuple):
    width: int
    height: int
    source: str


def _embedded(picture: Picture, patch: bool) -> _Image:
    """`picture` as it is shown: a patch exactly, anything else reduced and as JPEG."""
    width = _PATCH_PX if patch else _PICTURE_PX
    shape = (width, max(round(picture.shape[0] * width / picture.shape[1]), 1))
    if picture.shape[1] > width:
        picture = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA).astype(np.uint8)
    kind, options = ("png", []) if patch else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    data = cv2.imencode(f".{kind}", np.ascontiguousarray(picture[..., ::-1]), options)[1].tobytes()
    return _Image(*shape, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
