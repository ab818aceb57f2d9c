"""`predict_files`: pictures in files -> restored pictures, depth maps and refocused pictures in files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import DefocusSimError
from defocus_sim.lens import Lens
from dfd_train.config.places import require_local
from dfd_train.distributed.device import pick_device
from dfd_train.errors import ConfigError, DfdTrainError, PictureError
from dfd_train.evaluation.figures import colour
from dfd_train.files import write_atomically
from dfd_train.model.build import Model
from dfd_train.model.load import load_network
from dfd_train.prediction.images import (
    FILMS,
    Picture,
    find_pictures,
    gif_bytes,
    output_names,
    png_bytes,
    read_picture,
    write_mp4,
)
from dfd_train.prediction.predict import SMALLEST_SIDE, predict, require_one_picture
from dfd_train.prediction.refocus import rack_focus, refocus
from dfd_train.prediction.tiling import Tiling
from dfd_train.runs.checkpoint import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """A prediction for files.

    `images`: files, folders, glob patterns. `checkpoint`: a run's folder or a file. `out`: folder for the results.
    `tiling`: see `Tiling`. `size`: (height, width) that pictures are reduced to first, which also shrinks their blur;
    None = as they are. `refocus_m`: focus distances to render the restored picture at. `lens`: the camera for that
    (its own focus distance is not used). `film`: "gif" or "mp4", made where there are several distances.

    Raises `ConfigError` for an impossible value.
    """

    images: tuple[str, ...]
    checkpoint: str
    out: str
    device: str = "auto"
    tiling: Tiling = field(default_factory=Tiling)
    size: tuple[int, int] | None = None
    refocus_m: tuple[float, ...] = ()
    lens: Lens | None = None
    film: str = "gif"

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("there is no picture to predict: name files, folders or patterns")
        if self.size is not None and min(self.size) < SMALLEST_SIDE:
            raise ConfigError(f"size={self.size} must be at least {SMALLEST_SIDE} pixels a side")
        require_local("out", self.out)
        if self.film not in FILMS:
            raise ConfigError(f"film={self.film!r} must be one of {', '.join(FILMS)}")
        if self.refocus_m and self.lens is None:
            raise ConfigError("refocusing needs a lens: pass lens=Lens.preset('paper', f_number=2)")
        if self.lens is not None:
            for distance in self.refocus_m:
                self.lens.at_focus(distance)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture: the files written and a line about them, or `error`, one line."""

    source: str
    files: tuple[Path, ...] = ()
    text: str = ""
    error: str | None = None


def predict_files(config: PredictConfig) -> Iterator[Outcome]:
    """Predict every picture, one `Outcome` each; a picture that cannot be used does not stop the others.

    Raises `CheckpointError`, `ConfigError` or `LensError` before the first picture, and `PictureError` where the folder
    `out` cannot be made.
    """
    checkpoint = load_checkpoint(Path(config.checkpoint))
    net = load_network(checkpoint.config.model, checkpoint.evaluated, pick_device(config.device))
    require_one_picture(net.config)
    if config.refocus_m and set(net.config.heads) != {"depth", "aif"}:
        raise ConfigError(f"refocusing needs both heads; this checkpoint has {', '.join(net.config.heads)}")
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"cannot make the folder {out}: {error.strerror or error}") from error
    files, problems = find_pictures(config.images)
    for problem in problems:
        yield Outcome(source=problem.split(" ")[0], error=problem)
    inputs = {path.resolve() for path in files}
    for path, name in zip(files, output_names(files), strict=True):
        try:
            yield _predict_file(net, config, path, out / name, inputs)
        except (DfdTrainError, DefocusSimError) as error:
            text = str(error)
            yield Outcome(source=str(path), error=text if str(path) in text else f"{path}: {text}")
        except OSError as error:
            yield Outcome(source=str(path), error=f"{path}: cannot write to {out}: {error.strerror or error}")


def _predict_file(net: Model, config: PredictConfig, path: Path, stem: Path, inputs: AbstractSet[Path]) -> Outcome:
    picture = _resized(read_picture(path), config.size)
    height, width = picture.pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise PictureError(f"{path} is {width}x{height} pixels: a picture needs at least {SMALLEST_SIDE} a side")
    found = predict(net, picture.pixels, tiling=config.tiling)
    contents: dict[str, bytes] = {}
    text = [f"{width}x{height}", *picture.notes]
    if found.aif is not None:
        contents["_restored.png"] = png_bytes(found.aif, like=picture)
    if found.depth_m is not None:
        low, high = (float(v) for v in np.percentile(found.depth_m, (1, 99)))
        text.append(f"depth {low:.2f} to {high:.2f} m")
        everywhere = np.ones(found.depth_m.shape, bool)
        contents["_depth.png"] = png_bytes(depth_millimetres(found.depth_m))
        contents["_depth_colour.png"] = png_bytes(colour(found.depth_m, low, high, everywhere, cv2.COLORMAP_VIRIDIS))
        contents["_depth.npy"] = npy_bytes(found.depth_m)
    frames: list[NDArray[np.uint8]] = []
    if config.lens is not None and found.aif is not None and found.depth_m is not None:
        for distance in config.refocus_m:
            seen = refocus(found.aif, found.depth_m, config.lens.at_focus(distance))
            contents[f"_refocus_{distance:g}m.png"] = png_bytes(seen, like=picture)
        if len(config.refocus_m) > 1:
            frames = rack_focus(found.aif, found.depth_m, config.lens, config.refocus_m)
    if frames and config.film == "gif":
        contents["_rack.gif"] = gif_bytes(frames)
    written = [stem.with_name(stem.name + ending) for ending in contents]
    for target in written:
        if target.resolve() in inputs:
            raise PictureError(f"{path}: its result {target} would replace one of the pictures, choose another --out")
    for target, content in zip(written, contents.values(), strict=True):
        write_atomically(target, content)
    if frames and config.film == "mp4":
        written.append(stem.with_name(stem.name + "_rack.mp4"))
        write_mp4(written[-1], frames)
    return Outcome(source=str(path), files=tuple(written), text=", ".join(text))


def _resized(picture: Picture, size: tuple[int, int] | None) -> Picture:
    if size is None or picture.pixels.shape[:2] == size:
        return picture
    how = cv2.INTER_AREA if size[0] < picture.pixels.shape[0] else cv2.INTER_LINEAR
    pixels, alpha = (
        None if a is None else cv2.resize(a, size[::-1], interpolation=how) for a in (picture.pixels, picture.alpha)
    )
    return replace(picture, pixels=np.asarray(pixels), alpha=None if alpha is None else np.asarray(alpha))


def depth_millimetres(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    """`depth_m` (H, W) as whole millimetres, 1 to 65,535; what is farther than 65.5 m says 65,535."""
    return np.clip(np.rint(depth_m.astype(np.float64) * 1000), 1, np.iinfo(np.uint16).max).astype(np.uint16)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """`array` as a `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
