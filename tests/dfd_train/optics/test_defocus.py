from __future__ import annotations

import numpy as np
import pytest
import torch

from defocus_sim.lens import Lens
from defocus_sim.simulate import defocus as defocus_array
from dfd_train.errors import ConfigError
from dfd_train.optics.camera import COC_PX, FOCUS_M, camera_of, coc_px_from, depth_from_coc, depth_per_coc
from dfd_train.optics.defocus import defocus

LENSES = (Lens.preset("paper"), Lens.preset("kinect", focus_blur_px=0.6), Lens.preset("paper", max_coc_px=6.0))


def scene(seed: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    depth = np.where(rng.random((height, width)) < 0.5, rng.uniform(0.9, 2, (height, width)), 5.0)
    return rng.random((height, width, 3)).astype(np.float32), depth.astype(np.float32)


def tensors(image: np.ndarray, depth_m: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(depth_m)[None, None]


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.name)
@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("linear_light", [False, True])
def test_tensors_are_blurred_as_arrays_are(lens: Lens, psf: str, linear_light: bool) -> None:
    image, depth_m = scene(0)
    expected = defocus_array(image, depth_m, lens, psf=psf, linear_light=linear_light)  # type: ignore[arg-type]
    got = defocus(*tensors(image, depth_m), lens, psf=psf, linear_light=linear_light)  # type: ignore[arg-type]
    assert np.abs(got[0].permute(1, 2, 0).numpy() - expected).max() < 0.5 / 255


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
def test_each_image_of_a_batch_is_blurred_by_its_own_camera(psf: str) -> None:
    frames = [tensors(*scene(seed)) for seed in (1, 2)]
    lenses = [Lens.preset("paper"), Lens.preset("paper", focus_distance_m=4.0)]
    cameras = torch.stack([camera_of(lens, (40, 56)) for lens in lenses])
    together = defocus(torch.cat([f[0] for f in frames]), torch.cat([f[1] for f in frames]), cameras, psf=psf)  # type: ignore[arg-type]
    for row, (frame, lens) in enumerate(zip(frames, lenses, strict=True)):
        assert torch.allclose(together[row], defocus(*frame, lens, psf=psf)[0], atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
def test_gradients_reach_depth_focus_and_aperture_and_are_those_of_differences(psf: str) -> None:
    rng = np.random.default_rng(3)
    image = torch.from_numpy(rng.random((1, 3, 9, 11)))
    # Far from the focus, and no reach of a kernel on a whole number of pixels: those are steps.
    depth = torch.from_numpy(rng.uniform(3.0, 4.0, (1, 1, 9, 11))).requires_grad_()
    camera = camera_of(Lens.preset("paper", max_coc_px=None), (40, 200))[None].double()
    camera[:, COC_PX] = 9.0
    camera.requires_grad_()
    weight = torch.from_numpy(rng.random((1, 3, 9, 11)))

    def cost(depth_m: torch.Tensor, cam: torch.Tensor) -> torch.Tensor:
        return (weight * defocus(image, depth_m, cam, psf=psf)).sum()  # type: ignore[arg-type]

    cost(depth, camera).backward()
    assert depth.grad is not None
    assert camera.grad is not None
    for column in (FOCUS_M, COC_PX):
        step = torch.zeros_like(camera)
        step[0, column] = 1e-6
        with torch.no_grad():
            slope = (cost(depth, camera + step) - cost(depth, camera - step)) / 2e-6
        assert camera.grad[0, column] == pytest.approx(float(slope), rel=1e-3)
    step = torch.zeros_like(depth)
    step[0, 0, 4, 5] = 1e-6
    with torch.no_grad():
        slope = (cost(depth + step, camera) - cost(depth - step, camera)) / 2e-6
    assert depth.grad[0, 0, 4, 5] == pytest.approx(float(slope), rel=1e-3)


def test_what_is_in_focus_and_what_is_constant_stays() -> None:
    image, _ = tensors(*scene(4))
    lens = Lens.preset("paper")
    assert torch.equal(defocus(image, torch.full((1, 1, 40, 56), 2.0), lens), image)
    flat = torch.full((1, 3, 40, 56), 0.3)
    assert torch.allclose(defocus(flat, tensors(*scene(5))[1], lens, psf="disc"), flat, atol=1e-6)


def test_wrong_input_is_named() -> None:
    image, depth = tensors(*scene(6))
    lens = Lens.preset("paper")
    with pytest.raises(ConfigError, match="psf='box'"):
        defocus(image, depth, lens, psf="box")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"aif \(1, 3, 40, 56\) and depth_m \(1, 40, 56\)"):
        defocus(image, depth[0], lens)
    with pytest.raises(ConfigError, match="fill its holes"):
        defocus(image, depth * 0, lens)


def test_a_coc_and_its_depth_belong_together() -> None:
    lens = Lens.preset("paper", focus_distance_m=1.5)
    camera = camera_of(lens, (120, 160), (60, 80))[None]
    depth = torch.linspace(0.5, 40, 300)[None, None, None]
    coc = coc_px_from(depth, camera)
    from defocus_sim.lens import coc_diameter_px

    assert np.allclose(coc[0, 0, 0].numpy(), coc_diameter_px(depth[0, 0, 0].numpy(), lens, width_px=160) / 2, atol=1e-3)
    assert torch.allclose(depth_from_coc(coc, camera), depth, rtol=1e-4)
    slope = (depth_from_coc(coc + 1e-3, camera) - depth_from_coc(coc - 1e-3, camera)) / 2e-3
    assert torch.allclose(depth_per_coc(depth, camera)[..., 5:], slope[..., 5:], rtol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("psf", ["gaussian", "disc"])
def test_the_gpus_own_kernel_blurs_alike(psf: str) -> None:
    image, depth = tensors(*scene(7, 60, 100))
    lens = Lens.preset("paper")
    there = defocus(image.cuda(), depth.cuda(), lens, psf=psf).cpu()  # type: ignore[arg-type]
    assert float((there - defocus(image, depth, lens, psf=psf)).abs().max()) < 1e-4  # type: ignore[arg-type]
