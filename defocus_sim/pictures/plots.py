"""Plots as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defocus_sim.errors import LensError


def save_plot(figure: Any, path: Path) -> Path:
    """Write the Matplotlib `figure` into `path`, of a kind that its name tells; raises `LensError` naming the file."""
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise LensError(f"the plot {path} cannot be written: {error}") from error
    return path
