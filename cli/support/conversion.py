"""Running one conversion for a command: progress, the closing summary and the contact sheet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfd_cli.support.focus import focus_warning
from dfd_cli.support.lens_options import lens_from_options, photo_lens
from dfd_cli.support.logging import note, sample_progress
from dfd_cli.support.options import rendering_from_options
from dfd_cli.support.output import say
from dfd_cli.support.summary import conversion_lines, pair_lines, skipped_lines, stage_lines

from defocus_sim.datasets.base import RgbdSource
from defocus_sim.errors import DefocusSimError
from defocus_sim.shards.timing import StageClock


def run_conversion(source: RgbdSource, options: dict[str, Any], default_focus_m: float | None = None) -> None:
    """Convert `source` as the shared options say and print what came of it."""
    blurred = not getattr(source, "measured", False)
    # Imported here: dask and numba take a second that `--help` and a wrong option need not wait for.
    from defocus_sim.convert.plan import ConversionSettings
    from defocus_sim.convert.run import Workers, convert
    from defocus_sim.pictures.preview import save_contact_sheet, sheet_path

    lens, focus_m = lens_from_options(default_focus_m, **options) if blurred else photo_lens(source, options)
    settings = ConversionSettings(
        source=source,
        lens=lens,
        focus_distances_m=focus_m,
        **({"rendering": rendering_from_options(**options)} if blurred else {}),
        size_hw=options.get("size_hw"),
        guide_depth=options.get("guide_depth", False),
        **{key: options[key] for key in ("samples_per_shard", "compression", "seed", "limit")},
    )
    out = options["out"] or f"{source.kind}.zarr"
    workers = Workers(
        count=options["workers"],
        processes=options["processes"],
        scheduler=options["scheduler"],
        announce=lambda link: note(f"dashboard: {link}"),
    )
    control = {key: options[key] for key in ("resume", "overwrite", "on_error")}
    clock = StageClock()
    # Procedural frames are not read from anywhere, and pairs are brought to one frame as they are read.
    reading = "rendering" if source.kind == "synthetic" else "reading" if blurred else "registering"
    with sample_progress(lambda: slowest_stage(clock.seconds, reading)) as report:
        result = convert(settings, out, workers=workers, on_progress=report, clock=clock, **control)
    try:
        sheet = str(save_contact_sheet(result.store, sheet_path(out)))
    except DefocusSimError as error:
        # The store is complete all the same.
        sheet = f"nothing: {error}"
    for line in source.notes():
        note(f"note: {line}")
    stages = stage_lines(result) if options["profile"] else []
    found = pair_lines(result.store)
    for line in [
        *conversion_lines(result, sheet),
        *focus_warning(result.store),
        *found,
        *stages,
        *skipped_lines(source.skipped(), result.store.manifest),
    ]:
        say(line)


def slowest_stage(seconds: Mapping[str, float], reading: str = "reading") -> str:
    """What a conversion spends most of its time on, "converting" while that is not known.

    `seconds`: by stage; `reading`: what the source does to get at a frame.
    """
    names = {"read": reading, "blur": "blurring", "encode": "encoding"}
    slowest = max(seconds, key=lambda stage: seconds[stage], default="")
    return names.get(slowest, "converting")
