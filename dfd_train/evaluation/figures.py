"""`predictions.png`: a few samples as rows of labelled pictures, composed with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defocus_sim.pictures.depth_colours import (
    depth_colours,
    depth_range_m,
    error_colours,
    with_depth_bar,
    with_error_bar,
)
from dfd_train.data.stream import ShardDataset
from dfd_train.data.transforms import Frames
from dfd_train.evaluation.metrics import ImageScore
from dfd_train.evaluation.scoring import first_picture, predict_samples
from dfd_train.model.build import Model
from dfd_train.model.two_headed import Output

LARGEST_CELL_PX = 320
SMALLEST_CELL_PX = 192
GAP_PX = 4
LABEL_PX = 20
Picture = NDArray[np.uint8]


def choose_samples(scores: Sequence[ImageScore], count: int) -> list[tuple[int, str]]:
    """Up to `count` of `scores` from the best to the worst, evenly spaced in rank, so the median is among them.

    Ranked by PSNR, or by RMSE where no image was scored. Returns (position in `scores`, label) pairs.
    """
    if not scores or count == 0:
        return []

    def badness(position: int) -> float:
        metrics = scores[position].metrics()
        return -metrics["psnr"] if "psnr" in metrics else metrics["rmse"]

    ranked = sorted(range(len(scores)), key=badness)
    count = min(count, len(ranked))
    ranks = [round(k * (len(ranked) - 1) / max(count - 1, 1)) for k in range(count)]
    by = "PSNR" if all("psnr" in score.metrics() for score in scores) else "RMSE"
    words = {(count - 1) / 2: f"median by {by}", count - 1: f"worst by {by}", 0: f"best by {by}"}
    return [(ranked[rank], words.get(k, f"rank {rank + 1} of {len(ranked)} by {by}")) for k, rank in enumerate(ranks)]


def predictions_sheet(
    net: Model,
    dataset: ShardDataset,
    samples: Sequence[tuple[int, str]],
    *,
    size: tuple[int, int] | None,
    device: torch.device,
    cap_m: float,
) -> Picture:
    """One row for each of `samples` (index, label): defocused | AiF | restored | depth | predicted | error.

    Depths share one colour range, from the nearest (bright) to the farthest true depth of all rows below `cap_m`; errors
    share another; both with a bar in metres. Holes are grey. `size` as in `score_split`. Returns (H, W, 3) uint8 RGB.
    """
    rows = []
    for index, label in samples:
        frames, output = _seen(net, dataset, index, size, device)
        depth = frames.depth_m[0, 0].cpu().numpy()
        rows.append(
            _Row(
                label=f"{label}: {dataset.names[index]}",
                defocused=_rgb(first_picture(frames)),
                aif=_rgb(frames.aif),
                restored=None if output.aif is None else _rgb(output.aif),
                depth_m=np.where(depth < cap_m, depth, np.float32(0)),
                predicted_m=None if output.depth_m is None else output.depth_m[0, 0].cpu().numpy(),
            )
        )
    true = np.concatenate([row.depth_m[row.depth_m > 0] for row in rows])
    low, high = (float(true.min()), float(true.max())) if true.size else (0.0, 1.0)
    errors = np.concatenate([row.error_m()[row.depth_m > 0] for row in rows])
    # A percentile, since one wild pixel would turn every other error dark.
    worst = max(float(np.percentile(errors, 98)), 1e-3) if errors.size else 1.0
    bands = [_band(row, low, high, worst) for row in rows]
    return np.concatenate([part for band in bands for part in (band, _blank(GAP_PX, band.shape[1]))])


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Pictures of one sample, (H, W, 3) uint8 RGB each, by their caption; `patches` is the most blurred part, enlarged."""

    title: str
    pictures: Mapping[str, Picture]
    patches: Mapping[str, Picture]


def show_samples(
    networks: Mapping[str, tuple[Model, tuple[int, int] | None]],
    dataset: ShardDataset,
    samples: Sequence[tuple[int, str]],
    *,
    device: torch.device,
    cap_m: float,
) -> list[Shown]:
    """Each of `samples` (index, label) as every network sees it; `networks`: (network, size to score at) by name.

    Depth from its nearest to its farthest true value in this image, errors from 0 to a quarter of that range.
    """
    shown = []
    for index, label in samples:
        pictures: dict[str, Picture] = {}
        patches: dict[str, Picture] = {}
        for name, (net, size) in networks.items():
            frames, output = _seen(net, dataset, index, size, device)
            of = "" if len(networks) == 1 else f" ({name})"
            defocused, aif = _rgb(first_picture(frames)), _rgb(frames.aif)
            depth = frames.depth_m[0, 0].cpu().numpy()
            valid = (depth > 0) & (depth < cap_m)
            low, high = depth_range_m(depth, valid)
            at = _most_blurred(defocused, aif)
            if not pictures:
                pictures |= {f"defocused {_psnr(defocused, aif)}": defocused, "all-in-focus": aif}
                patches |= {"defocused": defocused[at], "all-in-focus": aif[at]}
            if output.aif is not None:
                restored = _rgb(output.aif)
                pictures[f"restored{of} {_psnr(restored, aif)}"] = restored
                patches[f"restored{of}"] = restored[at]
            if output.depth_m is not None:
                made = output.depth_m[0, 0].cpu().numpy()
                error = np.abs(made - depth)
                span, everywhere = max(high - low, 0.1) / 4, np.ones_like(valid)
                pictures.setdefault(f"depth {low:.2f} to {high:.2f} m", depth_with_bar(depth, low, high, valid))
                pictures[f"predicted depth{of}"] = depth_with_bar(made, low, high, everywhere)
                pictures[f"depth error{of} 0 to {span:.2f} m"] = with_error_bar(error_colours(error, span, valid), span)
        shown.append(Shown(title=f"{label}: {dataset.names[index]}", pictures=pictures, patches=patches))
    return shown


def _seen(
    net: Model, dataset: ShardDataset, index: int, size: tuple[int, int] | None, device: torch.device
) -> tuple[Frames, Output]:
    """Sample `index` and what `net` makes of it."""
    ((_, frames, output),) = predict_samples(net, dataset, dataset.read(np.array([index])), size, device)
    return frames, output


def _most_blurred(defocused: Picture, aif: Picture) -> tuple[slice, slice]:
    """The window, a quarter of the frame and at most 64 pixels a side, where blur has changed most."""
    height, width = (min(max(side // 4, 8), 64, side) for side in aif.shape[:2])
    change = ((defocused.astype(np.float32) - aif) ** 2).mean(axis=2)
    sums = cv2.boxFilter(change, -1, (width, height), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
    inside = sums[: aif.shape[0] - height + 1, : aif.shape[1] - width + 1]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


@dataclass(frozen=True, kw_only=True)
class _Row:
    label: str
    defocused: Picture
    aif: Picture
    restored: Picture | None
    depth_m: NDArray[np.float32]
    predicted_m: NDArray[np.float32] | None

    def error_m(self) -> NDArray[np.float32]:
        """|predicted - true|, 0 without a depth head."""
        return np.zeros_like(self.depth_m) if self.predicted_m is None else np.abs(self.predicted_m - self.depth_m)


def _band(row: _Row, low: float, high: float, worst: float) -> Picture:
    depth_bar, error_bar = partial(with_depth_bar, near_m=low, far_m=high), partial(with_error_bar, largest=worst)
    valid = row.depth_m > 0
    cells = [_labelled("defocused", row.defocused), _labelled("all-in-focus", row.aif)]
    if row.restored is not None:
        cells.append(_labelled(f"restored {_psnr(row.restored, row.aif)}", row.restored))
    depth = depth_colours(row.depth_m, low, high, valid)
    cells.append(_labelled(f"depth {low:.2f}-{high:.2f} m", depth, depth_bar))
    if row.predicted_m is not None:
        predicted = depth_colours(row.predicted_m, low, high, np.ones_like(valid))
        error = error_colours(row.error_m(), worst, valid)
        cells.append(_labelled("predicted depth", predicted, depth_bar))
        cells.append(_labelled(f"depth error 0-{worst:.2f} m", error, error_bar))
    pictures = np.concatenate(cells, axis=1)
    return np.concatenate([_text_line(row.label, pictures.shape[1]), pictures])


def depth_with_bar(depth_m: NDArray[Any], near_m: float, far_m: float, shown: NDArray[np.bool_]) -> Picture:
    """`depth_m` (H, W) as `depth_colours` shows it, with its bar."""
    return with_depth_bar(depth_colours(depth_m, near_m, far_m, shown), near_m, far_m)


def _rgb(image: Tensor) -> Picture:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _psnr(restored: Picture, aif: Picture) -> str:
    mean_square = float(np.mean((restored.astype(np.float64) - aif) ** 2))
    return f"{10 * math.log10(255**2 / mean_square):.1f} dB" if mean_square > 0 else "exact"


def _labelled(text: str, picture: Picture, bar: Callable[[Picture], Picture] | None = None) -> Picture:
    """`picture` at a size for looking, with the bar that `bar` draws beside it, below a line of text.

    The bar comes after the picture has its size, so that its numbers can be read.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, LARGEST_CELL_PX / width) if width >= SMALLEST_CELL_PX else SMALLEST_CELL_PX / width
    # Enlarged pixels stay squares: a smooth enlargement would look like blur that is not there.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    cell = cv2.resize(picture, (round(width * scale), max(round(height * scale), 1)), interpolation=how)
    shown: Picture = np.asarray(cell, np.uint8)
    shown = shown if bar is None else bar(shown)
    body = np.concatenate([_text_line(text, shown.shape[1]), shown])
    return np.concatenate([body, np.full((len(body), GAP_PX, 3), 255, np.uint8)], axis=1)


def _text_line(text: str, width: int) -> Picture:
    line = _blank(LABEL_PX, width)
    cv2.putText(line, text, (2, LABEL_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 20), 1, cv2.LINE_AA)
    return line


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 255, np.uint8)
