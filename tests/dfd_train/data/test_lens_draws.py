from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from defocus_sim import Lens
from defocus_sim import defocus as simulate
from dfd_train.config.lens_range import LensRange
from dfd_train.data.lens_draws import cameras_of, draw_lenses, photographed
from dfd_train.data.transforms import Frames
from dfd_train.errors import ConfigError
from dfd_train.optics.camera import COC_PX, FOCUS_M, coc_px_from
from dfd_train.optics.camera_effects import sharpened, softened
from dfd_train.optics.defocus import defocus, linear_to_srgb, srgb_to_linear

INDICES = np.arange(6, dtype=np.int64)


def frames(holes: bool = False) -> Frames:
    generator = torch.Generator().manual_seed(1)
    aif = torch.rand(6, 3, 40, 48, generator=generator)
    depth = torch.rand(6, 1, 40, 48, generator=generator) * 6 + 0.5
    if holes:
        depth[:, :, :9, :9] = 0
    return Frames(aif * 0, aif, depth)


def equal(first: Frames, second: Frames) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


RANGES = LensRange(
    focus_m=(0.8, 9.0), near_depths=0.5, psf="both", light="both", noise=(0, 2), jpeg=(60, 100), sharpen=(0, 0.5),
    most_coc_px=(3, 12), focus_blur_px=(0, 0.5), demosaic=0.5, denoise=(0, 3), tone=(0.7, 1.4), exposure=(0.5, 3),
    clean=0.5,
)  # fmt: skip


def test_a_samples_lens_depends_on_seed_epoch_and_sample_alone() -> None:
    whole, whole_cameras = photographed(frames(), draw_lenses(RANGES, INDICES, seed=3, epoch=2), 48)
    for row in range(6):
        one = Frames(*(part[row : row + 1] for part in frames()))
        alone, camera = photographed(one, draw_lenses(RANGES, INDICES[row : row + 1], seed=3, epoch=2), 48)
        assert equal(alone, Frames(*(part[row : row + 1] for part in whole)))
        assert torch.equal(camera[0], whole_cameras[row])
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}):
        assert not torch.equal(photographed(frames(), draw_lenses(RANGES, INDICES, **other), 48)[1], whole_cameras)


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("light", ["srgb", "linear"])
def test_the_picture_is_what_its_camera_sees(psf: str, light: str) -> None:
    ranges = LensRange(focus_m=(1.5, 3.0), psf=psf, light=light, focus_blur_px=(0.4, 0.4), most_coc_px=(8, 8))
    made, cameras = photographed(frames(), draw_lenses(ranges, INDICES, seed=0, epoch=0), 600)
    assert float(coc_px_from(frames().depth_m, cameras).abs().max()) > 4
    expected = defocus(frames().aif, frames().depth_m, cameras, psf=psf, linear_light=light == "linear")  # type: ignore[arg-type]
    # Cut at three sigmas and rounded to a grey level.
    assert float((made.defocused - expected).abs().max()) < 2.5 / 255
    assert torch.allclose(made.aif, frames().aif, atol=2.5 / 255)


@pytest.mark.parametrize("focus_m", [1.0, 10.0, 30.0])
def test_what_lies_far_before_the_focus_is_blurred_as_the_simulator_does(focus_m: float) -> None:
    """Most of a room is nearer than a quarter of a focus distance of 10 m."""
    ranges = LensRange(focus_m=(focus_m, focus_m), f_number=(1.0, 1.0), focal_length_mm=(50, 50))
    made, cameras = photographed(frames(), draw_lenses(ranges, INDICES, seed=0, epoch=0), 48)
    lens = Lens(focus_distance_m=focus_m, f_number=1.0, focal_length_mm=50.0, sensor_width_mm=36.0)
    assert float((frames().depth_m < focus_m / 4).float().mean()) > (0.2 if focus_m > 5 else -1)
    for row in range(6):
        depth_m = frames().depth_m[row, 0].numpy()
        expected = simulate(frames().aif[row].permute(1, 2, 0).numpy(), depth_m, lens)
        assert np.abs(made.defocused[row].permute(1, 2, 0).numpy() - expected).max() < 2.5 / 255
        asked = coc_px_from(frames().depth_m[row : row + 1], cameras[row : row + 1])[0, 0]
        assert np.allclose(asked.numpy(), lens.coc_px(depth_m, width_px=48), rtol=1e-4, atol=1e-4)


def test_the_aperture_closes_until_the_blur_is_as_wide_as_it_may_be() -> None:
    ranges = LensRange(focus_m=(1.0, 1.0), f_number=(1.0, 1.0), focal_length_mm=(85, 85), most_coc_px=(5, 5))
    cameras = cameras_of(draw_lenses(ranges, INDICES, seed=0, epoch=0), frames().depth_m, 800)
    coc = coc_px_from(frames().depth_m, cameras).abs().flatten(1)
    assert torch.allclose(coc.quantile(0.98, dim=1), torch.full((6,), 5.0), rtol=0.1)
    free = LensRange(focus_m=(1.0, 1.0), f_number=(1.0, 1.0), focal_length_mm=(85, 85), sensor_width_mm=(36, 36))
    open_wide = cameras_of(draw_lenses(free, INDICES, seed=0, epoch=0), frames().depth_m, 800)
    # D * s / S in px: 85 mm, sensor distance 85/(1 - 0.085) mm, 800 px on 36 mm.
    assert torch.allclose(open_wide[:, COC_PX], torch.tensor(85 * (85 / 0.915) / 1000 * 800 / 36), rtol=1e-4)
    assert torch.equal(open_wide[:, FOCUS_M], torch.ones(6))


def test_what_a_camera_adds_after_its_lens_is_not_to_be_undone() -> None:
    sharp = LensRange(
        focus_m=(1.0, 1.0),
        f_number=(1e4, 1e4),
        noise=(4, 4),
        demosaic=1.0,
        denoise=(3, 3),
        jpeg=(50, 50),
        sharpen=(0.5, 0.5),
    )
    made, _ = photographed(frames(), draw_lenses(sharp, INDICES, seed=0, epoch=0), 48)
    assert float((made.defocused - frames().aif).abs().mean()) > 0.01
    assert torch.allclose(made.aif, made.defocused, atol=1e-6)


def test_a_cameras_own_curve_blurs_the_light_that_it_stands_for() -> None:
    ranges = LensRange(focus_m=(1.5, 3.0), light="linear", most_coc_px=(8, 8), tone=(1.3, 1.3))
    made, cameras = photographed(frames(), draw_lenses(ranges, INDICES, seed=0, epoch=0), 600)
    # Of a picture whose sRGB code is the curve's, blurred in its light.
    light = srgb_to_linear(frames().aif) ** 1.3
    expected = linear_to_srgb(defocus(light, frames().depth_m, cameras).clamp(min=0) ** (1 / 1.3))
    assert float((made.defocused - expected).abs().max()) < 2.5 / 255
    plain, _ = photographed(frames(), draw_lenses(replace(ranges, tone=(1.0, 1.0)), INDICES, seed=0, epoch=0), 600)
    assert float((made.defocused - plain.defocused).abs().max()) > 8 / 255


def test_a_clean_target_has_neither_noise_nor_compression() -> None:
    camera = LensRange(
        focus_m=(1.0, 1.0), f_number=(1e4, 1e4), noise=(4, 4), demosaic=1.0, denoise=(3, 3), jpeg=(50, 50), clean=1.0
    )
    made, _ = photographed(frames(), draw_lenses(camera, INDICES, seed=0, epoch=0), 48)
    assert float((made.defocused - frames().aif).abs().mean()) > 0.01
    assert torch.equal(made.aif, frames().aif)
    sharpening = replace(camera, sharpen=(0.5, 0.5), softness_px=(0.8, 0.8))
    made, _ = photographed(frames(), draw_lenses(sharpening, INDICES, seed=0, epoch=0), 48)
    eights = torch.full((6,), 0.8)
    assert torch.allclose(made.aif, sharpened(softened(frames().aif, eights), eights * 0.625).clamp(0, 1), atol=1e-6)


def test_light_brighter_than_white_is_clipped_after_the_lens() -> None:
    """A point three times as bright as white lights three times as much of its surroundings."""
    ranges = LensRange(focus_m=(1.5, 3.0), light="linear", most_coc_px=(8, 8), exposure=(3.0, 3.0))
    made, cameras = photographed(frames(), draw_lenses(ranges, INDICES, seed=0, epoch=0), 600)
    light = 3 * srgb_to_linear(frames().aif)
    expected = linear_to_srgb(defocus(light, frames().depth_m, cameras).clamp(0, 1))
    assert float((made.defocused - expected).abs().max()) < 2.5 / 255
    clipped = linear_to_srgb(defocus(light.clamp(0, 1), frames().depth_m, cameras))
    assert float((expected - clipped).max()) > 20 / 255
    # The target is clipped as well; values blurred as they are stored know no exposure.
    assert torch.allclose(made.aif, linear_to_srgb(light.clamp(0, 1)), atol=2.5 / 255)
    coded, _ = photographed(frames(), draw_lenses(replace(ranges, light="srgb"), INDICES, seed=0, epoch=0), 600)
    assert torch.allclose(coded.aif, frames().aif, atol=2.5 / 255)


def test_what_is_drawn_today_leaves_the_draws_of_older_runs_as_they_were() -> None:
    old = replace(RANGES, demosaic=0.0, denoise=(0.0, 0.0), tone=(1.0, 1.0), exposure=(1.0, 1.0), clean=0.0)
    with_more, without = (draw_lenses(r, INDICES, seed=3, epoch=2) for r in (RANGES, old))
    assert all(np.array_equal(a, b) for a, b in zip(with_more[:16], without[:16], strict=True))
    assert not without.demosaic.any()
    assert not without.denoise.any()
    assert (without.tone == 1).all()
    assert (without.exposure == 1).all()
    assert not without.clean.any()


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
def test_in_layers_what_is_near_spreads_over_what_is_behind_it_as_the_simulator_has_it(psf: str) -> None:
    """A gathered picture keeps the background sharp up to the edge of something near; a layered one does not."""
    aif = torch.zeros(1, 3, 48, 64)
    aif[..., 20:40] = 1
    depth = torch.full((1, 1, 48, 64), 4.0)
    depth[..., 20:40] = 1.2
    given, ranges = Frames(aif * 0, aif, depth), LensRange(focus_m=(4.0, 4.0), psf=psf, most_coc_px=(9, 9))
    index = np.zeros(1, np.int64)
    made, cameras = photographed(given, draw_lenses(replace(ranges, layered=1.0), index, seed=0, epoch=0), 640)
    gathered, same = photographed(given, draw_lenses(ranges, index, seed=0, epoch=0), 640)
    assert torch.equal(cameras, same)
    lens = Lens(
        focus_distance_m=4.0,
        aperture_mm=float(cameras[0, COC_PX]) * 4,
        focal_length_px=1000,
        sensor_distance="infinity",
    )
    expected = simulate(
        aif[0].permute(1, 2, 0).numpy(), depth[0, 0].numpy(), lens, mode="layered", psf=psf, truncate=3.0
    )  # type: ignore[arg-type]
    assert float((made.defocused[0].permute(1, 2, 0) - torch.from_numpy(expected)).abs().max()) < 1.5 / 255
    assert float(gathered.defocused[0, 0, 24, 18]) < 0.01 < 0.1 < float(made.defocused[0, 0, 24, 18])


def test_softness_is_of_the_camera_and_is_not_to_be_undone() -> None:
    ranges = LensRange(focus_m=(1.5, 3.0), most_coc_px=(8, 8), softness_px=(0.8, 0.8))
    made, cameras = photographed(frames(), draw_lenses(ranges, INDICES, seed=0, epoch=0), 600)
    soft = np.stack([[ndimage.gaussian_filter(p, 0.8, mode="mirror") for p in one] for one in frames().aif.numpy()])
    assert float((made.aif - torch.from_numpy(soft)).abs().max()) < 1.5 / 255
    expected = defocus(made.aif, frames().depth_m, cameras)
    assert float((made.defocused - expected).abs().max()) < 2.5 / 255


def test_holes_are_filled_for_the_blur_and_stay_holes() -> None:
    made, cameras = photographed(frames(holes=True), draw_lenses(RANGES, INDICES, seed=0, epoch=0), 48)
    assert torch.equal(made.depth_m, frames(holes=True).depth_m)
    assert made.defocused.isfinite().all()
    assert cameras.isfinite().all()


def test_ranges_are_read_as_people_write_them() -> None:
    read = LensRange.parse(
        "focus=60cm..12m,f_number=f/1.2..5.6,focal_length=24mm..85mm,psf=both,jpeg=60..100,noise=0..2"
    )
    assert read == LensRange(
        focus_m=(0.6, 12.0), f_number=(1.2, 5.6), focal_length_mm=(24.0, 85.0), psf="both", jpeg=(60, 100), noise=(0, 2)
    )
    assert LensRange.parse("focus=2m").focus_m == (2.0, 2.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("focus=2", "focus=2"), ("focus=3m..1m", "focus_m=3..1"), ("aperture=1..2", "aperture=1..2"),
        ("f_number=0..2", "f_number=0..2"), ("psf=box", "psf='box'"), ("jpeg=0..50", "jpeg=0..50"), ("noise", "noise"),
        ("near_depths=2", "near_depths=2"), ("demosaic=2", "demosaic=2"), ("tone=0..1", "tone=0..1"),
        ("clean=2", "clean=2"), ("exposure=0..1", "exposure=0"),
        ("denoise=2..1", "denoise=2..1"), ("layered=0.5..1", "one number"), ("softness_px=0..3", "softness_px=0..3"),
        ("noise=a..b", "noise=a..b"), ("noise=1..2..3", "noise=1..2..3"),
    ],
)  # fmt: skip
def test_an_impossible_range_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match="lens_range") as error:
        LensRange.parse(text)
    assert named in str(error.value)
