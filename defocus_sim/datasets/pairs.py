"""Real photographs: pairs of a defocused and a sharp picture of one scene, with depth or without, laid on each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.datasets.formats.depth_units import DepthUnits, metres
from defocus_sim.datasets.formats.images import DepthHeader, read_colour, read_depth_units, resize_nearest
from defocus_sim.datasets.layouts.lists import names_listed
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
from defocus_sim.datasets.photo_files import (
    Found,
    PhotoPair,
    pairs_by_name,
    pairs_by_order,
    pairs_in_csv,
    pairs_in_dpdd_layout,
)
from defocus_sim.datasets.registration import MOTIONS, Motion, exposed_as, exposure, register, resample
from defocus_sim.errors import SourceError
from defocus_sim.lens import Lens

DEFAULT_BORDER_PX = 16


@dataclass(frozen=True)
class PhotoFrame:
    """The files of a pair, the size of its photographs, and what the header of its depth says, if it has any."""

    pair: PhotoPair
    hw: tuple[int, int]
    depth: DepthHeader | None


@dataclass(frozen=True, kw_only=True)
class PairsSource(ListedOnce[PhotoFrame]):
    """Photographs below `defocused` and `sharp` (and `depth`), or below `root` in DPDD's layout, or those of `pairs_csv`.

    `by_order`: pair files by their order instead of their names. `depth_scale`: metres per unit of the depth files;
    without it floating point depth is in metres and integer depth in millimetres where its name says `mm`. Depth lies on
    the defocused picture; `units`: what its numbers are, where they are not z, and what is a hole; without depth files
    all of it is.

    `motion`: how the sharp picture is laid on the defocused one: "affine", "shift" or "none" (see `register`).
    `border_px`: pixels that are cut off at each side, as the sharp picture does not cover them once it is moved; default
    16, 0 without registration. `exposure`: give the sharp picture the light of the defocused one, a gain for each channel
    in linear light; `falloff`: and its corners.

    Split: the CSV's or the layout's, or `test_list`, or `test_fraction` of the scenes drawn by `seed`, or all in `train`;
    of what is `train` then, `val_fraction` of the scenes goes to `val`.

    Pairs that are incomplete, unreadable, or of another size than most are listed by `skipped`; one that turns out not
    to show one scene is a `SourceError` of the reader. Raises `SourceError` for options that contradict each other.
    """

    root: Path | None = None
    defocused: Path | None = None
    sharp: Path | None = None
    depth: Path | None = None
    pairs_csv: Path | None = None
    by_order: bool = False
    depth_scale: float | None = None
    units: DepthUnits = field(default_factory=DepthUnits)
    motion: Motion = "affine"
    border_px: int | None = None
    exposure: bool = True
    falloff: bool = False
    test_fraction: float = 0.0
    val_fraction: float = 0.0
    test_list: Path | None = None
    seed: int = 0
    kind: ClassVar[str] = "pairs"
    measured: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options; the files are looked at when they are listed."""
        folders = self.defocused is not None or self.sharp is not None
        if (self.root is not None) + folders + (self.pairs_csv is not None) != 1:
            raise SourceError("give one of: a folder in DPDD's layout, --defocused with --sharp, or --pairs")
        if folders and (self.defocused is None or self.sharp is None):
            raise SourceError("--defocused and --sharp belong together: a pair needs both pictures")
        if self.depth is not None and not folders:
            raise SourceError("a depth folder belongs to --defocused and --sharp; a CSV has a column for it")
        if self.by_order and not folders:
            raise SourceError("--by-order belongs to --defocused and --sharp")
        if self.motion not in MOTIONS:
            raise SourceError(f"motion={self.motion!r} is not known: choose one of {', '.join(MOTIONS)}")
        if self.border_px is not None and self.border_px < 0:
            raise SourceError(f"border_px={self.border_px} must not be negative")
        if self.falloff and not self.exposure:
            raise SourceError("--falloff is part of matching the exposure: it cannot go with --exposure none")
        check_fraction(self.test_fraction)
        check_fraction(self.val_fraction, "val_fraction")
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise SourceError(f"depth_scale={self.depth_scale} must be metres per unit, above 0")
        if self.test_list is not None and self.test_fraction:
            raise SourceError("test_list and test_fraction both say what the test split is: give one of them")

    @property
    def border(self) -> int:
        """Pixels that are cut off at each side."""
        return (0 if self.motion == "none" else DEFAULT_BORDER_PX) if self.border_px is None else self.border_px

    def samples(self) -> tuple[SampleRef, ...]:
        """The pairs in natural order of their names (those of a list in its order)."""
        pairs, skipped = [frame.pair for frame in self.listing.frames], self.listing.skipped
        if not pairs:
            first = f", the first: {skipped[0].name} {skipped[0].reason}" if skipped else ""
            raise SourceError(f"there is no readable pair of photographs ({len(skipped)} left out{first})")
        for frame in self.listing.frames:
            if frame.pair.depth is not None and frame.depth is not None:
                metres_per_unit(frame.pair.depth, frame.depth.integer, self.depth_scale, self.units.kind)
        if any(pair.split for pair in pairs) and (self.test_list is not None or self.test_fraction):
            raise SourceError("the pairs come with their split: give no other one")
        listed = [Pair(name=pair.name, colour=pair.defocused, depth=pair.sharp) for pair in pairs]
        test = None if self.test_list is None else names_listed(self.test_list, listed, skipped)
        return samples_of(pairs, test, self.test_fraction, self.val_fraction, self.seed)

    def skipped(self) -> tuple[Skipped, ...]:
        """Files that give no sample, with the reason."""
        return self.listing.skipped

    def notes(self) -> tuple[str, ...]:
        """What is not in the pictures."""
        without = sum(frame.pair.depth is None for frame in self.listing.frames)
        lines = [f"{without} pairs have no depth: theirs is all holes"] if without else []
        return (*lines, *(val_note(self.samples(), self.seed) if self.val_fraction else ()))

    def frame_hw(self) -> tuple[int, int]:
        """Height and width of what is left of the photographs within the border."""
        self.samples()
        height, width = self.listing.frames[0].hw
        kept = height - 2 * self.border, width - 2 * self.border
        if min(kept) < 1:
            raise SourceError(f"a border of {self.border} px leaves nothing of {width}x{height} (--border)")
        return kept

    def stored_lens(self, lens: Lens) -> Lens:
        """`lens` of the whole photographs as that of the frames within the border."""
        height, width = self.frame_hw()
        lens = lens.cropped((height + 2 * self.border, width + 2 * self.border), (height, width))
        # The sharp pictures of the store have it then.
        return lens.changed(corner_light=1.0) if self.falloff else lens

    def provenance(self) -> dict[str, Any]:
        """Kind, options, the files' number and digest, and what was left out."""
        pairs = [frame.pair for frame in self.listing.frames]
        roles = [(p.name, {"": p.defocused, ":sharp": p.sharp, ":depth": p.depth}) for p in pairs]
        files = [(n + role + f.suffix, f) for n, paths in roles for role, f in paths.items() if f is not None]
        options = ("depth_scale", "motion", "exposure", "falloff", "test_fraction", "val_fraction", "seed")
        return {
            "kind": self.kind,
            **{name: getattr(self, name) for name in options},
            **({"units": self.units.to_json()} if self.units.to_json() else {}),
            "border_px": self.border,
            "files": identity(files),
            "skipped": [list(entry) for entry in self.listing.skipped],
        }

    @contextmanager
    def open(self) -> Iterator[_PairReader]:
        """A reader for one thread."""
        yield _PairReader(self, self.files)

    def _list(self) -> Listing[PhotoFrame]:
        found, skipped = self._found()
        whole = []
        for pair in found:
            frame, reason = _whole_pair(pair)
            if frame is None:
                skipped.append(Skipped(pair.name, reason))
            else:
                whole.append(frame)
        sizes = Counter(frame.hw for frame in whole)
        usual = sizes.most_common(1)[0][0] if sizes else (0, 0)
        for frame in whole:
            height, width = frame.hw
            if frame.hw != usual:
                reason = f"is {width}x{height}, most pairs are {usual[1]}x{usual[0]}: make a store of its size of it"
                skipped.append(Skipped(frame.pair.name, reason))
        return Listing(tuple(frame for frame in whole if frame.hw == usual), tuple(skipped))

    def _found(self) -> Found:
        if self.pairs_csv is not None:
            return pairs_in_csv(self.pairs_csv)
        if self.root is not None:
            return pairs_in_dpdd_layout(self.root)
        pair = pairs_by_order if self.by_order else pairs_by_name
        return pair(Path(self.defocused or ""), Path(self.sharp or ""), self.depth)


class _PairReader:
    def __init__(self, source: PairsSource, files: Mapping[int, PhotoFrame]) -> None:
        self._source, self._files = source, files
        self._notes: tuple[str, ...] = ()

    def read(self, index: int) -> RgbdFrame:
        """Pair `index` of the source, the sharp picture laid on the defocused one, within the border."""
        pair = self._files[index].pair
        try:
            return self._read(pair)
        except SourceError as error:
            raise SourceError(f"{pair.name}: {error}") from error

    def _read(self, pair: PhotoPair) -> RgbdFrame:
        source = self._source
        defocused, sharp = read_colour(pair.defocused), read_colour(pair.sharp)
        depth = self._depth(pair, defocused.shape[:2])
        found: dict[str, Any] = {"registration": source.motion}
        moved = sharp.astype(np.float32) / np.float32(255)
        if source.motion != "none":
            place = register(defocused, sharp, source.motion)
            if place.displacement_px > source.border:
                raise SourceError(
                    f"the pictures are {place.displacement_px:.1f} px apart, more than the border of {source.border} px: "
                    f"give --border {int(np.ceil(place.displacement_px))}"
                )
            moved = resample(sharp, place)
            found |= {
                "affine": [[round(float(v), 6) for v in row] for row in place.affine],
                "displacement_px": round(place.displacement_px, 3),
                "correlation": round(place.correlation, 4),
            }
        if source.exposure:
            light = exposure(defocused, moved, falloff=source.falloff)
            aif = exposed_as(moved, light)
            found["gain"] = [round(value, 4) for value in light.gain]
            if source.falloff:
                found["corner_light"] = round(light.corner_light, 4)
        else:
            aif = sharp if source.motion == "none" else np.rint(moved * 255).astype(np.uint8)
        kept = slice(source.border, -source.border or None)
        frame = RgbdFrame(
            aif=np.ascontiguousarray(aif[kept, kept]),
            depth_m=np.ascontiguousarray(depth[kept, kept]),
            defocused=np.ascontiguousarray(defocused[kept, kept]),
            found=found,
            notes=self._notes,
        )
        if pair.depth is not None and not (frame.depth_m > 0).any():
            raise SourceError(f"{pair.depth.name} has no valid depth: every value is 0 or not finite")
        return frame

    def _depth(self, pair: PhotoPair, hw: tuple[int, ...]) -> NDArray[np.float32]:
        self._notes = ()
        if pair.depth is None:
            return np.zeros(hw, np.float32)
        stored, units = read_depth_units(pair.depth), self._source.units
        scale = metres_per_unit(pair.depth, stored.dtype.kind != "f", self._source.depth_scale, units.kind)
        try:
            depth_m, self._notes = metres(stored, scale, units)
        except SourceError as error:
            raise SourceError(f"{pair.depth.name}: {error}") from error
        return resize_nearest(depth_m, (hw[0], hw[1]))


def _whole_pair(pair: PhotoPair) -> tuple[PhotoFrame | None, str]:
    """The pair with its sizes, or None and why it cannot be used."""
    ours, reason = looked_at(pair.defocused, look_at_colour)
    if ours is None:
        return None, reason
    theirs, reason = looked_at(pair.sharp, look_at_colour)
    if theirs is None:
        return None, reason
    depth: DepthHeader | None = None
    if pair.depth is not None:
        depth, reason = looked_at(pair.depth, look_at_depth)
        if depth is None:
            return None, reason
    if ours != theirs:
        return None, (
            f"the defocused {pair.defocused.name} is {ours[1]}x{ours[0]} but the sharp {pair.sharp.name} is "
            f"{theirs[1]}x{theirs[0]}: the two must be of one size"
        )
    if pair.depth is not None and depth is not None:
        reason = aspects_differ(pair.defocused, pair.depth, ours, (depth.height, depth.width)) or ""
    return (None, reason) if reason else (PhotoFrame(pair, ours, depth), "")
