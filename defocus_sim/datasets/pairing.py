"""Which depth file belongs to which picture: by names, by a second folder or by a CSV file; and lists of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defocus_sim.datasets.base import SPLITS
from defocus_sim.datasets.formats.images import (
    CHECKED_SUFFIXES,
    COLOUR_SUFFIXES,
    DEPTH_ONLY_SUFFIXES,
    DEPTH_SUFFIXES,
    DepthHeader,
    check_whole,
    colour_size,
    depth_header,
    read_colour,
    read_depth_units,
)
from defocus_sim.datasets.listing import Skipped, files_below, natural_key
from defocus_sim.errors import SourceError, SourceMissingError

# What a name says about a file's role: `a.depth.png`, `a_depth_mm.pgm`, `a-depth.tif`, `depth_a.png`; `a_rgb.png`.
_DEPTH_NAME = re.compile(r"(?:[._-]+depth(?:[._-]?(?:mm|m))?$)|(?:^depth[._-]+)", re.IGNORECASE)
_COLOUR_NAME = re.compile(r"(?:[._-]+(?:rgb|colou?r)$)|(?:^(?:rgb|colou?r)[._-]+)", re.IGNORECASE)
_MILLIMETRES = re.compile(r"(?:^|[._-])mm(?:[._-]|$)|depthmm$", re.IGNORECASE)
# Sizes that differ by rounding only still have the same aspect ratio.
_SAME_ASPECT = 0.01
_CSV_COLUMNS = ("colour", "depth", "split", "scene")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture and its depth file; `split` and `scene` where a CSV file says them."""

    name: str
    colour: Path
    depth: Path
    split: str | None = None
    scene: str | None = None


def pairs_by_name(root: Path) -> tuple[list[Pair], list[Skipped]]:
    """Pairs of files below `root` in one folder that have the same name but for their role.

    A file is depth where only depth is stored so (`.npy`, `.npz`, `.exr`, `.pfm`, `.pgm`) or its name says `depth`,
    and a picture otherwise. Two candidates for one role are left out, never chosen by their order.
    """
    files = files_below(root, COLOUR_SUFFIXES | DEPTH_SUFFIXES)
    depth = [path for path in files if _says_depth(path)]
    colour = [path for path in files if not _says_depth(path)]
    return _match(_grouped(root, colour, _COLOUR_NAME), _grouped(root, depth, _DEPTH_NAME), root, root)


def pairs_in_two_folders(root: Path, depth_dir: Path) -> tuple[list[Pair], list[Skipped]]:
    """Pictures below `root` (but not below `depth_dir`) with files of the same relative name below `depth_dir`.

    Where the folders above differ (`rgb/a.png`, `depth/a.png`), the file's own name decides if no other has it.
    """
    inside = depth_dir.resolve()
    colour = [path for path in files_below(root, COLOUR_SUFFIXES) if inside not in path.resolve().parents]
    depth = files_below(depth_dir, DEPTH_SUFFIXES)
    ours, theirs = _grouped(root, colour, _COLOUR_NAME), _grouped(depth_dir, depth, _DEPTH_NAME)
    if not set(ours) & set(theirs):
        short = [{key: Path(key).name for key in group} for group in (ours, theirs)]
        if all(len(set(names.values())) == len(names) for names in short):
            ours = {short[0][key]: paths for key, paths in ours.items()}
            theirs = {short[1][key]: paths for key, paths in theirs.items()}
    return _match(ours, theirs, root, depth_dir)


def pairs_from_csv(path: Path) -> tuple[list[Pair], list[Skipped]]:
    """Pairs of a CSV file: picture, depth, and optionally split (`train`, `val` or `test`) and scene; a header is optional.

    Paths are relative to the CSV file. A pair is named by its picture's path without suffix. Raises `SourceError` for a
    line that is no pair, an unknown split, or a picture named twice; files that are not there are left out.
    """
    rows = csv_rows(path)
    pairs, skipped, seen = [], [], set()
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if not 2 <= len(cells) <= len(_CSV_COLUMNS) or not cells[0] or not cells[1]:
            raise SourceError(f"{path} line {number}: {','.join(row)!r} is not picture,depth[,split[,scene]]")
        split, scene = [*cells[2:], "", ""][:2]
        if split and split not in SPLITS:
            raise SourceError(f"{path} line {number}: split {split!r} is not one of {', '.join(SPLITS)}")
        name = Path(cells[0]).with_suffix("").as_posix()
        if name in seen:
            raise SourceError(f"{path} line {number}: {name} is in the list twice")
        seen.add(name)
        colour, depth = path.parent / cells[0], path.parent / cells[1]
        missing = [cell for cell, file in zip(cells, (colour, depth), strict=False) if not file.is_file()]
        if missing:
            skipped.append(Skipped(name, f"{missing[0]} is not there"))
        else:
            pairs.append(Pair(name=name, colour=colour, depth=depth, split=split or None, scene=scene or None))
    return pairs, skipped


def names_listed(path: Path, pairs: Sequence[Pair], skipped: Sequence[Skipped]) -> set[str]:
    """Names of the pairs that a text file lists, one a line: by name, by file name, or by stem where that is clear.

    Empty lines and those that begin with `#` are passed over, and so are files that were left out. Raises `SourceError`
    for a name that is none of the pairs.
    """
    if not path.is_file():
        raise SourceMissingError(f"list of test frames {path} is not there")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not a text file ({error.reason})") from error
    known: dict[str, set[str]] = {}
    for pair in pairs:
        for label in {pair.name, Path(pair.name).name, pair.colour.name, pair.colour.stem}:
            known.setdefault(label, set()).add(pair.name)
    left_out = {label for entry in skipped for label in (entry.name, Path(entry.name).name, Path(entry.name).stem)}
    chosen: set[str] = set()
    for line in lines:
        if not line or line.startswith("#") or line in left_out:
            continue
        names = {line} if line in {pair.name for pair in pairs} else known.get(line, set())
        if len(names) != 1:
            what = "several pairs" if names else "no pair"
            raise SourceError(f"{path} names {line!r}, which is {what} of {len(pairs)}")
        chosen |= names
    return chosen


def metres_per_unit(path: Path, integer: bool, depth_scale: float | None) -> float:
    """Metres per unit of a depth file: `depth_scale`, or what its kind or name says; raises `SourceError` else."""
    if depth_scale is not None:
        return depth_scale
    if not integer:
        return 1.0
    if _MILLIMETRES.search(path.stem):
        return 0.001
    raise SourceError(
        f"{path.name} holds integer depth of an unknown unit: give metres per unit (--depth-scale 0.001 for mm)"
    )


def look_at_colour(path: Path) -> tuple[int, int]:
    """Height and width of a picture that is whole; raises `SourceError` where it is not."""
    # Decoded before the header is looked at: Pillow warns of a damaged TIFF and goes on.
    if path.suffix.lower() not in CHECKED_SUFFIXES:
        read_colour(path)
    check_whole(path)
    return colour_size(path)


def look_at_depth(path: Path) -> DepthHeader:
    """What a depth map holds that is whole; raises `SourceError` where it is not."""
    if path.suffix.lower() not in CHECKED_SUFFIXES:
        read_depth_units(path)
    check_whole(path)
    return depth_header(path)


def aspects_differ(colour: Path, depth: Path, colour_hw: Sequence[int], depth_hw: Sequence[int]) -> str | None:
    """Why a depth map cannot belong to a picture, by their sizes, or None."""
    if abs(colour_hw[1] * depth_hw[0] / (colour_hw[0] * depth_hw[1]) - 1) <= _SAME_ASPECT:
        return None
    return (
        f"{colour.name} is {colour_hw[1]}x{colour_hw[0]} but {depth.name} is {depth_hw[1]}x{depth_hw[0]}: "
        "depth must cover the same view"
    )


def csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each line of a CSV file that is not empty, without its header. Raises `SourceError`."""
    if not path.is_file():
        raise SourceMissingError(f"list of pairs {path} is not there")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [(number, row) for number, row in enumerate(csv.reader(stream), 1) if any(c.strip() for c in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as a CSV file ({error})") from error
    if rows and not any(Path(cell.strip()).suffix for cell in rows[0][1][:2]):
        rows = rows[1:]
    if not rows:
        raise SourceError(f"{path} lists no pair")
    return rows


def _says_depth(path: Path) -> bool:
    return path.suffix.lower() in DEPTH_ONLY_SUFFIXES or bool(_DEPTH_NAME.search(path.stem))


def _grouped(base: Path, files: Sequence[Path], role: re.Pattern[str]) -> dict[str, list[Path]]:
    """Files by their path below `base` without suffix and without what tells their role."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        # A name that is nothing but its role (`depth.png`) keeps it.
        stem = role.sub("", path.stem) or path.stem
        groups.setdefault((path.relative_to(base).parent / stem).as_posix(), []).append(path)
    return groups


def _match(
    colour: dict[str, list[Path]], depth: dict[str, list[Path]], colour_base: Path, depth_base: Path
) -> tuple[list[Pair], list[Skipped]]:
    pairs, skipped = [], []
    for key in sorted({*colour, *depth}, key=natural_key):
        ours, theirs = colour.get(key, []), depth.get(key, [])
        if len(ours) == len(theirs) == 1:
            pairs.append(Pair(name=key, colour=ours[0], depth=theirs[0]))
            continue
        for files, others, base, what in (
            (ours, theirs, colour_base, "depth file"),
            (theirs, ours, depth_base, "picture"),
        ):
            for path in files:
                if not others and len(files) == 1:
                    reason = f"has no {what} of its name"
                else:
                    twins = ", ".join(p.name for p in (*ours, *theirs) if p != path)
                    reason = (
                        f"shares its name with {twins}: call the depth NAME.depth.png, or list the pairs in a CSV file"
                    )
                skipped.append(Skipped(path.relative_to(base).as_posix(), reason))
    return pairs, skipped
