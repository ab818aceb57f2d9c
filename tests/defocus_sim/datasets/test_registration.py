import numpy as np
import photographs
import pytest

from defocus_sim import defocus
from defocus_sim.blur.light import linear_to_srgb, srgb_to_linear
from defocus_sim.datasets.registration import Exposure, exposed_as, exposure, register, resample
from defocus_sim.errors import SourceError

SHIFT = ((1, 0, 2.4), (0, 1, -1.7))
AFFINE = ((1.004, 0.002, 1.1), (-0.003, 0.997, 2.2))


@pytest.fixture(scope="module")
def scenes():
    return photographs.scenes(3, (320, 240))


@pytest.mark.parametrize(("motion", "truth"), [("shift", SHIFT), ("affine", SHIFT), ("affine", AFFINE)])
def test_a_known_displacement_is_found_to_a_tenth_of_a_pixel_in_spite_of_blur_and_light(scenes, motion, truth):
    corners = np.array([[x, y, 1.0] for x in (0, 319) for y in (0, 239)])
    for aif, depth_m in scenes:
        blurred = photographs.exposed(
            defocus(aif, depth_m, photographs.LENS, psf="disc", linear_light=True), (0.7, 0.7, 0.7)
        )
        found = register(blurred, photographs.moved(aif, truth), motion)
        error = corners @ (found.affine - np.array(truth)).T
        assert np.abs(error).max() < 0.1
        assert found.correlation > 0.95


def test_a_larger_picture_than_the_search_looks_at_is_laid_as_exactly():
    [(aif, _)] = photographs.scenes(1, (1400, 600))
    found = register(aif, photographs.moved(aif, SHIFT), "shift")
    np.testing.assert_allclose(found.affine, SHIFT, atol=0.05)


def test_pictures_of_different_scenes_do_not_register(scenes):
    for one in range(3):
        with pytest.raises(SourceError, match="do not register"):
            register(scenes[one][0], scenes[(one + 1) % 3][0])


def test_a_picture_without_structure_is_refused(scenes):
    with pytest.raises(SourceError, match="without any structure"):
        register(np.full_like(scenes[0][0], 90), scenes[0][0])


def test_an_aligned_pair_is_not_resampled(scenes):
    aif, _ = scenes[0]
    found = register(aif, aif)
    assert np.array_equal(np.rint(resample(aif, found) * 255), aif)


def test_clipped_lights_stay_white_where_the_other_photograph_is_darker():
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], (4, 1, 3))
    for found in (Exposure(gain=(0.9, 0.8, 0.7)), Exposure(gain=(1.0, 1.0, 1.0), corner_light=0.7)):
        shown = exposed_as(ramp, found)
        assert (shown[:, -1] == 255).all()
        assert (np.diff(shown.astype(int), axis=1) >= 0).all()
    middle = exposed_as(ramp, Exposure(gain=(0.5, 0.5, 0.5)))[0, 128, 0]
    assert middle == pytest.approx(255 * linear_to_srgb(srgb_to_linear(np.float32([128 / 255])) * 0.5)[0], abs=1)


def test_the_gain_of_each_channel_and_the_corners_are_found(scenes):
    from defocus_sim.blur.light import corner_gain

    for aif, depth_m in scenes:
        lens = photographs.LENS.changed(corner_light=0.8)
        blurred = photographs.exposed(defocus(aif, depth_m, lens, linear_light=True), (0.9, 0.8, 0.7))
        found = exposure(blurred, aif.astype(np.float32) / 255, falloff=True)
        np.testing.assert_allclose(found.gain, (0.9, 0.8, 0.7), rtol=0.03)
        assert found.corner_light == pytest.approx(0.8, abs=0.04)
        shown = exposed_as(aif.astype(np.float32) / 255, found)
        assert np.abs(shown.astype(float) - blurred).mean() < np.abs(aif.astype(float) - blurred).mean() / 3
    assert corner_gain(3, 3, 0.5)[1, 1] == 1
