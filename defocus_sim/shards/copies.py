"""Copying chunks out of maps of their files, all of a batch at once: between copies the interpreter would start cold."""

from __future__ import annotations

from defocus_sim.shards.crc import copy_chunks
from defocus_sim.shards.storage import FileMap


class Copies:
    """Copies that are to be made, each of a chunk without the CRC-32C that it ends in."""

    def __init__(self) -> None:
        self._samples: list[tuple[int, str]] = []
        # Held until the copies are made: meanwhile the cache of open shards may let go of a map.
        self._maps: list[FileMap] = []
        self._sources: list[int] = []
        self._targets: list[int] = []
        self._lengths: list[int] = []

    def add(self, sample: tuple[int, str], file: FileMap, offset: int, target: int, length: int) -> None:
        """Note the copy of `length` bytes at `offset` of `file` to the address `target`; `sample`: index and array."""
        self._samples.append(sample)
        self._maps.append(file)
        self._sources.append(file.address + offset)
        self._targets.append(target)
        self._lengths.append(length)

    def make(self) -> tuple[int, str] | None:
        """Make all copies; index and array of the first whose checksum does not match, or None."""
        if not self._samples:
            return None
        sound = copy_chunks(self._sources, self._targets, self._lengths)
        return None if sound.all() else self._samples[int(sound.argmin())]
