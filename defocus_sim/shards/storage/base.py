"""What a store's files must offer: reading whole or in pieces, and writing completely or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

TEMPORARY_SUFFIX = ".partial"
Version = tuple[Any, ...] | None


class RangeReader(ABC):
    """One file that is read in pieces; shared between threads."""

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer where the file ends before."""

    def read_into(self, offset: int, targets: Sequence[memoryview]) -> int:
        """Fill `targets` one after the other from `offset`; returns the bytes read, fewer where the file ends before."""
        done = 0
        data = self.read_at(offset, sum(len(target) for target in targets))
        for target in targets:
            part = data[done : done + len(target)]
            target[: len(part)] = part
            done += len(part)
        return done

    @abstractmethod
    def size(self) -> int:
        """Bytes of the file now."""

    def version(self) -> Version:
        """Changes when the open file is written to; None where that cannot be asked of an open file."""
        return None


class Storage(ABC):
    """A folder of files. Missing files raise `FileNotFoundError`, everything else that fails an `OSError`."""

    url: str
    # Whether a finished store can be given its name by renaming, or must be written in its final place; and whether a file
    # that was opened stays what it is when another one takes its name.
    renames: bool

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A whole file."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """A whole file, visible complete or not at all."""

    @abstractmethod
    def writer(self, name: str) -> Any:
        """A context with a binary stream; the file appears where the context ends without an exception."""

    @abstractmethod
    def version(self, name: str) -> Version:
        """Changes when another file takes the name, or the file is written to; costs no reading. None: nobody says."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Every file below the folder with its size in bytes; empty where there is no folder."""

    def sizes_of(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of those of the files `names` that are there."""
        found = self.sizes()
        return {name: found[name] for name in names if name in found}

    @abstractmethod
    def reader(self, name: str) -> RangeReader:
        """A file for reading in pieces."""

    @abstractmethod
    def remove(self, name: str = "") -> None:
        """Remove a file or folder with all below it; nothing happens where it is not there."""

    def describe(self, name: str) -> str:
        """`name` as messages show it."""
        return f"{self.url}/{name}"
