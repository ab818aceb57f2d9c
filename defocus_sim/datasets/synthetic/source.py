"""Procedural scenes with exact metric depth: the data set that needs no download.

Each frame is ray-cast from a layout drawn from (seed, index): a closed space with furniture, so every pixel has a depth.
The camera has the same field of view in every scene of a data set, so that blur means the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.datasets.listing import VAL_FRACTION, check_fraction, draw_scenes, hold_out_val
from defocus_sim.datasets.synthetic.interiors import INTERIORS, build_interior
from defocus_sim.datasets.synthetic.rendering.render import render
from defocus_sim.datasets.synthetic.scenes import HFOV_DEG, SCALES, build_scene, focal_length_px
from defocus_sim.datasets.synthetic.varied import build_varied, draw_kind
from defocus_sim.errors import SourceError

GENERATOR_VERSION = 4
SCALE_NAMES = (*SCALES, "mixed")
# With the scale that goes without saying.
SCENES = {"rooms": "room", "varied": "mixed", "interiors": "room"}
_LEAST_SIDE = 32
_LEAST_VIEW_DEG = 20.0
_LARGEST_SIDE = 2048
# Distinct streams for what is drawn per frame and per data set.
_FRAME_STREAM, _SPLIT_STREAM = 1, 2


@dataclass(frozen=True, kw_only=True)
class SyntheticSource:
    """`count` procedural frames of `size_wh` px (width, height), every side 32 to 2048.

    `scenes`: "rooms", furnished spaces with detail on every surface; "varied", many kinds of scene, light, material
    and exposure (`varied.KINDS`); "interiors", rooms as people furnish them (`interiors.INTERIORS`); the last two for
    networks that have to work on photographs. `scale`: `tabletop` (0.3-1.5 m, varied: 0.3-2 m), `room` (0.7-10 m,
    interiors: 0.4-14 m), `hall` (2-60 m, varied: 1.5-60 m) or `street` (2-60 m, varied: 2-80 m), or `mixed` (one of them
    per frame); None: `mixed` for varied scenes, else `room`, which is all that interiors have. `field_of_view_deg`: across
    the longer side, 20 to 57; a narrower one is a longer lens. `test_fraction` of the frames,
    rounded, is the test split, and `val_fraction` of the others the validation split; where a fraction is neither 0 nor
    1 and there are two frames or more, both parts have one at least. Frame i depends on (`seed`, i, `size_wh`, `scenes`,
    `scale`, `field_of_view_deg`) only. Raises `SourceError` for options out of range.
    """

    count: int = 64
    size_wh: tuple[int, int] = (320, 240)
    scale: str | None = None
    test_fraction: float = 0.25
    val_fraction: float = VAL_FRACTION
    seed: int = 0
    scenes: str = "rooms"
    field_of_view_deg: float = HFOV_DEG
    kind: ClassVar[str] = "synthetic"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SourceError(f"count={self.count} must be at least 1")
        if len(self.size_wh) != 2 or not all(_LEAST_SIDE <= side <= _LARGEST_SIDE for side in self.size_wh):
            raise SourceError(
                f"size_wh={self.size_wh} must be a width and a height of {_LEAST_SIDE} to {_LARGEST_SIDE} px each"
            )
        if self.scenes not in SCENES:
            raise SourceError(f"scenes={self.scenes!r} is not known: choose one of {', '.join(SCENES)}")
        if self.scale is None:
            object.__setattr__(self, "scale", SCENES[self.scenes])
        if self.scale not in SCALE_NAMES:
            raise SourceError(f"scale={self.scale!r} is not known: choose one of {', '.join(SCALE_NAMES)}")
        if self.scenes == "interiors" and self.scale != "room":
            raise SourceError(f"scale={self.scale!r} is not one of interiors, which are rooms: leave it out")
        if not _LEAST_VIEW_DEG <= self.field_of_view_deg <= HFOV_DEG:
            raise SourceError(
                f"field_of_view_deg={self.field_of_view_deg:g} must be {_LEAST_VIEW_DEG:g} to {HFOV_DEG:g} degrees"
            )
        check_fraction(self.test_fraction)
        check_fraction(self.val_fraction, "val_fraction")
        if self.seed < 0:
            raise SourceError(f"seed={self.seed} must not be negative")

    def samples(self) -> tuple[SampleRef, ...]:
        """Every frame, named `synthetic-000012`, each its own scene."""
        names = [f"{self.kind}-{index:06d}" for index in range(self.count)]
        test = draw_scenes(names, self.test_fraction, [self.seed, _SPLIT_STREAM])
        samples = [SampleRef(name=name, scene=name, split="test" if name in test else "train") for name in names]
        return hold_out_val(samples, self.val_fraction, self.seed)

    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Nothing: every frame can be made."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def frame_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.size_wh[1], self.size_wh[0]

    def focal_length_px(self) -> float:
        """The pinhole camera's focal length in px, with its principal point at the image centre."""
        return focal_length_px(self.frame_hw(), self.field_of_view_deg)

    def provenance(self) -> dict[str, Any]:
        """Options, camera and version of the generator."""
        return {
            "kind": self.kind,
            "count": self.count,
            "size_wh": list(self.size_wh),
            "scenes": self.scenes,
            "scale": self.scale,
            "test_fraction": self.test_fraction,
            "val_fraction": self.val_fraction,
            "seed": self.seed,
            "field_of_view_deg": self.field_of_view_deg,
            "focal_length_px": self.focal_length_px(),
            "generator_version": GENERATOR_VERSION,
        }

    @contextmanager
    def open(self) -> Iterator[SyntheticReader]:
        """A reader, whose kernels are compiled by then; nothing is held open."""
        _compile_kernels()
        yield SyntheticReader(self)


class SyntheticReader:
    """Draws frames on demand."""

    def __init__(self, source: SyntheticSource) -> None:
        self._source = source

    def read(self, index: int) -> RgbdFrame:
        """Frame `index` (0 to count - 1): colour and dense depth; raises `SourceError` beyond that range."""
        source = self._source
        if not 0 <= index < source.count:
            raise SourceError(f"frame {index} is not one of the {source.count} synthetic frames 0..{source.count - 1}")
        rng = np.random.default_rng([source.seed, _FRAME_STREAM, index])
        scale = source.scale
        if scale is None or scale == "mixed":
            scale = str(rng.choice(list(SCALES)))
        hw = source.frame_hw()
        if source.scenes == "varied":
            scene = build_varied(rng, draw_kind(rng), scale, hw)
        elif source.scenes == "interiors":
            scene = build_interior(rng, str(rng.choice(list(INTERIORS))), hw, source.field_of_view_deg)
        else:
            scene = build_scene(rng, SCALES[scale], hw)
        return render(scene, source.focal_length_px(), hw)


@functools.cache
def _compile_kernels() -> None:
    """A small frame needs the same kernels as any other."""
    SyntheticReader(SyntheticSource(size_wh=(_LEAST_SIDE, _LEAST_SIDE))).read(0)
