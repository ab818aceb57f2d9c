"""What decides how blur looks in a store: lens, sensor, frame size and rendering; and how two stores differ in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from defocus_sim.lens import Lens
from defocus_sim.shards.store import ShardStore
from dfd_train.config.lens_range import LensRange

# Fields of a lens with the words and the unit they are told in; aperture and focus distance are each sample's own.
_LENS = {
    "focal_length_mm": ("focal length", "mm"),
    "sensor_width_mm": ("sensor width", "mm"),
    "pixel_pitch_um": ("pixel pitch", "um"),
    "focal_length_px": ("lens to sensor", "px"),
    "max_coc_px": ("largest CoC", "px"),
}
_RENDERING = ("mode", "psf", "linear_light")


def store_facts(store: ShardStore) -> dict[str, Any]:
    """JSON-ready facts of `store` by their ordinary name: text, or (smallest, largest, unit) over its samples."""
    manifest = store.manifest
    height, width = manifest.size_hw
    splits = [split for split in manifest.splits.values() if split.names]
    facts: dict[str, Any] = {"frame size": f"{width}x{height}"}
    own = {
        "focus distance": ([s for split in splits for s in split.focus_distance_m], "m"),
        "aperture": ([a for split in splits for a in split.aperture_mm], "mm"),
    }
    for name, (values, unit) in own.items():
        # Photographs whose lens nobody told have none.
        known = [value for value in values if value > 0]
        if known:
            facts[name] = _range(known, unit)
    lenses = _lenses(store)
    for field, (name, unit) in _LENS.items():
        values = [value for lens in lenses if (value := getattr(lens, field)) is not None]
        if values:
            facts[name] = _range(values, unit)
    described = [str(manifest.rendering[key]) for key in _RENDERING[:2] if key in manifest.rendering]
    if described:
        light = " in linear light" if manifest.rendering.get(_RENDERING[2]) else ""
        facts["blur"] = " ".join(described) + light
    return facts


def _lenses(store: ShardStore) -> list[Lens]:
    """The lenses of `store`, each in pixels of the stored frame where it is known which frame its pixels are of."""
    manifest, found = store.manifest, {}
    for name in store.split_names:
        split, content = store.split(name), manifest.splits[name]
        sizes = content.blurred_hw or ((0, 0),) * len(split)
        for index, key in enumerate(zip(content.lens, sizes, strict=True)):
            if key not in found and split.has_lens(index):
                found[key] = split.lens(index) if split.has_pixels(index) else split.blurred_lens(index)
    return list(found.values())


def drawn_facts(stored: Mapping[str, Any], drawn: LensRange | None) -> dict[str, Any]:
    """The facts of a store whose sharp pictures were blurred while training by lenses `drawn` from ranges.

    What a training had more than one kind of is None: nothing differs from it.
    """
    if drawn is None:
        return dict(stored)
    (shortest, longest), (widest, narrowest) = drawn.focal_length_mm, drawn.f_number
    facts = {name: value for name, value in stored.items() if name == "frame size"} | {
        "focus distance": None if drawn.near_depths else [*drawn.focus_m, "m"],
        "aperture": [shortest / narrowest, longest / widest, "mm"],
        "focal length": [*drawn.focal_length_mm, "mm"],
        "sensor width": [*drawn.sensor_width_mm, "mm"],
    }
    one_kind = "both" not in (drawn.psf, drawn.light) and drawn.layered in (0, 1)
    mode, light = "layered" if drawn.layered else "gather", " in linear light" if drawn.light == "linear" else ""
    # A pixel pitch or a largest CoC of the scored store says nothing that the sensor's width and the aperture do not.
    facts |= dict.fromkeys(("pixel pitch", "lens to sensor", "largest CoC"))
    return facts | {"blur": f"{mode} {drawn.psf}{light}" if one_kind else None}


def differences(trained: Mapping[str, Any], scored: Mapping[str, Any]) -> list[str]:
    """Where the facts of the store `scored` are not within those of the store `trained`, a phrase each."""
    found = []
    for name, value in scored.items():
        if name in trained and trained[name] is None:
            continue
        if name not in trained or not _within(value, trained[name]):
            other = "not so" if name not in trained else _text(trained[name])
            found.append(f"{name} {_text(value)} (trained with {other})")
    return found


def _range(values: list[float], unit: str) -> list[Any]:
    return [min(values, default=math.nan), max(values, default=math.nan), unit]


def _within(value: Any, allowed: Any) -> bool:
    if isinstance(value, str) or isinstance(allowed, str):
        return bool(value == allowed)
    slack = 1e-6 * max(abs(allowed[0]), abs(allowed[1]))
    return bool(allowed[0] - slack <= value[0] and value[1] <= allowed[1] + slack)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    low, high, unit = value
    return f"{low:g} {unit}" if math.isclose(low, high) else f"{low:g} to {high:g} {unit}"
