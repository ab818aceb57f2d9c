"""Pairs of a picture and its depth by a list, and lists of names of test frames."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from defocus_sim.datasets.base import SPLITS
from defocus_sim.datasets.formats.images import DEPTH_ONLY_SUFFIXES, DEPTH_SUFFIXES
from defocus_sim.datasets.layouts.names import says_colour, says_depth
from defocus_sim.datasets.layouts.tables import (
    NO_FILE,
    Table,
    is_file_name,
    is_number,
    read_table,
    read_text,
    split_line,
)
from defocus_sim.datasets.listing import Skipped, printable
from defocus_sim.datasets.pairing import Pair
from defocus_sim.errors import SourceError

_SPLIT_WORDS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
_LOOKED_AT = 200


@dataclass(frozen=True)
class ListedFrame:
    """A line of a list: its files by role, as written; `seconds`: how far apart their times are, where it says times."""

    number: int
    files: dict[str, str]
    split: str
    scene: str
    seconds: float | None = None


def listed_frames(path: Path, roles: Sequence[str], required: int = 2) -> list[ListedFrame]:
    """The lines of a list whose files are `roles` in this order, unless a header, or of depth the names, say another.

    `required`: so many of them each line must have. After them may stand split and scene, or a number, such as the focal
    length of BTS's lists; before each file its time, as in TUM's associations. Raises `SourceError` naming the line.
    """
    table = read_table(path)
    known = (*roles, "split", "scene")
    columns = table.columns(known)
    wanted = (
        ",".join(known[:required]) + "".join(f"[,{name}" for name in known[required:]) + "]" * (len(known) - required)
    )
    positions = None if columns is not None else _file_positions(table, roles)
    found = []
    for number, cells in table.rows:
        shown = f"{path} line {number}: {','.join(cells)!r}"
        seconds = None
        if columns is not None:
            named = {name: cell for name, cell in zip(columns, cells, strict=False) if name is not None}
        elif positions is not None:
            named, seconds = _by_position(cells, positions)
        elif len(cells) > len(known):
            raise SourceError(f"{shown} is not {wanted} (columns by {table.separator})")
        else:
            named = dict(zip(known, cells, strict=False))
            if is_number(named.get("split", "")):
                # A focal length in pixels, which is not asked for here.
                named["split"] = ""
        if not all(named.get(role) for role in roles[:required]):
            hint = "columns" if len(cells) > 1 else "column"
            raise SourceError(f"{shown} is not {wanted}: it has {len(cells)} {hint} by {table.separator}")
        split = named.get("split", "").lower()
        split = _SPLIT_WORDS.get(split, split)
        if split and split not in SPLITS:
            raise SourceError(f"{path} line {number}: split {named['split']!r} is not one of {', '.join(SPLITS)}")
        files = {role: named[role] for role in roles if named.get(role)}
        found.append(ListedFrame(number, files, split, named.get("scene", ""), seconds))
    return found


def _file_positions(table: Table, roles: Sequence[str]) -> dict[str, int] | None:
    """Where the files of each role stand in every line, where times stand between or depth stands first; else None."""
    rows = [cells for _, cells in table.rows[:_LOOKED_AT]]
    width = Counter(len(cells) for cells in rows).most_common(1)[0][0]
    usual = [cells for cells in rows if len(cells) == width]
    files = [
        i for i in range(width) if sum(is_file_name(c[i]) or c[i].lower() in NO_FILE for c in usual) > len(usual) / 2
    ]
    if len(files) < 2:
        return None
    numbers = [i for i in range(width) if all(is_number(cells[i]) for cells in usual)]
    order = dict(zip(roles, files, strict=False))
    if roles[:2] == ("colour", "depth"):
        first, second = (sum(_looks_like_depth(cells[i]) for cells in usual) for i in files[:2])
        if first > second:
            order = {"colour": files[1], "depth": files[0]}
    timed = any(i < files[-1] for i in numbers)
    return order if timed or order != dict(zip(roles, range(len(files)), strict=False)) else None


def _by_position(cells: Sequence[str], positions: dict[str, int]) -> tuple[dict[str, str], float | None]:
    named = {role: cells[i] for role, i in positions.items() if i < len(cells)}
    times = [float(cells[i - 1]) for i in positions.values() if 0 < i <= len(cells) and is_number(cells[i - 1])]
    rest = [cell for cell in cells[max(positions.values()) + 1 :] if not is_number(cell)]
    named |= dict(zip(("split", "scene"), rest, strict=False))
    return named, abs(times[0] - times[1]) if len(times) == 2 else None


def _looks_like_depth(cell: str) -> bool:
    path = PurePosixPath(cell.replace("\\", "/"))
    if path.suffix.lower() not in DEPTH_SUFFIXES or says_colour(path):
        return False
    return path.suffix.lower() in DEPTH_ONLY_SUFFIXES or says_depth(path)


def listed_path(cell: str, folders: Sequence[Path]) -> Path | None:
    """The file that a cell names, below one of `folders`; None where it is not there.

    Tried as it is written; with back-slashes as slashes; without a leading slash; and in the letters of Windows.
    """
    spellings = [cell]
    if "\\" in cell:
        spellings.append(cell.replace("\\", "/"))
    spellings += [s.lstrip("/") for s in spellings if s.startswith("/")]
    if printable(cell) != cell:
        spellings += [s.encode("utf-8", "surrogateescape").decode("cp1252", "replace") for s in spellings]
    for spelling in spellings:
        for folder in folders:
            path = folder / spelling
            # A name that is too long for the system, or has a zero byte, is of no file.
            with suppress(OSError, ValueError):
                if path.is_file() or path.is_symlink():
                    return path
    return None


def listed_name(cell: str) -> str:
    """What a frame is called by its cell: the path without suffix and without what leads to it."""
    path = PurePosixPath(cell.replace("\\", "/"))
    return printable(str(path.with_suffix("")).lstrip("/").removeprefix("./"))


def pairs_from_list(
    path: Path, root: Path | None = None, max_difference_s: float | None = None
) -> tuple[list[Pair], list[Skipped]]:
    """Pairs of a list (see `listed_frames`), whose paths are relative to the list, or to `root`.

    A pair is named by its picture's path without suffix. Of lines with times those farther apart than `max_difference_s`
    are left out, and of several that name one file the nearest is taken. Files that are not there are left out. Raises
    `SourceError` for a line that is no pair, an unknown split, or a picture named twice without times.
    """
    folders = [path.parent] if root is None else [path.parent, root]
    pairs: list[Pair] = []
    skipped: list[Skipped] = []
    seen: dict[str, int] = {}
    frames = listed_frames(path, ("colour", "depth"))
    rows = [(listed_name(frame.files["colour"]), frame) for frame in frames]
    for name, frame in list(_nearest_only(rows, skipped, max_difference_s)):
        if name in seen:
            raise SourceError(f"{path} line {frame.number}: {name} is in the list twice (line {seen[name]})")
        seen[name] = frame.number
        if frame.files["depth"].lower() in NO_FILE:
            skipped.append(Skipped(name, "has no depth, the list says"))
            continue
        files = {role: listed_path(cell, folders) for role, cell in frame.files.items()}
        missing = [frame.files[role] for role, file in files.items() if file is None]
        colour, depth = files["colour"], files["depth"]
        if colour is None or depth is None:
            hint = "" if root is not None or frame.files["colour"] != missing[0] else _where(path)
            skipped.append(Skipped(name, f"{printable(missing[0])} is not there{hint}"))
        else:
            split, scene = frame.split or None, printable(frame.scene) or None
            pairs.append(Pair(name=name, colour=colour, depth=depth, split=split, scene=scene))
    return pairs, skipped


def _where(path: Path) -> str:
    return f" (paths are relative to {path.name}; name the folder of the data to have them looked for there as well)"


def _nearest_only(
    rows: Sequence[tuple[str, ListedFrame]], skipped: list[Skipped], max_difference_s: float | None
) -> Iterator[tuple[str, ListedFrame]]:
    """The lines in their order; of those with times that share a file only the nearest in time."""
    timed = [(frame.seconds, i) for i, (_, frame) in enumerate(rows) if frame.seconds is not None]
    dropped: set[int] = set()
    taken: dict[str, int] = {}
    for seconds, i in sorted(timed):
        name, frame = rows[i]
        others = [taken[cell] for cell in frame.files.values() if cell in taken]
        if max_difference_s is not None and seconds > max_difference_s:
            reason = f"is {seconds:.3f} s from its depth, more than --max-difference {max_difference_s:g}"
        elif others:
            reason = f"line {frame.number} names a file that is nearer in time in line {rows[others[0]][1].number}"
        else:
            taken |= dict.fromkeys(frame.files.values(), i)
            continue
        dropped.add(i)
        skipped.append(Skipped(name, reason))
    return (row for i, row in enumerate(rows) if i not in dropped)


def names_listed(path: Path, pairs: Sequence[Pair], skipped: Sequence[Skipped]) -> set[str]:
    """Names of the pairs that a text file lists, one a line: by name, by file name, by stem where that is clear, by path,
    or all of a scene or folder. Of a line with several cells, as in published splits, the first that is known counts.

    Empty lines and those that begin with `#` are passed over, and so are files that were left out. Raises `SourceError`
    for a name that is none of the pairs.
    """
    lines = [line.strip() for line in read_text(path, "list of test frames").splitlines()]
    names = {pair.name for pair in pairs}
    known: dict[str, set[str]] = {}
    groups: dict[str, set[str]] = {}
    for pair in pairs:
        for label in {
            pair.name,
            PurePosixPath(pair.name).name,
            pair.colour.name,
            pair.colour.stem,
            *_ends(pair.colour),
        }:
            known.setdefault(printable(label), set()).add(pair.name)
        folders = {str(folder) for folder in PurePosixPath(pair.name).parents} | {pair.scene or ""} - {"."}
        for label in folders | {pair.colour.parent.name}:
            groups.setdefault(printable(label), set()).add(pair.name)
    left_out = {label for e in skipped for label in (e.name, PurePosixPath(e.name).name, PurePosixPath(e.name).stem)}
    chosen: set[str] = set()
    for line in lines:
        if not line or line.startswith("#"):
            continue
        cells = [printable(cell) for cell in _cells(line)]
        if any(cell in left_out for cell in cells):
            continue
        exact = next(({cell} for cell in cells if cell in names), None)
        found = exact or next((known[cell] for cell in cells if cell in known), None)
        whole = next((groups[cell] for cell in cells if cell in groups), None) if found is None else None
        if whole is None and len(found or ()) != 1:
            what = "several pairs" if found else "no pair"
            raise SourceError(f"{path} names {printable(line)!r}, which is {what} of {len(pairs)}")
        chosen |= whole or found or set()
    return chosen


def _ends(path: Path) -> Iterator[str]:
    """The last two and three parts of a path, with and without suffix."""
    for count in (2, 3):
        end = "/".join(path.parts[-count:])
        yield end
        yield end.removesuffix(path.suffix)


def _split(line: str, separator: str) -> list[str]:
    try:
        return split_line(line, separator)
    except csv.Error:
        # A quote that is part of a name.
        return []


def _cells(line: str) -> Iterator[str]:
    """The whole line, then its cells by any separator, each with slashes and without what leads to the name."""
    for text in (line, *(cell for separator in "\t;, " for cell in _split(line.replace("\t", " "), separator))):
        path = text.strip().strip('"').replace("\\", "/").lstrip("/").removeprefix("./").rstrip("/")
        if path:
            yield path
            yield path.rsplit(".", 1)[0] if is_file_name(path) else path
