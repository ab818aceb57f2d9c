"""Curves of one or several runs side by side, from their `metrics.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dfd_train.errors import ConfigError
from dfd_train.files import write_atomically
from dfd_train.runs.run_folder import METRICS_FILE

# Column, title, whether a logarithmic axis shows it better.
PANELS = (
    ("total", "training loss", True),
    ("depth", "depth loss (m)", True),
    ("deblur", "deblurring loss", True),
    ("val_rmse", "val RMSE (m)", False),
    ("val_delta1", "val delta < 1.25", False),
    ("val_psnr", "val PSNR (dB)", False),
    ("lr", "learning rate", True),
    ("samples_per_s", "samples/s", False),
    ("wait_share", "share of time waiting for data", False),
)
Curve = tuple[list[int], list[float]]


def read_curves(run: Path) -> dict[str, Curve]:
    """Every column of a run's `metrics.csv` as (epochs, values), without its empty cells.

    Raises `ConfigError` where there is no such file, it has no finished epoch, or it cannot be read.
    """
    path = Path(run) / METRICS_FILE
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        curves: dict[str, Curve] = {}
        for row in rows:
            for name, cell in row.items():
                if cell:
                    epochs, values = curves.setdefault(name, ([], []))
                    epochs.append(int(row["epoch"]))
                    values.append(float(cell))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} not found: {run} is no run of dfd-train") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no finished epoch yet")
    return curves


def plot_runs(runs: Sequence[Path], out: Path) -> Path:
    """Draw `runs` into the PNG `out`, one colour each, and return its path; raises `ConfigError` as `read_curves`."""
    every = {str(run): read_curves(run) for run in runs}
    shown = [panel for panel in PANELS if any(panel[0] in curves for curves in every.values())]
    figure = Figure(figsize=(13, 3.2 * -(-len(shown) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, title, logarithmic) in enumerate(shown, start=1):
        axes = figure.add_subplot(-(-len(shown) // 3), 3, place)
        for run, curves in every.items():
            if name in curves:
                epochs, values = curves[name]
                axes.plot(epochs, values, marker="." if len(epochs) < 40 else "", label=run)
                if logarithmic and min(values) > 0:
                    axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    try:
        write_atomically(out, picture.getvalue())
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}") from error
    return out
