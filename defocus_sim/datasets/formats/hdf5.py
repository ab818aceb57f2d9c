"""The frames of an HDF5 dataset without the locks of the HDF5 library.

Under them only one thread of a process reads at a time, and inflating is most of the work of reading NYU-Depth v2. ISA-L
inflates in half the time of zlib.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from isal import igzip_lib
from numpy.typing import NDArray

from defocus_sim.errors import SourceError

# Deflate shrinks by a factor of 1032 at most.
_MOST_PACKED = 1100
_LARGEST_CHUNK_BYTES = 1 << 27


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset | None:
    """Dataset `name` of the root group, None where there is none.

    Raises `SourceError` where its numbers would come from elsewhere: a link, external files, a virtual dataset. Such a
    file could bring any file of this machine into a store.
    """
    link = file.get(name, getlink=True)
    if link is None:
        return None
    # Before anything is opened: the other end of a link may be a pipe.
    if not isinstance(link, h5py.HardLink):
        raise SourceError(
            f"{path}: {name} is a link ({type(link).__name__}), which is refused: it may lead to other files"
        )
    try:
        data = file[name]
    except KeyError as error:
        # What h5py raises for an object that is there and damaged.
        raise SourceError(f"{path} is damaged: {name} cannot be opened ({error})") from error
    if not isinstance(data, h5py.Dataset):
        return None
    check_own(data.id, name, path)
    return data


def check_own(data: h5py.h5d.DatasetID, name: str, path: Path) -> None:
    """Raise `SourceError` where `data` is stored outside of its file."""
    plan = data.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        raise SourceError(
            f"{path}: {name} is a virtual dataset, which is refused: its numbers may come from other files"
        )
    if plan.get_external_count() > 0:
        raise SourceError(f"{path}: {name} is stored in external files, which is refused: {plan.get_external(0)[0]!r}")


def check_stored(data: h5py.Dataset, name: str, path: Path) -> None:
    """Raise `SourceError` where the frames of `data` declare more than is stored, or chunks that no memory is for."""
    stored = data.id.get_storage_size()
    if data.nbytes > _MOST_PACKED * stored:
        raise SourceError(f"{path}: {name} declares {data.shape[0]} frames, but only {stored} bytes are stored")
    if data.chunks is not None and math.prod(data.chunks) * data.dtype.itemsize > _LARGEST_CHUNK_BYTES:
        raise SourceError(f"{path}: {name} has chunks of {data.chunks}, larger than {_LARGEST_CHUNK_BYTES} bytes")


class Frames:
    """The frames of `data` (N, ...), for one thread."""

    def __init__(self, data: h5py.Dataset) -> None:
        # Looked up once: each of these takes HDF5's lock, and another thread's time with it.
        self._data, self._id, self._dtype = data, data.id, data.dtype
        self._shape, self._tile = data.shape[1:], (data.chunks or data.shape)[1:]
        steps = (range(0, full, step) for full, step in zip(self._shape, self._tile, strict=True))
        self._starts = list(itertools.product(*steps)) if _plainly_deflated(data) else None

    def read(self, frame: int) -> NDArray[Any]:
        """`data[frame]`. Raises `OSError` or `RuntimeError` where it cannot be read."""
        inflated = None if self._starts is None else self._inflated(frame, self._starts)
        whole: NDArray[Any] = self._data[frame] if inflated is None else inflated
        return whole

    def _inflated(self, frame: int, starts: list[tuple[int, ...]]) -> NDArray[Any] | None:
        """The frame; None where a chunk is not there, not deflated after all, or damaged: HDF5 knows what to do then."""
        size = math.prod(self._tile) * self._dtype.itemsize
        packed = []
        # All of it before the first is inflated: threads that take HDF5's lock chunk by chunk wait for each other.
        for start in starts:
            try:
                if self._id.get_chunk_info_by_coord((frame, *start)).size > size + size // 100 + 1024:
                    # More than deflate ever makes of it: a damaged file must not have gigabytes allocated.
                    return None
                left_out, chunk = self._id.read_direct_chunk((frame, *start))
            except (OSError, RuntimeError):
                return None
            if left_out:
                return None
            packed.append(chunk)
        out = np.empty(self._shape, self._dtype)
        for start, chunk in zip(starts, packed, strict=True):
            # Not `isal_zlib.decompressobj`: it takes the interpreter's lock several times a chunk, to let its buffer grow.
            stream = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)
            try:
                # One more byte than there should be, so that a longer stream is seen and the stream's end is reached.
                raw = stream.decompress(chunk, size + 1)
            except igzip_lib.error:  # type: ignore[misc]  # its stub does not say that it is an exception
                return None
            if len(raw) != size or not stream.eof:
                return None
            part = out[tuple(slice(at, at + step) for at, step in zip(start, self._tile, strict=True))]
            part[...] = np.frombuffer(raw, self._dtype).reshape(self._tile)[tuple(map(slice, part.shape))]
        return out


def _plainly_deflated(data: h5py.Dataset) -> bool:
    """Whether every chunk belongs to one frame and went through deflate and nothing else."""
    if data.chunks is None or data.chunks[0] != 1 or data.compression != "gzip" or not data.dtype.isnative:
        return False
    return bool(data.id.get_create_plist().get_nfilters() == 1)
