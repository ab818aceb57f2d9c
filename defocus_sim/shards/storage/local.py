"""A store in a folder of this machine."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from defocus_sim.shards.storage.base import TEMPORARY_SUFFIX, RangeReader, Storage, Version

WRITE_BYTES = 2**21


class LocalStorage(Storage):
    """A folder of this machine's file system."""

    renames = True

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, str(root)

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        path = self.root / name
        if path.exists() and not path.is_file():
            # Reading a pipe or a device may never end.
            raise OSError(f"{path} is not a file")
        return path.read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        with self.writer(name) as stream:
            stream.write(content)

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """See `Storage`."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: the worker of a killed run may still be writing the same shard.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
        try:
            with temporary.open("wb", buffering=WRITE_BYTES) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def version(self, name: str) -> Version:
        """See `Storage`."""
        found = os.stat(self.root / name)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                # A worker may give its temporary file the final name meanwhile.
                with suppress(FileNotFoundError):
                    found[os.path.relpath(path, self.root).replace(os.sep, "/")] = os.stat(path).st_size
        return found

    def reader(self, name: str) -> RangeReader:
        """See `Storage`."""
        return _Descriptor(self.root / name)

    def remove(self, name: str = "") -> None:
        """See `Storage`."""
        path = self.root / name
        if path.is_dir():
            _remove_folder(path)
        else:
            path.unlink(missing_ok=True)


def _remove_folder(path: Path) -> None:
    """As `shutil.rmtree`, also where another process removes the same or still puts a last file there."""
    for _ in range(20):
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if error.errno == errno.ENOENT and not path.exists():
                return None
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
            last = error
    raise last


class _Descriptor(RangeReader):
    """Positioned reads."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        # Closes when the last thread lets go of it.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def read_into(self, offset: int, targets: Sequence[memoryview]) -> int:
        """Without a copy between; a positioned read of several buffers may end early and is then gone on with."""
        left = [target for target in targets if len(target)]
        done = 0
        while left:
            count = os.preadv(self._descriptor, left, offset + done)
            if count == 0:
                break
            done += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left:
                left[0] = left[0][count:]
        return done

    def size(self) -> int:
        """See `RangeReader`."""
        return os.fstat(self._descriptor).st_size

    def version(self) -> Version:
        """See `RangeReader`."""
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns
