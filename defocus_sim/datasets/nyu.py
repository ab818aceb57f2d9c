"""NYU-Depth v2, the labelled set: `nyu_depth_v2_labeled.mat` (MATLAB v7.3 = HDF5) with the official `splits.mat`.

MATLAB stores column-major, so h5py sees every axis reversed: `images` (N, 3, 640, 480) uint8, `depths` and `rawDepths`
(N, 640, 480) float32 metres. Frames are read one at a time; the file is never held in memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import cv2
import h5py
import numpy as np

from defocus_sim.datasets.base import RgbdFrame, SampleRef, depth_with_holes
from defocus_sim.datasets.files import fingerprint, require_file
from defocus_sim.datasets.formats.hdf5 import Frames, check_own, check_stored, own_dataset
from defocus_sim.datasets.formats.matfile import read_matrix
from defocus_sim.datasets.listing import VAL_FRACTION, check_fraction, hold_out_val, val_note
from defocus_sim.errors import SourceError, SourceMissingError

NyuCrop = Literal["official", "eigen", "none"]
NyuDepth = Literal["filled", "raw"]

LABELLED_NAME, SPLITS_NAME = "nyu_depth_v2_labeled.mat", "splits.mat"
WHERE_FROM = (
    f"{LABELLED_NAME} (2.8 GB) is on the NYU Depth Dataset V2 page of Nathan Silberman, "
    f"{SPLITS_NAME} (train/test split) in the toolbox of the same page"
)
# Where the Kinect's depth projects into the colour frame: MATLAB rows 45:471, columns 41:601. The Eigen/BTS code base
# reads the same numbers as 0-based and gets one row and column less.
_CROPS: dict[str, tuple[slice, slice]] = {
    "official": (slice(44, 471), slice(40, 601)),
    "eigen": (slice(45, 471), slice(41, 601)),
    "none": (slice(0, 480), slice(0, 640)),
}
_DEPTHS = {"filled": "depths", "raw": "rawDepths"}


@dataclass(frozen=True, kw_only=True)
class NyuSource:
    """The labelled frames of NYU-Depth v2.

    `path`: the `.mat` file; `images` and the chosen depth will do. `splits`: the official `splits.mat`, or None
    for no test split. `val_fraction` of the official training frames is the validation split, whole scenes drawn by `seed`.
    `crop`: "official" (561x427), "eigen" (560x426) or "none" (640x480). `depth`: "filled" (in-painted `depths`) or "raw"
    (`rawDepths`, 0 where the sensor saw nothing). Raises `SourceError` for an unknown option.
    """

    path: Path
    splits: Path | None = None
    crop: NyuCrop = "official"
    depth: NyuDepth = "filled"
    val_fraction: float = VAL_FRACTION
    seed: int = 0
    kind: ClassVar[str] = "nyu"

    def __post_init__(self) -> None:
        """Check the options; the files are looked at when they are read."""
        for name, value, known in (("crop", self.crop, get_args(NyuCrop)), ("depth", self.depth, get_args(NyuDepth))):
            if value not in known:
                raise SourceError(f"{name}={value!r} is not known: choose one of {', '.join(known)}")
        check_fraction(self.val_fraction, "val_fraction")

    def samples(self) -> tuple[SampleRef, ...]:
        """The official training frames, then the test frames, in the order of the split file; name = 1-based number.

        Those of the training frames that are held out for `val` keep their places.

        Raises `SourceError` where a file is of another kind, truncated, or the split names a frame that is not there.
        """
        with _open_labelled(self.path, self.depth) as file:
            count, scenes = file["images"].shape[0], _scene_names(file)
        ids = self._frame_ids(count)
        samples = [
            SampleRef(name=f"{i:04d}", scene=scenes[i - 1] if scenes else f"{i:04d}", split=split)
            for split in ("train", "test")
            for i in ids[split]
        ]
        return hold_out_val(samples, self.val_fraction, self.seed)

    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Nothing: the labelled set is complete or refused."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """What was held out for validation."""
        return tuple(val_note(self.samples(), self.seed))

    def _frame_ids(self, count: int) -> dict[str, list[int]]:
        """The 1-based frames of each split, of a file with `count` frames."""
        if self.splits is None:
            return {"train": list(range(1, count + 1)), "test": []}
        ids = _read_splits(self.splits)
        used = np.concatenate([ids["train"], ids["test"]])
        if used.size == 0:
            raise SourceError(f"{self.splits} names no frame at all")
        outside = used[(used < 1) | (used > count)]
        if outside.size:
            raise SourceError(f"{self.splits} names frame {outside[0]}, but {self.path.name} holds frames 1..{count}")
        unique, times = np.unique(used, return_counts=True)
        if (times > 1).any():
            raise SourceError(f"{self.splits} names frame {unique[times > 1][0]} more than once")
        return {split: values.tolist() for split, values in ids.items()}

    def frame_hw(self) -> tuple[int, int]:
        """Height and width after the crop."""
        rows, columns = _CROPS[self.crop]
        return rows.stop - rows.start, columns.stop - columns.start

    def provenance(self) -> dict[str, Any]:
        """Kind, options and the SHA-256 of both files."""
        return {
            "kind": self.kind,
            "crop": self.crop,
            "depth": self.depth,
            "file": fingerprint(require_file(self.path, "the labelled set")),
            "val_fraction": self.val_fraction,
            "seed": self.seed,
            "splits": None if self.splits is None else fingerprint(require_file(self.splits, "the split file")),
        }

    @contextmanager
    def open(self) -> Iterator[_NyuReader]:
        """A reader for one thread."""
        with _open_labelled(self.path, self.depth) as file:
            ids = self._frame_ids(file["images"].shape[0])
            yield _NyuReader(self, file, [i - 1 for i in ids["train"] + ids["test"]])


class _NyuReader:
    def __init__(self, source: NyuSource, file: h5py.File, frames: list[int]) -> None:
        self._source, self._frames = source, frames
        self._images, self._depths = Frames(file["images"]), Frames(file[_DEPTHS[source.depth]])
        self._rows, self._columns = _CROPS[source.crop]

    def read(self, index: int) -> RgbdFrame:
        """Sample `index` of the source, cropped."""
        frame = self._frames[index]
        try:
            image = self._images.read(frame)
            depth = self._depths.read(frame)
        except (OSError, RuntimeError) as error:
            raise SourceError(f"{self._source.path}: frame {frame + 1} cannot be read ({error})") from error
        # Axes arrive as (channel, column, row).
        window = (self._columns, self._rows)
        colour = cv2.merge([cv2.transpose(plane[window]) for plane in image])
        return RgbdFrame(colour, depth_with_holes(cv2.transpose(depth[window])))


def require_official_files(
    labelled: Path | None = None, splits: Path | None = None, *, everything_in_train: bool = False
) -> tuple[Path, Path | None]:
    """The labelled file and the split file (None with `everything_in_train`), looked for where they are not given.

    The labelled file: in the current folder, `./data` and `$DFD_DATA`. The split file: beside the labelled one, then in
    the same folders. Raises `SourceMissingError` saying which files are wanted and where they come from.
    """
    folders = [Path(), Path("data")] + ([Path(os.environ["DFD_DATA"])] if os.environ.get("DFD_DATA") else [])
    if labelled is None:
        found = [folder / LABELLED_NAME for folder in folders if (folder / LABELLED_NAME).is_file()]
        if not found:
            raise SourceMissingError(
                f"{LABELLED_NAME} is neither in the current folder, nor in ./data, nor in $DFD_DATA: {WHERE_FROM}; "
                "or pass its path"
            )
        labelled = found[0]
    require_file(labelled, "the labelled set")
    if everything_in_train or splits is not None:
        return labelled, splits
    beside = [folder / SPLITS_NAME for folder in (labelled.parent, *folders) if (folder / SPLITS_NAME).is_file()]
    if not beside:
        raise SourceMissingError(
            f"{SPLITS_NAME} is not beside {labelled}, nor in ./data, nor in $DFD_DATA: {WHERE_FROM}; "
            "or pass --splits FILE, or --splits none for everything in train"
        )
    return labelled, beside[0]


_LONGEST_NAME = 4096


@contextmanager
def _open_labelled(path: Path, depth: NyuDepth) -> Iterator[h5py.File]:
    require_file(path, "the labelled set")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "it is truncated" if "truncated" in str(error) else "it is not a MATLAB v7.3 (HDF5) file"
        raise SourceError(f"{path} cannot be opened as {LABELLED_NAME}: {reason} ({error})") from error
    with file:
        try:
            _check_layout(file, path, depth)
        except (OSError, RuntimeError) as error:
            raise SourceError(f"{path} is damaged: its contents cannot be listed ({error})") from error
        yield file


def _check_layout(file: h5py.File, path: Path, depth: NyuDepth) -> None:
    # Only what is read: people keep files with the two arrays that they need.
    wanted = {"images": (np.uint8, (3, 640, 480)), _DEPTHS[depth]: (np.float32, (640, 480))}
    for name, (dtype, shape) in wanted.items():
        data = own_dataset(file, name, path)
        if data is None:
            raise SourceError(
                f"{path} has no variable {name!r}: this is not {LABELLED_NAME}{_other_depth(file, depth)}"
            )
        if data.dtype != dtype or data.shape[1:] != shape or data.ndim != len(shape) + 1:
            raise SourceError(f"{path}: {name} is {data.dtype} {data.shape}, {np.dtype(dtype)} (N, {shape}) is wanted")
        check_stored(data, name, path)
    counts = {name: file[name].shape[0] for name in wanted}
    if len(set(counts.values())) > 1 or min(counts.values()) == 0:
        raise SourceError(f"{path}: the variables disagree in their number of frames ({counts})")


def _other_depth(file: h5py.File, depth: NyuDepth) -> str:
    """What to do where the wanted depth is missing and the other one is there."""
    others = [name for name, variable in _DEPTHS.items() if name != depth and "images" in file and variable in file]
    return f"; it has the other depth, --depth {others[0]}" if others else ""


def _scene_names(file: h5py.File) -> list[str] | None:
    """Scene of every frame, or None where the file does not tell (the variable is optional)."""
    table = own_dataset(file, "scenes", Path(file.filename))
    if table is None or h5py.check_ref_dtype(table.dtype) is None or table.size != file["images"].shape[0]:
        return None
    try:
        return [_text(file, reference) for reference in table[()].ravel()]
    except SourceError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, UnicodeDecodeError, OSError, RuntimeError):
        return None


def _text(file: h5py.File, reference: h5py.Reference) -> str:
    """A MATLAB string. Not `file[reference]`, which takes three times as long: 0.16 s for all scenes, with one thread."""
    data = h5py.h5r.dereference(reference, file.id)
    check_own(data, "a scene's name", Path(file.filename))
    if math.prod(data.shape) > _LONGEST_NAME:
        raise SourceError(f"{file.filename}: a scene's name has {math.prod(data.shape)} letters: it is refused")
    letters = np.empty(data.shape, np.uint16)
    data.read(h5py.h5s.ALL, h5py.h5s.ALL, letters)
    return letters.tobytes().decode("utf-16-le")


def _read_splits(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    require_file(path, "the split file")
    ids = {}
    for split, name in (("train", "trainNdxs"), ("test", "testNdxs")):
        # Not scipy's reader: a damaged file makes that crash the process.
        values = read_matrix(path, name)
        if values.dtype.kind not in "uif" or (values.dtype.kind == "f" and not np.array_equal(values, np.rint(values))):
            raise SourceError(f"{path}: {name} does not hold whole frame numbers")
        ids[split] = values.ravel().astype(np.int64)
    return ids
