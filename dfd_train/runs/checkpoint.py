"""Checkpoints that are whole or not there: temporary file, fsync, rename, then a marker with size and checksum.

`RUN/checkpoints/step-000000120.pt` counts only beside its marker `step-000000120.json`. Loading uses `weights_only`, so
a foreign file cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from defocus_sim.errors import parse_json
from dfd_train.config.train import TrainConfig
from dfd_train.errors import CheckpointError, CheckpointMissingError, ConfigError
from dfd_train.files import load_tensors, write_atomically

FOLDER = "checkpoints"
FORMAT = "dfd_train checkpoint"
FORMAT_VERSION = 2
BEST, LAST = "best", "last"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a run needs to go on, and that an evaluation needs to begin.

    `config`: the resolved run. `store_checksum`: identity of the shards. `epoch`, `batch`: the next batch to train on;
    `step`: steps taken. `weights`, `averaged` (None without averaging), `optimizer`: state dicts. `rng`: generators'
    states by name ("torch", "cuda"; those of process 1 are "torch.1", ...). `progress`: plain numbers of the trainer
    (the running sums of this epoch, the measured balance, the best score, the number of processes, what the store is
    like). `scaler`: state of the loss scale, empty without fp16.
    """

    config: TrainConfig
    store_checksum: str
    epoch: int
    batch: int
    step: int
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    rng: dict[str, Tensor]
    progress: dict[str, Any]
    scaler: dict[str, Any]

    @property
    def store_facts(self) -> dict[str, Any]:
        """Lens, sensor, frame size and rendering of the store trained on; empty in checkpoints that do not say it."""
        return dict(self.progress.get("store", {}))

    @property
    def known_steps(self) -> int | None:
        """`step`; None for weights alone, which do not say how long they were trained."""
        return self.step if self.store_checksum else None

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """The weights to evaluate: the averaged ones where there are any."""
        return self.weights if self.averaged is None else self.averaged


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int = 2, best: bool = False) -> Path:
    """Write `checkpoint` below the run's folder `run`, then remove all but the newest `keep`; returns its path.

    With `best` it also becomes `checkpoints/best.pt`, which stays until a better one comes.
    Raises `CheckpointError` where the disk is full or the folder cannot be written; earlier checkpoints stay intact.
    """
    payload = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    payload |= {"format": FORMAT, "format_version": FORMAT_VERSION, "config": checkpoint.config.to_dict()}
    # Serialised in memory first: torch's own writer may abort the process when a write fails half-way.
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    path = run / FOLDER / f"step-{checkpoint.step:09d}.pt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getbuffer())
        marker = {"bytes": buffer.getbuffer().nbytes, "sha256": hashlib.sha256(buffer.getbuffer()).hexdigest()}
        write_atomically(path.with_suffix(".json"), json.dumps(marker).encode())
        if best:
            best_path = path.with_name(f"{BEST}.pt")
            # Between the two renames the marker would be of another file: without one the file is just not checked.
            best_path.with_suffix(".json").unlink(missing_ok=True)
            _link_atomically(path, best_path)
            write_atomically(best_path.with_suffix(".json"), json.dumps(marker).encode())
    except OSError as error:
        last = _marked(run)
        kept = f"the last good one is {last[-1]}" if last else "there is no earlier one"
        raise CheckpointError(f"cannot save checkpoint {path}: {error.strerror or error}; {kept}") from error
    for old in _marked(run)[:-keep]:
        # The marker goes first, so that a half-removed checkpoint never counts.
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def _link_atomically(path: Path, other: Path) -> None:
    """Make `other` the same file as `path`, or a copy where the file system has no hard links."""
    temporary = other.with_name(f".{other.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        write_atomically(other, path.read_bytes())
    else:
        os.replace(temporary, other)


def latest_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of the run's folder `run`; raises `CheckpointMissingError` where there is none."""
    marked = _marked(run)
    if not marked:
        raise CheckpointMissingError(f"{run} holds no complete checkpoint" if run.is_dir() else f"{run} not found")
    return marked[-1]


def has_checkpoint(run: Path) -> bool:
    """Whether the run's folder `run` holds a complete checkpoint."""
    return bool(_marked(run))


def find_checkpoint(place: str | Path) -> Path:
    """The checkpoint file that `place` names: a file, `RUN` (the best one, else the newest), `RUN@best` or `RUN@last`.

    Raises `CheckpointMissingError` where there is none.
    """
    path = Path(place)
    if path.is_file():
        return path
    run, which = split_place(place)
    best = run / FOLDER / f"{BEST}.pt"
    if which == LAST:
        return latest_checkpoint(run)
    if which == BEST and not best.is_file():
        raise CheckpointMissingError(f"{run} holds no best checkpoint: {run}@{LAST} is its newest")
    return best if best.is_file() else latest_checkpoint(run)


def split_place(place: str | Path) -> tuple[Path, str]:
    """`RUN@last` as (RUN, "last"); of anything else the second part is empty."""
    name, at, which = str(place).rpartition("@")
    if at and which in (BEST, LAST) and not Path(place).exists():
        return Path(name), which
    return Path(place), ""


def load_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint with every tensor on the CPU.

    Parameters
    ----------
    path
        Its file, or the run's folder, of which it is the newest.

    Returns
    -------
    Checkpoint
        The checkpoint.

    Raises
    ------
    CheckpointMissingError
        Where there is none.
    CheckpointError
        Where the file is damaged (its marker's size and SHA-256 are checked where it has one), is no checkpoint of
        this project, or is of another format version.
    """
    path = Path(path)
    if not path.is_file():
        path = latest_checkpoint(path)
    _check_marker(path)
    payload = load_tensors(path, "checkpoint")
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {path} is a torch file, but none of dfd-train")
    found = payload.get("format_version")
    if found != FORMAT_VERSION:
        older = isinstance(found, int) and found < FORMAT_VERSION
        remedy = "train anew, or use the dfd-train that wrote it" if older else "update dfd-train"
        raise CheckpointError(
            f"checkpoint {path} has format version {found}; this program reads {FORMAT_VERSION}: {remedy}"
        )
    try:
        values = {field.name: payload[field.name] for field in fields(Checkpoint)}
        _check_kinds(values)
        return Checkpoint(**{**values, "config": TrainConfig.from_dict(values["config"])})
    except (KeyError, ConfigError) as error:
        raise CheckpointError(f"checkpoint {path} is incomplete or of another version: {error}") from error


# What each field may be; a file that was made to be of another type is refused here and not met somewhere inside.
_KINDS: dict[str, tuple[type, ...]] = {
    "config": (dict,), "store_checksum": (str,), "epoch": (int,), "batch": (int,), "step": (int,), "weights": (dict,),
    "averaged": (dict, type(None)), "optimizer": (dict,), "rng": (dict,), "progress": (dict,), "scaler": (dict,),
}  # fmt: skip


def _check_kinds(values: dict[str, Any]) -> None:
    """Raise `ConfigError` naming the first field that is not of its type."""
    for name, value in values.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise ConfigError(f"{name} is a {type(value).__name__}")
        if isinstance(value, int) and value < 0:
            raise ConfigError(f"{name} = {value}")
    for name in ("weights", "averaged", "rng"):
        for key, value in (values[name] or {}).items():
            if not (isinstance(key, str) and isinstance(value, Tensor)):
                raise ConfigError(f"{name}[{key!r}] is no tensor with a name")


def _marked(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first: those with both the file and its marker."""
    folder = run / FOLDER
    return sorted(p for p in folder.glob("step-*.pt") if p.with_suffix(".json").is_file()) if folder.is_dir() else []


def _check_marker(path: Path) -> None:
    marker_path = path.with_suffix(".json")
    if path.parent.name != FOLDER or not marker_path.is_file():
        return
    try:
        marker = parse_json(marker_path.read_bytes())
        size, digest = int(marker["bytes"]), str(marker["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the marker {marker_path} cannot be read: {error}") from error
    remedy = "remove it to go on from the one before it" if len(_marked(path.parent.parent)) > 1 else "train anew"
    if path.stat().st_size != size:
        raise CheckpointError(f"checkpoint {path} is truncated: {path.stat().st_size} of {size} bytes; {remedy}")
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise CheckpointError(f"checkpoint {path} is damaged: its SHA-256 is not the marker's; {remedy}")
