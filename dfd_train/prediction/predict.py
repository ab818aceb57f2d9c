"""`predict(model, image)`: a picture of any size -> the restored picture and its depth; `predict_files`: files to files."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from defocus_sim.errors import DefocusSimError
from defocus_sim.lens import Lens
from defocus_sim.simulate import defocus
from dfd_train.distributed.device import pick_device
from dfd_train.errors import ConfigError, DfdTrainError, NonFiniteError, PictureError
from dfd_train.evaluation.evaluate import load_network
from dfd_train.evaluation.figures import colour
from dfd_train.evaluation.metrics import NEAREST_M
from dfd_train.model.build import Model
from dfd_train.model.config import ModelConfig
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
from dfd_train.prediction.tiling import Tiling, axis_tiles
from dfd_train.runs.checkpoint import load_checkpoint, write_atomically

# Blur wider than this share of the picture is never wanted, and one wild depth would cost minutes.
LARGEST_COC_SHARE = 0.1
FRAMES_BETWEEN = 10
# One cell of the network's deepest map: in anything smaller there is no blur to tell a depth from.
SMALLEST_SIDE = 32
_BAND_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network makes of one picture of H x W pixels; a head that it lacks gives None.

    `aif`: the restored picture, shape, type and range of the input. `depth_m`: (H, W) float32 metres, at least 0.001,
    not limited above.
    """

    aif: NDArray[Any] | None
    depth_m: NDArray[np.float32] | None


@torch.inference_mode()
def predict(model: Model, image: NDArray[Any], *, tiling: Tiling | None = None) -> Prediction:
    """Restore `image` and predict its depth, tile by tile on the model's device.

    `model`: in evaluation mode, see `evaluation.load_network`. `image`: (H, W, 3) or (H, W) sRGB; uint8, uint16 or
    floating in [0, 1]; any size from 1x1. Memory beside the results is that of one tile. Neighbouring tiles overlap and
    are blended; `Tiling.exact_for(receptive_radius(model.config))` says whether the result is that of a single pass.

    Raises `ConfigError` for an array that is no picture, a model in training mode or one that compares two pictures,
    `NonFiniteError` where the
    network's output is NaN or infinite.
    """
    if model.training:
        raise ConfigError("the model is in training mode: call model.eval() before predicting with it")
    require_one_picture(model.config)
    scale = _full_scale(image)
    tiling = tiling or Tiling()
    device = next(model.parameters()).device
    height, width = image.shape[:2]
    depth = np.zeros((height, width), np.float32) if "depth" in model.config.heads else None
    aif = np.zeros((height, width, 3), np.float32) if "aif" in model.config.heads else None
    for rows in axis_tiles(height, tiling):
        for columns in axis_tiles(width, tiling):
            at = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
            pixels = torch.from_numpy(np.ascontiguousarray(image[at]).astype(np.float32)).to(device).div_(scale)
            output = model(
                (pixels if pixels.dim() == 3 else pixels[..., None].expand(-1, -1, 3)).permute(2, 0, 1)[None]
            )
            weights = np.outer(rows.weights, columns.weights)
            for total, part in ((depth, output.depth_m), (aif, output.aif)):
                if total is not None and part is not None:
                    _add(total[at], part[0].permute(1, 2, 0).float().cpu().numpy(), weights)
    if depth is not None:
        np.maximum(depth, np.float32(NEAREST_M), out=depth)
    return Prediction(aif=None if aif is None else _as_input(aif, image, scale), depth_m=depth)


def require_one_picture(config: ModelConfig) -> None:
    """Raise `ConfigError` for a model that takes more than one picture of a scene."""
    if config.about.pictures > 1:
        raise ConfigError(
            f"the model {config.name} compares {config.about.pictures} pictures of a scene focused differently: one "
            f"picture is not enough; score it with dfd-eval on a store made with --focus 1m,4m"
        )


def _add(total: NDArray[np.float32], part: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    if not np.isfinite(part).all():
        raise NonFiniteError("the network's output is NaN or infinite on this picture: the checkpoint is damaged")
    total += part[..., 0] * weights if total.ndim == 2 else part * weights[..., None]


def _full_scale(image: NDArray[Any]) -> float:
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] != 3):
        raise ConfigError(f"image has shape {image.shape}: (H, W, 3) RGB or (H, W) grey is wanted")
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if image.dtype.kind != "f":
        raise ConfigError(f"image is {image.dtype}: pass uint8, uint16 or floating numbers in [0, 1]")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise ConfigError(f"image spans {low:g} to {high:g}: floating numbers must lie in [0, 1]")
    return 1.0


def _as_input(aif: NDArray[np.float32], image: NDArray[Any], scale: float) -> NDArray[Any]:
    """`aif` (H, W, 3) clamped to [0, 1], in shape and type of `image`; in bands, as the copies would be large."""
    result = np.empty_like(image)
    for top in range(0, len(aif), _BAND_ROWS):
        band = np.clip(aif[top : top + _BAND_ROWS], 0, 1) * np.float32(scale)
        band = band if image.ndim == 3 else band.mean(axis=2)
        result[top : top + _BAND_ROWS] = band if image.dtype.kind == "f" else np.rint(band)
    return result


def refocus(aif: NDArray[Any], depth_m: NDArray[np.float32], lens: Lens) -> NDArray[Any]:
    """The scene as `lens` would have taken it: occlusion-aware layers, a disc, linear light.

    `aif`: (H, W, 3) uint8, uint16 or floating in [0, 1]; returned in the same type. `depth_m`: (H, W) metres. The circle
    of confusion is limited to a tenth of the picture's longer side. Raises `defocus_sim`'s errors for an impossible
    lens or depth.
    """
    largest = max(LARGEST_COC_SHARE * max(depth_m.shape), 1.0)
    limited = replace(lens, max_coc_px=min(lens.max_coc_px or math.inf, largest))
    deep = aif.dtype == np.uint16
    image = aif.astype(np.float32) / np.float32(65535) if deep else aif
    seen = defocus(image, depth_m, limited, mode="layered", psf="disc", linear_light=True)
    return np.rint(seen * 65535).astype(np.uint16) if deep else seen


def rack_focus(
    aif: NDArray[Any], depth_m: NDArray[np.float32], lens: Lens, focus_m: Sequence[float], *, longest_px: int = 640
) -> list[NDArray[np.uint8]]:
    """Frames of a film whose focus goes from the first of `focus_m` to the last and back; (H, W, 3) uint8.

    Between two distances it moves evenly in 1/distance, as a lens turns. Pictures larger than `longest_px` are reduced;
    the blur shrinks with them, as `lens` is described by its sensor's width.
    """
    scale = min(1.0, longest_px / max(depth_m.shape))
    size = (max(round(depth_m.shape[1] * scale), 1), max(round(depth_m.shape[0] * scale), 1))
    eight = (aif / 257).round().astype(np.uint8) if aif.dtype == np.uint16 else aif
    eight = (eight * 255).round().astype(np.uint8) if eight.dtype.kind == "f" else eight
    small = cv2.resize(eight, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    near = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32)
    frames = [refocus(small, near, lens.at_focus(distance)) for distance in focus_steps(focus_m)]
    return frames + frames[-2:0:-1]


def focus_steps(focus_m: Sequence[float], between: int = FRAMES_BETWEEN) -> list[float]:
    """`focus_m` with `between` - 1 distances between any two neighbours, evenly spaced in 1/distance."""
    steps = [float(focus_m[0])]
    for start, stop in pairwise(focus_m):
        steps += [1 / (1 / start + (1 / stop - 1 / start) * k / between) for k in range(1, between + 1)]
    return steps


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
    net = load_network(load_checkpoint(Path(config.checkpoint)), pick_device(config.device))
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
    for path, name in zip(files, output_names(files), strict=True):
        try:
            yield _predict_file(net, config, path, out / name)
        except (DfdTrainError, DefocusSimError) as error:
            text = str(error)
            yield Outcome(source=str(path), error=text if str(path) in text else f"{path}: {text}")
        except OSError as error:
            yield Outcome(source=str(path), error=f"{path}: cannot write to {out}: {error.strerror or error}")


def _predict_file(net: Model, config: PredictConfig, path: Path, stem: Path) -> Outcome:
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
