"""Make3D: outdoor pictures (1704 wide, 2272 high) with a laser's coarse depth grid (55 rows, 305 columns).

`img-<id>.jpg` belongs to `depth_sph_corr-<id>.mat`; some ids carry an extra number such as `10.21` in front, on one
side only, and some depth files lie in a subfolder `Gridlaserdata`. Files are paired by id, never by their order. The
grid spans the whole picture, so that its cells are not square. Its four channels are y, x, z and the distance along the
ray: blur follows z, as everywhere in this package, and the published figures are of the distance. Saxena, Sun and Ng,
"Make3D", TPAMI 2009.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.base import RgbdFrame, SampleRef, depth_with_holes
from defocus_sim.datasets.formats.images import colour_size, read_colour, resize_nearest
from defocus_sim.datasets.formats.matfile import read_matrix
from defocus_sim.datasets.formats.pictures import whole_file
from defocus_sim.datasets.layouts.walk import files_below
from defocus_sim.datasets.listing import (
    VAL_FRACTION,
    ListedOnce,
    Listing,
    Skipped,
    check_fraction,
    hold_out_val,
    identity,
    looked_at,
    natural_key,
    printable,
    val_note,
)
from defocus_sim.errors import SourceError, SourceMissingError

GRID_HW = (55, 305)
# The splits that have folders; `val` is drawn from the first.
_FOLDERS = ("train", "test")
_GRID_NAME = "Position3DGrid"
_GRID_CHANNELS = 4
_Z, _DISTANCE = 2, 3
_IMAGE_PREFIX, _DEPTH_PREFIX = "img-", "depth_sph_corr-"
_EXTRA_NUMBER = re.compile(r"^\d+\.\d+[-_]?(?=\D)")
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class Make3dPair(NamedTuple):
    """A picture and its depth file; `split`: that of their folder."""

    id: str
    image: Path
    depth: Path
    split: str = "train"


class LaserGrid(NamedTuple):
    """What the laser saw: (55, 305) float32 metres each, 0 = hole (in both), about 81 = nothing seen.

    `z_m`: along the optical axis, what blur depends on and what is stored. `distance_m`: along the ray from the camera,
    what the published figures score; at the edge of a picture it is a third longer.
    """

    z_m: NDArray[np.float32]
    distance_m: NDArray[np.float32]


def read_grid(path: Path) -> LaserGrid:
    """Both depths of one file, `Position3DGrid[..., 2]` and `[..., 3]`.

    Raises `SourceError` naming the file where it is damaged or has no such array of (55, 305, 4).
    """
    grid = read_matrix(path, _GRID_NAME)
    if grid.shape != (*GRID_HW, _GRID_CHANNELS):
        raise SourceError(f"{path}: {_GRID_NAME} has shape {grid.shape}, {(*GRID_HW, _GRID_CHANNELS)} is wanted")
    z, distance = depth_with_holes(grid[..., _Z]), depth_with_holes(grid[..., _DISTANCE])
    seen = (z > 0) & (distance > 0)
    return LaserGrid(np.where(seen, z, np.float32(0)), np.where(seen, distance, np.float32(0)))


@dataclass(frozen=True, kw_only=True)
class Make3dSource(ListedOnce[Make3dPair]):
    """The pairs below `root`: its folders of pictures and of depth for each split, found without regard to case.

    `size_hw`: height and width of the frames; colour is reduced by area and depth takes the nearest cell of the grid.
    The default is the customary 460x345 for the portrait pictures of the set; pictures of another shape are stretched
    to it, which `notes` tells, unless a size of their shape is given. The pictures are read at this size directly: at
    their own size there is a depth for every 230th pixel only. Depth is z, not the distance along the ray. A split whose
    two folders are both absent is empty.

    `val_fraction` of the training pairs, drawn by `seed`, is the validation split.

    What cannot be paired or read is left out and listed by `skipped`; a picture of the training split whose id is in
    the test split as well is left out too.
    """

    root: Path
    train_images: str = "Train400Img"
    train_depths: str = "Train400Depth"
    test_images: str = "Test134"
    test_depths: str = "Test134Depth"
    size_hw: tuple[int, int] = (460, 345)
    val_fraction: float = VAL_FRACTION
    seed: int = 0
    kind: ClassVar[str] = "make3d"

    def __post_init__(self) -> None:
        """Check the options; the files are looked at when they are listed."""
        if len(self.size_hw) != 2 or min(self.size_hw) < 1:
            raise SourceError(f"size_hw={self.size_hw} must be a height and a width in px")
        check_fraction(self.val_fraction, "val_fraction")

    def samples(self) -> tuple[SampleRef, ...]:
        """The pairs of the training folders, then of the test folders, named by their id, each its own scene.

        Raises `SourceMissingError` where the folders are not there, `SourceError` where no pair is left.
        """
        skipped = self.listing.skipped
        if not self.listing.frames:
            reason = f", the first: {skipped[0].name} {skipped[0].reason}" if skipped else ""
            raise SourceError(f"{self.root} holds no readable pair of Make3D files ({len(skipped)} left out{reason})")
        samples = [SampleRef(name=pair.id, scene=pair.id, split=pair.split) for pair in self.listing.frames]
        return hold_out_val(samples, self.val_fraction, self.seed)

    def skipped(self) -> tuple[Skipped, ...]:
        """Files that give no sample, by their path below `root`, with the reason."""
        return self.listing.skipped

    def notes(self) -> tuple[str, ...]:
        """What a user should know about the frames: pictures that are stretched, one example a folder, and `val`."""
        notes = []
        for split in _FOLDERS:
            pairs = [pair for pair in self.listing.frames if pair.split == split]
            if not pairs:
                continue
            height, width = colour_size(pairs[0].image)
            if abs(np.log(width / height * self.size_hw[0] / self.size_hw[1])) > 0.05:
                notes.append(
                    f"{split}: {pairs[0].image.name} is {width}x{height} and is stretched to "
                    f"{self.size_hw[1]}x{self.size_hw[0]}; a size of its shape keeps its proportions"
                )
        return (*notes, *val_note(self.samples(), self.seed))

    def grid_paths(self) -> tuple[Path, ...]:
        """The depth file of every sample, in the order of `samples`, for `read_grid`."""
        return tuple(pair.depth for pair in self.listing.frames)

    def frame_hw(self) -> tuple[int, int]:
        """`size_hw`."""
        return self.size_hw

    def provenance(self) -> dict[str, Any]:
        """Kind, size, the files' number and digest, and what was left out."""
        files = [path for pair in self.listing.frames for path in (pair.image, pair.depth)]
        return {
            "kind": self.kind,
            "depth": "z",
            "size_hw": list(self.size_hw),
            "val_fraction": self.val_fraction,
            "seed": self.seed,
            "files": identity((self._name(path), path) for path in files),
            "skipped": [list(entry) for entry in self.listing.skipped],
        }

    @contextmanager
    def open(self) -> Iterator[_Make3dReader]:
        """A reader for one thread."""
        yield _Make3dReader(self.files, self.size_hw)

    def _name(self, path: Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    def _list(self) -> Listing[Make3dPair]:
        folders = self._folders()
        pairs: dict[str, list[Make3dPair]] = {"train": [], "test": []}
        skipped: list[Skipped] = []
        for split, (images, depths) in folders.items():
            ours, theirs = files_below(images, _IMAGE_SUFFIXES), files_below(depths, {".mat"})
            for place, below in ((images, ours), (depths, theirs)):
                skipped += [Skipped(f"{self._name(place)}/{entry.name}", entry.reason) for entry in below.left_out]
            found, left_out = _pair(ours.files, theirs.files)
            skipped += [Skipped(self._name(path), reason) for path, reason in left_out]
            for pair in found:
                reason = looked_at(pair.image, _check)[1] or looked_at(pair.depth, _check)[1]
                if reason:
                    skipped.append(Skipped(self._name(pair.image), reason))
                else:
                    pairs[split].append(pair._replace(split=split))
        tested = {pair.id for pair in pairs["test"]}
        for pair in pairs["train"]:
            if pair.id in tested:
                skipped.append(Skipped(self._name(pair.image), "has the id of a picture of the test split"))
        train = [pair for pair in pairs["train"] if pair.id not in tested]
        return Listing((*train, *pairs["test"]), tuple(skipped))

    def _folders(self) -> dict[str, tuple[Path, Path]]:
        """Folders of pictures and of depth for each split that is there."""
        wanted = {"train": (self.train_images, self.train_depths), "test": (self.test_images, self.test_depths)}
        text = ", ".join(name for names in wanted.values() for name in names)
        if not self.root.is_dir():
            raise SourceMissingError(f"folder {self.root} is not there: a folder with {text} is wanted")
        here = {path.name.casefold(): path for path in sorted(self.root.iterdir(), reverse=True) if path.is_dir()}
        folders = {}
        for split, names in wanted.items():
            found = [here.get(name.casefold()) for name in names]
            if found[0] is not None and found[1] is not None:
                folders[split] = (found[0], found[1])
            elif found != [None, None]:
                missing = names[0] if found[0] is None else names[1]
                raise SourceMissingError(f"{self.root} has no folder {missing}: {text} are wanted")
        if not folders:
            raise SourceMissingError(f"{self.root} holds none of the folders {text}")
        return folders


class _Make3dReader:
    def __init__(self, files: Mapping[int, Make3dPair], size_hw: tuple[int, int]) -> None:
        self._files, self._size_hw = files, size_hw

    def read(self, index: int) -> RgbdFrame:
        """Sample `index` of the source at its working size."""
        pair, (height, width) = self._files[index], self._size_hw
        aif = cv2.resize(read_colour(pair.image), (width, height), interpolation=cv2.INTER_AREA)
        return RgbdFrame(np.asarray(aif, np.uint8), resize_nearest(read_grid(pair.depth).z_m, self._size_hw))


def _pair(images: list[Path], depths: list[Path]) -> tuple[list[Make3dPair], list[tuple[Path, str]]]:
    """Pairs in natural order of their ids, and the files without a partner with the reason."""
    pictures, left_out = _by_id(images, _IMAGE_PREFIX)
    grids, others = _by_id(depths, _DEPTH_PREFIX)
    left_out += others
    matched = {key: key for key in pictures if key in grids}
    # What is left may carry an extra number on one side: one picture and one grid, one of the two with a number.
    lone: dict[str, tuple[list[str], list[str]]] = {}
    for side, named in enumerate((pictures, grids)):
        for key in named:
            if key not in matched:
                lone.setdefault(_bare(key), ([], []))[side].append(key)
    for bare, (ours, theirs) in lone.items():
        if len(ours) == len(theirs) == 1 and bare in (*ours, *theirs):
            matched[ours[0]] = theirs[0]
    left_out += [(path, "has no depth file with its id") for key, path in pictures.items() if key not in matched]
    taken = set(matched.values())
    left_out += [(path, "has no picture with its id") for key, path in grids.items() if key not in taken]
    pairs = []
    for key, partner in matched.items():
        name = printable(pictures[key].stem[len(_IMAGE_PREFIX) :])
        pairs.append(Make3dPair(name if key == partner else _bare(name), pictures[key], grids[partner]))
    return sorted(pairs, key=lambda pair: natural_key(pair.id)), left_out


def _by_id(files: list[Path], prefix: str) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Files by their id in lower case, and those that have none or share theirs with the reason."""
    groups: dict[str, list[Path]] = {}
    left_out = []
    for path in files:
        if path.stem.casefold().startswith(prefix):
            groups.setdefault(path.stem[len(prefix) :].casefold(), []).append(path)
        else:
            left_out.append((path, f"is not named {prefix}<id>"))
    named = {}
    for key, group in groups.items():
        # An archive unpacked twice gives copies, which do no harm; which of two different files is right, nobody knows.
        if all(_same(group[0], path) for path in group[1:]):
            named[key] = group[0]
        else:
            left_out += [(path, f"is one of {len(group)} different files with its id") for path in group]
    return named, left_out


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        # Which of them can be read, looking at them will say.
        return False


def _bare(key: str) -> str:
    return _EXTRA_NUMBER.sub("", key)


def _check(path: Path) -> None:
    """Raises `SourceError` for a bad file: a picture's header and end are looked at, a depth file is read."""
    if path.suffix.lower() == ".mat":
        read_grid(path)
    else:
        whole_file(path)
        colour_size(path)
