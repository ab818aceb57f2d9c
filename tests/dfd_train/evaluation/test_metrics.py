from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional import mean_absolute_percentage_error, mean_squared_error, mean_squared_log_error
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from dfd_train.errors import EvaluationError
from dfd_train.evaluation.metrics import (
    DEPTH_METRICS,
    PSNR_CEILING_DB,
    DepthSums,
    ImageScore,
    ImageSums,
    depth_sums,
    image_sums,
    summarise,
)


def numpy_depth_metrics(predicted: np.ndarray, true: np.ndarray, cap: float = 10.0) -> dict[str, float]:
    """The definitions of Eigen et al. 2014, written out."""
    mask = (true > 1e-3) & (true < cap)
    p, g = np.clip(predicted.astype(np.float64), 1e-3, cap)[mask], true.astype(np.float64)[mask]
    ratio = np.maximum(p / g, g / p)
    return {
        "rmse": np.sqrt(np.mean((p - g) ** 2)),
        "abs_rel": np.mean(np.abs(p - g) / g),
        "sq_rel": np.mean((p - g) ** 2 / g),
        "rmse_log": np.sqrt(np.mean((np.log(p) - np.log(g)) ** 2)),
        "silog": 100 * np.std(np.log(p) - np.log(g)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(g))),
        **{f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
    }


def random_depths(seed: int, count: int = 1, hw: tuple[int, int] = (9, 11)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 12, (count, *hw)).astype(np.float32)
    predicted = (true * rng.lognormal(0, 0.4, true.shape)).astype(np.float32) - 0.3
    true[rng.random(true.shape) < 0.2] = 0
    return predicted, true


def test_depth_metrics_by_hand() -> None:
    true = torch.tensor([[1.0, 2.0, 4.0, 0.0, 20.0]])
    predicted = torch.tensor([[1.0, 3.0, 3.0, 7.0, 7.0]])
    sums = depth_sums(predicted, true, name="a", cap_m=10)
    metrics = sums.metrics()
    assert sums.count == 3
    assert metrics["rmse"] == pytest.approx(math.sqrt(2 / 3))
    assert metrics["abs_rel"] == pytest.approx((0.5 + 0.25) / 3)
    assert metrics["sq_rel"] == pytest.approx((0.5 + 0.25) / 3)
    assert metrics["log10"] == pytest.approx((math.log10(1.5) + math.log10(4 / 3)) / 3)
    assert [metrics[f"delta{k}"] for k in (1, 2, 3)] == pytest.approx([1 / 3, 1, 1])


@pytest.mark.parametrize("cap", [3.0, 10.0, 80.0])
def test_depth_metrics_equal_an_independent_formula(cap: float) -> None:
    predicted, true = random_depths(0)
    sums = depth_sums(torch.from_numpy(predicted[0]), torch.from_numpy(true[0]), name="a", cap_m=cap)
    assert sums.metrics() == pytest.approx(numpy_depth_metrics(predicted[0], true[0], cap), rel=1e-12)


def test_depth_metrics_equal_torchmetrics_where_it_has_them() -> None:
    rng = np.random.default_rng(3)
    true = torch.from_numpy(rng.uniform(0.5, 9, (8, 8)))
    predicted = torch.from_numpy(rng.uniform(0.5, 9, (8, 8)))
    metrics = depth_sums(predicted, true, name="a").metrics()
    assert metrics["rmse"] == pytest.approx(mean_squared_error(predicted, true, squared=False).item())
    assert metrics["abs_rel"] == pytest.approx(mean_absolute_percentage_error(predicted, true).item())
    # torchmetrics takes log(1 + x); shifted by one it is the same formula.
    assert metrics["rmse_log"] == pytest.approx(mean_squared_log_error(predicted - 1, true - 1).sqrt().item())


def test_image_metrics_equal_scikit_image_and_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((3, 30, 40)).astype(np.float32)
    restored = np.clip(true + 0.05 * rng.standard_normal(true.shape), 0, 1).astype(np.float32)
    metrics = image_sums(torch.from_numpy(restored), torch.from_numpy(true), name="a").metrics()
    psnr = peak_signal_noise_ratio(true.astype(np.float64), restored.astype(np.float64), data_range=1)
    ssim = structural_similarity(
        true.astype(np.float64), restored.astype(np.float64), channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=1,
    )  # fmt: skip
    assert metrics["psnr"] == pytest.approx(psnr, abs=1e-9)
    assert metrics["ssim"] == pytest.approx(ssim, abs=1e-9)
    theirs = torchmetrics_psnr(torch.from_numpy(restored), torch.from_numpy(true), data_range=1.0)
    assert metrics["psnr"] == pytest.approx(theirs.item(), abs=1e-4)


def test_a_perfect_image_scores_the_ceiling_and_a_prediction_outside_the_range_is_clamped() -> None:
    true = torch.rand(3, 16, 16)
    assert image_sums(true, true, name="a").metrics() == pytest.approx({"psnr": PSNR_CEILING_DB, "ssim": 1})
    white = torch.ones(3, 16, 16)
    assert image_sums(white * 5, white, name="a").metrics()["psnr"] == PSNR_CEILING_DB


def scores_of(predicted: np.ndarray, true: np.ndarray) -> list[ImageScore]:
    rng = np.random.default_rng(9)
    scores = []
    for k, (p, g) in enumerate(zip(predicted, true, strict=True)):
        depth = depth_sums(torch.from_numpy(p), torch.from_numpy(g), name=str(k))
        image = ImageSums(count=300, square=float(rng.uniform(0.1, 3)), ssim=float(rng.random()))
        scores.append(ImageScore(name=str(k), depth=depth, image=image))
    return scores


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 5), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("convention", ["per-image", "pooled"])
def test_any_split_into_batches_in_any_order_gives_the_same_digits(convention: str, seed: int, cuts: list[int]) -> None:
    predicted, true = random_depths(seed, count=12)
    whole = scores_of(predicted, true)
    order = np.random.default_rng(seed).permutation(12)
    parts = [whole[k] for batch in np.split(order, np.cumsum(cuts)) for k in batch]
    assert summarise(parts, convention) == summarise(whole, convention)


def test_per_image_is_the_mean_of_images_and_pooled_is_one_big_image() -> None:
    predicted, true = random_depths(5, count=4)
    true[0, 1:] = 0  # one image counts few pixels, so that the conventions differ
    scores = scores_of(predicted, true)
    each = [numpy_depth_metrics(p, g) for p, g in zip(predicted, true, strict=True)]
    per_image, pooled = summarise(scores), summarise(scores, "pooled")
    for name in DEPTH_METRICS:
        assert per_image[name] == pytest.approx(np.mean([row[name] for row in each]), rel=1e-12)
    assert {n: pooled[n] for n in DEPTH_METRICS} == pytest.approx(numpy_depth_metrics(predicted, true), rel=1e-12)
    assert per_image["rmse"] != pytest.approx(pooled["rmse"], rel=1e-3)
    mean_square = np.mean([score.image.square / 300 for score in scores])
    assert pooled["psnr"] == pytest.approx(-10 * np.log10(mean_square))


def test_a_truth_without_valid_pixels_is_an_error_naming_the_image() -> None:
    with pytest.raises(EvaluationError, match=r"kitchen_7: no pixel has a true depth between 0.001 m and 10.0 m"):
        depth_sums(torch.ones(4, 4), torch.full((4, 4), 11.0), name="kitchen_7")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_an_error_naming_the_image(bad: float) -> None:
    depth, image = torch.ones(12, 12), torch.full((3, 12, 12), 0.5)
    depth[3, 3] = bad
    image[0, 0, 0] = bad
    truth = torch.ones(12, 12)
    truth[3, 3] = 0  # not even a hole excuses it
    with pytest.raises(EvaluationError, match=r"kitchen_7: the predicted depth is NaN or infinite at 1 of 144"):
        depth_sums(depth, truth, name="kitchen_7")
    with pytest.raises(EvaluationError, match=r"kitchen_7: the predicted image is NaN"):
        image_sums(image, torch.full((3, 12, 12), 0.5), name="kitchen_7")


def test_an_image_too_small_for_ssim_is_an_error_naming_it() -> None:
    with pytest.raises(EvaluationError, match="stamp: cannot score"):
        image_sums(torch.rand(3, 10, 30), torch.rand(3, 10, 30), name="stamp")


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no image"):
        summarise([])
    sums = DepthSums(
        count=1, square=0, relative=0, square_relative=0, square_log=0, log=0, log10=0, below1=1, below2=1, below3=1
    )
    with pytest.raises(ValueError, match="convention"):
        summarise([ImageScore(name="a", depth=sums)], "median")
