"""A network against a split: one implementation for validation during training and for the final report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from defocus_sim.lens import Lens, coc_diameter_px, sigma_px
from dfd_train.data.order import batched
from dfd_train.data.stream import Batch, ShardDataset, stream_batches
from dfd_train.data.transforms import Frames, evaluation_frames
from dfd_train.errors import EvaluationError
from dfd_train.evaluation.metrics import DEFAULT_CAP_M, NEAREST_M, ImageScore, depth_sums, image_sums
from dfd_train.evaluation.uncertainty import UncertaintySums, uncertainty_sums
from dfd_train.model.build import CameraNet, run_model
from dfd_train.model.two_headed import Output


class TrueGrid(NamedTuple):
    """True depth of a sample, (h, w) metres with 0 = hole, on a grid that spans the whole frame.

    `z_m`: where `depth_m` is the distance along the ray, the z of the same points: what is predicted, z, is turned into
    a distance of its own by their ratio.
    """

    depth_m: NDArray[np.float32]
    z_m: NDArray[np.float32] | None = None


# The grid of a sample by its name.
Truth = Callable[[str], TrueGrid]
PROFILE_COLUMNS = ("pixels", "scored", "depth_square_m2", "depth_relative", "restored_square", "input_square")
DEPTH_EDGES_M = (0.0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10, 15, 20, 30, 40, 50, 60, 70, 80)
SIGMA_EDGES_PX = (0.0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30)


class Profile(NamedTuple):
    """Sums of one image by true depth and by sigma of its blur, each (bins, 6), float64, columns `PROFILE_COLUMNS`.

    Bins lie between `DEPTH_EDGES_M` and between `SIGMA_EDGES_PX` (in pixels of the stored frame), the last is open.
    "scored" counts the pixels whose depth was scored; image squares are means over the three channels.
    """

    by_depth: NDArray[np.float64]
    by_sigma: NDArray[np.float64]


class SampleScore(NamedTuple):
    """One sample: its position in the split, the prediction's sums, and those of doing nothing.

    `untouched`: the defocused input taken as the restored image, and the constant depth taken as the depth map.
    `profile`, `sides`, `uncertainty`: where they were asked for and there is something to say. `sides`: (2, 4) sums over
    the scored pixels nearer than the focus and over those beyond it: pixels, squared error (m^2), relative error, and
    pixels that were predicted on the other side.
    """

    position: int
    predicted: ImageScore
    untouched: ImageScore
    profile: Profile | None = None
    sides: NDArray[np.float64] | None = None
    uncertainty: UncertaintySums | None = None


@torch.inference_mode()
def predict_samples(
    net: nn.Module, dataset: ShardDataset, batch: Batch, size: tuple[int, int] | None, device: torch.device
) -> Iterator[tuple[int, Frames, Output]]:
    """Each sample of `batch`, of `dataset`, as (its index, the frame at `size` (None = native), what `net` makes of it).

    The network sees one image at a time: convolutions over several sum in another order, and the last bit of a score
    would depend on the batch size.
    """
    frames = evaluation_frames(batch, size, device)
    for row, index in enumerate(batch.indices.tolist()):
        one = Frames(*(array[row : row + 1] for array in frames))
        camera = dataset.cameras(batch.indices[row : row + 1], size) if isinstance(net, CameraNet) else None
        yield index, one, run_model(net, one.defocused, None if camera is None else camera.to(device))


def score_split(
    net: nn.Module,
    dataset: ShardDataset,
    *,
    size: tuple[int, int] | None,
    device: torch.device,
    batch_size: int = 8,
    limit: int | None = None,
    cap_m: float = DEFAULT_CAP_M,
    constant_depth_m: float | None = None,
    prefetch: int = 2,
    indices: Sequence[int] | None = None,
    truth: Truth | None = None,
    profiles: bool = False,
    border_px: int = 0,
) -> Iterator[SampleScore]:
    """Score the first `limit` samples (all for None) of `dataset`, or those of `indices`, one after the other.

    `net`: a model in evaluation mode, on `device`; it sees one image at a time, so `batch_size`, how many are read at
    once, changes no digit. `size`: (height, width) that frames are resized to, None = native.
    `constant_depth_m`: the depth map of doing nothing. `truth`: true depths to score on instead of the store's; the
    prediction is read off at the centres of its cells, bilinearly (see `TrueGrid`). `profiles`: sums by depth and sigma.
    `border_px`: so many pixels (of `size`) at each side are seen by `net` and not scored; not with `truth`.
    Raises `EvaluationError` naming a sample that cannot be scored.
    """
    if indices is None:
        indices = range(len(dataset) if limit is None else min(limit, len(dataset)))
    for batch in stream_batches(dataset, batched(np.asarray(indices, np.int64), batch_size), prefetch=prefetch):
        for index, one, made in predict_samples(net, dataset, batch, size, device):
            one, made = _within(one, border_px), _within(made, border_px)
            if dataset.measured and truth is None and not bool((one.depth_m > 0).any()):
                # A photograph without depth: there is nothing to hold a depth map against.
                made = made._replace(depth_m=None)
                if made.aif is None:
                    raise EvaluationError(f"{dataset.names[index]} has no depth, and the network restores no picture")
            score = _score_one(one, made, index, dataset.names[index], cap_m, constant_depth_m, truth)
            if profiles and dataset.has_pixels(index):
                score = score._replace(profile=_profile(one, made, dataset.lens(index), dataset.frame_hw, cap_m))
            if profiles and truth is None and made.depth_m is not None:
                # Two pictures have two focus distances.
                focus_m = float(dataset.focus_distance_m[index]) if dataset.pictures == 1 else 0.0
                score = score._replace(**_closer(one, made, focus_m, cap_m))
            yield score


_Maps = TypeVar("_Maps", Frames, Output)
_PICTURES = ("defocused", "aif", "depth_m", "depth_sigma_m")


def _within(maps: _Maps, border_px: int) -> _Maps:
    """What is scored of `maps`, without `border_px` at each side."""
    if border_px == 0:
        return maps
    inner = slice(border_px, -border_px)
    found = {name: getattr(maps, name, None) for name in _PICTURES}
    return maps._replace(**{name: one[..., inner, inner] for name, one in found.items() if one is not None})


def first_picture(frames: Frames) -> Tensor:
    """The defocused picture, the one with the nearest focus where there are two: (B, 3, H, W)."""
    return frames.defocused[:, :3]


@torch.inference_mode()
def _score_one(
    frames: Frames, output: Output, index: int, name: str, cap_m: float, constant: float | None, truth: Truth | None
) -> SampleScore:
    predicted, untouched = ImageScore(name=name), ImageScore(name=name)
    if output.depth_m is not None:
        depth_m, true = output.depth_m[0, 0], frames.depth_m[0, 0]
        if truth is not None:
            grid = truth(name)
            true = torch.from_numpy(grid.depth_m).to(depth_m.device)
            depth_m = F.interpolate(output.depth_m, size=true.shape, mode="bilinear", align_corners=False)[0, 0]
            if grid.z_m is not None:
                z_m = torch.from_numpy(grid.z_m).to(depth_m.device)
                depth_m = depth_m * torch.where(z_m > 0, true / z_m, 1)
        predicted = replace(predicted, depth=depth_sums(depth_m, true, name=name, cap_m=cap_m))
        if constant is not None:
            everywhere = torch.full_like(true, constant)
            untouched = replace(untouched, depth=depth_sums(everywhere, true, name=name, cap_m=cap_m))
    if output.aif is not None:
        predicted = replace(predicted, image=image_sums(output.aif[0], frames.aif[0], name=name))
        untouched = replace(untouched, image=image_sums(first_picture(frames)[0], frames.aif[0], name=name))
    return SampleScore(index, predicted, untouched)


@torch.inference_mode()
def _profile(frames: Frames, output: Output, lens: Lens, frame_hw: tuple[int, int], cap_m: float) -> Profile:
    true = frames.depth_m[0, 0].double().cpu().numpy().ravel()
    known = true > NEAREST_M
    true = true[known]
    scored = true < cap_m
    columns = np.zeros((len(PROFILE_COLUMNS), true.size))
    columns[0], columns[1] = 1, scored
    if output.depth_m is not None:
        error = output.depth_m[0, 0].double().cpu().numpy().ravel()[known].clip(NEAREST_M, cap_m) - true
        columns[2], columns[3] = error**2 * scored, np.abs(error) / true * scored
    if output.aif is not None:
        for column, image in ((4, output.aif), (5, first_picture(frames))):
            square = (image[0].clamp(0, 1) - frames.aif[0]).double().square().mean(dim=0)
            columns[column] = square.cpu().numpy().ravel()[known]
    sigma = sigma_px(coc_diameter_px(true, lens, width_px=frame_hw[1]), lens)
    return Profile(_binned(true, DEPTH_EDGES_M, columns), _binned(sigma, SIGMA_EDGES_PX, columns))


@torch.inference_mode()
def _closer(frames: Frames, output: Output, focus_m: float, cap_m: float) -> dict[str, Any]:
    """`sides` and `uncertainty` of one image; a focus distance of 0 is not known."""
    assert output.depth_m is not None  # noqa: S101 - the caller has seen to it
    true, predicted = (d[0, 0].double().cpu().numpy().ravel() for d in (frames.depth_m, output.depth_m))
    scored = (true > NEAREST_M) & (true < cap_m)
    true, predicted = true[scored], predicted[scored].clip(NEAREST_M, cap_m)
    found: dict[str, Any] = {}
    if focus_m > 0:
        error = predicted - true
        columns = np.stack(
            [np.ones_like(true), error**2, np.abs(error) / true, (predicted < focus_m) != (true < focus_m)]
        )
        found["sides"] = np.stack([columns[:, where].sum(axis=1) for where in (true < focus_m, true >= focus_m)])
    if output.depth_sigma_m is not None:
        sigma = output.depth_sigma_m[0, 0].double().cpu().numpy().ravel()[scored]
        found["uncertainty"] = uncertainty_sums(predicted - true, sigma)
    return found


def _binned(values: NDArray[Any], edges: Sequence[float], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """(bins, columns): sums of `columns` (columns, pixels) over the pixels of each bin; the last bin is open."""
    bins = np.searchsorted(np.asarray(edges[1:]), values, side="right")
    return np.stack([np.bincount(bins, weights=column, minlength=len(edges)) for column in columns], axis=1)


def mean_depth_m(
    dataset: ShardDataset, cap_m: float = DEFAULT_CAP_M, batch_size: int = 16, most: int | None = None
) -> float | None:
    """Mean depth in metres over all pixels of `dataset` with `1e-3 < depth < cap_m`, at the frames' own size.

    `most`: of so many samples at most, spread evenly.

    The constant that a predictor without eyes would learn; None of photographs without depth. Raises `EvaluationError`
    where others have no such pixel.
    """
    total, count = [], 0
    count_of = len(dataset) if most is None else min(most, len(dataset))
    samples = np.linspace(0, len(dataset) - 1, count_of).round().astype(np.int64)
    for indices in batched(samples, batch_size):
        depth = dataset.read_depth_m(indices)
        counted = depth[(depth > NEAREST_M) & (depth < cap_m)]
        total.append(float(counted.sum(dtype=np.float64)))
        count += counted.size
    if count == 0 and dataset.measured:
        return None
    if count == 0:
        raise EvaluationError(f"{dataset.path}: split {dataset.split_name} has no depth below {cap_m} m")
    return math.fsum(total) / count
