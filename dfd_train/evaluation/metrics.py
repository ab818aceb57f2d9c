"""Depth and image metrics: float64 sums for every image, divided once; the same digits at any batch size or order.

One `ImageScore` holds the sums of one image. Scores of several batches or ranks merge by putting the lists together:
`summarise` adds with `math.fsum`, whose result does not depend on the order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from dfd_train.errors import EvaluationError
from dfd_train.losses.ssim import WINDOW, ssim

CONVENTIONS = ("per-image", "pooled")
DEFAULT_CAP_M = 10.0
NEAREST_M = 1e-3
# An image restored without any error counts as 100 dB, lest one such image make the mean infinite.
PSNR_CEILING_DB = 100.0
DEPTH_METRICS = ("rmse", "abs_rel", "sq_rel", "rmse_log", "silog", "log10", "delta1", "delta2", "delta3")
IMAGE_METRICS = ("psnr", "ssim")


@dataclass(frozen=True, kw_only=True)
class DepthSums:
    """Sums over the `count` scored pixels of one image (p predicted, g true, metres).

    `square` (p-g)^2, `relative` |p-g|/g, `square_relative` (p-g)^2/g, `square_log` (ln p - ln g)^2, `log`
    ln p - ln g, `log10` |log10 p - log10 g|, `below1..3` the number of pixels where max(p/g, g/p) < 1.25^k.
    """

    count: int
    square: float
    relative: float
    square_relative: float
    square_log: float
    log: float
    log10: float
    below1: float
    below2: float
    below3: float

    def metrics(self) -> dict[str, float]:
        """The depth metrics of these pixels, by the names in `DEPTH_METRICS`; SILog times 100, as KITTI gives it."""
        n = self.count
        return {
            "rmse": math.sqrt(self.square / n),
            "abs_rel": self.relative / n,
            "sq_rel": self.square_relative / n,
            "rmse_log": math.sqrt(self.square_log / n),
            # Of a constant factor nothing is left but rounding, which may be below 0.
            "silog": 100 * math.sqrt(max(self.square_log / n - (self.log / n) ** 2, 0.0)),
            "log10": self.log10 / n,
            "delta1": self.below1 / n,
            "delta2": self.below2 / n,
            "delta3": self.below3 / n,
        }


@dataclass(frozen=True, kw_only=True)
class ImageSums:
    """Of one image: the number of values (pixels x channels), the sum of squared errors, and the image's SSIM."""

    count: int
    square: float
    ssim: float

    def metrics(self) -> dict[str, float]:
        """PSNR in dB (data range 1) and SSIM of this image."""
        return {"psnr": psnr_db(self.square / self.count), "ssim": self.ssim}


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image's sums; `depth` or `image` is None where that head was not scored."""

    name: str
    depth: DepthSums | None = None
    image: ImageSums | None = None

    def metrics(self) -> dict[str, float]:
        """This image's own metrics."""
        return {
            **(self.depth.metrics() if self.depth is not None else {}),
            **(self.image.metrics() if self.image is not None else {}),
        }


def psnr_db(mean_square: float) -> float:
    """`10 log10(1 / mean_square)` for data in [0, 1].

    Parameters
    ----------
    mean_square
        Mean squared difference.

    Returns
    -------
    float
        dB, at most 100.
    """
    return PSNR_CEILING_DB if mean_square <= 10 ** (-PSNR_CEILING_DB / 10) else -10 * math.log10(mean_square)


def depth_sums(predicted_m: Tensor, depth_m: Tensor, *, name: str, cap_m: float = DEFAULT_CAP_M) -> DepthSums:
    """Score one depth map over the pixels with `1e-3 < depth_m < cap_m`; the prediction is clamped to that range.

    Parameters
    ----------
    predicted_m, depth_m
        (H, W) metres, any floating type; 0 or non-finite truth = hole.
    name
        Of the image, for errors.
    cap_m
        The largest depth that is scored.

    Returns
    -------
    DepthSums
        Sums over the pixels.

    Raises
    ------
    EvaluationError
        Naming the image where the prediction has a NaN or an infinity anywhere, or no pixel can be scored.
    """
    if predicted_m.shape != depth_m.shape:
        raise EvaluationError(
            f"{name}: predicted depth has shape {tuple(predicted_m.shape)}, not {tuple(depth_m.shape)}"
        )
    _require_finite(predicted_m, name, "depth")
    mask = (depth_m > NEAREST_M) & (depth_m < cap_m)
    true = depth_m[mask].double()
    if true.numel() == 0:
        raise EvaluationError(f"{name}: no pixel has a true depth between {NEAREST_M} m and {cap_m} m")
    predicted = predicted_m[mask].double().clamp(NEAREST_M, cap_m)
    error = predicted - true
    ratio = torch.maximum(predicted / true, true / predicted)
    log_error = predicted.log() - true.log()
    # In the order of the fields.
    sums = torch.stack(
        [
            (error**2).sum(),
            (error.abs() / true).sum(),
            (error**2 / true).sum(),
            (log_error**2).sum(),
            log_error.sum(),
            log_error.abs().sum() / math.log(10),
            *((ratio < 1.25**k).sum().double() for k in (1, 2, 3)),
        ]
    ).tolist()
    names = [field.name for field in fields(DepthSums)]
    return DepthSums(**dict(zip(names, [true.numel(), *sums], strict=True)))


def image_sums(predicted: Tensor, aif: Tensor, *, name: str) -> ImageSums:
    """Score one image; the prediction is clamped to [0, 1], as saving it would.

    Parameters
    ----------
    predicted, aif
        (3, H, W) sRGB, any floating type.
    name
        Of the image, for errors.

    Returns
    -------
    ImageSums
        Sums over the pixels.

    Raises
    ------
    EvaluationError
        Naming the image where the prediction has a NaN or an infinity, the shapes differ, or the image is smaller
        than SSIM's window.
    """
    if predicted.shape != aif.shape or min(aif.shape[-2:]) < WINDOW:
        raise EvaluationError(
            f"{name}: cannot score an image of shape {tuple(predicted.shape)} against {tuple(aif.shape)} "
            f"(both sides must be equal and at least {WINDOW} pixels)"
        )
    _require_finite(predicted, name, "image")
    restored, true = predicted.double().clamp(0, 1), aif.double()
    square, similarity = torch.stack(
        [((restored - true) ** 2).sum(), ssim(restored[None], true[None])[0]],
    ).tolist()
    return ImageSums(count=true.numel(), square=square, ssim=similarity)


def _require_finite(predicted: Tensor, name: str, what: str) -> None:
    bad = predicted.numel() - int(torch.isfinite(predicted).sum())
    if bad:
        raise EvaluationError(f"{name}: the predicted {what} is NaN or infinite at {bad} of {predicted.numel()} values")


def summarise(scores: Sequence[ImageScore], convention: str = "per-image") -> dict[str, float]:
    """The metrics of a data set from its images' sums.

    Parameters
    ----------
    scores
        Of each image.
    convention
        "per-image": each metric of each image, then the mean over images. "pooled": every pixel weighs the same, RMSE and
        PSNR from the pooled squares (SSIM has no pooled form of its own and stays the mean over images, all of one
        size here).

    Returns
    -------
    dict[str, float]
        Metrics by name.

    Raises
    ------
    EvaluationError
        For no images.
    ValueError
        For another convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention={convention!r} must be one of {', '.join(CONVENTIONS)}")
    if not scores:
        raise EvaluationError("there is no image to score")
    if convention == "per-image":
        rows = [score.metrics() for score in scores]
        # A photograph without depth has image metrics only; it does not count in those of depth.
        values = {
            name: [row[name] for row in rows if name in row] for name in dict.fromkeys(n for r in rows for n in r)
        }
        return {name: math.fsum(column) / len(column) for name, column in values.items()}
    depths = [score.depth for score in scores if score.depth is not None]
    images = [score.image for score in scores if score.image is not None]
    result: dict[str, float] = {}
    if depths:
        totals: dict[str, Any] = {f.name: math.fsum(getattr(d, f.name) for d in depths) for f in fields(DepthSums)}
        result |= DepthSums(**totals).metrics()
    if images:
        result["psnr"] = psnr_db(math.fsum(i.square for i in images) / sum(i.count for i in images))
        result["ssim"] = math.fsum(i.ssim for i in images) / len(images)
    return result
