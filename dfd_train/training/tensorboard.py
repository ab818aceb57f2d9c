"""Scalars and pictures for TensorBoard, in the run's folder `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfd_train.evaluation.figures import Picture
from dfd_train.runs.run_folder import EVENTS


class TensorBoardLog:
    """Event files of a run; nothing is imported or written before the first value.

    `step`: where the run goes on; what an earlier session wrote beyond it is hidden.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._folder, self._step = run / EVENTS, step
        self._writer: Any = None

    def add(self, step: int, values: Mapping[str, Any], sheet: Picture | None = None, kind: str = "train") -> None:
        """Add the numbers of `values` by column name, and `sheet` (H, W, 3) uint8, at `step`; on disk on return.

        They stand below `kind`, scores of the validation samples below "val".
        """
        writer = self._open()
        for name, value in values.items():
            if isinstance(value, float):
                place = "val" if name.startswith("val_") else kind
                writer.add_scalar(f"{place}/{name.removeprefix('val_')}", value, step)
        if sheet is not None:
            writer.add_image("val/predictions", sheet, step, dataformats="HWC")
        writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(str(self._folder), purge_step=self._step or None)
        return self._writer
