"""Plots as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defocus_sim.errors import LensError


@contextmanager
def plotted(path: Path, *, title: str, x: str, y: str) -> Iterator[Any]:
    """Matplotlib axes to draw on; after the block they are in the file `path`, of a kind that its name tells.

    `x`, `y`: labels of the axes; y begins at 0. Raises `LensError` naming a file that cannot be written.
    """
    # Imported here: Matplotlib takes half a second, and without pyplot it needs no display and leaves no state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    yield axes
    axes.set_ylim(bottom=0)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise LensError(f"the plot {path} cannot be written: {error}") from error
