"""Files that appear whole or not at all, and reading what `torch.save` wrote with one named error."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import torch

from dfd_train.errors import CheckpointError, CheckpointMissingError

# What torch.load raises on empty, truncated, foreign or hostile files, by experiment; it documents none of it.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    struct.error,
)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Make `content` the file `path` in one rename, on disk before it is visible; raises `OSError`, leaving nothing."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_tensors(path: Path, what: str) -> Any:
    """The object in the file `path`, on the CPU; only tensors and plain containers are ever unpickled.

    `what` names the file in messages, as in "checkpoint". Raises `CheckpointMissingError` where there is no file and
    `CheckpointError` where it cannot be read.
    """
    if not path.is_file():
        raise CheckpointMissingError(f"{what} {path} not found")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch follows the reason with advice that would let the file run code.
        reason = str(error).split("\n")[0].partition(" In PyTorch")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(f"{what} {path} cannot be read: it is truncated or no torch file ({reason})") from error
