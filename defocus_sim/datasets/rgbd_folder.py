"""Any folder of pictures with metric depth beside them, in another folder, or named by a CSV file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.datasets.formats.depth_units import DepthUnits, metres
from defocus_sim.datasets.formats.images import (
    DepthHeader,
    read_colour,
    read_depth_units,
    resize_nearest,
)
from defocus_sim.datasets.formats.masks import find_mask, is_mask, read_mask
from defocus_sim.datasets.formats.pictures import picture_header, upright_pixels
from defocus_sim.datasets.layouts.lists import names_listed, pairs_from_list
from defocus_sim.datasets.layouts.match import MAX_DIFFERENCE_S, pairs_below, pairs_in_two_folders, unpaired_hint
from defocus_sim.datasets.listing import (
    ListedOnce,
    Listing,
    Skipped,
    check_fraction,
    identity,
    looked_at,
    samples_of,
    val_note,
)
from defocus_sim.datasets.pairing import (
    Pair,
    aspects_differ,
    look_at_colour,
    look_at_depth,
    metres_per_unit,
)
from defocus_sim.errors import SourceError, SourceMissingError


@dataclass(frozen=True)
class FramePair:
    """The files of a frame and what their headers say."""

    pair: Pair
    colour_hw: tuple[int, int]
    depth: DepthHeader
    # How the picture's file is turned, and how its depth is to be.
    orientation: int = 1
    turn_depth: int = 1
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RgbdFolderSource(ListedOnce[FramePair]):
    """Pictures below `root`, or those of `pairs_csv` (whose paths may be relative to `root`), each with a depth file.

    `depth_dir`: a folder of the depth files, where they do not lie beside the pictures, or the name of such folders below
    `root`. `max_difference_s`: how far apart a picture and its depth may be that are paired by the times they are named by
    (None: 0.02 s), or by those of a list (None: any). `pairs_csv`: a list of the
    pairs instead of their names. `depth_scale`: metres per unit of the depth files; without it floating point depth is
    in metres and integer depth in millimetres where its name says `mm`, and refused otherwise. `units`: what the numbers
    are, where they are not z; see `DepthUnits`, also for what is a hole. `mask_dir`: a folder of masks named as the depth
    files, 0 where depth is not valid. `turn_depth`: turn depth as the EXIF of its picture says; without it that is done
    where only so both have one shape.

    `size_hw`: height and width of every frame, needed where the pictures differ in size (colour is reduced by area,
    depth takes the nearest value, both before any blur); without it frames keep their size. Depth of another size than
    its picture is brought to the picture's by the nearest value where both have one aspect ratio; other pairs are left
    out.

    Split: that of the list's third column; or `test_list`, a text file of names a line; or `test_fraction` of the
    scenes, drawn by `seed`; or everything in `train`. `val_fraction` of what is not `test` is the validation split, whole
    scenes drawn by `seed`, unless the list's third column says `val`. A frame is its own scene unless the list's fourth
    column groups it.

    Files without a partner or unreadable ones are left out and listed by `skipped`. Raises `SourceError` for options
    that contradict each other.
    """

    root: Path | None = None
    depth_dir: Path | None = None
    max_difference_s: float | None = None
    pairs_csv: Path | None = None
    depth_scale: float | None = None
    units: DepthUnits = field(default_factory=DepthUnits)
    mask_dir: Path | None = None
    turn_depth: bool = False
    size_hw: tuple[int, int] | None = None
    test_fraction: float = 0.0
    val_fraction: float = 0.0
    test_list: Path | None = None
    seed: int = 0
    kind: ClassVar[str] = "rgbd"

    def __post_init__(self) -> None:
        """Check the options; the files are looked at when they are listed."""
        if self.root is None and self.pairs_csv is None:
            raise SourceError("where are the pictures? Give their folder, or a list of them, pairs_csv")
        check_fraction(self.test_fraction)
        check_fraction(self.val_fraction, "val_fraction")
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise SourceError(f"depth_scale={self.depth_scale} must be metres per unit, above 0")
        if self.size_hw is not None and (len(self.size_hw) != 2 or min(self.size_hw) < 1):
            raise SourceError(f"size_hw={self.size_hw} must be a height and a width in px")
        if self.depth_dir is not None and self.pairs_csv is not None:
            raise SourceError("depth_dir and pairs_csv both say where the depth is: give one of them")
        if self.test_list is not None and self.test_fraction:
            raise SourceError("test_list and test_fraction both say what the test split is: give one of them")
        if self.mask_dir is not None and not self.mask_dir.is_dir():
            raise SourceMissingError(f"folder of masks {self.mask_dir} is not there")
        if self.seed < 0:
            raise SourceError(f"seed={self.seed} must not be negative")
        if self.max_difference_s is not None and not 0 <= self.max_difference_s < float("inf"):
            raise SourceError(f"max_difference_s={self.max_difference_s} must be seconds from 0")

    def samples(self) -> tuple[SampleRef, ...]:
        """The pairs in natural order of their names (those of a list in its order).

        Raises `SourceError` where there is no pair, the unit of the depth is not known, or the split is impossible.
        """
        pairs, skipped = [frame.pair for frame in self.listing.frames], self.listing.skipped
        if not pairs:
            first = f", the first: {skipped[0].name} {skipped[0].reason}" if skipped else ""
            place = self.pairs_csv or self.root
            hint = "".join(f"; {text}" for text in (self.listing.hint, *self.listing.notes) if text)
            raise SourceError(
                f"{place} holds no readable pair of picture and depth ({len(skipped)} left out{first}){hint}"
            )
        for frame in self.listing.frames:
            self.metres_per_unit(frame.pair.depth, frame.depth.integer)
        if any(pair.split for pair in pairs):
            if self.test_list is not None or self.test_fraction:
                raise SourceError(f"{self.pairs_csv} has a column for the split: give no other one")
            if self.val_fraction and any(pair.split == "val" for pair in pairs):
                raise SourceError(f"{self.pairs_csv} and val_fraction both say what val is: give one of them")
        test = None if self.test_list is None else names_listed(self.test_list, pairs, skipped)
        return samples_of(pairs, test, self.test_fraction, self.val_fraction, self.seed)

    def skipped(self) -> tuple[Skipped, ...]:
        """Files that give no sample, with the reason."""
        return self.listing.skipped

    def notes(self) -> tuple[str, ...]:
        """How files were paired where it takes a word, what was not, and what was held out for validation."""
        held_out = val_note(self.samples(), self.seed) if self.val_fraction else []
        return (*self.listing.notes, *(hint for hint in (self.listing.hint,) if hint), *held_out)

    def frame_hw(self) -> tuple[int, int]:
        """`size_hw`, or the size of every picture; raises `SourceError` naming two pictures that differ."""
        if self.size_hw is not None:
            return self.size_hw
        self.samples()
        first, *others = self.listing.frames
        (height, width), name = first.colour_hw, first.pair.colour.name
        for other in others:
            if other.colour_hw != first.colour_hw:
                raise SourceError(
                    f"{name} is {width}x{height} but {other.pair.colour.name} is {other.colour_hw[1]}x"
                    f"{other.colour_hw[0]}: give one size for all frames (--size WxH)"
                )
        return height, width

    def provenance(self) -> dict[str, Any]:
        """Kind, options, the files' number and digest, and what was left out."""
        files = [
            (p.name + suffix + path.suffix, path)
            for p in (frame.pair for frame in self.listing.frames)
            for suffix, path in (("", p.colour), (":depth", p.depth))
        ]
        files += [(f.pair.name + ":mask" + f.mask.suffix, f.mask) for f in self.listing.frames if f.mask is not None]
        return {
            "kind": self.kind,
            "depth_scale": self.depth_scale,
            **({"units": self.units.to_json()} if self.units.to_json() else {}),
            **({"turn_depth": True} if self.turn_depth else {}),
            "size_hw": None if self.size_hw is None else list(self.size_hw),
            "test_fraction": self.test_fraction,
            "val_fraction": self.val_fraction,
            **({} if self.max_difference_s is None else {"max_difference_s": self.max_difference_s}),
            "seed": self.seed,
            "files": identity(files),
            "skipped": [list(entry) for entry in self.listing.skipped],
        }

    @contextmanager
    def open(self) -> Iterator[_RgbdReader]:
        """A reader for one thread."""
        yield _RgbdReader(self, self.files)

    def _list(self) -> Listing[FramePair]:
        """Readable pairs, and what was left out."""
        found, skipped, notes, hint = self._found()
        frames = []
        for pair in found:
            colour_hw, reason = looked_at(pair.colour, look_at_colour)
            depth, other = looked_at(pair.depth, look_at_depth) if colour_hw is not None else (None, "")
            if colour_hw is not None and depth is not None:
                try:
                    frames.append(self._fitted(pair, colour_hw, depth))
                except SourceError as error:
                    other = str(error)
            if reason or other:
                skipped.append(Skipped(pair.name, reason or other))
        if self.mask_dir is not None:
            skipped = [entry for entry in skipped if not is_mask(entry.name)]
        return Listing(tuple(frames), tuple(skipped), (*notes, *_turn_notes(frames)), hint)

    def _fitted(self, pair: Pair, colour_hw: tuple[int, int], depth: DepthHeader) -> FramePair:
        """The frame, with how its depth lies on its picture; raises `SourceError` where it does not."""
        orientation, depth_hw = picture_header(pair.colour)[2], (depth.height, depth.width)
        turn = orientation if self.turn_depth else 1
        if turn >= 5:
            depth_hw = depth_hw[::-1]
        reason = aspects_differ(pair.colour, pair.depth, colour_hw, depth_hw)
        if reason and orientation >= 5 and not aspects_differ(pair.colour, pair.depth, colour_hw, depth_hw[::-1]):
            reason, turn = None, 1 if self.turn_depth else orientation
        if reason:
            raise SourceError(reason)
        mask = None if self.mask_dir is None else find_mask(self.mask_dir, pair.depth, self.depth_dir or self.root)
        return FramePair(pair, colour_hw, depth, orientation, turn, mask)

    def _found(self) -> tuple[list[Pair], list[Skipped], list[str], str]:
        if self.pairs_csv is not None:
            return *pairs_from_list(self.pairs_csv, self.root, self.max_difference_s), [], ""
        if self.root is None or not self.root.is_dir():
            raise SourceMissingError(f"folder {self.root} is not there")
        apart_s = MAX_DIFFERENCE_S if self.max_difference_s is None else self.max_difference_s
        if self.depth_dir is not None:
            matched = pairs_in_two_folders(self.root, self.depth_dir, apart_s)
        else:
            matched = pairs_below(self.root, apart_s)
        return matched.pairs, matched.skipped, matched.notes, unpaired_hint(matched)

    def metres_per_unit(self, path: Path, integer: bool) -> float:
        """Metres per unit of a depth file; raises `SourceError` where nothing says it."""
        return metres_per_unit(path, integer, self.depth_scale, self.units.kind)


class _RgbdReader:
    def __init__(self, source: RgbdFolderSource, files: Mapping[int, FramePair]) -> None:
        self._source, self._files = source, files

    def read(self, index: int) -> RgbdFrame:
        """Sample `index` of the source, at the source's size where one is given."""
        frame, size_hw = self._files[index], self._source.size_hw
        pair = frame.pair
        aif, stored = read_colour(pair.colour), read_depth_units(pair.depth)
        scale = self._source.metres_per_unit(pair.depth, stored.dtype.kind != "f")
        try:
            valid = None if frame.mask is None else read_mask(frame.mask)
            depth_m, notes = metres(stored, scale, self._source.units, valid)
        except SourceError as error:
            raise SourceError(f"{pair.name}: {pair.depth.name}: {error}") from error
        depth_m = np.ascontiguousarray(upright_pixels(depth_m, frame.turn_depth))
        reason = aspects_differ(pair.colour, pair.depth, aif.shape[:2], depth_m.shape)
        if reason:
            raise SourceError(f"{pair.name}: {reason}")
        if size_hw is not None and size_hw != aif.shape[:2]:
            aif = np.asarray(cv2.resize(aif, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        return RgbdFrame(aif, resize_nearest(depth_m, (aif.shape[0], aif.shape[1])), notes=notes)


def _turn_notes(frames: Sequence[FramePair]) -> list[str]:
    """How many pictures are turned by their EXIF, and whether their depth is."""
    alone = sum(frame.orientation != 1 and frame.turn_depth == 1 for frame in frames)
    both = sum(frame.turn_depth != 1 for frame in frames)
    lines = [f"depth of {both} frames is turned as the EXIF orientation of its picture says"] if both else []
    if alone:
        lines.append(
            f"{alone} pictures are turned by their EXIF orientation, their depth files are not: right where depth was "
            "made of the upright picture, else give --turn-depth"
        )
    return lines
