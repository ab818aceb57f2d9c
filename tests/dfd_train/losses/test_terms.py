from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dfd_train.config.loss import TABLE_II, LossConfig, table_ii_row
from dfd_train.errors import ConfigError
from dfd_train.losses.loss_balance import LossBalance
from dfd_train.losses.ssim import ssim
from dfd_train.losses.terms import (
    charbonnier,
    compute_losses,
    count_pixels,
    depth_residual,
    masked_gradient,
    masked_l1,
    silog_loss,
    ssim_loss,
)
from dfd_train.model.two_headed import Output


def numpy_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004 on one (H, W) channel, by scipy's filter and the textbook's five means."""

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    m1, m2 = mean(first), mean(second)
    v1, v2, cov = mean(first**2) - m1**2, mean(second**2) - m2**2, mean(first * second) - m1 * m2
    return float(np.mean((2 * m1 * m2 + 1e-4) * (2 * cov + 9e-4) / ((m1**2 + m2**2 + 1e-4) * (v1 + v2 + 9e-4))))


def numpy_losses(depth: np.ndarray, true: np.ndarray, aif: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """The paper's formulas with loops over pixels instead of masks; arrays (B, H, W) and (B, 3, H, W)."""
    l1, across, down = [], [], []
    valid = np.isfinite(true) & (true > 0)
    for b, y, x in np.argwhere(valid):
        residual = depth[b, y, x] - true[b, y, x]
        l1.append(abs(residual))
        for pairs, (yy, xx) in ((across, (y, x + 1)), (down, (y + 1, x))):
            if yy < valid.shape[1] and xx < valid.shape[2] and valid[b, yy, xx]:
                pairs.append(abs(depth[b, yy, xx] - true[b, yy, xx] - residual))
    return {
        "l1": np.mean(l1),
        "grad": np.mean(across) + np.mean(down),
        "charb": np.mean(np.sqrt((aif - target) ** 2 + 1e-6)),
        "image_l1": np.mean(np.abs(aif - target)),
        "ssim": 1
        - np.mean([numpy_ssim(a, t) for i, j in zip(aif, target, strict=True) for a, t in zip(i, j, strict=True)]),
    }


@pytest.fixture
def case() -> tuple[Output, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    depth = 5 * torch.rand(2, 1, 14, 17, generator=generator, dtype=torch.float64)
    predicted = depth + torch.randn(depth.shape, generator=generator, dtype=torch.float64)
    depth[torch.rand(depth.shape, generator=generator) < 0.3] = 0
    depth[0, 0, 0, 0] = torch.nan
    aif = torch.rand(2, 3, 14, 17, generator=generator, dtype=torch.float64)
    restored = aif + 0.1 * torch.randn(aif.shape, generator=generator, dtype=torch.float64)
    return Output(predicted, restored), depth, aif


@pytest.mark.parametrize("name", TABLE_II)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_row_of_table_ii_equals_an_independent_formula(
    case: tuple[Output, Tensor, Tensor], name: str, dtype: torch.dtype
) -> None:
    output, depth, aif = case
    expected = numpy_losses(*(t.squeeze(1).numpy() for t in (output.depth_m, depth, output.aif, aif)))
    terms = compute_losses(
        Output(output.depth_m.to(dtype), output.aif.to(dtype)), depth.to(dtype), aif.to(dtype), TABLE_II[name]
    )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for part, value in terms.parts.items():
        assert value.item() == pytest.approx(expected[part], abs=tolerance), part
    depth_side = expected["l1"] + (1e-3 * expected["grad"] if "grad" in name else 0)
    image_side = (
        expected["image_l1"] if name == "l1+l1" else expected["charb"] + (4 * expected["ssim"] if "ssim" in name else 0)
    )
    assert terms.total(0.01).item() == pytest.approx(depth_side + 0.01 * image_side, abs=tolerance)


def test_the_default_is_the_papers_last_row_with_its_weights() -> None:
    assert LossConfig() == TABLE_II["l1grad+charbssim"]
    config = LossConfig()
    assert (config.mu, config.eps, config.psi, config.deblur_weight) == (1e-3, 1e-3, 4.0, 0.01)


def test_ssim_equals_scikit_image_and_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    first = ndimage.gaussian_filter(rng.random((3, 40, 50)), (0, 1, 1))
    second = np.clip(first + 0.05 * rng.standard_normal(first.shape), 0, 1)
    ours = ssim(torch.from_numpy(first)[None], torch.from_numpy(second)[None]).item()
    theirs = structural_similarity(
        first, second, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert ours == pytest.approx(theirs, abs=1e-12)
    # torchmetrics' mean takes in windows that hang over the border; its map agrees wherever they do not.
    _, full = structural_similarity_index_measure(
        torch.from_numpy(second)[None], torch.from_numpy(first)[None], data_range=1.0, return_full_image=True
    )
    assert ours == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-6)


def test_ssim_of_an_image_with_itself_is_one_and_symmetric() -> None:
    first, second = torch.rand(2, 3, 16, 20, dtype=torch.float64), torch.rand(2, 3, 16, 20, dtype=torch.float64)
    torch.testing.assert_close(ssim(first, first), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(ssim(first, second), ssim(second, first))


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="11x11"):
        ssim(torch.rand(1, 3, 10, 20), torch.rand(1, 3, 10, 20))


def test_gradients_are_those_of_the_formulas() -> None:
    torch.manual_seed(0)
    depth = 1 + torch.rand(1, 1, 5, 6, dtype=torch.float64)
    depth[0, 0, 1, 2] = 0
    predicted = (depth + torch.randn_like(depth)).requires_grad_()
    aif = torch.rand(1, 2, 12, 12, dtype=torch.float64)
    restored = torch.rand(1, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: masked_l1(*depth_residual(p, depth)), predicted)
    assert torch.autograd.gradcheck(lambda p: masked_gradient(*depth_residual(p, depth)), predicted)
    assert torch.autograd.gradcheck(lambda r: charbonnier(r, aif, 1e-3), restored)
    assert torch.autograd.gradcheck(lambda r: ssim_loss(r, aif), restored)


@given(hole=st.sampled_from([0.0, float("nan"), float("inf"), -1.0]), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_holes_give_neither_value_nor_gradient_nor_nan(hole: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + torch.rand(2, 1, 6, 7, generator=generator)
    holes = torch.rand(depth.shape, generator=generator) < 0.4
    depth[holes] = hole
    clean = depth + torch.randn(depth.shape, generator=generator)
    losses = []
    for garbage in (0.0, 1e6, float("nan")):
        predicted = torch.where(holes, torch.tensor(garbage), clean.nan_to_num(0, 0, 0)).requires_grad_()
        residual, valid = depth_residual(predicted, depth)
        loss = masked_l1(residual, valid) + masked_gradient(residual, valid)
        loss.backward()
        assert torch.isfinite(predicted.grad).all()
        assert not predicted.grad[holes].any()
        losses.append(loss.item())
    assert losses[0] == losses[1] == losses[2]


def test_no_valid_pixel_costs_nothing_and_moves_nothing() -> None:
    predicted = torch.rand(1, 1, 12, 12, requires_grad=True)
    terms = compute_losses(Output(predicted, None), torch.zeros(1, 1, 12, 12), torch.rand(1, 3, 12, 12), LossConfig())
    terms.total(1.0).backward()
    assert terms.total(1.0).item() == 0
    assert not predicted.grad.any()


def test_a_single_head_is_not_weighted_by_lambda(case: tuple[Output, Tensor, Tensor]) -> None:
    output, depth, aif = case
    for alone in (Output(output.depth_m, None), Output(None, output.aif)):
        terms = compute_losses(alone, depth, aif, LossConfig())
        side = terms.depth if terms.deblur is None else terms.deblur
        assert terms.total(0.01).item() == side.item()


def test_literal_lambda_never_moves_and_auto_freezes_after_its_steps() -> None:
    literal = LossBalance(LossConfig())
    literal.observe(5.0, 0.1)
    assert literal.deblur_weight == 0.01
    auto = LossBalance(LossConfig(balance="auto", deblur_weight=1.0, balance_steps=2))
    assert auto.deblur_weight == 1.0
    auto.observe(3.0, 0.1)
    auto.observe(1.0, 0.3)
    assert auto.deblur_weight == pytest.approx(10.0)
    assert not auto.measuring
    auto.observe(100.0, 0.1)
    assert auto.deblur_weight == pytest.approx(10.0)
    again = LossBalance(auto.config)
    again.restore(auto.state())
    assert again.deblur_weight == auto.deblur_weight


def test_a_lopsided_loss_is_pointed_out() -> None:
    balance = LossBalance(LossConfig())
    assert "200:1" in balance.complaint(1.0, 0.5)
    assert balance.complaint(0.01, 0.5) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("depth", "l2"), ("image", "l2"), ("eps", 0.0), ("psi", -1.0), ("mu", float("nan")), ("balance", "half"),
     ("balance_steps", 0)],
)  # fmt: skip
def test_an_impossible_loss_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        LossConfig(**{field: value})
    with pytest.raises(ConfigError, match="l1grad"):
        table_ii_row("l3+charb")


def test_silog_is_the_formula_over_each_images_valid_pixels(case: tuple[Output, Tensor, Tensor]) -> None:
    output, depth, aif = case
    assert output.depth_m is not None
    predicted = output.depth_m.abs() + 0.1
    wanted = []
    for made, true in zip(predicted.numpy()[:, 0], depth.numpy()[:, 0], strict=True):
        valid = np.isfinite(true) & (true > 0)
        d = np.log(made[valid]) - np.log(true[valid])
        wanted.append(np.sqrt(np.mean(d**2) - 0.85 * np.mean(d) ** 2))
    assert silog_loss(predicted, depth).item() == pytest.approx(np.mean(wanted), abs=1.1e-3)
    terms = compute_losses(Output(predicted, None), depth, aif, LossConfig(depth="silog"))
    assert terms.depth is not None
    assert terms.parts.keys() == {"silog"}


def test_silog_forgives_most_of_a_wrong_scale_and_is_smooth_at_the_truth(case: tuple[Output, Tensor, Tensor]) -> None:
    _, depth, _ = case
    true = torch.where(torch.isfinite(depth), depth, 0.0)
    perfect = true.clone().requires_grad_()
    silog_loss(perfect, depth).backward()
    assert perfect.grad is not None
    assert torch.isfinite(perfect.grad).all()
    assert silog_loss(2 * true, depth).item() == pytest.approx(np.sqrt(0.15) * np.log(2), abs=2e-3)


def test_silog_of_parts_adds_up_to_that_of_the_batch(case: tuple[Output, Tensor, Tensor]) -> None:
    output, depth, aif = case
    assert output.depth_m is not None
    counts = count_pixels(depth)
    config = LossConfig(depth="silog")
    whole = compute_losses(Output(output.depth_m, None), depth, aif, config).parts["silog"]
    parts = [
        compute_losses(Output(output.depth_m[k : k + 1], None), depth[k : k + 1], aif[k : k + 1], config, counts)
        for k in range(2)
    ]
    assert sum(part.parts["silog"].item() for part in parts) == pytest.approx(whole.item(), rel=1e-6)


def test_neighbours_along_x_and_along_y_are_counted_apart() -> None:
    depth = torch.zeros(2, 1, 4, 6)
    depth[0, 0, 1, :5] = 2.0
    depth[1, 0, :3, 2] = 3.0
    depth[1, 0, 3, 5] = torch.nan
    # A row of five: four pairs across; a column of three: two pairs down.
    assert count_pixels(depth).tolist() == [2, 8, 4, 2]


def test_a_batch_divided_by_its_own_counts_is_the_batch_alone(case: tuple[Output, Tensor, Tensor]) -> None:
    output, depth, aif = case
    # Stripes: many valid neighbours across, few down.
    depth[:, :, ::2] = 0
    depth[:, :, 4] = 2.0
    plain = compute_losses(output, depth, aif, LossConfig())
    counted = compute_losses(output, depth, aif, LossConfig(), count_pixels(depth))
    pairs = count_pixels(depth)
    assert pairs[2] > 2 * pairs[3] > 0
    for name, value in plain.parts.items():
        assert float(counted.parts[name]) == pytest.approx(float(value), rel=1e-5), name
