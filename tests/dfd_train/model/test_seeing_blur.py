from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from defocus_sim.lens import Lens, coc_diameter_px
from dfd_train.config.loss import LossConfig
from dfd_train.config.model import ModelConfig, variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError
from dfd_train.losses.terms import compute_losses, count_pixels, masked_laplace, side_loss
from dfd_train.model.build import build_model, run_model
from dfd_train.model.reading import read_depth
from dfd_train.model.stem import extra_channels, stem_input
from dfd_train.optics.answer import Output
from dfd_train.optics.camera import camera_of, coc_px_from, rows_of
from dfd_train.prediction.predict import predict_raw
from dfd_train.prediction.tiling import Tiling


def tiny(**changes: object) -> ModelConfig:
    return dataclasses.replace(variant("tiny"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stem", "sides"), [("highpass", (5,)), ("blur", (3, 9))])
def test_a_stem_sees_the_image_and_its_amplified_differences(stem: str, sides: tuple[int, ...]) -> None:
    config = tiny(stem=stem, gain=7.0)
    image = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    made = stem_input(image, config)
    assert made.shape[1] == 3 + extra_channels(config)
    assert torch.equal(made[:, :3], image)
    for number, side in enumerate(sides):
        half = side // 2
        mean = np.stack([[ndimage.uniform_filter(p, side, mode="constant") for p in one] for one in image.numpy()])
        inner = (slice(None), slice(None), slice(half, -half), slice(half, -half))
        got = made[:, 3 + 3 * number : 6 + 3 * number].numpy()
        assert np.allclose(got[inner], 7 * (image.numpy() - mean)[inner], atol=1e-5)
    # Where there is nothing but one colour, there is no difference, up to the border.
    assert stem_input(torch.full((1, 3, 20, 30), 0.4), config)[:, 3:].abs().max() < 1e-5


def test_the_papers_stem_is_what_it_was() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert stem_input(image, ModelConfig()) is image
    assert not any("full" in name or "merge" in name for name, _ in build_model(tiny()).named_parameters())


def test_kaiming_keeps_the_variance_of_a_layers_input() -> None:
    net = build_model(tiny(init="kaiming", zero_last_aif=True), generator=torch.Generator().manual_seed(0))
    weight = net.encoder.denseblock1.denselayer1.conv2.weight
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.15)
    assert float(net.depth_head.last.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert not net.aif_head.last.weight.any()


def test_a_coc_becomes_metres_by_each_pictures_own_lens() -> None:
    lenses = [Lens.preset("paper"), Lens.preset("paper", focus_distance_m=5.0, aperture_mm=20.0)]
    cameras = torch.stack([camera_of(lens, (40, 60)) for lens in lenses])
    depth = np.linspace(1.5, 9, 40 * 60).reshape(40, 60)
    # The raw answer is in units of 8 px.
    raw = torch.stack([torch.from_numpy(coc_diameter_px(depth, lens))[None] / 8 for lens in lenses]).float()
    scale_px = 0.02
    scale = torch.full_like(raw, math.log(scale_px / 8))
    output = read_depth(torch.cat([raw, scale], 1), tiny(predict="coc", uncertainty=True), cameras)
    assert output.depth_m is not None
    assert output.depth_sigma_m is not None
    assert np.allclose(output.depth_m[:, 0].numpy(), depth, rtol=2e-3)
    # That scale of CoC as metres: x^2 / (S C), times sqrt(2) for the standard deviation.
    far_px = [float(coc_diameter_px(np.inf, lens, width_px=60)) for lens in lenses]
    for row, lens in enumerate(lenses):
        expected = math.sqrt(2) * scale_px * depth**2 / (lens.focus_distance_m * far_px[row])
        assert np.allclose(output.depth_sigma_m[row, 0].numpy(), expected, rtol=5e-3)


def test_a_network_that_needs_its_lens_takes_the_assumed_one_where_none_is_given() -> None:
    net = build_model(tiny(predict="coc", lens_input=True, heads=("depth",))).eval()
    image = torch.rand(1, 3, 33, 40)
    camera = camera_of(Lens.preset("paper"), (33, 40))[None]
    net.camera.copy_(camera[0])
    with torch.no_grad():
        assert torch.equal(net(image).depth_m, run_model(net, image, camera).depth_m)
        other = run_model(net, image, camera_of(Lens.preset("paper", focus_distance_m=5.0), (33, 40))[None])
    assert not torch.equal(net(image).depth_m, other.depth_m)


def test_width_and_side_are_read_as_the_depth_of_less_relative_error_and_both_count_as_uncertainty() -> None:
    lens = Lens.preset("paper")
    camera = camera_of(lens, (480, 640))[None]
    depth = np.array([[1.0, 1.4, 3.0, 6.0]])
    coc_px = coc_diameter_px(depth, lens, width_px=640)
    config = tiny(predict="coc+side", uncertainty=True)
    width = torch.from_numpy(np.abs(coc_px))[None, None].float() / 8
    sure = torch.tensor([[[[9.0, 9.0, -9.0, -9.0]]]])
    scale = torch.full_like(width, -6.0)
    output = read_depth(torch.cat([width, scale, sure], 1), config, camera)
    assert np.allclose(output.depth_m[0, 0].numpy(), depth, rtol=2e-3)
    assert np.allclose(output.answer[0, 0].numpy(), coc_px, rtol=1e-4)
    near, far = (read_depth(torch.cat([width, scale, side], 1), config, camera) for side in (sure.abs(), -sure.abs()))
    # Where both would be off as much, each times its odds: |far - near| / near as likely as |far - near| / far.
    even = (near.depth_m / far.depth_m).log()
    torn = read_depth(torch.cat([width, scale, even + 0.3 * sure], 1), config, camera)
    assert torch.allclose(torn.depth_m, output.depth_m, rtol=2e-3)
    p = torch.sigmoid(even + 0.3 * sure)
    spread = (p * (1 - p)).sqrt() * (far.depth_m - near.depth_m)
    assert torch.allclose(torn.depth_sigma_m[..., 1:3], torch.hypot(spread, output.depth_sigma_m)[..., 1:3], rtol=0.1)
    # At the limit depth is between the two, and with better odds for near it never grows.
    between = read_depth(torch.cat([width, scale, even], 1), config, camera).depth_m
    assert torch.allclose(between, (near.depth_m * far.depth_m).sqrt(), rtol=1e-4)
    rising = torch.stack(
        [read_depth(torch.cat([width, scale, even + by], 1), config, camera).depth_m for by in (-1.0, -0.2, 0.2, 1.0)]
    )
    assert (rising.diff(dim=0) < 0).all()


def test_a_blur_wider_than_that_of_infinity_is_of_something_near_if_the_lens_is_no_guess() -> None:
    lens = Lens.preset("paper")
    camera = camera_of(lens, (480, 640))[None]
    far_px = float(coc_diameter_px(np.inf, lens, width_px=640))
    config = tiny(predict="coc+side", uncertainty=True)

    def read(width_px: float, told: bool) -> float:
        # Off by a tenth of a px, and in favour of far.
        raw = torch.tensor([width_px / 8, math.log(0.1 / 8), -6.0]).reshape(1, 3, 1, 1)
        return float(read_depth(raw, config, camera, torch.tensor([told])).depth_m)

    assert read(0.9 * far_px, told=True) > lens.focus_distance_m
    assert read(far_px + 0.5, told=True) < lens.focus_distance_m
    assert read(far_px + 0.5, told=False) > lens.focus_distance_m


@pytest.mark.parametrize("predict", ["coc", "coc+side"])
def test_a_blur_that_cannot_be_told_from_that_of_infinity_is_not_read_as_kilometres(predict: str) -> None:
    lens = Lens.preset("paper")
    camera = camera_of(lens, (480, 640))[None]
    far_px = float(coc_diameter_px(np.inf, lens, width_px=640))
    config = tiny(predict=predict, uncertainty=True)
    for off_px, wider in ((0.5, 0.0), (0.5, 3.0), (2.0, 0.0)):
        numbers = [(far_px + wider) / 8, math.log(off_px / 8), -99.0]
        raw = torch.tensor(numbers[: 3 if predict == "coc+side" else 2]).reshape(1, -1, 1, 1)
        found = read_depth(raw, config, camera)
        depth_m = float(found.depth_m)
        # A step of the error in px is no more than some depths wide.
        assert float(found.depth_sigma_m) < 2 * depth_m**2 / lens.focus_distance_m
        blur_px = float(coc_diameter_px(depth_m, lens, width_px=640))
        assert far_px - blur_px == pytest.approx(math.sqrt(2) * off_px, rel=1e-3)


def test_the_side_is_learned_apart_from_the_width() -> None:
    lens = Lens.preset("paper")
    camera = camera_of(lens, (480, 640))[None]
    depth = torch.tensor([[[[1.2, 4.0]]]])
    coc_px = coc_px_from(depth, camera)
    counts = count_pixels(depth)
    losses = {}
    for name, sign in (("right", 1.0), ("wrong", -1.0)):
        logit = -sign * 5 * coc_px.sign()
        output = Output(depth, None, sign * coc_px, None, None, logit)
        losses[name] = compute_losses(
            output, depth, depth, LossConfig(depth="l1"), counts, predict="coc+side", camera=camera
        )
        assert float(losses[name].parts["l1"]) == pytest.approx(0, abs=1e-6)
    assert float(losses["right"].parts["side"]) < 0.01 < 1 < float(losses["wrong"].parts["side"])
    hole = torch.tensor([[[[0.0, 4.0]]]])
    logit = torch.zeros(1, 1, 1, 2, requires_grad=True)
    side_loss(logit, hole, camera).backward()
    assert logit.grad[0, 0, 0, 0] == 0 != logit.grad[0, 0, 0, 1]


def test_an_error_that_is_relative_to_the_depth_weighs_by_focus_over_depth() -> None:
    camera = camera_of(Lens.preset("paper", focus_distance_m=2.0), (480, 640))[None]
    depth = torch.tensor([[[[1.0, 2.0, 4.0, 0.0, 80.0]]]])
    answer = coc_px_from(torch.where(depth > 0, depth, 1.0), camera) + 8.0
    log_scale = torch.full_like(depth, math.log(8.0))
    found = {
        relative: compute_losses(
            Output(depth, None, answer, log_scale), depth, depth, LossConfig(depth="l1", relative=relative),
            count_pixels(depth), predict="coc", camera=camera,
        )
        for relative in (False, True)
    }  # fmt: skip
    # Each is off by the unit of 8 px and says so, |r|/b + ln b = 1: 2 + 1 + 1/2 + 1/4 over the four that are known.
    for term in ("l1", "laplace"):
        assert float(found[False].parts[term]) == pytest.approx(1, rel=1e-4)
        assert float(found[True].parts[term]) == pytest.approx(3.75 / 4, rel=1e-4)


def test_of_two_depths_that_share_a_blur_the_answer_is_the_one_of_the_least_relative_error() -> None:
    """One pixel in four is near, at a quarter of the far depth: an equal weight says far, a relative one near."""
    camera = camera_of(Lens.preset("paper", focus_distance_m=2.0), (480, 640))[None]
    depth = torch.tensor([1.25, 5.0, 5.0, 5.0]).reshape(1, 1, 1, 4)
    coc_px = coc_px_from(depth, camera)
    for relative, expected in ((False, coc_px[..., 1:2]), (True, coc_px[..., :1])):
        config = LossConfig(depth="l1", relative=relative)
        costs = [
            float(
                compute_losses(
                    Output(depth, None, answer.expand_as(depth)), depth, depth, config,
                    count_pixels(depth), predict="coc", camera=camera,
                ).parts["l1"]
            )
            for answer in (expected, coc_px[..., :1] + coc_px[..., 1:2] - expected)
        ]  # fmt: skip
        assert costs[0] < costs[1]


def test_relative_errors_need_an_answer_that_the_lens_turns_into_metres() -> None:
    with pytest.raises(ConfigError, match="relative-depth"):
        recipe_config("fast", shards="a", out="b", relative=True)


def test_a_network_that_learned_to_do_without_its_lens_reads_the_same_in_a_picture_whatever_lens_is_guessed() -> None:
    net = build_model(tiny(predict="coc", lens_input=True, lens_hidden=0.5, heads=("depth",))).eval()
    image = torch.rand(2, 3, 33, 40)
    near, far = (
        camera_of(Lens.preset("paper", focus_distance_m=focus_m), (33, 40)).expand(2, -1) for focus_m in (1.0, 5.0)
    )
    with torch.no_grad():
        guessed = [run_model(net, image, camera, told=False) for camera in (near, far)]
        told = [run_model(net, image, camera) for camera in (near, far)]
        none = net(image)
    # The same circles of confusion, which the guess alone turns into metres.
    assert torch.equal(guessed[0].answer, guessed[1].answer)
    assert not torch.equal(guessed[0].depth_m, guessed[1].depth_m)
    assert not torch.equal(told[0].answer, told[1].answer)
    # Without any lens it reads the picture alone too, and the lens of its training turns that into metres.
    assert torch.equal(none.answer, guessed[0].answer)


def test_in_training_a_share_of_the_lenses_is_hidden() -> None:
    torch.manual_seed(0)
    net = build_model(tiny(predict="coc", lens_input=True, lens_hidden=0.25, heads=("depth",)))
    seen: list[torch.Tensor] = []
    net.encoder.register_forward_pre_hook(lambda _module, given: seen.append(given[0][:, -2:, 0, 0]))
    camera = camera_of(Lens.preset("paper"), (32, 32)).expand(8, -1)
    with torch.no_grad():
        for _ in range(25):
            run_model(net, torch.rand(8, 3, 32, 32), camera)
    hidden = (torch.cat(seen) == -1).all(dim=1)
    assert 0.15 < float(hidden.float().mean()) < 0.35
    assert len(torch.cat(seen)[~hidden].unique(dim=0)) == 1


def test_hiding_a_lens_that_is_never_told_is_refused() -> None:
    with pytest.raises(ConfigError, match="lens_hidden"):
        tiny(predict="coc", lens_hidden=0.5)


def test_a_network_that_is_told_heights_knows_where_a_part_of_a_picture_lay() -> None:
    net = build_model(tiny(predict="coc", lens_input=True, height_input=True, heads=("depth",))).eval()
    seen: list[torch.Tensor] = []
    net.encoder.register_forward_pre_hook(lambda _module, given: seen.append(given[0][:, -1]))
    camera, image = camera_of(Lens.preset("paper"), (128, 64))[None], torch.rand(1, 3, 128, 64)
    with torch.no_grad():
        run_model(net, image, camera)
        run_model(net, image[:, :, 64:96], rows_of(camera, [64], 32, 128))
        predict_raw(
            net, image[0].permute(1, 2, 0).numpy(), tiling=Tiling(tile=64, overlap=32), lens=Lens.preset("paper")
        )
        run_model(net, image[:, :, :50], rows_of(camera, [0], 50, 128))
    whole, part, *tiles, padded = seen
    assert whole[0, 0].unique().tolist() == pytest.approx([-1 + 1 / 128])
    assert whole[0, -1].unique().tolist() == pytest.approx([1 - 1 / 128])
    assert torch.allclose(part, whole[:, 64:96])
    # In steps of 32 rows, as tiles of 64 overlap by half.
    assert len(tiles) == 3
    for step, tile in enumerate(tiles):
        assert torch.allclose(tile, whole[:, 32 * step : 32 * step + 64], atol=1e-6)
    # What is added below for the network's strides goes on.
    assert torch.allclose(padded, whole[:, :64], atol=1e-6)


def test_heights_without_a_lens_are_refused() -> None:
    with pytest.raises(ConfigError, match="height_input"):
        tiny(height_input=True)


def test_laplace_is_the_surprise_that_torch_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    residual, log_scale = (torch.randn(2, 1, 5, 6, generator=generator) for _ in range(2))
    valid = torch.rand(2, 1, 5, 6, generator=generator) < 0.7
    expected = -torch.distributions.Laplace(0.0, log_scale.exp()).log_prob(residual) - math.log(2)
    assert float(masked_laplace(residual, log_scale, valid)) == pytest.approx(float(expected[valid].mean()), rel=1e-5)


@pytest.mark.parametrize("predict", ["inverse", "coc"])
def test_the_right_answer_costs_nothing_and_holes_give_no_gradient(predict: str) -> None:
    config = tiny(predict=predict)
    camera = camera_of(Lens.preset("paper"), (6, 7))[None]
    depth = torch.linspace(1, 6, 42).reshape(1, 1, 6, 7).clone()
    raw = 1 / depth / 0.25 - 1 if predict == "inverse" else torch.from_numpy(
        coc_diameter_px(depth[0].numpy(), Lens.preset("paper"), width_px=7)
    )[None].float() / 8  # fmt: skip
    depth[0, 0, 0] = 0
    raw.requires_grad_()
    output = read_depth(raw, config, camera)
    terms = compute_losses(
        output,
        depth,
        torch.zeros(1, 3, 6, 7),
        LossConfig(depth="l1"),
        count_pixels(depth),
        predict=predict,
        camera=camera,
    )
    assert float(terms.parts["l1"].detach()) < 1e-4
    terms.total(1.0).backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert not raw.grad[0, 0, 0].any()


@pytest.mark.parametrize("changes", [{"predict": "coc", "heads": ("aif",)}, {"uncertainty": True, "heads": ("aif",)}])
def test_answers_without_a_depth_head_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="is not possible"):
        tiny(**changes)
