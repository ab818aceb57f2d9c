"""The closing lines of a conversion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from defocus_sim.progress import counted
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.units import format_bytes

if TYPE_CHECKING:
    from defocus_sim.convert.run import Conversion
    from defocus_sim.shards.manifest import Manifest
    from defocus_sim.shards.store import ShardStore

# A blur that nobody can see: metres taken for pixels, an aperture in the wrong unit.
INVISIBLE_BLUR_DB = 44.0
MOST_LISTED = 20
# Half of a data set's depth lies between them: a hand's breadth, and farther than rooms, halls and streets.
USUAL_DEPTH_M = (0.05, 150.0)


def conversion_lines(result: Conversion, sheet: str) -> list[str]:
    """What was made, how blurred it is, how long it took, and where to look."""
    statistics = result.store.manifest.statistics
    samples = statistics["samples"]
    lines = [
        *_store_lines(result.store),
        f"  time       {result.seconds:.1f} s, {samples / max(result.seconds, 1e-9):.1f} samples/s",
        f"  look at    {sheet}",
    ]
    lines += _depth_warnings(statistics)
    if statistics["psnr_db"] is None or statistics["psnr_db"] > INVISIBLE_BLUR_DB:
        lines.append("  warning    this blur can hardly be seen: check the units of aperture, focus and depth")
    return lines


def _depth_warnings(statistics: dict[str, Any]) -> list[str]:
    """What looks wrong about depth or its unit; what was noted of single frames."""
    lines = []
    depth, samples = statistics.get("depth_m"), statistics["samples"]
    if depth and not USUAL_DEPTH_M[0] <= depth[2] <= USUAL_DEPTH_M[1]:
        way = "small" if depth[2] < USUAL_DEPTH_M[0] else "large"
        lines.append(
            f"  warning    half of all depth lies beyond {depth[2]:.4g} m: its unit looks 10 or 1000 times too {way} "
            "(--depth-scale)"
        )
    if statistics.get("too_near_px"):
        lines.append(
            f"  warning    {statistics['too_near_px']} px are nearer than the focal length, from where no lens makes a "
            "picture: check the unit of depth"
        )
    if statistics.get("wide_coc_samples", 0) > samples / 2:
        lines.append(
            "  warning    most pixels have a CoC beyond a tenth of the frame: check the units of aperture, focus and depth"
        )
    for text, count in statistics.get("notes", ()):
        lines.append(f"  depth      in {count} of {samples} samples: {text}")
    return lines


def stage_lines(result: Conversion) -> list[str]:
    """What the workers spent their time on, over all of them; on a machine that does nothing else it is computing time."""
    total, samples = sum(result.stage_seconds.values()), result.store.manifest.statistics["samples"]
    planning = f"  planning   {result.planning_seconds:.1f} s until all files were listed and looked at"
    if not total:
        return [planning, "  stages     nothing was left to do"]
    return [planning, "  stages     of all workers together, each sample's share and milliseconds"] + [
        f"    {name:8} {seconds / total:6.1%} {seconds / samples * 1e3:8.2f}"
        for name, seconds in result.stage_seconds.items()
    ]


def skipped_lines(left_out: Sequence[tuple[str, str]], manifest: Manifest) -> list[str]:
    """What gave no sample, by name: files left out when the data set was listed, and frames that could not be used."""
    entries = [*left_out, *((frame["name"], frame["reason"]) for frame in manifest.skipped)]
    if not entries:
        return []
    lines = [f"  left out   {len(entries)} files or frames:"]
    lines += [f"             {name}: {reason}" for name, reason in entries[:MOST_LISTED]]
    return lines + ([f"             and {len(entries) - MOST_LISTED} more"] if len(entries) > MOST_LISTED else [])


def info_lines(store: ShardStore) -> list[str]:
    """Everything a store says of itself: contents, lens, rendering, source, versions."""
    manifest = store.manifest
    scenes = {name: len(set(split.scenes)) for name, split in manifest.splits.items() if split.names}
    return [
        *_store_lines(store),
        *_layout_lines(store),
        f"  scenes     {', '.join(f'{count} in {name}' for name, count in scenes.items())}",
        *_stack_lines(manifest),
        *(f"  lens       {_fields(lens)}" for lens in _lenses(manifest)),
        *([f"  rendering  {_fields(manifest.rendering)}"] if manifest.rendering else []),
        *_source_lines(manifest.source),
        f"  made by    {manifest.created_by}" + ("" if store.foreign else f", format {manifest.format_version}"),
        f"  checksum   {manifest.checksum}",
    ]


def _layout_lines(store: ShardStore) -> list[str]:
    """How the arrays are stored."""
    if store.foreign is None:
        manifest = store.manifest
        return [
            f"  shards     {counted(manifest.samples_per_shard, 'sample')} each, compression {manifest.compression}"
        ]
    split = store.split_names[0]
    return [
        f"  array      {split}/{name}: Zarr version {array.metadata.zarr_format}, chunks {array.chunks}"
        + (f", shards {array.shards}" if array.shards else "")
        for name, array in store.foreign.arrays(split).items()
    ]


def info_json(store: ShardStore) -> dict[str, Any]:
    """What `info_lines` says as JSON-ready values; lengths and counts as numbers."""
    manifest = store.manifest
    splits = {name: split for name, split in manifest.splits.items() if split.names}
    return {
        "store": store.url,
        "size_wh": list(manifest.size_hw[::-1]),
        "samples": {name: len(split.names) for name, split in splits.items()},
        "scenes": {name: len(set(split.scenes)) for name, split in splits.items()},
        "frames": {
            name: len(set(zip(split.scenes, map(_frame, split.names), strict=True))) for name, split in splits.items()
        },
        "focus_distances_m": sorted({s for split in splits.values() for s in split.focus_distance_m}),
        "lenses": list(manifest.lenses),
        "rendering": manifest.rendering,
        "source": manifest.source,
        "statistics": manifest.statistics,
        "skipped": list(manifest.skipped),
        "samples_per_shard": manifest.samples_per_shard,
        "compression": manifest.compression,
        "stored_bytes": store.stored_bytes,
        "read_through_zarr": store.foreign is not None,
        "created_by": manifest.created_by,
        "format_version": manifest.format_version,
        "checksum": manifest.checksum,
    }


def _lenses(manifest: Manifest) -> list[dict[str, Any]]:
    """The lenses, each with every distance that its samples are focused at."""
    found = []
    for number, lens in enumerate(manifest.lenses):
        focus_m = {
            focus
            for split in manifest.splits.values()
            for index, focus in zip(split.lens, split.focus_distance_m, strict=True)
            if index == number and focus
        }
        several = {"focus_distance_m": " and ".join(f"{one:g}" for one in sorted(focus_m))} if len(focus_m) > 1 else {}
        found.append({**lens, **several})
    return found


def _frame(name: str) -> str:
    """The name of a frame of a focal stack, without its focus distance."""
    return name.rpartition("@")[0] or name


def _stack_lines(manifest: Manifest) -> list[str]:
    """How many focus distances a frame of a focal stack is there at; nothing for other stores."""
    frames = [Counter(_frame(name) for name in split.names if "@" in name) for split in manifest.splits.values()]
    counts = sorted({count for found in frames for count in found.values()})
    if not counts or counts == [1]:
        return []
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"  stack      {counted(sum(map(len, frames)), 'frame')}, each at {each} focus distances"]


def _source_lines(source: dict[str, Any]) -> list[str]:
    """What a store was made of; of a joined one, each of its parts."""
    if source.get("kind") != "merge" or not isinstance(source.get("parts"), list):
        return [f"  source     {_fields(source)}"]
    lines = [f"  source     {len(source['parts'])} stores joined"]
    for number, part in enumerate(source["parts"], start=1):
        first, *more = _source_lines(part["source"])
        lines += [f"    part {number}   {first.split(maxsplit=1)[1]}", *(f"    {line}" for line in more)]
    return lines


def _store_lines(store: ShardStore) -> list[str]:
    manifest = store.manifest
    statistics = manifest.statistics
    height, width = manifest.size_hw
    counts = {name: len(store.split(name)) for name in store.split_names}
    focus_m = sorted({s for split in manifest.splits.values() for s in split.focus_distance_m})
    names = dict.fromkeys(lens["name"] for lens in manifest.lenses)
    lens = f"{', '.join(names)}, " + (f"focus {', '.join(f'{s:g} m' for s in focus_m if s)}, " if any(focus_m) else "")
    lines = [
        f"{store.url}: {', '.join(f'{count} {name}' for name, count in counts.items())} samples of {width}x{height}",
        f"  lens       {lens}{_blur_text(manifest)}",
    ]
    if statistics.get("depth_m"):
        low, first, half, last, high = (f"{value:.4g}" for value in statistics["depth_m"])
        lines.append(f"  depth      {low} to {high} m (1 % below {first}, half below {half}, 99 % below {last})")
    if statistics["coc_px"] is None:
        lines.append("  CoC        not known: it takes a lens and depth")
    else:
        nearest, farthest = statistics["coc_px"]
        lines.append(f"  CoC        {nearest:+.1f} to {farthest:+.1f} px (negative: nearer than focus)")
    if statistics.get("limited_px"):
        among = counted(statistics.get("limited_samples", 0), "sample")
        what = f"CoC of {statistics['limited_px']} px in {among}"
        lines.append(f"  limited    {what}, to the frame's longer side or --max-coc")
    lines += registration_lines(store)
    if manifest.rendering:
        lines.append(f"  blurred    {_psnr_text(statistics)}")
    return [*lines, _stored_line(store, sum(counts.values()))]


def _blur_text(manifest: Manifest) -> str:
    if not manifest.rendering:
        return "how it was blurred is not known"
    if manifest.rendering["mode"] == "measured":
        return "measured, not simulated"
    return f"{manifest.rendering['mode']} {manifest.rendering['psf']} blur"


def _stored_line(store: ShardStore, samples: int) -> str:
    stored, raw = (
        store.stored_bytes,
        samples * sum(spec.sample_bytes(store.manifest.size_hw) for spec in ARRAYS.values()),
    )
    how = "read through zarr" if store.foreign else f"in {sum(1 for _ in store.records())} shard files"
    return f"  stored     {format_bytes(stored)} {how} ({stored / raw:.0%} of {format_bytes(raw)} raw)"


def registration_lines(store: ShardStore) -> list[str]:
    """Of photographs: how far apart the pictures of a pair were, how well they fit, how their light compares."""
    found = [one for name in store.split_names for one in store.split(name).measured]
    lines = []
    for key, what, form in (
        ("displacement_px", "px apart", "{:.2f}"),
        ("correlation", "correlation", "{:.3f}"),
        ("gain", "gain of green", "{:.3f}"),
        ("corner_light", "corner light", "{:.3f}"),
    ):
        values = sorted(one[key][1] if key == "gain" else one[key] for one in found if key in one)
        if values:
            low, middle, high = (form.format(v) for v in (values[0], values[len(values) // 2], values[-1]))
            lines.append(f"{what} {low} to {high} (median {middle})")
    return [f"  pairs      {'; '.join(lines)}"] if lines else []


def pair_lines(store: ShardStore) -> list[str]:
    """Of photographs: what was found about each pair, a line each up to a number that can be read."""
    rows = []
    for name in store.split_names:
        split = store.split(name)
        for sample, found in zip(split.names, split.measured, strict=False):
            parts = []
            if "affine" in found:
                (a, b, x), (c, d, y) = found["affine"]
                parts.append(
                    f"{found['displacement_px']:.2f} px apart at most, affine [{a:.5f} {b:.5f} {x:+.2f}; "
                    f"{c:.5f} {d:.5f} {y:+.2f}], correlation {found['correlation']:.3f}"
                )
            if "gain" in found:
                parts.append("gain " + " ".join(f"{gain:.3f}" for gain in found["gain"]))
            if "corner_light" in found:
                parts.append(f"corner light {found['corner_light']:.3f}")
            rows.append(f"             {sample}: {', '.join(parts) or 'taken as they are'}")
    more = [f"             and {len(rows) - MOST_LISTED} more, all in the manifest"] if len(rows) > MOST_LISTED else []
    return rows[:MOST_LISTED] + more


def _fields(content: dict[str, Any]) -> str:
    """`a=1, b=x`, nested fields with a dot, what is not set left out."""
    parts = []
    for key, value in content.items():
        if isinstance(value, dict):
            parts += [f"{key}.{part}" for part in _fields(value).split(", ") if part]
        elif value is not None:
            parts.append(f"{key}={value}")
    return ", ".join(parts)


def _psnr_text(statistics: dict[str, Any]) -> str:
    if statistics["psnr_db"] is None:
        return "no image differs from its original"
    low, high = statistics["psnr_db_range"]
    return f"PSNR {statistics['psnr_db']:.1f} dB against all-in-focus (single images {low:.1f} to {high:.1f})"
