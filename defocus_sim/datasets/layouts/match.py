"""Which depth file belongs to which picture by the names of files and folders: strictly, then by what layouts do."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from PIL import Image

from defocus_sim.datasets.files import is_own_picture
from defocus_sim.datasets.formats.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from defocus_sim.datasets.layouts.names import (
    MASK_NAME,
    bare_folder,
    bare_name,
    folded,
    folder_role,
    loose_key,
    rank,
    says_depth,
    strict_key,
    time_s,
)
from defocus_sim.datasets.layouts.walk import Found, files_below
from defocus_sim.datasets.listing import Skipped, grouped, natural_key, printable
from defocus_sim.datasets.pairing import Pair
from defocus_sim.errors import SourceMissingError

MAX_DIFFERENCE_S = 0.02
Key = Callable[[PurePath, bool], str]


@dataclass(frozen=True)
class Named:
    """A file and its path below the folder that was given."""

    path: Path
    below: PurePath


@dataclass
class Matched:
    """Pairs so far, and what is left of each side, in natural order. `notes`: what a user should know."""

    colour: list[Named]
    depth: list[Named]
    pairs: list[Pair] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def take(self, found: Iterable[tuple[Named, Named, str]], scenes: bool = False) -> int:
        """Make pairs of (picture, depth, name); `scenes`: frames of one folder are of one scene. Returns how many."""
        found = list(found)
        folders = {bare_folder(colour.below) for colour, _, _ in found}
        names = {pair.name for pair in self.pairs}
        for colour, depth, name in found:
            if name in names:
                name = colour.below.with_suffix("").as_posix()
            names.add(name)
            # BTS's folders of frames are as much of one room as those that are paired by their folders.
            together = scenes or depth.below.name.lower().startswith("sync")
            scene = printable(bare_folder(colour.below)) if together and len(folders) > 1 else None
            self.keys.add(loose_key(colour.below, False))
            self.pairs.append(Pair(name=printable(name), colour=colour.path, depth=depth.path, scene=scene or None))
        taken = {one.path for colour, depth, _ in found for one in (colour, depth)}
        self.colour = [one for one in self.colour if one.path not in taken]
        self.depth = [one for one in self.depth if one.path not in taken]
        return len(found)


def pairs_below(root: Path, max_difference_s: float = MAX_DIFFERENCE_S) -> Matched:
    """Pairs of files below `root`.

    A file is depth where only depth is stored so (`.npy`, `.npz`, `.exr`, `.pfm`, `.pgm`), or its name or its folder says
    `depth`, and a picture otherwise. Two candidates for one role are left out, never chosen by their order.
    """
    found = files_below(root, COLOUR_SUFFIXES | DEPTH_SUFFIXES)
    named = [Named(path, path.relative_to(root)) for path in found.files]
    depth = [one for one in named if says_depth(one.below)]
    matched = Matched([one for one in named if not says_depth(one.below)], depth)
    return _finished(matched, found, max_difference_s)


def pairs_in_two_folders(root: Path, depth_dir: Path, max_difference_s: float = MAX_DIFFERENCE_S) -> Matched:
    """Pictures below `root` (but not below `depth_dir`) with files of the same relative name below `depth_dir`.

    Where the folders above differ (`rgb/a.png`, `depth/a.png`), the file's own name decides if no other has it. Where
    `depth_dir` is no folder but the name of folders below `root`, one for each scene, depth is what lies in these.
    """
    if not depth_dir.is_dir() and len(depth_dir.parts) == 1 and root.is_dir():
        return _in_folders_called(root, depth_dir.name, max_difference_s)
    inside = depth_dir.resolve()
    found, other = files_below(root, COLOUR_SUFFIXES), files_below(depth_dir, DEPTH_SUFFIXES)
    found.left_out += [entry for entry in other.left_out if entry not in found.left_out]
    parents = {path.parent for path in found.files}
    within = {folder: inside in (folder.resolve(), *folder.resolve().parents) for folder in parents}
    colour = [Named(path, path.relative_to(root)) for path in found.files if not within[path.parent]]
    depth = [Named(path, path.relative_to(depth_dir)) for path in other.files]
    matched = Matched(colour, depth)
    _by_key(matched, strict_key)
    if not matched.pairs:
        _by_key(matched, lambda path, is_depth: PurePath(strict_key(path, is_depth)).name)
    return _finished(matched, found, max_difference_s)


def _in_folders_called(root: Path, name: str, max_difference_s: float) -> Matched:
    found = files_below(root, COLOUR_SUFFIXES | DEPTH_SUFFIXES)
    named = [Named(path, path.relative_to(root)) for path in found.files]
    depth = [one for one in named if name in one.below.parent.parts and one.path.suffix.lower() in DEPTH_SUFFIXES]
    if not depth:
        raise SourceMissingError(f"folder {name} is not there, nor is one of this name below {root}")
    return _finished(Matched([one for one in named if not says_depth(one.below)], depth), found, max_difference_s)


def _finished(matched: Matched, found: Found, max_difference_s: float) -> Matched:
    _by_key(matched, strict_key)
    if matched.colour and matched.depth:
        _by_key(matched, _folded_key)
    if matched.colour and matched.depth:
        _by_key(matched, loose_key, scenes=True, ranked=True)
    if matched.colour and matched.depth:
        matched.take(_one_in_each_folder(matched), scenes=True)
    if matched.colour and matched.depth:
        count = matched.take(_by_time(matched, max_difference_s), scenes=True)
        if count:
            matched.notes.append(f"{count} pairs are the nearest in time, {max_difference_s:g} s apart at most")
    if not matched.pairs:
        _told_by_content(matched)
    _leave_out(matched)
    matched.skipped = [*found.left_out, *matched.skipped]
    matched.pairs.sort(key=lambda pair: natural_key(pair.name))
    if found.other_kinds:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.other_kinds.items()))
        matched.notes.append(f"files of kinds that are not read here: {kinds}")
    return matched


def _folded_key(path: PurePath, is_depth: bool) -> str:
    return folded(strict_key(path, is_depth))


def _grouped(files: Sequence[Named], key: Key, is_depth: bool) -> dict[str, list[Named]]:
    return grouped(files, lambda one: key(one.below, is_depth))


def _by_key(matched: Matched, key: Key, *, scenes: bool = False, ranked: bool = False) -> None:
    """Pair what alone has a key on both sides; `ranked`: or comes first of those that have it."""
    colour, depth = _grouped(matched.colour, key, False), _grouped(matched.depth, key, True)
    found = []
    for label in colour.keys() & depth.keys():
        ours, theirs = colour[label], depth[label]
        if ranked:
            ours, theirs = _first(ours), _first(theirs)
        if len(ours) == len(theirs) == 1:
            name = label if key is not _folded_key else strict_key(ours[0].below, False)
            if ranked:
                name = "/".join(part for part in (bare_folder(ours[0].below), bare_name(ours[0].below, False)) if part)
            found.append((ours[0], theirs[0], name))
    matched.take(found, scenes)


def _first(files: list[Named]) -> list[Named]:
    ranks = [rank(one.below) for one in files]
    return [one for one, place in zip(files, ranks, strict=True) if place == min(ranks)]


def _one_in_each_folder(matched: Matched) -> Iterable[tuple[Named, Named, str]]:
    """The only picture of a folder for pictures with the only file of the depth folder beside it (SUN RGB-D).

    What is named by a time is not: two times may be too far apart.
    """
    untimed = [one for one in matched.colour if time_s(one.below) is None]
    colour = _grouped([one for one in untimed if folder_role(one.below) == "colour"], _beside, False)
    depth = _grouped([one for one in matched.depth if folder_role(one.below) == "depth"], _beside, True)
    for folder in colour.keys() & depth.keys():
        theirs = _first(depth[folder])
        if len(colour[folder]) == len(theirs) == 1:
            name = "/".join(part for part in (folder, colour[folder][0].below.stem) if part)
            yield colour[folder][0], theirs[0], name


def _beside(path: PurePath, is_depth: bool) -> str:
    return bare_folder(path)


def _by_time(matched: Matched, max_difference_s: float) -> list[tuple[Named, Named, str]]:
    """Of each folder, the pairs nearest in time first, as TUM's `associate.py` does it."""
    depth: dict[str, list[tuple[float, int]]] = {}
    for i, one in enumerate(matched.depth):
        time = time_s(one.below)
        if time is not None:
            depth.setdefault(bare_folder(one.below), []).append((time, i))
    for times in depth.values():
        times.sort()
    candidates = []
    for i, one in enumerate(matched.colour):
        time = time_s(one.below)
        near = depth.get(bare_folder(one.below), []) if time is not None else []
        for other, j in near[bisect.bisect_left(near, ((time or 0) - max_difference_s, -1)) :]:
            if other - (time or 0) > max_difference_s:
                break
            candidates.append((abs(other - (time or 0)), i, j))
    ours, theirs, found = set[int](), set[int](), []
    for _, i, j in sorted(candidates):
        if i not in ours and j not in theirs:
            ours.add(i)
            theirs.add(j)
            colour = matched.colour[i]
            name = "/".join(part for part in (bare_folder(colour.below), colour.below.stem) if part)
            found.append((colour, matched.depth[j], name))
    return found


def _told_by_content(matched: Matched) -> None:
    """Two pictures of one name of which one is grey: that is the depth (DenseDepth's `1.jpg` and `1.png`)."""
    found = []
    for name, files in _grouped(matched.colour, strict_key, False).items():
        if len(files) == 2:
            grey = [one for one in files if _is_grey(one.path)]
            if len(grey) == 1 and grey[0].path.suffix.lower() in DEPTH_SUFFIXES:
                found.append((next(one for one in files if one is not grey[0]), grey[0], name))
    if matched.take(found):
        first = found[0]
        matched.notes.append(
            f"{len(found)} pairs are of one name: the grey one is the depth, as {printable(first[1].path.name)} of "
            f"{printable(first[0].path.name)}"
        )


def _is_grey(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return len(image.getbands()) == 1 and image.mode not in ("P", "1")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _leave_out(matched: Matched) -> None:
    """Name what has no partner, with the reason; masks of depth files that have one, and our own pictures, need none."""
    matched.colour = [one for one in matched.colour if not is_own_picture(one.path)]
    stems = {pair.depth.with_suffix("") for pair in matched.pairs}
    matched.depth = [
        one
        for one in matched.depth
        if not (MASK_NAME.search(one.path.stem) and one.path.with_name(MASK_NAME.sub("", one.path.stem)) in stems)
    ]
    groups: dict[str, list[Named]] = {}
    for is_depth, files in ((False, matched.colour), (True, matched.depth)):
        for one in files:
            groups.setdefault(strict_key(one.below, is_depth), []).append(one)
    for is_depth, files in ((False, matched.colour), (True, matched.depth)):
        for one in files:
            twins = [other for other in groups[strict_key(one.below, is_depth)] if other is not one]
            what = "picture" if is_depth else "depth file"
            reason = f"has no {what} of its name"
            if twins:
                reason = (
                    f"shares its name with {', '.join(printable(other.path.name) for other in twins)}: call the depth "
                    "NAME.depth.png, or list the pairs in a CSV file"
                )
            elif loose_key(one.below, is_depth) in matched.keys:
                reason = "belongs to a frame that has another such file already"
            matched.skipped.append(Skipped(printable(one.below.as_posix()), reason))
    matched.skipped.sort(key=lambda entry: natural_key(entry.name))


def unpaired_hint(matched: Matched) -> str:
    """Two names that have no partner, and what would help; empty where none is left on one side."""
    if not (matched.colour and matched.depth):
        return ""
    ours, theirs = (printable(files[0].below.as_posix()) for files in (matched.colour, matched.depth))
    help_ = "--depth-dir FOLDER for depth of the same names elsewhere, or --pairs LIST for any names"
    if time_s(matched.colour[0].below) is not None and time_s(matched.depth[0].below) is not None:
        help_ = "--max-difference SECONDS for times farther apart, or --pairs LIST"
    return f"no name says that {ours} and {theirs} belong together: {help_}"
