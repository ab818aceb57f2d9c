"""`load("runs/a")` a trained network; `predict(model, image)`: a picture of any size -> restored, and its depth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defocus_sim.lens import Lens
from dfd_train.config.model import DEFAULT_WEIGHTS, OF_THE_LENS, ModelConfig
from dfd_train.distributed.device import pick_device
from dfd_train.errors import CheckpointMissingError, ConfigError, NonFiniteError
from dfd_train.evaluation.metrics import NEAREST_M
from dfd_train.model.build import CameraNet, Model, run_model
from dfd_train.model.load import load_network
from dfd_train.model.reading import read_sides
from dfd_train.optics.camera import SCALE_X, SCALE_Y, camera_of, rows_of
from dfd_train.optics.fill import filled_by_certainty
from dfd_train.prediction.tiling import Tiling, axis_tiles
from dfd_train.runs.checkpoint import find_checkpoint, load_checkpoint
from dfd_train.runs.weights_file import SUFFIX, packaged_weights, read_weights

# One cell of the network's deepest map: in anything smaller there is no blur to tell a depth from.
SMALLEST_SIDE = 32
_BAND_ROWS = 256
# A layout is read at the size of the frames that a network has seen and at this multiple of its sides; in a picture whose
# sides are no longer than the other multiple of theirs as it is.
_LARGER_LAYOUT, _HARDLY_LARGER = 1.5, 1.2
# What of a model's output is used, and its shape beside (H, W).
_ANSWERS: dict[str, tuple[int, ...]] = {"depth_m": (), "depth_sigma_m": (), "coc_px": (), "aif": (3,)}
# Of one that answers width and side, depth is read when all tiles are there: the average of a near and a far depth is
# neither.
_SIDED: dict[str, tuple[int, ...]] = {"coc_px": (), "log_scale": (), "side_logit": (), "aif": (3,)}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network makes of one picture of H x W pixels; what it does not answer is None.

    `aif`: the restored picture, shape, type and range of the input. `depth_m`: (H, W) float32 metres, at least 0.001,
    not limited above. `depth_sigma_m`: (H, W) float32 metres, how uncertain the depth is: the scale of a Laplace
    distribution, which is its expected error. `coc_px`: (H, W) float32, the width of the circle of confusion in px that a
    network which answers it sees, whatever the lens.
    """

    aif: NDArray[Any] | None
    depth_m: NDArray[np.float32] | None
    depth_sigma_m: NDArray[np.float32] | None = None
    coc_px: NDArray[np.float32] | None = None


def load(place: str | Path, device: str = "cpu") -> Model:
    """A network for evaluation.

    Parameters
    ----------
    place
        A run's folder (its best checkpoint, else the newest), `RUN@last`, `RUN@best`, a file, or the name of weights that
        come with the installation, such as "any-lens". The weights of a run are the averaged ones where it kept them.
    device
        "auto", "cpu", "cuda:1".

    Returns
    -------
    Model
        The network in evaluation mode.

    Raises
    ------
    CheckpointMissingError, CheckpointError
        Where there is no checkpoint, or it is damaged.
    ConfigError
        Where there is no such device.
    """
    packaged = packaged_weights(str(place))
    if packaged is not None or str(place).endswith(SUFFIX):
        return load_network(*read_weights(packaged or Path(place)), pick_device(device))
    if str(place) == DEFAULT_WEIGHTS and not Path(place).exists():
        raise CheckpointMissingError(
            f"this installation has no weights of its own ({DEFAULT_WEIGHTS}): name a run or a file with --checkpoint, "
            f"which dfd-train makes"
        )
    checkpoint = load_checkpoint(find_checkpoint(place))
    return load_network(checkpoint.config.model, checkpoint.evaluated, pick_device(device))


@torch.inference_mode()
def predict(
    model: Model, image: NDArray[Any], *, tiling: Tiling | None = None, lens: Lens | None = None, told: bool = True
) -> Prediction:
    """Restore a picture and predict its depth, tile by tile on the model's device.

    Memory beside the results is that of one tile. Neighbouring tiles overlap and are blended;
    `Tiling.exact_for(receptive_radius(model.config))` says whether the result is that of a single pass.

    Parameters
    ----------
    model
        In evaluation mode, see `load`.
    image
        (H, W, 3) or (H, W) sRGB; uint8, uint16 or floating in [0, 1]; any size from 1x1.
    tiling
        Size and overlap of tiles.
    lens
        The picture's, for a model that is told it (`takes_lens`); None: the one that model assumes.
    told
        False for a `lens` whose focus distance is a guess: a model that learned to do without then reads the picture alone,
        and the lens turns its answer into metres.

    Returns
    -------
    Prediction
        What the network's heads say.

    Raises
    ------
    ConfigError
        For an array that is no picture, a model in training mode or one that compares two pictures.
    NonFiniteError
        Where the network's output is NaN or infinite.
    """
    raw = predict_raw(model, image, tiling=tiling, lens=lens, told=told)
    return raw if raw.aif is None else replace(raw, aif=as_input(raw.aif, image))


@torch.inference_mode()
def predict_raw(
    model: Model, image: NDArray[Any], *, tiling: Tiling | None = None, lens: Lens | None = None, told: bool = True
) -> Prediction:
    """As `predict`, not clamped.

    Parameters
    ----------
    model, image, tiling, lens, told
        As for `predict`.

    Returns
    -------
    Prediction
        `aif` is (H, W, 3) float32 as the network gives it: nominally in [0, 1].
    """
    if model.training:
        raise ConfigError("the model is in training mode: call model.eval() before predicting with it")
    require_one_picture(model.config)
    scale = full_scale(image)
    tiling = tiling or Tiling()
    camera = None
    if lens is not None and takes_lens(model):
        camera = camera_of(lens, (image.shape[0], image.shape[1]))[None].to(next(model.parameters()).device)
    elif isinstance(model, CameraNet):
        # That of its training, which a network that can do without is not told.
        camera, told = model.camera[None], not model.config.lens_hidden
    sided = model.config.predict == "coc+side"
    totals = _answers_of(model, image, scale, tiling, camera, told)
    if sided and camera is not None and "coc_px" in totals:
        totals["side_logit"] = _side_by_layout(model, image, scale, tiling, camera, told, totals["side_logit"])
        totals |= _read_sides(totals, camera, told, image, scale)
    if "depth_m" in totals:
        np.maximum(totals["depth_m"], np.float32(NEAREST_M), out=totals["depth_m"])
    return Prediction(**{"aif": None, "depth_m": None, **totals})


def _answers_of(
    model: Model, image: NDArray[Any], white: float, tiling: Tiling, camera: Tensor | None, told: bool
) -> dict[str, NDArray[np.float32]]:
    """What the network answers for a picture, (H, W) or (H, W, 3) by name, put together of its tiles."""
    answers = _SIDED if model.config.predict == "coc+side" else _ANSWERS
    device = next(model.parameters()).device
    height, width = image.shape[:2]
    totals: dict[str, NDArray[np.float32]] = {}
    for rows in axis_tiles(height, tiling):
        for columns in axis_tiles(width, tiling):
            at = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
            pixels = torch.from_numpy(np.ascontiguousarray(image[at]).astype(np.float32)).to(device).div_(white)
            output = run_model(
                model,
                (pixels if pixels.dim() == 3 else pixels[..., None].expand(-1, -1, 3)).permute(2, 0, 1)[None],
                None if camera is None else rows_of(camera, [rows.start], rows.stop - rows.start, height),
                told=told,
            )
            weights = np.outer(rows.weights, columns.weights)
            parts = output._asdict()
            if model.config.predict in OF_THE_LENS and output.answer is not None:
                # Without its sign, which may differ between tiles that are averaged.
                parts["coc_px"] = output.answer.abs()
            for name, part in parts.items():
                if part is None or name not in answers:
                    continue
                if name not in totals:
                    totals[name] = np.zeros((height, width, *answers[name]), np.float32)
                _add(totals[name][at], part[0].permute(1, 2, 0).float().cpu().numpy(), weights)
    return totals


def layout_scales(picture_hw: tuple[int, ...], frame_hw: tuple[int, int] | None) -> tuple[float, ...]:
    """Shares of a picture's sides at which a network that saw frames of `frame_hw` reads how the scene is laid out.

    Parameters
    ----------
    picture_hw
        Height and width in px.
    frame_hw
        `ModelConfig.frame_hw`.

    Returns
    -------
    tuple[float, ...]
        Those at which the picture has the area of a frame, and of one with sides half as long again; (1.0,) for a picture
        that is hardly larger than a frame, and where it is not known what the network saw.
    """
    if frame_hw is None:
        return (1.0,)
    frames = math.sqrt(math.prod(picture_hw[:2]) / math.prod(frame_hw))
    if frames < _HARDLY_LARGER:
        return (1.0,)
    return (1 / frames, min(_LARGER_LAYOUT / frames, 1.0))


def _side_by_layout(
    model: Model,
    image: NDArray[Any],
    white: float,
    tiling: Tiling,
    camera: Tensor,
    told: bool,
    side_logit: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The log-odds of nearer than the focus, of the whole picture at the sizes of `layout_scales`; the mean of them.

    `side_logit`: as read at the picture's own size. On which side of the focus a surface is shows in how a scene is laid
    out, which a network does not recognise in a picture much larger than what it has seen.
    """
    height, width = side_logit.shape
    scales = layout_scales((height, width), model.config.frame_hw)
    total = np.zeros_like(side_logit)
    for scale in scales:
        if scale == 1:
            total += side_logit
            continue
        hw = (max(round(height * scale), 1), max(round(width * scale), 1))
        smaller = cv2.resize(np.asarray(image, np.float32), (hw[1], hw[0]), interpolation=cv2.INTER_AREA)
        of_smaller = camera.clone()
        of_smaller[:, SCALE_Y] *= hw[0] / height
        of_smaller[:, SCALE_X] *= hw[1] / width
        read = _answers_of(model, smaller, white, tiling, of_smaller, told)["side_logit"]
        total += cv2.resize(read, (width, height), interpolation=cv2.INTER_LINEAR)
    return total / np.float32(len(scales))


def _read_sides(
    totals: dict[str, NDArray[np.float32]], camera: Tensor, told: bool, image: NDArray[Any], white: float
) -> dict[str, NDArray[np.float32]]:
    """Depth, and its uncertainty where there is one, of blended answers, which are taken out; in bands.

    Where the network says how sure it is, surfaces without detail take their width and side from their surroundings.
    """
    width_px, logit, log_scale = totals["coc_px"], totals.pop("side_logit"), totals.pop("log_scale", None)
    if log_scale is not None:
        pixels = image.astype(np.float32) / np.float32(white)
        grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
        # The scale as well: its steps from pixel to pixel are the network's lattice and nothing of the scene.
        answers, least, most = [width_px, logit, log_scale], log_scale.min(), log_scale.max()
        width_px, logit, log_scale = filled_by_certainty(answers, np.exp(log_scale), grey)
        np.maximum(width_px, 0, out=width_px)
        np.clip(log_scale, least, most, out=log_scale)
    found = {"depth_m": np.empty_like(width_px)}
    if log_scale is not None:
        found["depth_sigma_m"] = np.empty_like(width_px)
    known = torch.tensor([told], device=camera.device)
    for top in range(0, len(width_px), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)

        def plane(array: NDArray[np.float32], rows: slice = rows) -> Tensor:
            return torch.from_numpy(array[rows])[None, None].to(camera.device)

        scale = None if log_scale is None else plane(log_scale)
        read = read_sides(plane(width_px), scale, plane(logit), camera, known)._asdict()
        for name, into in found.items():
            into[rows] = read[name][0, 0].cpu().numpy()
    return found


def takes_lens(model: Model) -> bool:
    """Whether a model is told the lens beside the picture, so that its depth is for that lens.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    bool
        Whether it is.
    """
    return isinstance(model, CameraNet)


def require_one_picture(config: ModelConfig) -> None:
    """Refuse a model that takes more than one picture of a scene.

    Parameters
    ----------
    config
        The model's.

    Raises
    ------
    ConfigError
        For such a model.
    """
    if config.about.pictures > 1:
        raise ConfigError(
            f"the model {config.name} compares {config.about.pictures} pictures of a scene focused differently: one "
            f"picture is not enough; score it with dfd-eval on a store made with --focus 1m,4m"
        )


def _add(total: NDArray[np.float32], part: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    if not np.isfinite(part).all():
        raise NonFiniteError("the network's output is NaN or infinite on this picture: the checkpoint is damaged")
    total += part[..., 0] * weights if total.ndim == 2 else part * weights[..., None]


def full_scale(image: NDArray[Any]) -> float:
    """The value of white in a picture.

    Parameters
    ----------
    image
        As for `predict`.

    Returns
    -------
    float
        255, 65535 or 1.

    Raises
    ------
    ConfigError
        For what is no picture.
    """
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


def as_input(aif: NDArray[np.float32], image: NDArray[Any]) -> NDArray[Any]:
    """A restored picture in shape and type of the one that was given; in bands, as the copies would be large.

    Parameters
    ----------
    aif
        (H, W, 3), which is clamped to [0, 1].
    image
        The picture that was given.

    Returns
    -------
    NDArray[Any]
        Like `image`.
    """
    scale = full_scale(image)
    result = np.empty_like(image)
    for top in range(0, len(aif), _BAND_ROWS):
        band = np.clip(aif[top : top + _BAND_ROWS], 0, 1) * np.float32(scale)
        band = band if image.ndim == 3 else band.mean(axis=2)
        result[top : top + _BAND_ROWS] = band if image.dtype.kind == "f" else np.rint(band)
    return result
