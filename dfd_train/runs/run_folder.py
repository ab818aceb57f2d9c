"""A run's folder: `config.json` (what was asked, with which versions on which data), `metrics.csv`, `checkpoints/`.

`run.toml` is the same configuration for `dfd-train --config`, so that the folder alone is enough to run it again.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from defocus_sim.errors import parse_json
from dfd_train.config.toml import toml_text
from dfd_train.config.train import TrainConfig
from dfd_train.errors import CheckpointMissingError, ConfigError
from dfd_train.files import write_atomically
from dfd_train.runs.checkpoint import FOLDER, split_place

CONFIG_FILE = "config.json"
TOML_FILE = "run.toml"
METRICS_FILE, STEPS_FILE = "metrics.csv", "steps.csv"
EVENTS = "tensorboard"
STEP_COLUMNS = (
    "step", "epoch", "lr", "total", "depth", "deblur", "l1", "laplace", "side", "grad", "silog", "image_l1",
    "charb", "ssim", "reblur",
    "smooth", "deblur_weight", "grad_norm", "samples_per_s",
)  # fmt: skip
COLUMNS = (
    "epoch", "step", "lr", "total", "depth", "deblur", "l1", "laplace", "side", "grad", "silog", "image_l1",
    "charb", "ssim", "reblur",
    "smooth", "deblur_weight", "grad_norm", "samples_per_s", "wait_share", "seconds",
    "val_rmse", "val_abs_rel", "val_delta1", "val_psnr", "val_ssim",
)  # fmt: skip


# Descriptors of the folders that this process holds. A process forked from it must not hold them longer.
_HELD: set[int] = set()


def _let_go() -> None:
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


class RunLock:
    """Holds a run's folder against other trainings until the block ends, or the process, however that ends."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor in _HELD:
            _HELD.discard(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = None

    def hold(self, run: Path) -> None:
        """Hold the folder `run` where it is there; raises `ConfigError` where another process does."""
        if self._descriptor is not None or not run.is_dir():
            return
        self._descriptor = os.open(run, os.O_RDONLY)
        _HELD.add(self._descriptor)
        # A file system may have no locks.
        with suppress(OSError):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another dfd-train is at work in {run}: let it end, or choose another --out"
                ) from None


def create_run(config: TrainConfig, facts: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Make the folder `config.out` with its `config.json`, which also holds `facts` (JSON-ready), and `run.toml`.

    Raises `ConfigError` where the folder has content: a run without `overwrite`, or anything that is no run.
    """
    run = Path(config.out)
    try:
        str(run.absolute()).encode()
    except UnicodeEncodeError as error:
        # TensorBoard cannot write there.
        raise ConfigError(f"{run} is no name in UTF-8; choose another --out") from error
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file, not a folder for a run")
    if run.is_dir() and any(run.iterdir()):
        # A run that was killed as it began has its first file only.
        if not any((run / name).is_file() for name in (CONFIG_FILE, TOML_FILE)):
            raise ConfigError(f"{run} has content that is no run of dfd-train; choose another --out")
        if not overwrite:
            raise ConfigError(f"{run} holds a run already: go on with --resume, or discard it with --overwrite")
        for name, place in (("shards", config.shards), ("pretrained", config.pretrained)):
            if place is not None and any(
                Path(place).resolve().is_relative_to((run / f).resolve()) for f in (FOLDER, EVENTS)
            ):
                raise ConfigError(f"{name}={place} lies in the run that --overwrite discards: choose another --out")
        shutil.rmtree(run / FOLDER, ignore_errors=True)
        shutil.rmtree(run / EVENTS, ignore_errors=True)
        for name in (METRICS_FILE, STEPS_FILE):
            (run / name).unlink(missing_ok=True)
    # A relative path would mean another place when the run is repeated from elsewhere.
    located = config if "://" in config.shards else replace(config, shards=str(Path(config.shards).absolute()))
    if config.init_from is not None and split_place(config.init_from)[0].exists():
        located = replace(located, init_from=str(Path(config.init_from).absolute()))
    content = {"config": located.to_dict(), **facts}
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_atomically(run / TOML_FILE, toml_text(located, facts).encode(errors="surrogateescape"))
        write_atomically(run / CONFIG_FILE, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"cannot write to the run folder {run}: {error.strerror or error}") from error
    return run


def run_config(run: Path) -> TrainConfig:
    """The configuration of an existing run; raises `CheckpointMissingError` or `ConfigError` where there is none."""
    path = Path(run) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointMissingError(f"{run} holds no run to resume: {CONFIG_FILE} not found")
    try:
        return TrainConfig.from_dict(parse_json(path.read_bytes())["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _readable_rows(content: bytes, key: str) -> tuple[list[dict[str, str]], bool]:
    """Rows of a CSV file with a whole number as their `key`, and whether there was anything else in it."""
    text = content.replace(b"\0", b"").decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if len(line) < 10_000]
    found = list(csv.DictReader(lines[:1] + [line for line in lines[1:] if line.count(",") == lines[0].count(",")]))
    # A number of ten digits and more is damage as well.
    rows = [row for row in found if re.fullmatch("[0-9]{1,9}", row.get(key) or "")]
    return rows, b"\0" in content or "\ufffd" in text or len(rows) != len(text.splitlines()) - 1


class _CsvLog:
    """Rows with `columns` in `path`; those whose `key` is not below `before` are dropped on opening."""

    def __init__(self, path: Path, columns: Sequence[str], key: str, before: int) -> None:
        self.path, self._columns = path, columns
        rows: list[dict[str, str]] = []
        if self.path.is_file():
            rows, damaged = _readable_rows(self.path.read_bytes(), key)
            rows = [row for row in rows if int(row[key]) < before]
            if damaged:
                # A power cut may leave anything here; the checkpoint is sound all the same.
                self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; floats with seven significant digits."""
        cells = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()}
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self._columns, extrasaction="raise", lineterminator="\n").writerow(cells)


class MetricsLog(_CsvLog):
    """`metrics.csv` of a run: one line an epoch, columns `COLUMNS`, empty where a value does not exist.

    Rows of `before_epoch` and later are dropped on opening: a resumed run writes them anew. Rows that cannot be read are
    dropped, too; the file that had them stays as `metrics.csv.damaged`.
    """

    def __init__(self, run: Path, before_epoch: int = 1) -> None:
        super().__init__(run / METRICS_FILE, COLUMNS, "epoch", before_epoch)


class StepsLog(_CsvLog):
    """`steps.csv` of a run: one line every so many steps, columns `STEP_COLUMNS`; rows as those of `MetricsLog`."""

    def __init__(self, run: Path, before_step: int = 1) -> None:
        super().__init__(run / STEPS_FILE, STEP_COLUMNS, "step", before_step)
