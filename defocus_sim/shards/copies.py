"""Copying chunks out of maps of their files, all of a batch at once: between copies the interpreter would start cold."""

from __future__ import annotations

from collections.abc import Callable

from defocus_sim.shards.crc import copy_chunks
from defocus_sim.shards.storage import FileMap


class Copies:
    """Copies that are to be made, each of a chunk without the CRC-32C that it ends in.

    `passing`: no page of a map counts as the process's memory for longer than a copy takes.
    """

    def __init__(self, *, passing: bool) -> None:
        self._passing = passing
        # The maps are held until the copies are made: meanwhile the cache of open shards may let go of them.
        self._noted: list[tuple[int, int, int, FileMap, Callable[[int], None], int]] = []

    def add(
        self, file: FileMap, offset: int, target: int, length: int, otherwise: Callable[[int], None], row: int
    ) -> None:
        """Note the copy of `length` bytes at `offset` of `file` to the address `target`.

        `otherwise(row)` is called where the copy does not come to pass, or not with that checksum.
        """
        self._noted.append((file.address + offset, target, length, file, otherwise, row))

    def make(self) -> None:
        """Make all copies."""
        if not self._noted:
            return
        sources, targets, lengths, files, calls, rows = zip(*self._noted, strict=True)
        maps = [(file.address, file.address + file.size) for file in files] if self._passing else ()
        sound = copy_chunks(sources, targets, lengths, maps)
        if not sound.all():
            for number in (~sound).nonzero()[0].tolist():
                calls[number](rows[number])
