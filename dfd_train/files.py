"""Files that appear whole or not at all, and reading what `torch.save` wrote with one named error."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import struct
import uuid
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

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
    if path.exists() and not path.is_file():
        # By the rename, /dev/null would become a file.
        raise OSError(errno.EEXIST, "it is a folder, a device or a pipe, not a file", str(path))
    temporary = path.with_name(f".{path.name}.partial")
    file = _opened_alone(temporary)
    if file is None:
        # Another command is writing the same file at this moment: the later rename wins.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
        file = open(temporary, "wb")  # noqa: SIM115 - closed below
    try:
        with file:
            file.truncate(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # While it is held, so that nobody else opens what is about to be whole.
            os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _opened_alone(path: Path) -> BinaryIO | None:
    """The file `path` for writing, left over or new, held against other processes; None where one of them holds it."""
    file = open(path, "ab")  # noqa: SIM115 - the caller's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed meanwhile by who held it before: that is a whole file now.
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        # A file system without locks.
        return file
    file.close()
    return None


def load_tensors(path: Path, what: str) -> Any:
    """The object in the file `path`, on the CPU; only tensors and plain containers are ever unpickled.

    `what` names the file in messages, as in "checkpoint". Raises `CheckpointMissingError` where there is no file and
    `CheckpointError` where it cannot be read.
    """
    if not path.is_file():
        raise CheckpointMissingError(f"{what} {path} not found")
    _check_archive(path, what)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch follows the reason with advice that would let the file run code.
        reason = str(error).split("\n")[0].partition(" In PyTorch")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(f"{what} {path} cannot be read: it is truncated or no torch file ({reason})") from error


def _check_archive(path: Path, what: str) -> None:
    """Raise `CheckpointError` where the ZIP archive that `torch.save` writes is damaged or asks for more than it holds.

    torch itself does not look at the checksums. A file in the format of before torch 1.6 has none, and is left to torch.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                    raise CheckpointError(f"{what} {path} is compressed, which torch.save never does: it is refused")
                if sum(entry.file_size for entry in entries) > path.stat().st_size:
                    raise CheckpointError(f"{what} {path} is damaged: its entries are larger than the file")
                damaged = archive.testzip()
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        struct.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{what} {path} cannot be read: it is truncated or no torch file ({reason})") from error
    if damaged is not None:
        raise CheckpointError(f"{what} {path} is damaged: {damaged} in it does not match its checksum (CRC-32)")
