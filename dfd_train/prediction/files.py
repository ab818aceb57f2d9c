"""`predict_files`: pictures in files -> restored pictures, depth, refocused pictures and pages in files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import DefocusSimError
from defocus_sim.lens import Lens
from defocus_sim.units import size_text
from dfd_train.config.model import DEFAULT_WEIGHTS
from dfd_train.config.places import require_local
from dfd_train.errors import ConfigError, DfdTrainError, PictureError
from dfd_train.evaluation.collapse import lines_of_picture
from dfd_train.files import write_atomically
from dfd_train.model.build import Model
from dfd_train.prediction.images import (
    FILMS,
    Picture,
    find_pictures,
    gif_bytes,
    output_names,
    read_picture,
    write_mp4,
)
from dfd_train.prediction.outputs import Results, pictures, record, refocused, scene
from dfd_train.prediction.page.build import page_html
from dfd_train.prediction.photo.exif import FULL_FRAME_DIAGONAL_MM, read_tags
from dfd_train.prediction.photo.lens import LensChoice, lens_of_photograph
from dfd_train.prediction.photograph import predict_photograph
from dfd_train.prediction.point_cloud import ply_bytes
from dfd_train.prediction.predict import SMALLEST_SIDE, load, require_one_picture, takes_lens
from dfd_train.prediction.refocus import compile_refocus
from dfd_train.prediction.tiling import Tiling

# The shortest lens there is: no picture can be focused nearer.
_SHORTEST_FOCAL_MM = 2.0
_USUAL_F_NUMBER, _USUAL_MM = 2.0, 50.0


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """A prediction for files.

    `images`: files, folders, glob patterns. `checkpoint`: see `load`. `out`: folder for the results. `tiling`: see
    `Tiling`. `size`: (height, width) that pictures are reduced to first, which also shrinks their blur; None = as they
    are. `scale`: see `predict_photograph`; None = chosen from the picture.
    `photo_lens`: what is said about the photographs' own lens in place of their EXIF.
    `refocus_m`, `refocus_at`: focus distances, and pixels (x, y) of the picture to focus on, to render the restored
    picture at. `lens`: the camera for that (its own focus distance is not used); None: one on full frame with the
    photograph's field of view and `f_number` (f/2 for None) or `aperture_mm`.
    `film`: "gif" or "mp4", made where there are several distances. `page`: a page for each picture, to refocus it in a
    browser. `ply`: a point cloud for each.

    Raises `ConfigError` for an impossible value.
    """

    images: tuple[str, ...]
    checkpoint: str = DEFAULT_WEIGHTS
    out: str
    device: str = "auto"
    tiling: Tiling = field(default_factory=Tiling)
    size: tuple[int, int] | None = None
    scale: float | None = None
    photo_lens: LensChoice = field(default_factory=LensChoice)
    refocus_m: tuple[float, ...] = ()
    refocus_at: tuple[tuple[int, int], ...] = ()
    lens: Lens | None = None
    f_number: float | None = None
    aperture_mm: float | None = None
    film: str = "gif"
    page: bool = False
    ply: bool = False

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("there is no picture to predict: name files, folders or patterns")
        if self.size is not None and min(self.size) < SMALLEST_SIDE:
            raise ConfigError(f"size={size_text(self.size)} must be at least {SMALLEST_SIDE} pixels a side")
        require_local("out", self.out)
        if self.scale is not None and not 0 < self.scale <= 1:
            raise ConfigError(f"scale={self.scale:g} must be above 0 and at most 1, or left out")
        if self.film not in FILMS:
            raise ConfigError(f"film={self.film!r} must be one of {', '.join(FILMS)}")
        # Checked before the first picture, with a lens as short as there is.
        shortest = self.lens or self.camera(_SHORTEST_FOCAL_MM, (24, 36), 1.0)
        for distance in self.refocus_m:
            shortest.at_focus(distance)

    def camera(self, equivalent_mm: float, hw: tuple[int, int], focus_m: float) -> Lens:
        """The camera to refocus with: on full frame, with the field of view of a lens of `equivalent_mm`."""
        height, width = hw
        return self.lens or Lens(
            # A focus within the lens is not one; every picture is focused by `at_focus`.
            focus_distance_m=max(focus_m, equivalent_mm * 2e-3),
            f_number=_USUAL_F_NUMBER if self.f_number is None and self.aperture_mm is None else self.f_number,
            aperture_mm=self.aperture_mm,
            focal_length_mm=equivalent_mm,
            sensor_width_mm=FULL_FRAME_DIAGONAL_MM * width / math.hypot(height, width),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture: the files written and a line about them, or `error`, one line.

    `details`: lines on the lens: what was read, given and assumed, and what is only relative therefore.
    """

    source: str
    files: tuple[Path, ...] = ()
    text: str = ""
    details: tuple[str, ...] = ()
    error: str | None = None


def predict_files(config: PredictConfig) -> Iterator[Outcome]:
    """Predict every picture; one that cannot be used does not stop the others.

    Parameters
    ----------
    config
        Which pictures, and what to make of them.

    Yields
    ------
    Outcome
        What became of each picture.

    Raises
    ------
    CheckpointError, ConfigError, LensError
        Before the first picture.
    PictureError
        Where there is no picture at all or the folder `out` cannot be made.
    """
    net = load(config.checkpoint, config.device)
    require_one_picture(net.config)
    for wanted, what in ((config.refocus_m or config.refocus_at, "refocusing"), (config.page, "a page")):
        if wanted and set(net.config.heads) != {"depth", "aif"}:
            raise ConfigError(f"{what} needs both heads; this checkpoint has {', '.join(net.config.heads)}")
    if config.ply and "depth" not in net.config.heads:
        raise ConfigError(f"a point cloud needs depth; this checkpoint has {', '.join(net.config.heads)}")
    found, problems = find_pictures(config.images)
    if not found:
        raise PictureError(f"there is no picture to predict: {'; '.join(problems) or 'nothing was found'}")
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"cannot make the folder {out}: {error.strerror or error}") from error
    for problem in problems:
        yield Outcome(source=problem.split(" ")[0], error=problem)
    if config.refocus_m or config.refocus_at:
        # Here, not within the first picture.
        compile_refocus()
    inputs = {path.resolve() for path in found}
    for path, name in zip(found, output_names(found), strict=True):
        try:
            yield _predict_file(net, config, path, out / name, inputs)
        except (DfdTrainError, DefocusSimError) as error:
            text = str(error)
            yield Outcome(source=str(path), error=text if str(path) in text else f"{path}: {text}")
        except OSError as error:
            yield Outcome(source=str(path), error=f"{path}: cannot write to {out}: {error.strerror or error}")


def _predict_file(net: Model, config: PredictConfig, path: Path, stem: Path, inputs: AbstractSet[Path]) -> Outcome:
    picture = read_picture(path)
    tags = read_tags(path)
    tall, wide = picture.pixels.shape[:2]
    lens = lens_of_photograph(tags, (wide, tall) if tags.orientation < 5 else (tall, wide), config.photo_lens)
    picture = _resized(picture, config.size)
    height, width = picture.pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise PictureError(f"{path} is {width}x{height} pixels: a picture needs at least {SMALLEST_SIDE} a side")
    for x, y in config.refocus_at:
        if x >= width or y >= height:
            raise PictureError(f"{path} is {width}x{height} pixels: it has no pixel {x},{y} to focus on")
    made = predict_photograph(
        net,
        picture.pixels,
        lens=lens.lens.resized(lens.size_hw, (height, width)),
        told=lens.knows_focus,
        scale=config.scale,
        tiling=config.tiling,
    )
    relative = takes_lens(net) and not lens.knows_focus
    results = Results(
        name=path.name,
        picture=picture,
        lens=lens,
        made=made,
        network=net.config.name,
        lens_used=takes_lens(net),
        camera=config.camera(lens.equivalent_mm or _USUAL_MM, (height, width), lens.lens.focus_distance_m),
        unit_m=lens.lens.focus_distance_m if relative else 1.0,
        unit="focus distances" if relative else "m",
    )
    contents, text = pictures(results)
    frames: list[NDArray[np.uint8]] = []
    if made.found.aif is not None and made.found.depth_m is not None:
        more, frames = refocused(results, config.refocus_m, config.refocus_at)
        contents |= more
    if frames and config.film == "gif":
        contents["_rack.gif"] = gif_bytes(frames)
    if config.page:
        contents[".html"] = page_html(scene(results, stem.name))
    if config.ply and made.found.depth_m is not None:
        shown = picture.pixels if made.found.aif is None else made.found.aif
        contents[".ply"] = ply_bytes(shown, made.found.depth_m, results.camera.sensor_distance_px(width))
    suspicions = lines_of_picture(made.found.depth_m, made.found.aif, picture.pixels)
    details = (lens.describe(), *(lens.relative if takes_lens(net) else ()), *suspicions)
    contents[".json"] = record(results, [*contents])
    written = [stem.with_name(stem.name + ending) for ending in contents]
    for target in written:
        if target.resolve() in inputs:
            raise PictureError(f"{path}: its result {target} would replace one of the pictures, choose another --out")
    for target, content in zip(written, contents.values(), strict=True):
        write_atomically(target, content)
    if frames and config.film == "mp4":
        written.append(stem.with_name(stem.name + "_rack.mp4"))
        write_mp4(written[-1], frames)
    return Outcome(source=str(path), files=tuple(written), text=", ".join(text), details=details)


def _resized(picture: Picture, size: tuple[int, int] | None) -> Picture:
    if size is None or picture.pixels.shape[:2] == size:
        return picture
    how = cv2.INTER_AREA if size[0] < picture.pixels.shape[0] else cv2.INTER_LINEAR
    pixels, alpha = (
        None if a is None else cv2.resize(a, size[::-1], interpolation=how) for a in (picture.pixels, picture.alpha)
    )
    return replace(picture, pixels=np.asarray(pixels), alpha=None if alpha is None else np.asarray(alpha))
