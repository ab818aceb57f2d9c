import numpy as np
import pytest
from reference import gather_reference
from scipy.ndimage import gaussian_filter

from defocus_sim import Lens, defocus
from defocus_sim.blur.gather import gather
from defocus_sim.blur.pyramid import CLOSE, FAST, gaussian_gather
from defocus_sim.lens import coc_diameter_px

# Of full scale, on white noise, against the Gaussian that is not truncated; the direct sum at 4 sigma is within 2e-5.
TOLERANCE = 5e-6
UNTRUNCATED = 6.0
WIDE_SIGMA_PX = 2 * CLOSE.narrowest


def noise(rng, channels, height, width):
    return rng.random((channels, height, width), dtype=np.float32)


# Sizes around the blocks, smaller than the blur, and sigmas for one to five grids.
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 70), (41, 5), (37, 64), (60, 81)])
@pytest.mark.parametrize(("channels", "largest"), [(1, 5.0), (3, 9.0), (3, 14.0), (1, 40.0)])
def test_every_pixel_is_the_gaussian_of_its_own_sigma(rng, height, width, channels, largest):
    image = noise(rng, channels, height, width)
    sigma = (largest * rng.random((height, width)) ** 0.5).astype(np.float32)
    sigma[rng.random(sigma.shape) < 0.1] = 0
    result = gaussian_gather(image, sigma)
    truth = gather_reference(image.transpose(1, 2, 0).astype(float), sigma.astype(float), truncate=UNTRUNCATED)
    error = np.abs(result - truth.transpose(2, 0, 1))
    wide = sigma >= WIDE_SIGMA_PX
    direct = gather(image, sigma, 4 * sigma)
    assert error[:, wide].max(initial=0) < TOLERANCE
    assert (result[:, ~wide] == direct[:, ~wide]).all()


@pytest.mark.parametrize("sigma", [3.0, 3.01, 5.99, 6.0, 7.3, 11.99, 12.0, 24.0, 33.3])
def test_around_the_change_of_grids_the_result_is_scipys(rng, sigma):
    image, field = noise(rng, 1, 90, 110), np.full((90, 110), sigma, np.float32)
    result = gaussian_gather(image, field)
    truth = gaussian_filter(image[0].astype(float), float(np.float32(sigma)), mode="reflect", truncate=UNTRUNCATED)
    assert np.abs(result[0] - truth).max() < TOLERANCE
    # It would be the direct sum otherwise, which is tested elsewhere.
    assert (result != gather(image, field, 4 * field)).any()


def test_too_few_wide_pixels_for_a_grid_to_pay_get_the_direct_sum(rng):
    image, sigma = noise(rng, 3, 50, 60), (2 * rng.random((50, 60))).astype(np.float32)
    sigma[20:23, 30:33] = 7
    assert (gaussian_gather(image, sigma) == gather(image, sigma, 4 * sigma)).all()


def test_a_wider_reach_brings_the_result_closer_and_a_shorter_one_not_far(rng):
    image, sigma = noise(rng, 1, 60, 60), np.full((60, 60), 8.0, np.float32)
    truth = gaussian_filter(image[0].astype(float), 8.0, mode="reflect", truncate=UNTRUNCATED)
    errors = [np.abs(gaussian_gather(image, sigma, truncate=reach)[0] - truth).max() for reach in (2.0, 3.0, 5.0)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 0.02
    assert errors[2] < 1e-6


def test_bytes_are_blurred_as_their_levels_and_a_mirrored_image_gives_the_mirrored_result(rng):
    image = rng.integers(0, 256, (47, 70, 3), dtype=np.uint8)
    sigma, levels = (12 * rng.random((47, 70))).astype(np.float32), rng.random(256, dtype=np.float32)
    planes = np.ascontiguousarray(levels[image].transpose(2, 0, 1))
    result = gaussian_gather(planes, sigma)
    assert (gaussian_gather(image, sigma, levels=levels) == result).all()
    mirrored = gaussian_gather(np.ascontiguousarray(planes[:, :, ::-1]), np.ascontiguousarray(sigma[:, ::-1]))
    assert (mirrored[:, :, ::-1] == result).all()


def test_constants_stay_and_no_result_leaves_the_range_of_the_image(rng):
    sigma = (20 * rng.random((60, 60))).astype(np.float32)
    constant = np.full((3, 60, 60), 0.37, np.float32)
    assert np.abs(gaussian_gather(constant, sigma) - 0.37).max() < 1e-6
    extremes = rng.integers(0, 2, (1, 60, 60)).astype(np.float32)
    result = gaussian_gather(extremes, sigma)
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6


def test_a_plane_far_out_of_focus_is_blurred_by_the_sigma_that_the_lens_says(rng):
    """Through the public edge, which is where a coarse grid must not show."""
    image, lens = rng.random((120, 200)), Lens.preset("paper")
    result = defocus(image, np.full((120, 200), 0.6), lens)
    sigma = float(-coc_diameter_px(0.6, lens, width_px=200)) / 4
    assert sigma > WIDE_SIGMA_PX
    truth = gaussian_filter(image, sigma, mode="reflect", truncate=UNTRUNCATED)
    assert np.abs(result - truth).max() < TOLERANCE


@pytest.mark.parametrize("channels", [1, 3])
def test_who_truncates_earlier_gets_grids_earlier_and_no_larger_error_than_truncation_leaves(rng, channels):
    image, sigma = noise(rng, channels, 90, 110), np.full((90, 110), 2 * FAST.narrowest, np.float32)
    truth = np.stack(
        [gaussian_filter(p.astype(float), 2 * FAST.narrowest, mode="reflect", truncate=6.0) for p in image]
    )
    direct = gather(image, sigma, 4 * sigma, truncate=3.5)
    result = gaussian_gather(image, sigma, truncate=3.5)
    assert (result != direct).any()
    assert np.abs(result - truth).max() < 1.5e-4
    assert (gaussian_gather(image, sigma) == gather(image, sigma, 4 * sigma)).all()


@pytest.mark.parametrize("width", [45.0, 100.0])
def test_grids_whose_samples_lie_a_whole_vector_and_more_apart(rng, width):
    image, sigma = noise(rng, 3, 50, 300), np.full((50, 300), width, np.float32)
    truth = gaussian_filter(image[0].astype(float), width, mode="reflect", truncate=UNTRUNCATED)
    assert np.abs(gaussian_gather(image, sigma)[0] - truth).max() < TOLERANCE


def test_one_wide_pixel_among_narrow_ones_gets_its_own_width(rng):
    image, sigma = noise(rng, 3, 50, 300), np.full((50, 300), 2.0, np.float32)
    sigma[20, 100] = 200
    everywhere = gaussian_gather(image, np.full_like(sigma, 200))
    assert np.abs(gaussian_gather(image, sigma)[:, 20, 100] - everywhere[:, 20, 100]).max() < 1e-4
