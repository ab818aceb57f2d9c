"""Lists as people and programs write them: any separator, headers, comments, quotes, byte-order marks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defocus_sim.datasets.formats.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from defocus_sim.errors import SourceError, SourceMissingError

_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "white space"}
_LOOKED_AT = 50
# What a list says where a picture has no depth.
NO_FILE = frozenset({"none", "null", "nan", "-"})
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_WORDS = {
    "colour": "colour color rgb image img picture photo aif frame filename file left im",
    "depth": "depth depths depthmap gt groundtruth",
    "defocused": "defocused blurred blur",
    "sharp": "sharp aif all_in_focus",
    "split": "split set subset partition",
    "scene": "scene sequence room",
    "mask": "mask valid",
}


@dataclass(frozen=True)
class Table:
    """`rows`: number and cells of each line that is data. `header`: names of the columns, where a line says them."""

    rows: list[tuple[int, list[str]]]
    header: list[str] | None
    separator: str

    def columns(self, known: Sequence[str]) -> list[str | None] | None:
        """Of every column which of `known` it is, by the header; None without a header that names the first two."""
        if self.header is None:
            return None
        found: list[str | None] = [next((one for one in known if _is_called(cell, one)), None) for cell in self.header]
        # A header may name the first columns only.
        return [*found, *(one for one in known if one not in found)] if set(known[:2]) <= set(found) else None


def _is_called(cell: str, column: str) -> bool:
    words = re.split(r"[^a-z]+", cell.strip().lower())
    return bool(set(words) & set(_WORDS[column].split())) or cell.strip().lower() in _WORDS[column].split()


def read_text(path: Path, what: str) -> str:
    """A text file in UTF-8, UTF-16 with its mark, or anything else whose bytes are kept; raises `SourceError`."""
    if not path.is_file():
        raise SourceMissingError(f"{what} {path} is not there")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{what} {path} cannot be read: {error.strerror}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is not a text file ({error.reason})") from error
    if b"\0" in data:
        raise SourceError(f"{path} is not a text file: it holds zero bytes")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def is_file_name(cell: str) -> bool:
    """Whether a cell ends as the name of a picture or a depth file does."""
    return Path(cell.strip().replace("\\", "/")).suffix.lower() in COLOUR_SUFFIXES | DEPTH_SUFFIXES


def is_number(cell: str) -> bool:
    """Whether a cell is a number, such as a time or a focal length."""
    return _NUMBER.fullmatch(cell.strip()) is not None


def split_line(line: str, separator: str) -> list[str]:
    """The cells of one line, quotes taken off."""
    reader = csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True, strict=separator != " ")
    cells = [cell.strip() for cell in next(reader, [])]
    return [cell for cell in cells if cell] if separator == " " else cells


def read_table(path: Path, what: str = "list of pairs") -> Table:
    """The lines of a list that are neither empty nor comments; raises `SourceError` where there is none.

    The separator is the one by which most lines fall into names of files. A line that begins with `#` is a comment,
    unless a file is called so.
    """
    lines = list(enumerate(read_text(path, what).splitlines(), 1))
    data = [(number, line) for number, line in lines if line.strip() and not _is_comment(line, path.parent)]
    separator = _separator([line for _, line in data[:_LOOKED_AT]])
    rows: list[tuple[int, list[str]]] = []
    for number, line in data:
        try:
            # Tabs and spaces are both white space.
            cells = split_line(line.replace("\t", " ") if separator == " " else line, separator)
        except csv.Error as error:
            raise SourceError(f"{path} line {number} cannot be read as a CSV file ({error})") from error
        if any(cells):
            rows.append((number, cells))
    header = None
    if rows and not any(is_file_name(cell) or Path(cell).suffix for cell in rows[0][1][:2]):
        header, rows = rows[0][1], rows[1:]
    if not rows:
        raise SourceError(f"{path} lists no pair")
    return Table(rows, header, _SEPARATORS[separator])


def _is_comment(line: str, folder: Path) -> bool:
    line = line.strip()
    if not line.startswith("#"):
        return False
    first = re.split(r"[,;\t]", line)[0].strip().strip('"')
    try:
        return not (is_file_name(first) and (folder / first).exists())
    except OSError:
        # Too long for the name of a file.
        return True


def _separator(lines: Sequence[str]) -> str:
    """The separator by which most lines have two names of files or more, or, without any, two cells."""

    def score(separator: str) -> tuple[int, int]:
        files = several = 0
        for line in lines:
            try:
                cells = split_line(line.replace("\t", " ") if separator == " " else line, separator)
            except csv.Error:
                continue
            files += sum(is_file_name(cell) or cell.lower() in NO_FILE for cell in cells) >= 2
            several += len([cell for cell in cells if cell]) >= 2 and separator != " "
        return files, several

    best = max(_SEPARATORS, key=lambda separator: score(separator))
    return best if score(best) > (0, 0) else ","
