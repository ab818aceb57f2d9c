"""`dfd-calibrate`: a lens measured from photographs, for `--lens`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from dfd_cli.support.errors import OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.logging import sample_progress
from dfd_cli.support.output import say
from dfd_cli.support.parameters import APERTURE, LENGTH_M, LENGTH_MM, Aperture, OutputPath, not_an_input

from defocus_sim.lens import Lens

PHOTOS, CAMERA, RESULT = "Photographs", "Camera", "Result"
_PATH = click.Path(path_type=Path)


@click.command(
    cls=OneLineCommand,
    examples=(
        "dfd-calibrate pairs.zarr --split train --sharp-aperture f/8 --out lens.toml",
        "dfd-calibrate --defocused f2.8 --sharp f8 --depth-dir depth --depth-scale 0.001",
        "dfd-calibrate --stack stack.csv --sharp sharp.jpg --depth-at 1.5m",
    ),
)
@click.argument("store", required=False)
@under(PHOTOS, "--split", metavar="NAME", show_default="all", help="Split of the STORE.")
@under(PHOTOS, "--limit", type=click.IntRange(min=1), metavar="N", show_default="all", help="First N pairs only.")
@under(PHOTOS, "--defocused", type=_PATH, metavar="FOLDER", help="Folder of defocused photographs instead of a STORE.")
@under(PHOTOS, "--sharp", type=_PATH, metavar="FOLDER|FILE", help="Folder of the same, sharp; of a stack, the picture.")
@under(PHOTOS, "--depth-dir", type=_PATH, metavar="FOLDER|FILE", help="Folder of depth files; of a stack, the file.")
@under(PHOTOS, "--depth-scale", type=float, metavar="METRES", help="Metres per unit of depth files (0.001 for mm).")
@under(
    PHOTOS,
    "--stack",
    type=_PATH,
    metavar="CSV",
    help="Focal stack of one scene: lines of picture,focus distance (0.8m).",
)
@under(PHOTOS, "--depth-at", type=LENGTH_M, metavar="LENGTH", help="Of a stack: one depth everywhere, a flat target.")
@under(CAMERA, "--focal-length", type=LENGTH_MM, help="Of the lens (35mm).")
@under(CAMERA, "--sensor-width", type=LENGTH_MM, help="Across the whole photograph's width (23.6mm).")
@under(CAMERA, "--lens", "lens_file", type=_PATH, metavar="TOML", help="Camera from a lens file instead.")
@under(
    CAMERA,
    "--sharp-aperture",
    type=APERTURE,
    metavar="LENGTH|f/N",
    show_default="pinhole",
    help="Aperture of the sharp photographs: their own blur is added to what is measured.",
)
@under(PHOTOS, "--largest-sigma", type=click.FloatRange(1, 60), metavar="PX", default=8.0, help="Widest blur to try.")
@under(
    RESULT, "--out", type=OutputPath(dir_okay=False), metavar="TOML", default="lens.toml", help="The lens, for --lens."
)
@under(
    RESULT,
    "--plot",
    type=OutputPath(dir_okay=False),
    metavar="FILE",
    show_default="beside --out",
    help="Sigma over depth, PNG, PDF or SVG.",
)
@under(RESULT, "--seed", type=click.IntRange(min=0), metavar="N", default=0, help="Of the resampling.")
def main(store: str | None, out: Path, plot: Path | None, **options: Any) -> None:
    """Measure a lens: focus distance, aperture, sigma per CoC and the blur in focus, each with a 95 % interval.

    From a STORE of `dfd-prepare pairs` with depth, from folders of photographs, or from a focal stack. The sharp
    photograph is blurred until it agrees with the defocused one, patch by patch, and a thin lens is fitted over depth.
    """
    from defocus_sim.calibrate.curves import measure
    from defocus_sim.calibrate.fit import fit_lens
    from defocus_sim.calibrate.report import fit_lines, fit_record, fitted_lens, save_fit_plot

    plot = plot or out.with_suffix(".png")
    for place in (out, plot):
        not_an_input(place, *(options[name] for name in ("lens_file", "sharp", "depth_dir", "stack")))
    left_out: list[str] = []
    photographs, camera = _photographs(store, left_out, options)
    with sample_progress("measuring", unit="pairs") as report:
        curves = measure(_told(photographs, report), largest_sigma_px=options["largest_sigma"])
    fit = fit_lens(curves, seed=options["seed"])
    lens = fitted_lens(fit, camera, _sharp_aperture_mm(options["sharp_aperture"], camera))
    lines = fit_lines(fit, lens, camera)
    lines += [f"  left out: {text}" for text in left_out]
    say("\n".join(lines))
    say(f"lens: {lens.save(out, fit_record(fit))}")
    say(f"plot: {save_fit_plot(fit, plot)}")


def _photographs(store: str | None, left_out: list[str], options: dict[str, Any]) -> tuple[Iterator[Any], Lens | None]:
    """The photographs that the options name, one after the other, and their camera as far as it is known."""
    from defocus_sim.calibrate import photographs as sources
    from defocus_sim.datasets.pairs import PairsSource
    from defocus_sim.shards.store import open_store

    folders = options["defocused"] is not None
    if (store is not None) + folders + (options["stack"] is not None) != 1:
        raise click.UsageError(
            "give one of: a STORE, --defocused with --sharp and --depth-dir, or --stack with --sharp"
        )
    limit, depth = options["limit"], options["depth_dir"]
    missing = ["--sharp: the same scenes in focus"] if store is None and options["sharp"] is None else []
    if folders and depth is None:
        missing.append("--depth-dir: blur is measured over depth")
    if missing:
        raise click.UsageError(f"give {', and '.join(missing)}")
    if store is not None:
        opened = open_store(store)
        chosen = sources.stored_photographs(opened, options["split"])[:limit]
        camera = _camera(options, opened.manifest.size_hw[1] + 2 * int(opened.manifest.source.get("border_px", 0)))
        return sources.read_stored(opened, chosen), camera or sources.stored_camera(opened, chosen)
    if options["stack"] is not None:
        if (depth is None) == (options["depth_at"] is None):
            raise click.UsageError("a stack needs its depth: give one of --depth-dir FILE and --depth-at LENGTH")
        from defocus_sim.datasets.formats.images import colour_size

        place = depth if depth is not None else float(options["depth_at"])
        stack = sources.read_stack(options["stack"], options["sharp"], place, options["depth_scale"])
        return itertools.islice(stack, limit), _camera(options, colour_size(options["sharp"])[1])
    source = PairsSource(
        defocused=options["defocused"],
        sharp=options["sharp"],
        depth=depth,
        depth_scale=options["depth_scale"],
        falloff=True,
    )
    camera = _camera(options, source.frame_hw()[1] + 2 * source.border)
    return sources.read_pairs(source, left_out, limit), camera


def _camera(options: dict[str, Any], width_px: int) -> Lens | None:
    """The camera of the options, in pixels of photographs of `width_px`; its focus and aperture are not looked at."""
    if options["lens_file"] is not None:
        return Lens.load(options["lens_file"])
    focal_mm, sensor_mm = options["focal_length"], options["sensor_width"]
    if focal_mm is None and sensor_mm is None:
        return None
    if focal_mm is None or sensor_mm is None:
        raise click.UsageError("--focal-length and --sensor-width belong together: an aperture needs both")
    return Lens(
        focus_distance_m=1e3, focal_length_mm=focal_mm, pixel_pitch_um=sensor_mm * 1e3 / width_px, solve_max_coc_px=1.0
    )


def _sharp_aperture_mm(aperture: Aperture | None, camera: Lens | None) -> float | None:
    if aperture is None or aperture.diameter_mm is not None:
        return None if aperture is None else aperture.diameter_mm
    if camera is None or camera.focal_length_mm is None or aperture.f_number is None:
        raise click.UsageError(
            "--sharp-aperture f/N needs the camera: give --focal-length and --sensor-width, or --lens"
        )
    return camera.focal_length_mm / aperture.f_number


def _told(photographs: Iterator[Any], report: Callable[[int, int], None]) -> Iterator[Any]:
    for done, one in enumerate(photographs, start=1):
        yield one
        report(done, done)


if __name__ == "__main__":
    main()
