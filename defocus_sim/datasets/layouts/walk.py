"""The files below a folder, whatever a file system holds: links, loops, places that may not be read, odd names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from defocus_sim.datasets.listing import Skipped, natural_key, printable
from defocus_sim.errors import SourceError, SourceMissingError

# Written by this program: a store, or the state of one that is not finished.
_OF_A_STORE = frozenset({"zarr.json", ".markers"})
# Pictures and arrays of kinds that may not be read here; what of them is not asked for is counted, not passed over.
_PICTURE_LIKE = frozenset({
    ".avif", ".bmp", ".cr2", ".cr3", ".dng", ".arw", ".exr", ".gif", ".h5", ".hdf5", ".hdr", ".heic", ".heif",
    ".jp2", ".jpeg", ".jpg", ".jxl", ".mat", ".nef", ".npy", ".npz", ".pfm", ".pgm", ".png", ".ppm", ".raw",
    ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip


@dataclass
class Found:
    """`files`: in natural order of their paths. `left_out`: places that could not be looked into, by name.

    `other_kinds`: how many pictures and arrays there are of suffixes that nobody asked for.
    """

    files: list[Path] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)
    other_kinds: Counter[str] = field(default_factory=Counter)


def files_below(folder: Path, suffixes: Collection[str]) -> Found:
    """Files under `folder` whose suffix, in lower case, is one of `suffixes`.

    Links to folders are followed, once each; one that leads to a folder above or to one that is listed anyway is left
    out by name, and so are folders that may not be read. A link to nowhere is a file, which cannot be read. Hidden files
    and folders, the `__MACOSX` folders of archives, and stores are left alone. Raises `SourceMissingError` where the
    folder is not there, `SourceError` where it cannot be read.
    """
    if not folder.is_dir():
        raise SourceMissingError(f"folder {folder} is not there")
    found, names = Found(), dict[Path, str]()
    for path in _walk(folder, found.left_out):
        suffix = path.suffix.lower()
        if suffix in suffixes:
            names[path] = path.relative_to(folder).as_posix()
        elif suffix in _PICTURE_LIKE:
            found.other_kinds[suffix] += 1
    found.files = sorted(names, key=lambda path: natural_key(names[path]))
    return found


def _walk(root: Path, left_out: list[Skipped]) -> Iterator[Path]:
    """Every file that is not hidden; links to folders are looked into last, so that a folder counts where it lies."""
    whole = os.path.realpath(root)
    seen: set[str] = set()
    todo, links = [root], list[Path]()
    while todo or links:
        linked = not todo
        folder = todo.pop() if todo else links.pop(0)
        name = folder.relative_to(root).as_posix()
        if linked or folder == root:
            real = os.path.realpath(folder)
            if linked and (whole + os.sep).startswith(real.rstrip(os.sep) + os.sep):
                left_out.append(Skipped(printable(name), "is a link to a folder above it"))
                continue
            if real in seen or (linked and _listed_anyway(real, whole, seen)):
                left_out.append(Skipped(printable(name), "is a link to a folder that is listed itself"))
                continue
        else:
            real = os.path.join(os.path.realpath(folder.parent), folder.name)
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                here = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise SourceError(f"folder {root} cannot be read: {error.strerror}") from error
            left_out.append(Skipped(printable(name), f"cannot be read: {error.strerror}"))
            continue
        if folder != root and any(entry.name in _OF_A_STORE for entry in here):
            continue
        for entry in here:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(folder / entry.name)
            elif entry.is_symlink() and _is_folder(entry):
                links.append(folder / entry.name)
            else:
                yield folder / entry.name


def _listed_anyway(real: str, whole: str, seen: Collection[str]) -> bool:
    """Whether a linked folder lies below one that has been listed."""
    place = real
    while len(place) > len(os.sep):
        if place in seen:
            return not any(part.startswith(".") for part in os.path.relpath(real, place).split(os.sep))
        place = os.path.dirname(place)
    return real == whole


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A loop of links, or a place that may not be looked at: reading it will say which.
        return False
