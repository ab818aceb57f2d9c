"""Everything that a run writes while it trains: metrics.csv, steps.csv, TensorBoard's event files, Weights & Biases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from dfd_train.config.train import TrainConfig
from dfd_train.errors import ConfigError
from dfd_train.evaluation.figures import Picture
from dfd_train.runs.run_folder import EVENTS, MetricsLog, StepsLog


class RunLogs:
    """The logs that `config` asks for; `epoch`, `step`: how many the run has completed.

    Raises `ConfigError` where Weights & Biases is asked for and not installed.
    """

    def __init__(self, config: TrainConfig, *, epoch: int, step: int) -> None:
        out = Path(config.out)
        self._wandb = None if config.wandb is None else _wandb_run(config, config.wandb)
        self._epochs = MetricsLog(out, before_epoch=epoch + 1)
        self._steps = StepsLog(out, before_step=step + 1) if config.log_every else None
        self._board = TensorBoardLog(out, step) if config.tensorboard else None

    def step(self, row: Mapping[str, Any]) -> None:
        """Log one step; "step" is its number."""
        if self._steps is not None:
            self._steps.append(row)
        self._numbers(row, "step")

    def epoch(self, row: Mapping[str, Any], sheet: Picture | None) -> None:
        """Log one epoch, with a sheet of predictions (H, W, 3) uint8 where there is one."""
        self._epochs.append(row)
        self._numbers(row, "train", sheet)

    def close(self) -> None:
        """Finish what is open."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _numbers(self, row: Mapping[str, Any], kind: str, sheet: Picture | None = None) -> None:
        named = _named(row, kind)
        if self._board is not None:
            self._board.add(row["step"], named, sheet)
        if self._wandb is not None:
            self._wandb.log(named, step=row["step"])


class TensorBoardLog:
    """Event files of a run; nothing is imported or written before the first value.

    `step`: where the run goes on; what an earlier session wrote beyond it is hidden.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._folder, self._step = run / EVENTS, step
        self._writer: Any = None

    def add(self, step: int, values: Mapping[str, Any], sheet: Picture | None = None) -> None:
        """Add the numbers of `values` by name, and `sheet` (H, W, 3) uint8, at `step`; on disk on return."""
        writer = self._open()
        for name, value in values.items():
            if isinstance(value, float):
                writer.add_scalar(name, value, step)
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


def require_wandb(project: str | None) -> None:
    """Raise `ConfigError` where logging to `project` is asked for and the package is not installed."""
    if project is None:
        return
    try:
        import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"wandb={project} needs the package wandb: pip install wandb, or leave --wandb out"
        ) from error


def _wandb_run(config: TrainConfig, project: str) -> Any:
    require_wandb(project)
    # The same run again when it is resumed, and another one for another folder.
    known_as = hashlib.sha256(os.fsencode(Path(config.out).absolute())).hexdigest()[:16]
    return import_module("wandb").init(
        project=project,
        name=Path(config.out).name,
        id=known_as,
        resume="allow",
        dir=config.out,
        config=config.to_dict(),
    )


def _named(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """`val_rmse` as `val/rmse`, anything else below `kind`."""
    return {
        f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"{kind}/{name}": value
        for name, value in row.items()
        if name != "step"
    }
