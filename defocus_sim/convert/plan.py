"""What a conversion will do, decided before it begins: its settings, their fingerprint, and the samples of every shard."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from defocus_sim.blur.options import Rendering
from defocus_sim.convert.guided_depth import EPS, RADIUS_PX
from defocus_sim.datasets.base import SPLITS, RgbdSource, SampleRef
from defocus_sim.errors import ConvertError
from defocus_sim.lens import Lens
from defocus_sim.shards.layout import COMPRESSIONS, DEFAULT_SAMPLES_PER_SHARD, FORMAT_VERSION, Compression
from defocus_sim.shards.manifest import MEASURED, UNKNOWN_LENS, digest

_MOST_NOTES = 20


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """Everything that decides the bytes of a store.

    `source`: the data set. `lens`: the camera; None is allowed for a source of measured pictures, whose lens may be
    unknown. `focus_distances_m`: several give a focal stack, one sample each; empty:
    the lens's own. `rendering`: how the lens is applied. `size_hw`: images are resized to it *after* the blur (area for
    colour, nearest for depth); None: the source's size. `samples_per_shard`, `compression`: see `shards.layout`. `seed`:
    of noise and dither. `guide_depth`: depth is moved to the edges of the sharp picture first, see `guided_depth`; the
    blur takes it with its holes filled, and it is stored with its holes. Raises `ConvertError` or `LensError`.
    """

    source: RgbdSource
    lens: Lens | None
    focus_distances_m: tuple[float, ...] = ()
    rendering: Rendering = field(default_factory=Rendering)
    size_hw: tuple[int, int] | None = None
    samples_per_shard: int = DEFAULT_SAMPLES_PER_SHARD
    compression: Compression = "fast"
    seed: int = 0
    limit: int | None = None
    guide_depth: bool = False

    def __post_init__(self) -> None:
        """Check every field; each focus distance must make a lens."""
        if self.compression not in COMPRESSIONS:
            raise ConvertError(
                f"compression={self.compression!r} is not known: choose one of {', '.join(COMPRESSIONS)}"
            )
        if self.samples_per_shard < 1:
            raise ConvertError(f"samples_per_shard={self.samples_per_shard} must be at least 1")
        if self.seed < 0:
            raise ConvertError(f"seed={self.seed} must not be negative")
        if self.size_hw is not None and (min(self.size_hw) < 1 or max(self.size_hw) > 2**15):
            raise ConvertError(f"size {self.size_hw[1]}x{self.size_hw[0]} must lie between 1 and 32768 pixels a side")
        if len(set(self.focus_distances_m)) < len(self.focus_distances_m):
            raise ConvertError(f"focus_distances_m={self.focus_distances_m} names a distance twice")
        if self.limit is not None and self.limit < 1:
            raise ConvertError(f"limit={self.limit} must be at least 1")
        if self.lens is None and not self.measured:
            raise ConvertError(
                "lens=None: a lens is needed to blur with; only pictures that a camera took can do without"
            )
        if self.measured and len(self.focus_distances_m) > 1:
            raise ConvertError("a photograph has one focus distance: give one at most")
        for distance in self.focus_distances_m:
            if self.lens is None:
                raise ConvertError(f"focus distance {distance:g} m without a lens: give one")
            self.lens.at_focus(distance)

    @property
    def measured(self) -> bool:
        """Whether the source's pictures were defocused by a camera, and none is simulated."""
        return bool(getattr(self.source, "measured", False))

    @property
    def lenses(self) -> tuple[Lens | None, ...]:
        """One lens for each focus distance; (None,) where none is known."""
        if self.lens is None:
            return (None,)
        return tuple(self.lens.at_focus(s) for s in self.focus_distances_m) or (self.lens,)

    def to_json(self) -> dict[str, Any]:
        """As JSON types, with the source's provenance (reads the source's files for their checksums)."""
        # What an earlier version did not have is written down where it is used: other stores keep their checksums.
        source = self.source.provenance() | ({} if self.limit is None else {"limit": self.limit})
        if self.guide_depth:
            source["guide_depth"] = {"radius_px": RADIUS_PX, "eps": EPS}
        return {
            "format_version": FORMAT_VERSION,
            "source": source,
            "lens": UNKNOWN_LENS if self.lens is None else self.lens.to_json(),
            "focus_distances_m": [0.0 if lens is None else lens.focus_distance_m for lens in self.lenses],
            "rendering": MEASURED if self.measured else self.rendering.to_json(),
            "size_hw": list(self.size_hw or self.source.frame_hw()),
            "samples_per_shard": self.samples_per_shard,
            "compression": self.compression,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class PlannedSample:
    """Frame `frame` of the source seen by lens `lens` (an index of `ConversionSettings.lenses`)."""

    frame: int
    lens: int
    name: str
    scene: str


def plan_samples(
    samples: Sequence[SampleRef],
    lenses: Sequence[Lens | None],
    skipped: Collection[int] = (),
    limit: int | None = None,
) -> dict[str, tuple[PlannedSample, ...]]:
    """The samples of each split in order, without the frames `skipped`; the distances of a focal stack stand together.

    The gap that a skipped frame leaves is closed with the last frames of its split: the shards before the gap and
    between it and the end keep their samples, so that little has to be done again. The plan depends on the set of skipped
    frames only, not on when each was found. `limit`: plan for about so many frames only, spread evenly over each split,
    which keeps its share and one frame at least.

    Raises `ConvertError` for a source without samples, a name that occurs twice, or nothing left.
    """
    if not samples:
        raise ConvertError("the source has no sample")
    if len({sample.name for sample in samples}) < len(samples):
        raise ConvertError("the source names two samples alike")
    if len(skipped) >= len(samples):
        raise ConvertError(f"not one of the {len(samples)} frames could be used")
    kept = _spread(samples, limit)
    planned: dict[str, tuple[PlannedSample, ...]] = {}
    for split in SPLITS:
        frames = [i for i in kept if samples[i].split == split]
        if split == "val" and not frames:
            continue
        frames = _close_gaps(frames, skipped)
        planned[split] = tuple(
            PlannedSample(frame, index, _sample_name(samples[frame].name, lens, len(lenses)), samples[frame].scene)
            for frame in frames
            for index, lens in enumerate(lenses)
        )
    return planned


def _close_gaps(frames: list[int], skipped: Collection[int]) -> list[int]:
    kept = len(frames) - sum(frame in skipped for frame in frames)
    spare = [frame for frame in frames[kept:] if frame not in skipped]
    return [frame if frame not in skipped else spare.pop() for frame in frames[:kept]]


def _spread(samples: Sequence[SampleRef], limit: int | None) -> list[int]:
    """The frames to take where about `limit` are wanted: the middles of equal parts of each split."""
    if limit is None or limit >= len(samples):
        return list(range(len(samples)))
    kept: list[int] = []
    for split in SPLITS:
        frames = [i for i, sample in enumerate(samples) if sample.split == split]
        count = min(len(frames), max(1, round(limit * len(frames) / len(samples))))
        kept += [frames[int((k + 0.5) * len(frames) / count)] for k in range(count)]
    return kept


def _sample_name(name: str, lens: Lens | None, lenses: int) -> str:
    return name if lens is None or lenses == 1 else f"{name}@{lens.focus_distance_m:g}m"


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the settings that differ, with both values: `lens.aperture_mm (44.8, now 50)`."""
    differences = []
    if not prefix:
        before, now = _of_samples(before), _of_samples(now)
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += differing_settings(old, new, f"{prefix}{key}.")
        elif old != new:
            differences.append(f"{prefix}{key} ({old}, now {new})")
    return differences


def settings_digest(description: Mapping[str, Any]) -> str:
    """SHA-256 of settings, but for what the source leaves out: another file in its folder changes no sample."""
    return digest(_of_samples(description))


def _of_samples(description: Mapping[str, Any]) -> dict[str, Any]:
    source = description.get("source")
    if not isinstance(source, Mapping):
        return dict(description)
    return {**description, "source": {key: value for key, value in source.items() if key != "skipped"}}


def blur_statistics(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all samples: CoC range in px at the size that was blurred, and PSNR in dB of the blurred images.

    Each sample has `coc_min_px`, `coc_max_px`, `mse` (of values in [0, 1]). PSNR is the mean over images that differ
    from their original; `unblurred` counts the others. The range is None where no lens or no depth is known. `limited_px`:
    pixels, in `limited_samples` images, whose CoC was cut off at the lens's limit.
    """
    known = [sample for sample in samples if sample["coc_min_px"] is not None]
    psnr_db = [-10 * math.log10(sample["mse"]) for sample in samples if sample["mse"] > 0]
    return {
        "samples": len(samples),
        "coc_px": [min(s["coc_min_px"] for s in known), max(s["coc_max_px"] for s in known)] if known else None,
        "psnr_db": None if not psnr_db else sum(psnr_db) / len(psnr_db),
        "psnr_db_range": None if not psnr_db else [min(psnr_db), max(psnr_db)],
        "unblurred": len(samples) - len(psnr_db),
        "limited_px": sum(sample.get("limited_px", 0) for sample in samples),
        "limited_samples": sum(sample.get("limited_px", 0) > 0 for sample in samples),
        **_depth_statistics(samples),
    }


def _depth_statistics(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`depth_m`: the least, the medians of the samples' 1st, 50th and 99th percentile, and the largest, None without depth.

    `wide_coc_samples`: those where most pixels have a CoC beyond a tenth of the frame's width; `too_near_px`: pixels that
    are nearer than the focal length; `notes`: of how many samples each thing was noted.
    """
    known = [sample["depth_m"] for sample in samples if sample.get("depth_m")]
    notes = Counter(note for sample in samples for note in sample.get("notes", ()))
    return {
        "depth_m": None
        if not known
        else [
            min(d[0] for d in known),
            *(statistics.median(d[i] for d in known) for i in (1, 2, 3)),
            max(d[4] for d in known),
        ],
        "wide_coc_samples": sum(sample.get("wide_coc", 0) > 0.5 for sample in samples),
        "too_near_px": sum(sample.get("too_near_px", 0) for sample in samples),
        "notes": [[text, count] for text, count in notes.most_common(_MOST_NOTES)],
    }


def program_version() -> str:
    """Name and version of this program, as manifests record it."""
    try:
        return f"dfd-toolkit {version('dfd-toolkit')}"
    except PackageNotFoundError:
        return "dfd-toolkit (not installed)"
