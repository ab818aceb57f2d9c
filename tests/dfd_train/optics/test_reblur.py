from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.lens import Lens, coc_diameter_px, coc_limit_px
from defocus_sim.lens import sigma_px as lens_sigma_px
from defocus_sim.simulate import defocus, fill_holes
from dfd_train.optics.camera import NEAREST_SHARE, aspect, camera_of, largest_sigma_px, sigma_px
from dfd_train.optics.reblur import reblur

LENSES = {
    "paper": Lens.preset("paper"),
    "capped": Lens.preset("paper", max_coc_px=9.0),
    "sharp below": Lens.preset("kinect", sharp_below_px=1.5),
    "0.3": Lens.preset("d3net-script"),
    "soft in focus": Lens.preset("kinect", focus_blur_px=0.5),
}


def maps(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None, None].float()


@pytest.mark.parametrize("name", LENSES)
def test_a_camera_blurs_as_much_as_its_lens(name: str) -> None:
    lens = LENSES[name]
    depth = np.geomspace(lens.focus_distance_m * NEAREST_SHARE, 90, 48 * 64).reshape(48, 64)
    camera = camera_of(lens, (48, 64))[None]
    limit = coc_limit_px(lens, (48, 64))
    expected = lens_sigma_px(np.clip(coc_diameter_px(depth, lens), -limit, limit), lens)
    assert np.allclose(sigma_px(maps(depth), camera)[0, 0].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert largest_sigma_px(camera) >= expected.max() * (1 - 1e-6)
    nearer = sigma_px(maps(depth * 0.01), camera)
    assert float(nearer.max()) <= largest_sigma_px(camera) * (1 + 1e-6)


def test_a_resize_scales_the_blur_along_each_axis() -> None:
    lens, depth = LENSES["paper"], maps(np.full((4, 4), 5.0))
    plain, resized = camera_of(lens, (480, 640))[None], camera_of(lens, (480, 640), (240, 160))[None]
    assert float(sigma_px(depth, resized).mean() / sigma_px(depth, plain).mean()) == pytest.approx(160 / 640)
    assert float(aspect(resized)) == pytest.approx((240 / 480) / (160 / 640))


def test_it_renders_what_the_simulator_renders() -> None:
    source = SyntheticSource(count=1, size_wh=(96, 72))
    with source.open() as reader:
        frame = reader.read(0)
    lens, depth = Lens.preset("paper", aperture_mm=300.0), fill_holes(frame.depth_m)
    camera = camera_of(lens, depth.shape)[None]
    aif = (torch.from_numpy(frame.aif).permute(2, 0, 1)[None] / 255).float()
    truth = torch.from_numpy(defocus(frame.aif / 255, depth, lens)).permute(2, 0, 1)[None].float()
    sigma = sigma_px(maps(depth), camera)
    assert float(sigma.max()) > 4
    made = reblur(aif, sigma, largest_px=largest_sigma_px(camera))
    assert -10 * float(torch.log10(((made - truth) ** 2).mean())) > 45
    assert -10 * float(torch.log10(((aif - truth) ** 2).mean())) < 30


def test_one_sigma_everywhere_is_scipys_gaussian_on_both_axes() -> None:
    image = np.random.default_rng(0).random((2, 40, 36))
    sigma = torch.full((1, 1, 40, 36), 2.0, dtype=torch.float64)
    made = reblur(torch.from_numpy(image)[None], sigma, largest_px=5.0, aspect=torch.tensor([1.5]))
    expected = ndimage.gaussian_filter(image, (0, 3.0, 2.0), mode="reflect", truncate=5)
    assert float((made[0] - torch.from_numpy(expected)).abs().max()) < 0.012


def test_no_blur_changes_nothing_and_gradients_reach_the_depth() -> None:
    image = torch.rand(1, 3, 20, 24, dtype=torch.float64)
    assert torch.equal(reblur(image, torch.zeros(1, 1, 20, 24, dtype=torch.float64), largest_px=0.0), image)
    sigma = torch.rand(1, 1, 6, 5, dtype=torch.float64) * 2 + 0.4
    sigma.requires_grad_()
    small = torch.rand(1, 2, 6, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: reblur(small, s, largest_px=3.0), (sigma,))
