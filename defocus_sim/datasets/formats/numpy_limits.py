"""What a NumPy file declares, checked against what it can hold before it is read."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from defocus_sim.datasets.formats.limits import ALWAYS_ALLOWED_BYTES, LARGEST_BYTES
from defocus_sim.errors import SourceError

# Deflate shrinks by a factor of 1032 at most.
_MOST_DEFLATED = 1100


def check_numpy(path: Path, stream: BinaryIO) -> None:
    """Raise `SourceError` where an array in the open `.npy` or `.npz` file is larger than it can be; rewinds `stream`.

    What is no NumPy file is left to `numpy.load`, with its errors.
    """
    size = os.fstat(stream.fileno()).st_size
    if stream.read(4) == b"PK\x03\x04":
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                _check_entry(path, archive, entry, size)
    else:
        stream.seek(0)
        _check_array(path, stream, size)
    stream.seek(0)


def _check_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> None:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(f"{path}: {entry.filename} is compressed as NumPy never does: it is refused")
    if entry.compress_size > size or entry.file_size > max(_MOST_DEFLATED * entry.compress_size, ALWAYS_ALLOWED_BYTES):
        raise SourceError(f"{path}: {entry.filename} declares {entry.file_size} bytes, more than the file can hold")
    with archive.open(entry) as stream:
        _check_array(path, stream, entry.file_size)


def _check_array(path: Path, stream: IO[bytes], size: int) -> None:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    declared = math.prod(shape) * dtype.itemsize
    if declared > min(size, LARGEST_BYTES):
        raise SourceError(
            f"{path} declares an array of {declared} bytes: it has {size}, and {LARGEST_BYTES} are read at most"
        )
