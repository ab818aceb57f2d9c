import cv2
import numpy as np
import photographs
import pytest

from defocus_sim import Lens, SensorNoise, defocus
from defocus_sim.calibrate.curves import Photographs, measure
from defocus_sim.calibrate.fit import fit_lens
from defocus_sim.calibrate.photographs import read_stack
from defocus_sim.calibrate.report import fit_lines, fitted_lens, save_fit_plot
from defocus_sim.errors import CalibrationError, SourceError
from defocus_sim.lens import coc_at_infinity_px, coc_diameter_px, sigma_px

TRUE = photographs.LENS.changed(aperture_mm=28.0, sigma_per_coc=0.3, focus_blur_px=0.5, focus_distance_m=1.8)
WIDTH = 320


@pytest.fixture(scope="module")
def scenes():
    return photographs.scenes(6, (WIDTH, 240))


def taken(scenes, lens=TRUE, **rendering):
    options = {"linear_light": True, **rendering}
    return [
        Photographs(scene=str(i), defocused=defocus(aif, depth_m, lens, **options), sharp=aif, depth_m=depth_m)
        for i, (aif, depth_m) in enumerate(scenes)
    ]


def test_a_gaussian_lens_is_found_again(scenes):
    fit = fit_lens(measure(taken(scenes)), resamplings=30)
    assert fit.focus_distance_m.value == pytest.approx(1.8, rel=0.02)
    true_sigma = 0.3 * coc_at_infinity_px(TRUE, WIDTH)
    assert fit.sigma_at_infinity_px.value == pytest.approx(true_sigma, rel=0.03)
    assert fit.focus_blur_px.value == pytest.approx(0.5, abs=0.05)
    for one in (fit.focus_distance_m, fit.sigma_at_infinity_px, fit.coc_at_infinity_px, fit.focus_blur_px):
        assert one.low <= one.value <= one.high
    assert fit.residual_px < 0.15


def test_a_disc_gives_its_aperture_and_the_gaussian_that_comes_nearest(scenes):
    true = TRUE.changed(sigma_per_coc=0.25)
    # Without blur in focus, as a disc with some is a wider disc.
    true = Lens(**true.to_json() | {"focus_blur_px": 0.0})
    fit = fit_lens(measure(taken(scenes, true, psf="disc")), resamplings=5)
    lens = fitted_lens(fit, true)
    assert lens.aperture_mm == pytest.approx(28.0, rel=0.04)
    assert lens.focal_length_mm == 35
    assert 0.24 < lens.sigma_per_coc < 0.31
    depth = np.array([0.9, 1.2, 3.0, 6.0])
    np.testing.assert_allclose(
        coc_diameter_px(depth, lens, width_px=WIDTH), coc_diameter_px(depth, true, width_px=WIDTH), rtol=0.08, atol=0.15
    )


@pytest.mark.parametrize("aperture_mm", [12.0, 28.0])
def test_a_lens_that_was_simulated_is_measured_to_a_few_per_cent(scenes, aperture_mm):
    """Noise, occlusion and a sharp picture with clipped lights, as photographs have, do not widen what is measured."""
    true = Lens(**TRUE.changed(aperture_mm=aperture_mm).to_json() | {"focus_blur_px": 0.0, "sigma_per_coc": 0.25})
    rng = np.random.default_rng(3)
    photos = taken(scenes, true, mode="layered", psf="disc", noise=SensorNoise(shot=1e-4, read=2e-3), rng=rng)
    fit = fit_lens(measure(photos), resamplings=20)
    coc_px = coc_at_infinity_px(true, WIDTH)
    assert fit.coc_at_infinity_px.value == pytest.approx(coc_px, rel=0.04)
    assert fit.coc_at_infinity_px.low <= coc_px * 1.04
    assert fit.coc_at_infinity_px.high >= coc_px * 0.96
    assert fit.focus_distance_m.value == pytest.approx(1.8, rel=0.02)


def test_the_lens_that_is_found_simulates_the_photographs_best(scenes):
    true = TRUE.changed(sigma_per_coc=0.25)
    photos = taken(scenes[:3], true, mode="layered", psf="disc")
    fit = fit_lens(measure(photos), resamplings=0)
    lens = fitted_lens(fit, true)

    def agreement_db(scale):
        other = lens.changed(aperture_mm=lens.aperture_mm * scale)
        made = [(defocus(p.sharp, p.depth_m, other, psf="disc", linear_light=True), p.defocused) for p in photos]
        return np.mean([-10 * np.log10(np.mean((seen.astype(float) - truth) ** 2)) for seen, truth in made])

    assert agreement_db(1.0) > max(agreement_db(0.88), agreement_db(1.14))


def test_the_sharp_pictures_own_aperture_is_part_of_the_lens(scenes):
    sharp_mm = 10.0
    start = [
        (defocus(aif, d, TRUE.changed(aperture_mm=sharp_mm, focus_blur_px=0.01), linear_light=True), d)
        for aif, d in scenes[:4]
    ]
    added = TRUE.beyond(aperture_mm=sharp_mm)
    fit = fit_lens(measure(taken(start, added)), resamplings=3)
    lens = fitted_lens(fit, TRUE, sharp_mm)
    without = fitted_lens(fit, TRUE)
    assert lens.aperture_mm == pytest.approx(np.hypot(without.aperture_mm, sharp_mm))
    ratio = sigma_px(coc_at_infinity_px(lens, WIDTH), lens) / sigma_px(coc_at_infinity_px(TRUE, WIDTH), TRUE)
    assert ratio == pytest.approx(1, abs=0.05)


def test_what_the_data_cannot_tell_is_said(scenes):
    plain = [(np.full_like(aif, 120), depth) for aif, depth in scenes[:2]]
    with pytest.raises(CalibrationError, match="have texture"):
        fit_lens(measure(taken(plain)))
    with pytest.raises(CalibrationError, match="at one depth"):
        fit_lens(measure(taken([(aif, np.full_like(depth, 3.0)) for aif, depth in scenes])))
    with pytest.raises(CalibrationError, match="no pair"):
        measure([])
    holes = [
        Photographs(scene="a", defocused=aif, sharp=aif, depth_m=np.zeros_like(depth)) for aif, depth in scenes[:1]
    ]
    with pytest.raises(CalibrationError, match="metric depth"):
        measure(holes)
    few = fit_lens(measure(taken(scenes[:2])))
    assert np.isnan(few.focus_distance_m.low)
    assert any("no interval" in line for line in few.warnings)
    assert any("no interval" in line for line in fit_lines(few, fitted_lens(few)))


def test_a_focus_outside_of_the_depths_is_called_an_extrapolation(scenes):
    far = TRUE.changed(focus_distance_m=20.0, aperture_mm=12.0)
    fit = fit_lens(measure(taken(scenes, far)), resamplings=5)
    assert any("extrapolation" in line for line in fit.warnings)


def test_a_lens_without_a_camera_blurs_alike_all_the_same(scenes):
    fit = fit_lens(measure(taken(scenes[:4])), resamplings=3)
    known, unknown = fitted_lens(fit, TRUE), fitted_lens(fit)
    depth = np.array([1.0, 4.0])
    np.testing.assert_allclose(
        coc_diameter_px(depth, known, width_px=WIDTH), coc_diameter_px(depth, unknown, width_px=WIDTH), rtol=1e-9
    )


def test_a_focal_stack_of_a_flat_target_gives_the_lens_and_its_scales_error(tmp_path, scenes):
    aif = scenes[0][0]
    depth_m = np.full(aif.shape[:2], 1.5, np.float32)
    cv2.imwrite(str(tmp_path / "sharp.png"), aif[..., ::-1])
    lines = ["picture,focus"]
    for number, focus_m in enumerate((0.8, 1.0, 1.25, 1.4, 1.7, 2.2, 4.0)):
        picture = defocus(aif, depth_m, TRUE.at_focus(focus_m), linear_light=True)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture[..., ::-1])
        # The scale on the lens says 0.02 dioptres less.
        lines.append(f"{number}.png,{1 / (1 / focus_m - 0.02):.6f}m")
    (tmp_path / "stack.csv").write_text("\n".join(lines))
    photos = list(read_stack(tmp_path / "stack.csv", tmp_path / "sharp.png", 1.5))
    fit = fit_lens(measure(photos), resamplings=10)
    assert fit.focus_offset_per_m == pytest.approx(0.02, abs=0.01)
    assert fitted_lens(fit, TRUE).focus_distance_m == pytest.approx(1.4, rel=0.03)
    assert fit.focus_blur_px.value == pytest.approx(0.5, abs=0.1)
    true_sigma = 0.3 * coc_at_infinity_px(TRUE.at_focus(1.4), WIDTH)
    assert fit.sigma_at_infinity_px.value == pytest.approx(true_sigma, rel=0.06)
    (tmp_path / "stack.csv").write_text("0.png,near\n")
    with pytest.raises(SourceError, match="line 1"):
        list(read_stack(tmp_path / "stack.csv", tmp_path / "sharp.png", 1.5))


def test_the_plot_is_written(tmp_path, scenes):
    fit = fit_lens(measure(taken(scenes[:3])), resamplings=3)
    picture = cv2.imread(str(save_fit_plot(fit, tmp_path / "lens.png")))
    assert picture.std() > 10
