"""Several stores as one: chunks are copied as they are, checked but not decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from defocus_sim.convert.place import check_apart
from defocus_sim.convert.plan import program_version, settings_digest
from defocus_sim.convert.scenes import numbered, scene_names
from defocus_sim.convert.state import ConversionState, failed_write
from defocus_sim.datasets.base import SPLITS
from defocus_sim.errors import ConvertError, DefocusSimError, StorageTimeoutError
from defocus_sim.shards.manifest import Manifest, ShardFile, SplitManifest, blurred_hw
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.store import ShardStore, open_store
from defocus_sim.shards.write import write_encoded_shard, write_skeleton

_MUST_AGREE = ("size_hw", "compression", "rendering")


def merge(
    places: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ShardStore:
    """Join stores as a new one.

    Image size, compression and rendering must agree; the lens may differ, each sample keeps its own. Names that occur in
    two stores get the store's number in front (`2/0001`). Shards have the first store's number of samples. A scene is
    known again by the files of its source and by its all-in-focus pictures (see `scenes.scene_names`), however the stores
    call it.

    Parameters
    ----------
    places
        Paths or URLs of two stores or more, in the order of the result.
    out
        Path or URL of the result.
    overwrite
        Replace what is at `out`.
    on_progress
        Called with the samples done and all.

    Returns
    -------
    ShardStore
        The new store, open.

    Raises
    ------
    ConvertError
        For fewer than two stores, stores that do not fit, a scene that would stand in two splits, or a target that is
        taken.
    ShardError
        For a store that is damaged.
    """
    check_apart(out, places, staged=True)
    stores = [open_store(place) for place in places]
    _check_fit(stores)
    first = stores[0].manifest
    state = ConversionState(out)
    state.check_target(resume=False, overwrite=overwrite, can_resume=False)
    description = {"kind": "merge", "stores": [store.manifest.checksum for store in stores]}
    scenes = scene_names(stores)
    names = _sample_names(stores)
    splits = {split: _join(stores, split, names, scenes) for split in SPLITS}
    if not splits["val"].names:
        del splits["val"]
    done, total = 0, sum(len(split.names) for split in splits.values())
    try:
        state.begin(description, resume=False)
        write_skeleton(
            state.storage,
            {split: len(content.names) for split, content in splits.items()},
            first.size_hw,
            first.samples_per_shard,
            first.compression,
        )
        for split, content in splits.items():
            chunks = _chunks(stores, split)
            files: list[dict[str, ShardFile]] = []
            for shard in plan_shards(len(content.names), first.samples_per_shard):
                samples = [next(chunks) for _ in range(shard.stop - shard.start)]
                written = write_encoded_shard(state.storage, split, shard.index, samples, first.samples_per_shard)
                files.append(written)
                done += len(samples)
                if on_progress is not None:
                    on_progress(done, total)
            splits[split] = replace(content, shards=tuple(files))
        state.write_manifest(_manifest(stores, splits, scenes, settings_digest(description)))
        state.publish(description)
    except StorageTimeoutError:
        # It is not asked what it has.
        raise
    except BaseException as error:
        state.clean_up([])
        if isinstance(error, OSError) and not isinstance(error, DefocusSimError):
            raise ConvertError(failed_write(state.place, error)) from error
        raise
    return open_store(out)


def _check_fit(stores: Sequence[ShardStore]) -> None:
    if len(stores) < 2:
        raise ConvertError("merging needs two stores or more")
    first = stores[0]
    for store in stores[1:]:
        for field in _MUST_AGREE:
            ours, theirs = getattr(first.manifest, field), getattr(store.manifest, field)
            if ours != theirs:
                raise ConvertError(f"{store.url} has {field} {theirs}, {first.url} has {ours}: they cannot be merged")


def _sample_names(stores: Sequence[ShardStore]) -> list[dict[str, str]]:
    """For each store the new names of its samples: those that occur in several stores have its number in front."""
    own = [[name for part in store.manifest.splits.values() for name in part.names] for store in stores]
    occurrences = Counter(name for names in own for name in set(names))
    taken = set(occurrences)
    return [
        {name: name if occurrences[name] == 1 else numbered(name, number, taken) for name in names}
        for number, names in enumerate(own, start=1)
    ]


def _join(
    stores: Sequence[ShardStore], split: str, names: Sequence[Mapping[str, str]], scenes: Sequence[Mapping[str, str]]
) -> SplitManifest:
    """The samples of one split of all stores, still without shards."""
    parts = [store.manifest.splits.get(split) for store in stores]
    keys = ("names", "scenes", "lens", "focus_distance_m", "aperture_mm", "measured", "blurred_hw")
    columns: dict[str, list[Any]] = {key: [] for key in keys}
    lens_offset = 0
    for number, (store, part) in enumerate(zip(stores, parts, strict=True)):
        if part is not None:
            columns["names"] += [names[number][name] for name in part.names]
            columns["scenes"] += [scenes[number][scene] for scene in part.scenes]
            columns["lens"] += [lens_offset + lens for lens in part.lens]
            columns["focus_distance_m"] += part.focus_distance_m
            columns["aperture_mm"] += part.aperture_mm
            columns["measured"] += part.measured
            columns["blurred_hw"] += [blurred_hw(store.manifest, part, k) or (0, 0) for k in range(len(part.names))]
        lens_offset += len(store.manifest.lenses)
    return SplitManifest(**{key: tuple(values) for key, values in columns.items()}, shards=())


def _chunks(stores: Sequence[ShardStore], split: str) -> Iterator[dict[str, bytes]]:
    for store in stores:
        if split in store.split_names:
            samples = store.split(split)
            for index in range(len(samples)):
                yield samples.read_encoded(index)


def _renamed(names: Mapping[str, str]) -> dict[str, list[str]]:
    """What a part called each scene that has another name now."""
    before: dict[str, list[str]] = {}
    for own, joined in names.items():
        if own != joined:
            before.setdefault(joined, []).append(own)
    return before


def _manifest(
    stores: Sequence[ShardStore],
    splits: dict[str, SplitManifest],
    scenes: Sequence[Mapping[str, str]],
    settings: str,
) -> Manifest:
    first = stores[0].manifest
    facts = [store.manifest.statistics for store in stores]
    blurred = [f for f in facts if f["psnr_db"] is not None]
    ranges = [f["coc_px"] for f in facts if f["coc_px"] is not None]
    weights = [f["samples"] - f["unblurred"] for f in blurred]
    statistics = {
        "samples": sum(f["samples"] for f in facts),
        "coc_px": [min(r[0] for r in ranges), max(r[1] for r in ranges)] if ranges else None,
        "psnr_db": sum(f["psnr_db"] * w for f, w in zip(blurred, weights, strict=True)) / sum(weights)
        if blurred
        else None,
        "psnr_db_range": None
        if not blurred
        else [min(f["psnr_db_range"][0] for f in blurred), max(f["psnr_db_range"][1] for f in blurred)],
        "unblurred": sum(f["unblurred"] for f in facts),
        # Stores of an earlier version did not count them.
        "limited_px": sum(f.get("limited_px", 0) for f in facts),
        "limited_samples": sum(f.get("limited_samples", 0) for f in facts),
    }
    # Samples stand in the order of the parts: with their numbers and new names each is traced to its source.
    parts = [
        {
            "checksum": store.manifest.checksum,
            "source": store.manifest.source,
            "samples": {split: len(part.names) for split, part in store.manifest.splits.items()},
            "renamed": _renamed(names),
        }
        for store, names in zip(stores, scenes, strict=True)
    ]
    return Manifest(
        size_hw=first.size_hw,
        samples_per_shard=first.samples_per_shard,
        compression=first.compression,
        lenses=tuple(lens for store in stores for lens in store.manifest.lenses),
        rendering=first.rendering,
        source={"kind": "merge", "parts": parts},
        statistics=statistics,
        splits=splits,
        skipped=tuple(frame for store in stores for frame in store.manifest.skipped),
        created_by=program_version(),
        settings=settings,
    )
