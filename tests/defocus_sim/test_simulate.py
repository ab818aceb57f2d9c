import dataclasses

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

from defocus_sim import Lens, SensorNoise, defocus
from defocus_sim.blur.light import linear_to_srgb, srgb_to_linear
from defocus_sim.errors import DepthError, ImageError, RenderingError
from defocus_sim.lens import coc_diameter_px, sigma_px
from defocus_sim.simulate import blur_maps, fill_holes

LENS = Lens.preset("paper")


@pytest.fixture
def scene(rng):
    """A uint8 image and a dense depth map of a room, 60x80."""
    return rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), rng.uniform(0.8, 8, (60, 80)).astype(np.float32)


@pytest.mark.parametrize("mode", ["gather", "layered"])
@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("linear_light", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_depth_at_focus_is_the_identity_to_the_last_bit(rng, mode, psf, linear_light, dtype):
    image = rng.random((30, 41, 3))
    image = (image * 255).astype(dtype) if dtype == np.uint8 else image.astype(dtype)
    result = defocus(image, np.full((30, 41), 2.0), LENS, mode=mode, psf=psf, linear_light=linear_light)
    assert result.dtype == image.dtype
    assert (result == image).all()
    assert result is not image


@pytest.mark.parametrize("mode", ["gather", "layered"])
@pytest.mark.parametrize("psf", ["gaussian", "disc"])
@pytest.mark.parametrize("linear_light", [False, True])
def test_a_constant_image_stays_constant(scene, mode, psf, linear_light):
    for level in (0, 1, 77, 200, 255):
        image = np.full((60, 80, 3), level, np.uint8)
        assert (defocus(image, scene[1], LENS, mode=mode, psf=psf, linear_light=linear_light) == level).all()


def test_a_plane_is_blurred_by_the_sigma_that_the_lens_says(rng):
    image = rng.random((64, 100))
    result = defocus(image, np.full((64, 100), 3.0), LENS)
    sigma = float(coc_diameter_px(3.0, LENS, width_px=100)) / 4
    truth = gaussian_filter(image, sigma, mode="reflect", radius=int(np.ceil(4 * sigma)))
    assert np.abs(result - truth).max() < 2e-6


def test_shapes_and_batches_agree_with_single_calls(scene):
    image, depth = scene
    result = defocus(image, depth, LENS)
    batch = defocus(np.stack([image, image[:, ::-1]]), np.stack([depth, depth[:, ::-1]]), LENS)
    assert (batch[0] == result).all()
    assert (batch[1] == result[:, ::-1]).all()
    grey = defocus(image[..., 0], depth, LENS)
    assert grey.shape == (60, 80)
    assert (grey == result[..., 0]).all()
    assert (defocus(image[..., :1], depth, LENS)[..., 0] == grey).all()
    assert (defocus(image[None, ..., 0], depth[None], LENS)[0] == grey).all()


def test_uint8_is_the_rounded_float_result(scene):
    image, depth = scene
    as_float = defocus(image / np.float32(255), depth, LENS)
    assert np.abs(defocus(image, depth, LENS) / 255 - as_float).max() <= 0.5 / 255 + 1e-6


def test_holes_take_the_nearest_valid_depth(rng):
    depth = rng.uniform(1, 5, (40, 50))
    holes = rng.random(depth.shape) < 0.6
    holed = np.where(holes, rng.choice([0.0, np.inf], depth.shape), depth)
    distance = distance_transform_edt(holes)
    filled = fill_holes(holed)
    for y, x in np.argwhere(holes):
        candidates = {
            np.float32(depth[j, i])
            for j, i in np.argwhere(~holes & np.isclose(np.hypot(*np.ogrid[-y : 40 - y, -x : 50 - x]), distance[y, x]))
        }
        assert filled[y, x] in candidates
    assert (filled[~holes] == depth[~holes].astype(np.float32)).all()


def test_a_hole_never_blurs_by_its_own_value(scene):
    image, depth = scene
    depth = np.full_like(depth, 2.0)
    depth[20:30, 30:40] = 0
    assert (defocus(image, depth, LENS) == image).all()


def test_nan_is_a_hole_only_on_request(scene):
    image, depth = scene
    holed, nan = depth.copy(), depth.copy()
    holed[5:9], nan[5:9] = 0, np.nan
    with pytest.raises(DepthError, match="320 NaN pixels"):
        defocus(image, nan, LENS)
    assert (defocus(image, nan, LENS, nan="hole") == defocus(image, holed, LENS)).all()


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        (lambda image, depth: (image, depth * 1000), DepthError, "millimetres"),
        (lambda image, depth: (image, (depth * 1000).astype(np.uint16)), DepthError, "uint16"),
        (lambda image, depth: (image, np.zeros_like(depth)), DepthError, "no valid pixel"),
        (lambda image, depth: (image, np.full_like(depth, np.inf)), DepthError, "no valid pixel"),
        (lambda image, depth: (image, -depth), DepthError, "reaches -"),
        (lambda image, depth: (image, depth[:-1]), ImageError, "does not fit"),
        (lambda image, depth: (image[..., :2], depth), ImageError, "1 or 3 channels"),
        (lambda image, depth: (image, depth[0]), DepthError, "shape"),
        (lambda image, depth: (image.astype(np.float32), depth), ImageError, "divide by 255"),
        (lambda image, depth: (image / 255 - 0.5, depth), ImageError, r"spans -0\.5"),
        (lambda image, depth: (np.where(image == 7, np.nan, 0.5), depth), ImageError, "NaN"),
        (lambda image, depth: (image.astype(np.int32), depth), ImageError, "int32"),
        (lambda image, depth: (image[:0], depth[:0]), DepthError, "empty"),
    ],
)
def test_wrong_arrays_are_refused_by_name(scene, change, error, word):
    with pytest.raises(error, match=word) as caught:
        defocus(*change(*scene), LENS)
    assert "\n" not in str(caught.value)


def test_one_bad_image_of_a_batch_is_named(scene):
    image, depth = scene
    with pytest.raises(DepthError, match="image 1"):
        defocus(np.stack([image, image]), np.stack([depth, depth * 0]), LENS)


@pytest.mark.parametrize(
    ("option", "word"), [({"mode": "scatter"}, "scatter"), ({"psf": "box"}, "box"), ({"truncate": 0.5}, "0.5")]
)
def test_unknown_options_are_refused_with_the_choices(scene, option, word):
    with pytest.raises(RenderingError, match=word):
        defocus(*scene, LENS, **option)


def test_srgb_curve_is_the_standards_and_inverts_itself():
    levels = np.arange(256, dtype=np.float32) / 255
    linear = srgb_to_linear(levels)
    assert linear[128] == pytest.approx(0.2158605, abs=1e-6)
    assert np.abs(linear_to_srgb(linear) - levels).max() < 1e-6


def test_linear_light_keeps_highlights_bright():
    image = np.zeros((81, 81), np.uint8)
    image[39:42, 39:42] = 255
    depth = np.full(image.shape, 0.6)
    dark, bright = (defocus(image, depth, LENS, psf="disc", linear_light=on) for on in (False, True))
    assert bright.astype(float).sum() > 1.5 * dark.astype(float).sum()


def test_noise_has_the_stated_variance_and_is_a_function_of_the_seed():
    image = np.full((200, 300), 0.4, np.float32)
    depth = np.full(image.shape, 2.0)
    noise = SensorNoise(shot=1e-3, read=5e-3)
    once, again = (defocus(image, depth, LENS, noise=noise, rng=np.random.default_rng(5)) for _ in range(2))
    assert (once == again).all()
    assert once.mean() == pytest.approx(0.4, abs=5e-4)
    assert once.var() == pytest.approx(1e-3 * 0.4 + 5e-3**2, rel=0.03)
    with pytest.raises(RenderingError, match="rng"):
        defocus(image, depth, LENS, noise=noise)
    with pytest.raises(RenderingError, match="-1"):
        SensorNoise(shot=-1)


def test_dither_keeps_the_mean_of_a_value_between_two_levels(rng):
    image = np.full((100, 100), 100, np.uint8)
    image[::2] = 101
    result = defocus(image, np.full(image.shape, 8.0), LENS, dither=True, rng=rng)
    assert set(np.unique(result)) <= {100, 101}
    assert result.mean() == pytest.approx(100.5, abs=0.02)


def test_blur_maps_are_the_lens_applied_to_the_filled_depth(scene):
    depth = scene[1].copy()
    depth[:, :10] = 0
    coc, sigma = blur_maps(depth, LENS)
    np.testing.assert_allclose(coc, coc_diameter_px(fill_holes(depth), LENS), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sigma, np.abs(coc) / 4, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "syndof", "d3net", "kinect"])
@pytest.mark.parametrize("cap", [None, 7.5])
def test_blur_maps_in_one_pass_are_those_of_the_lens_to_the_last_bit(rng, preset, cap):
    depth = rng.uniform(0.3, 12, (60, 80)).astype(np.float32)
    lens = dataclasses.replace(Lens.preset(preset), max_coc_px=cap)
    solved = lens.for_depth(depth)
    coc, sigma = blur_maps(depth[:, ::-1], lens)
    wanted = coc_diameter_px(depth[:, ::-1], solved)
    assert (coc == wanted.astype(np.float32)).all()
    assert (sigma == sigma_px(wanted, solved).astype(np.float32)).all()


@pytest.mark.parametrize("mode", ["gather", "layered"])
@pytest.mark.parametrize("psf", ["gaussian", "disc"])
def test_in_focus_blur_is_there_where_depth_says_sharp(mode, psf, rng):
    image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    lens = Lens.preset("d3net-camera", focus_distance_m=2.0, focus_blur_px=1.0)
    blurred = defocus(image, np.full((48, 64), 2.0, np.float32), lens, mode=mode, psf=psf)
    reference = gaussian_filter(image / 255.0, (1, 1, 0), mode="reflect")
    # A disc of the same variance is not the Gaussian, but close.
    assert np.abs(blurred / 255.0 - reference).max() < (0.006 if psf == "gaussian" else 0.2)
    assert np.abs(blurred / 255.0 - reference).mean() < (0.002 if psf == "gaussian" else 0.03)


@pytest.mark.parametrize("linear_light", [False, True])
@pytest.mark.parametrize("mode", ["gather", "layered"])
def test_corners_get_their_share_of_light_and_the_middle_all(linear_light, mode):
    image = np.full((41, 61, 3), 180, np.uint8)
    lens = Lens.preset("d3net-camera", corner_light=0.8)
    seen = defocus(image, np.full((41, 61), 3.0, np.float32), lens, mode=mode, linear_light=linear_light)
    share = ((seen / 255 + 0.055) / 1.055) ** 2.4 / ((180 / 255 + 0.055) / 1.055) ** 2.4
    assert share[20, 30, 0] == pytest.approx(1, abs=0.01)
    assert share[0, 0, 1] == pytest.approx(0.8, abs=0.01)
    assert share[20, 0, 2] == pytest.approx(1 - 0.2 * 30**2 / (30**2 + 20**2), abs=0.01)
