"""One sample of a conversion: read its frame, blur it, encode the triple. Any thread can make any sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.convert.guided_depth import guide_depth
from defocus_sim.convert.plan import ConversionSettings, PlannedSample
from defocus_sim.datasets.base import FrameReader, RgbdFrame
from defocus_sim.errors import ConvertError, DepthError, ImageError, LensError, SourceError
from defocus_sim.lens import Lens, coc_diameter_px, coc_limit_px
from defocus_sim.shards.timing import StageClock
from defocus_sim.shards.write import encode_sample
from defocus_sim.simulate import defocus, without_unusable

OnError = Literal["fail", "skip"]
_FEW_PIXELS = 1 << 14


@dataclass(frozen=True)
class BadFrame:
    """A frame that could not be used. `frame`: its index in the source."""

    frame: int
    name: str
    reason: str


@dataclass(frozen=True)
class MadeSample:
    """A sample as it is stored. `chunks`: by array; `facts`: for the statistics; `seconds`: what it took, by stage."""

    chunks: dict[str, bytes]
    facts: dict[str, Any]
    seconds: dict[str, float]


class SampleMaker:
    """Makes samples, for one thread.

    A frame that cannot be used is an error that names it, or with `on_error="skip"` a `BadFrame`.
    """

    def __init__(self, settings: ConversionSettings, on_error: OnError, reader: FrameReader) -> None:
        self._settings, self._on_error, self._reader = settings, on_error, reader
        self._lenses = settings.lenses
        self._current: tuple[int, RgbdFrame] | None = None

    def __call__(self, sample: PlannedSample) -> MadeSample | BadFrame:
        """See `MadeSample`; raises `SourceError`, or `ConvertError` for a frame that is read but of no use."""
        settings, clock = self._settings, StageClock()
        try:
            # The samples of a focal stack share their frame.
            if self._current is None or self._current[0] != sample.frame:
                with clock.stage("read"):
                    self._current = sample.frame, self._read(sample)
            seed = (settings.seed, sample.frame, sample.lens)
            with clock.stage("blur"):
                arrays, facts = render_sample(settings, self._current[1], self._lenses[sample.lens], seed)
        except (SourceError, DepthError, ImageError, LensError) as error:
            if self._on_error == "skip":
                return BadFrame(sample.frame, sample.name, str(error))
            if isinstance(error, SourceError):
                raise
            raise ConvertError(f"frame {sample.name}: {error}") from error
        with clock.stage("encode"):
            chunks = encode_sample(arrays, settings.compression)
        return MadeSample(chunks, facts, clock.seconds)

    def _read(self, sample: PlannedSample) -> RgbdFrame:
        try:
            return self._reader.read(sample.frame)
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            # Not what the storage raises, whose errors are of writing.
            where = "" if error.filename is None else f" of {os.fsdecode(error.filename)}"
            raise SourceError(f"{sample.name}: reading{where} failed: {error.strerror or error}") from error


@contextmanager
def sample_maker(settings: ConversionSettings, on_error: OnError) -> Iterator[SampleMaker]:
    """A `SampleMaker` with the source opened for the calling thread."""
    # Parallel at one level only: samples are what the threads share.
    cv2.setNumThreads(1)
    with settings.source.open() as reader:
        yield SampleMaker(settings, on_error, reader)


def render_sample(
    settings: ConversionSettings, frame: RgbdFrame, lens: Lens | None, seed: tuple[int, ...]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """One triple as it is stored, by array name, and its statistics. Raises what `defocus` raises."""
    height, width = frame.depth_m.shape
    depth_m = frame.depth_m
    if frame.defocused is not None:
        seen: NDArray[Any] = frame.defocused
        if settings.guide_depth and (depth_m > 0).any():
            depth_m = np.where(depth_m > 0, guide_depth(depth_m, frame.aif), np.float32(0))
    else:
        assert lens is not None  # noqa: S101 - the settings allow none for measured pictures only
        depth_m = without_unusable(depth_m, lens)
        if depth_m.max() <= 0:
            raise DepthError("its depth has no valid pixel")
        blurred_by = depth_m
        if settings.guide_depth:
            blurred_by = guide_depth(depth_m, frame.aif)
            depth_m = np.where(depth_m > 0, blurred_by, np.float32(0))
        lens = lens.for_depth(depth_m, width)
        seen = defocus(frame.aif, blurred_by, lens, **vars(settings.rendering), rng=np.random.default_rng(seed))
    arrays: dict[str, NDArray[Any]] = {"defocused": seen, "aif": frame.aif, "depth_m": depth_m}
    if settings.size_hw is not None and settings.size_hw != (height, width):
        arrays = {name: _resize(array, settings.size_hw) for name, array in arrays.items()}
    squares = cv2.norm(arrays["defocused"], arrays["aif"], cv2.NORM_L2SQR)
    facts = {
        **_coc_facts(depth_m, lens),
        **_depth_facts(depth_m, lens),
        "too_near_px": 0 if lens is None else _too_near(frame.depth_m, lens),
        "notes": list(frame.notes),
        "mse": squares / arrays["aif"].size / 255**2,
        "focus_distance_m": 0.0 if lens is None else lens.focus_distance_m,
        "aperture_mm": 0.0 if lens is None else lens.aperture_diameter_m * 1e3,
        "blurred_hw": [height, width],
    }
    if settings.measured:
        facts["found"] = frame.found or {}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, facts


def _coc_facts(depth_m: NDArray[np.float32], lens: Lens | None) -> dict[str, Any]:
    """Range of the signed CoC, and how many pixels lie beyond its limit; None where lens or depth are not known."""
    nearest_m, farthest_m = depth_m.min(), depth_m.max()
    if lens is None or farthest_m <= 0:
        return {"coc_min_px": None, "coc_max_px": None, "limited_px": 0}
    # The signed CoC grows with depth: its range follows from the range of depth.
    if nearest_m <= 0:
        nearest_m = depth_m.min(where=depth_m > 0, initial=np.inf)
    width = depth_m.shape[1]
    limit = coc_limit_px(lens, (depth_m.shape[0], width))
    uncapped = replace(lens, max_coc_px=None)
    nearest, farthest = coc_diameter_px([nearest_m, farthest_m], uncapped, width_px=width)
    limited = 0
    if max(-nearest, farthest) > limit:
        coc = coc_diameter_px(depth_m[depth_m > 0], uncapped, width_px=width)
        limited = int(np.count_nonzero(np.abs(coc) > limit))
    nearest, farthest = np.clip([nearest, farthest], -limit, limit)
    return {"coc_min_px": float(nearest), "coc_max_px": float(farthest), "limited_px": limited}


def _depth_facts(depth_m: NDArray[np.float32], lens: Lens | None) -> dict[str, Any]:
    """Range and percentiles of depth, and the share of pixels whose CoC exceeds a tenth of the frame's width."""
    # A sixteenth of the pixels tells the percentiles; sorting all of them would take longer than many a blur.
    some = depth_m[::4, ::4] if depth_m.size > _FEW_PIXELS else depth_m
    some, known = some[some > 0], depth_m[depth_m > 0]
    if not some.size:
        return {"depth_m": None, "wide_coc": 0.0}
    middle = np.percentile(some, (1, 50, 99))
    facts = {"depth_m": [round(float(value), 6) for value in (known.min(), *middle, known.max())], "wide_coc": 0.0}
    if lens is not None:
        coc_px = coc_diameter_px(some, replace(lens, max_coc_px=None), width_px=depth_m.shape[1])
        facts["wide_coc"] = round(float(np.mean(np.abs(coc_px) > 0.1 * depth_m.shape[1])), 6)
    return facts


def _too_near(depth_m: NDArray[np.float32], lens: Lens) -> int:
    """Pixels that are nearer than the focal length, from where no lens makes a picture."""
    if lens.focal_length_mm is None:
        return 0
    return int(np.count_nonzero((depth_m > 0) & (depth_m <= lens.focal_length_mm / 1e3)))


def _resize(array: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    # Depth is never averaged: the mean of a near and a far surface is a place where nothing is.
    method = cv2.INTER_AREA if array.dtype == np.uint8 else cv2.INTER_NEAREST_EXACT
    return cv2.resize(array, size_hw[::-1], interpolation=method)
