"""Where photographs to measure a lens by come from: a store of pairs, a source of pairs, or a focal stack of one scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from defocus_sim.calibrate.curves import Photographs
from defocus_sim.datasets.formats.images import read_colour, resize_nearest
from defocus_sim.datasets.layouts.tables import read_table
from defocus_sim.datasets.pairing import read_depth_m
from defocus_sim.datasets.pairs import PairsSource
from defocus_sim.datasets.registration import exposed_as, exposure, register, resample
from defocus_sim.errors import CalibrationError, SourceError, UnitError
from defocus_sim.lens import Lens
from defocus_sim.shards.store import ShardStore
from defocus_sim.units import parse_length_m


def stored_photographs(store: ShardStore, split: str | None = None) -> list[tuple[str, int]]:
    """(split, index) of every sample of `store`, of one `split` where that is given.

    Raises `CalibrationError` where the store has focal stacks or several lenses: a calibration is of one lens at one focus.
    """
    names = store.split_names if split is None else (split,)
    chosen = [(name, index) for name in names for index in range(len(store.split(name)))]
    known = {store.split(name).lens(i) for name, i in chosen if store.split(name).has_lens(i)}
    if len(known) > 1:
        raise CalibrationError(f"{store.url} has {len(known)} lenses or focus distances: calibrate them one by one")
    return chosen


def read_stored(store: ShardStore, chosen: list[tuple[str, int]]) -> Iterator[Photographs]:
    """The samples `chosen` of a store."""
    for name, index in chosen:
        split = store.split(name)
        sample = {field: array[0] for field, array in split.read([index]).items()}
        yield Photographs(
            scene=split.scenes[index],
            defocused=sample["defocused"],
            sharp=sample["aif"],
            depth_m=sample["depth_m"],
            corner_light=split.measured[index].get("corner_light") if index < len(split.measured) else None,
        )


def stored_camera(store: ShardStore, chosen: list[tuple[str, int]]) -> Lens | None:
    """The lens that the store names, or None."""
    lenses = [store.split(name).lens(index) for name, index in chosen if store.split(name).has_lens(index)]
    return lenses[0] if lenses else None


def read_pairs(source: PairsSource, left_out: list[str], limit: int | None = None) -> Iterator[Photographs]:
    """The pairs of a source; the names and reasons of those that cannot be used are put into `left_out`."""
    samples = source.samples()
    left_out += [f"{name}: {reason}" for name, reason in source.skipped()]
    with source.open() as reader:
        for index, sample in enumerate(samples[:limit]):
            try:
                frame = reader.read(index)
            except SourceError as error:
                left_out.append(str(error))
                continue
            if frame.defocused is not None:
                yield Photographs(
                    scene=sample.scene,
                    defocused=frame.defocused,
                    sharp=frame.aif,
                    depth_m=frame.depth_m,
                    corner_light=(frame.found or {}).get("corner_light"),
                )


def read_stack(
    listed: Path, sharp: Path, depth: Path | float, depth_scale: float | None = None
) -> Iterator[Photographs]:
    """A focal stack of one scene: lines `picture,focus distance` (0.8m) of a CSV file, paths relative to it.

    `sharp`: the scene all in focus. `depth`: its depth file, or its one depth in metres where it is a flat target. Each
    picture is laid on the sharp one, which has the depth, and counts as a scene of its own for the intervals.
    """
    reference = read_colour(sharp)
    height, width = reference.shape[:2]
    depth_m = (
        np.full((height, width), depth, np.float32) if isinstance(depth, float) else read_depth_m(depth, depth_scale)
    )
    depth_m = resize_nearest(depth_m, (height, width))
    for number, row in read_table(listed).rows:
        cells = [cell.strip() for cell in row]
        if len(cells) != 2:
            raise SourceError(f"{listed} line {number}: {','.join(row)!r} is not picture,focus distance")
        try:
            focus_m = parse_length_m(cells[1])
        except UnitError as error:
            raise SourceError(f"{listed} line {number}: {error}") from error
        picture = read_colour(listed.parent / cells[0])
        if picture.shape != reference.shape:
            raise SourceError(
                f"{cells[0]} is {picture.shape[1]}x{picture.shape[0]} but {sharp.name} is {width}x{height}"
            )
        try:
            # The focus changes the scale a little (breathing): affine. The picture moves, so that depth stays where it is.
            found = register(picture, reference)
            inverse = np.asarray(cv2.invertAffineTransform(found.affine), np.float64)
            place = replace(found, affine=inverse)
            moved = np.rint(resample(picture, place) * 255).astype(np.uint8)
            light = exposure(moved, reference.astype(np.float32) / np.float32(255))
        except SourceError as error:
            raise SourceError(f"{cells[0]}: {error}") from error
        edge = int(np.ceil(place.displacement_px)) + 1
        kept = (slice(edge, height - edge), slice(edge, width - edge))
        yield Photographs(
            scene=cells[0],
            defocused=moved[kept],
            sharp=exposed_as(reference.astype(np.float32) / np.float32(255), light)[kept],
            depth_m=depth_m[kept],
            focus_distance_m=focus_m,
        )
