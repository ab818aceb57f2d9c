"""A network against a split: one implementation for validation during training and for the final report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfd_train.data.order import batched
from dfd_train.data.stream import Batch, ShardDataset, stream_batches
from dfd_train.data.transforms import Frames, evaluation_frames
from dfd_train.errors import EvaluationError
from dfd_train.metrics import DEFAULT_CAP_M, NEAREST_M, ImageScore, depth_sums, image_sums
from dfd_train.model.two_headed import Output, TwoHeadedNet


class SampleScore(NamedTuple):
    """One sample: its position in the split, the prediction's sums, and those of doing nothing.

    `untouched`: the defocused input taken as the restored image, and the constant depth taken as the depth map.
    """

    position: int
    predicted: ImageScore
    untouched: ImageScore


@torch.inference_mode()
def predict_frames(
    net: TwoHeadedNet, batch: Batch, size: tuple[int, int] | None, device: torch.device
) -> tuple[Frames, Output]:
    """`batch` as the frames the network sees at `size` (None = native), and what it makes of them."""
    frames = evaluation_frames(batch, size, device)
    return frames, net(frames.defocused)


def score_split(
    net: TwoHeadedNet,
    dataset: ShardDataset,
    *,
    size: tuple[int, int] | None,
    device: torch.device,
    batch_size: int = 8,
    limit: int | None = None,
    cap_m: float = DEFAULT_CAP_M,
    constant_depth_m: float | None = None,
    prefetch: int = 2,
) -> Iterator[SampleScore]:
    """Score the first `limit` samples (all for None) of `dataset`, one after the other.

    `net`: in evaluation mode, on `device`. `size`: (height, width) that frames are resized to, None = native.
    `constant_depth_m`: the depth map of doing nothing. Raises `EvaluationError` naming a sample that cannot be scored.
    """
    order = np.arange(len(dataset) if limit is None else min(limit, len(dataset)), dtype=np.int64)
    for batch in stream_batches(dataset, batched(order, batch_size), prefetch=prefetch):
        frames, output = predict_frames(net, batch, size, device)
        yield from _score_batch(frames, output, batch.indices.tolist(), dataset.names, cap_m, constant_depth_m)


@torch.inference_mode()
def _score_batch(
    frames: Frames, output: Output, indices: Sequence[int], names: Sequence[str], cap_m: float, constant: float | None
) -> Iterator[SampleScore]:
    # Image by image, so that a sample's digits do not depend on what else is in its batch.
    for row, index in enumerate(indices):
        name, truth = names[index], frames.depth_m[row, 0]
        predicted, untouched = ImageScore(name=name), ImageScore(name=name)
        if output.depth_m is not None:
            predicted = _with_depth(predicted, output.depth_m[row, 0], truth, cap_m)
            if constant is not None:
                untouched = _with_depth(untouched, torch.full_like(truth, constant), truth, cap_m)
        if output.aif is not None:
            predicted = _with_image(predicted, output.aif[row], frames.aif[row])
            untouched = _with_image(untouched, frames.defocused[row], frames.aif[row])
        yield SampleScore(index, predicted, untouched)


def _with_depth(score: ImageScore, predicted_m: Tensor, depth_m: Tensor, cap_m: float) -> ImageScore:
    sums = depth_sums(predicted_m, depth_m, name=score.name, cap_m=cap_m)
    return ImageScore(name=score.name, depth=sums, image=score.image)


def _with_image(score: ImageScore, predicted: Tensor, aif: Tensor) -> ImageScore:
    return ImageScore(name=score.name, depth=score.depth, image=image_sums(predicted, aif, name=score.name))


def mean_depth_m(dataset: ShardDataset, cap_m: float = DEFAULT_CAP_M, batch_size: int = 16) -> float:
    """Mean depth in metres over all pixels of `dataset` with `1e-3 < depth < cap_m`, at the frames' own size.

    The constant that a predictor without eyes would learn. Raises `EvaluationError` where there is no such pixel.
    """
    total, count = [], 0
    for indices in batched(np.arange(len(dataset), dtype=np.int64), batch_size):
        depth = dataset.split.read(indices, fields=("depth_m",))["depth_m"]
        counted = depth[(depth > NEAREST_M) & (depth < cap_m)]
        total.append(float(counted.sum(dtype=np.float64)))
        count += counted.size
    if count == 0:
        raise EvaluationError(f"{dataset.path}: split {dataset.split_name} has no depth below {cap_m} m")
    return math.fsum(total) / count
