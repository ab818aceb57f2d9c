from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.lens import Lens
from defocus_sim.simulate import defocus, fill_holes
from dfd_train.config.model import DECONVOLUTIONS
from dfd_train.optics.deconvolution import IDENTITY_SIGMA_PX, SOLVERS, deconvolve, restore_with_depth


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return -10 * float(torch.log10(((first - second) ** 2).mean()))


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    source = SyntheticSource(count=3, size_wh=(256, 192))
    with source.open() as reader:
        frames = [reader.read(k) for k in range(3)]
    return [(frame.aif, fill_holes(frame.depth_m)) for frame in frames]


@pytest.mark.parametrize(("method", "gain_db"), [("hqs", 1.0), ("wiener", 0.4)])
def test_with_true_depth_every_scene_becomes_sharper(
    scenes: list[tuple[np.ndarray, np.ndarray]], method: str, gain_db: float
) -> None:
    lens = Lens.preset("paper")
    for aif, depth_m in scenes:
        blurred = planes(defocus(aif, depth_m, lens))
        restored = restore_with_depth(blurred, depth_m, lens, method=method)
        assert psnr(restored, planes(aif)) > psnr(blurred, planes(aif)) + gain_db


def test_wrong_depth_does_not_help_as_much(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    lens = Lens.preset("paper")
    aif, depth_m = scenes[0]
    blurred = planes(defocus(aif, depth_m, lens))
    right = restore_with_depth(blurred, depth_m, lens, method="wiener")
    wrong = restore_with_depth(blurred, np.full_like(depth_m, depth_m.max()), lens, method="wiener")
    assert psnr(right, planes(aif)) > psnr(wrong, planes(aif)) + 1


@pytest.mark.parametrize("method", ["hqs", "wiener"])
def test_one_blur_everywhere_is_undone_up_to_the_border(method: str) -> None:
    rng = np.random.default_rng(0)
    sharp = ndimage.gaussian_filter(rng.random((3, 80, 96)), (0, 1.2, 1.2))
    sharp = (sharp - sharp.min()) / (sharp.max() - sharp.min())
    blurred = torch.from_numpy(ndimage.gaussian_filter(sharp, (0, 1.5, 1.5), mode="reflect"))
    restored = deconvolve(blurred, torch.full((80, 96), 1.5, dtype=torch.float64), method=method)
    error = ((restored - torch.from_numpy(sharp)) ** 2).mean(dim=0)
    before = ((blurred - torch.from_numpy(sharp)) ** 2).mean(dim=0)
    assert float(error.mean()) < float(before.mean()) / 3
    border = torch.ones(80, 96, dtype=torch.bool)
    border[6:-6, 6:-6] = False
    assert float(error[border].mean()) < 2 * float(error[~border].mean())


def test_what_is_in_focus_stays_as_it_is() -> None:
    image = torch.rand(3, 40, 48)
    assert torch.equal(deconvolve(image, torch.full((40, 48), IDENTITY_SIGMA_PX * 0.9)), image)
    sigma = torch.zeros(40, 48)
    sigma[:, 24:] = 2.0
    restored = deconvolve(image, sigma)
    assert torch.equal(restored[..., :24], image[..., :24])
    assert not torch.equal(restored[..., 24:], image[..., 24:])
    assert float(restored.min()) >= 0
    assert float(restored.max()) <= 1


def test_more_levels_change_little(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    lens = Lens.preset("paper")
    aif, depth_m = scenes[1]
    blurred = planes(defocus(aif, depth_m, lens))
    usual, many, few = (restore_with_depth(blurred, depth_m, lens, method="wiener", levels=n) for n in (32, 96, 3))
    truth = planes(aif)
    assert abs(psnr(usual, truth) - psnr(many, truth)) < 0.2
    assert psnr(usual, truth) > psnr(few, truth)


def test_impossible_arguments_are_refused_by_name() -> None:
    image, sigma = torch.rand(3, 8, 8), torch.ones(8, 8)
    for arguments, pattern in (
        ((image, sigma, "magic", 32), "magic"),
        ((image, sigma, "hqs", 0), "levels=0"),
        ((image, sigma[:4], "hqs", 32), "does not fit"),
        ((image, -sigma, "hqs", 32), "not negative"),
        ((image, sigma / 0, "hqs", 32), "finite"),
    ):
        with pytest.raises(ValueError, match=pattern):
            deconvolve(arguments[0], arguments[1], method=arguments[2], levels=arguments[3])
    with pytest.raises(ValueError, match="holes"):
        restore_with_depth(image, np.zeros((8, 8)), Lens.preset("paper"))


def test_a_model_can_name_every_solver_and_no_other():
    assert DECONVOLUTIONS == SOLVERS
