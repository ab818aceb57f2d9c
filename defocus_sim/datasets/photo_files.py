"""Which photographs make a pair: by name or order in folders, in DPDD's own layout, or by a CSV file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defocus_sim.datasets.base import SPLITS
from defocus_sim.datasets.formats.images import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from defocus_sim.datasets.layouts.lists import listed_frames, listed_name, listed_path
from defocus_sim.datasets.layouts.names import folded
from defocus_sim.datasets.layouts.walk import files_below
from defocus_sim.datasets.listing import Skipped, grouped, natural_key, printable
from defocus_sim.errors import SourceError, SourceMissingError


@dataclass(frozen=True, kw_only=True)
class PhotoPair:
    """A defocused photograph and the same scene sharp, maybe with depth; `split`, `scene` where something says them."""

    name: str
    defocused: Path
    sharp: Path
    depth: Path | None = None
    split: str | None = None
    scene: str | None = None


Found = tuple[list[PhotoPair], list[Skipped]]


def pairs_by_name(defocused: Path, sharp: Path, depth: Path | None) -> Found:
    """Files of the same relative path but for the suffix; of the same file name, where no path is the same.

    Where nothing has a partner so, Unicode forms and cases that differ are none.
    """
    found, skipped = _in_folders(defocused, sharp, depth)
    bases = {"defocused": defocused, "sharp": sharp, "depth": depth}
    files = {role: [(path, bases[role]) for path in paths] for role, paths in found.items()}
    pairs: list[PhotoPair] = []
    labels: tuple[Callable[[tuple[Path, Any]], str], ...] = (
        lambda file: file[0].relative_to(file[1]).with_suffix("").as_posix(),
        lambda file: file[0].stem,
        lambda file: folded(file[0].relative_to(file[1]).with_suffix("").as_posix()),
        lambda file: folded(file[0].stem),
    )
    for label in labels:
        by_path = {role: grouped(placed, label) for role, placed in files.items()}
        if set.intersection(*(set(group) for group in by_path.values())):
            break
    for key in sorted(set().union(*by_path.values()), key=natural_key):
        here = {role: group.get(key, []) for role, group in by_path.items()}
        if all(len(paths) == 1 for paths in here.values()):
            pairs.append(_pair(printable(key), [(role, paths[0][0]) for role, paths in here.items()]))
            continue
        missing = [role for role, paths in here.items() if not paths]
        several = [role for role, paths in here.items() if len(paths) > 1]
        reason = f"has no {' and no '.join(missing)} file of its name" if missing else ""
        if several:
            reason = f"{reason} and " * bool(reason) + f"has several {' and '.join(several)} files of its name"
        skipped.append(Skipped(printable(key), reason))
    return pairs, skipped


def pairs_by_order(defocused: Path, sharp: Path, depth: Path | None) -> Found:
    """First with first, second with second, in natural order of names. Raises `SourceError` where the counts differ."""
    files, skipped = _in_folders(defocused, sharp, depth)
    if len({len(paths) for paths in files.values()}) > 1:
        counts = ", ".join(f"{len(paths)} {role}" for role, paths in files.items())
        raise SourceError(
            f"--by-order needs as many files in each folder, these hold {counts}: pair by name or by a CSV"
        )
    first = files["defocused"]
    names = [printable(path.relative_to(defocused).with_suffix("").as_posix()) for path in first]
    if len(set(names)) < len(names):
        names = [printable(path.relative_to(defocused).as_posix()) for path in first]
    rows = zip(*files.values(), strict=True)
    return [_pair(name, list(zip(files, row, strict=True))) for name, row in zip(names, rows, strict=True)], skipped


def pairs_in_dpdd_layout(root: Path) -> Found:
    """Folders `source` and `target` side by side, as DPDD (`train_c`, `val_c`, `test_c`) and RealDOF have them.

    The folder above names the split. Of DPDD's three views the whole one is taken (`*_c`), not those of half a pixel
    (`*_l`, `*_r`). Files are paired by name where the names are the same, else in their order, as DPDD's authors do.
    """
    if not root.is_dir():
        raise SourceMissingError(f"folder {root} is not there")
    candidates = [
        root,
        *(path for path in root.glob("*/") if path.is_dir()),
        *(p for p in root.glob("*/*/") if p.is_dir()),
    ]
    folders = [path for path in candidates if (path / "source").is_dir() and (path / "target").is_dir()]
    names = {path.name for path in folders}
    folders = [f for f in folders if not (f.name.endswith(("_l", "_r")) and f"{f.name[:-2]}_c" in names)]
    if not folders:
        raise SourceError(
            f"{root} has no folders `source` and `target` side by side: give --defocused and --sharp, or --pairs"
        )
    pairs: list[PhotoPair] = []
    skipped: list[Skipped] = []
    for folder in sorted(folders, key=lambda path: natural_key(path.as_posix())):
        source, target = folder / "source", folder / "target"
        stems = [{path.stem for path in files_below(side, COLOUR_SUFFIXES).files} for side in (source, target)]
        same_names = bool(stems[0] & stems[1])
        found, left = (pairs_by_name if same_names else pairs_by_order)(source, target, None)
        prefix = "" if folder == root else f"{printable(folder.relative_to(root).as_posix())}/"
        split = next((name for name in SPLITS if folder.name.startswith(name)), None)
        pairs += [PhotoPair(**{**vars(pair), "name": prefix + pair.name, "split": split}) for pair in found]
        skipped += [Skipped(prefix + entry.name, entry.reason) for entry in left]
    return pairs, skipped


def pairs_in_csv(path: Path) -> Found:
    """Lines `defocused,sharp[,depth[,split[,scene]]]`, paths relative to the file, in any form that `tables` reads.

    Raises `SourceError` for a line that is no pair, an unknown split or a name that occurs twice.
    """
    pairs, skipped, seen = [], [], set()
    for frame in listed_frames(path, ("defocused", "sharp", "depth")):
        name = listed_name(frame.files["defocused"])
        if name in seen:
            raise SourceError(f"{path} line {frame.number}: {name} is in the list twice")
        seen.add(name)
        files = {role: listed_path(cell, [path.parent]) for role, cell in frame.files.items()}
        missing = [frame.files[role] for role, file in files.items() if file is None]
        defocused, sharp = files["defocused"], files["sharp"]
        if missing or defocused is None or sharp is None:
            skipped.append(Skipped(name, f"{printable(missing[0])} is not there"))
            continue
        pairs.append(
            PhotoPair(
                name=name,
                defocused=defocused,
                sharp=sharp,
                depth=files.get("depth"),
                split=frame.split or None,
                scene=printable(frame.scene) or None,
            )
        )
    return pairs, skipped


def _pair(name: str, files: list[tuple[str, Path]]) -> PhotoPair:
    roles = dict(files)
    return PhotoPair(name=name, defocused=roles["defocused"], sharp=roles["sharp"], depth=roles.get("depth"))


def _in_folders(defocused: Path, sharp: Path, depth: Path | None) -> tuple[dict[str, list[Path]], list[Skipped]]:
    """The files of each role, and what could not be looked into; raises `SourceError` where no picture is defocused."""
    below = {"defocused": files_below(defocused, COLOUR_SUFFIXES), "sharp": files_below(sharp, COLOUR_SUFFIXES)}
    if depth is not None:
        below["depth"] = files_below(depth, DEPTH_SUFFIXES)
    if not below["defocused"].files:
        raise SourceError(f"{defocused} holds no picture")
    return {role: found.files for role, found in below.items()}, [e for found in below.values() for e in found.left_out]
