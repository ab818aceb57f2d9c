import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import disc_gather_reference, gather_reference
from scipy.ndimage import gaussian_filter

from defocus_sim.blur.disc import disc_radius_px
from defocus_sim.blur.gather import gather, gaussian_kernel
from defocus_sim.blur.layered import layered_blur
from defocus_sim.blur.pyramid import gaussian_gather

# float32 sums against float64 truth, values in [0, 1].
TOLERANCE = 2e-6


def planes_of(image):
    return np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32)


def smooth_sigma(rng, height, width, largest):
    noise = gaussian_filter(rng.random((height, width)), 4, mode="wrap")
    return (largest * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)


# Widths around the kernel's blocks of 64 pixels, and images smaller than the blur.
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 63), (7, 64), (9, 65), (33, 130), (40, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gaussian_gather_equals_the_float64_truth(rng, height, width, channels):
    image = rng.random((height, width, channels))
    sigma = smooth_sigma(rng, height, width, 6.0) if height * width > 1 else np.full((1, 1), 3.0, np.float32)
    sigma[rng.random(sigma.shape) < 0.1] = 0
    result = gather(planes_of(image), sigma, sigma * 4)
    truth = gather_reference(planes_of(image).transpose(1, 2, 0).astype(float), sigma.astype(float), truncate=4.0)
    assert np.abs(np.moveaxis(result, 0, -1) - truth).max() < TOLERANCE


@pytest.mark.parametrize(("rows", "lanes"), [(2, 4), (3, 8), (5, 16), (6, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_block_of_every_vector_width_equals_the_truth(rng, rows, lanes, channels):
    height, width = 3 * rows, 3 * lanes
    image, sigma = (
        planes_of(rng.random((height, width, channels))),
        (5 * rng.random((height, width))).astype(np.float32),
    )
    sigma[sigma < 1] = 0
    sigma[rows : 2 * rows, :lanes] = 0
    pad = int(np.ceil(4 * sigma.max()))
    result = np.empty_like(image)
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="symmetric")
    gaussian_kernel(channels, rows, lanes)(padded, pad, sigma, 4.0, result)
    truth = gather_reference(image.transpose(1, 2, 0).astype(float), sigma.astype(float), truncate=4.0)
    assert np.abs(np.moveaxis(result, 0, -1) - truth).max() < TOLERANCE
    assert (result[:, sigma == 0] == image[:, sigma == 0]).all()


@pytest.mark.parametrize("psf", ["gaussian", "disc"])
def test_bytes_are_blurred_as_their_levels(rng, psf):
    image, sigma = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8), smooth_sigma(rng, 37, 53, 4.0)
    levels = rng.random(256, dtype=np.float32)
    from_bytes = gather(image, sigma, sigma * 4, psf=psf, levels=levels)
    assert (from_bytes == gather(planes_of(levels[image]), sigma, sigma * 4, psf=psf)).all()


@pytest.mark.parametrize("truncate", [2.0, 3.0, 5.5])
def test_truncation_is_the_callers_choice(rng, truncate):
    image, sigma = rng.random((20, 70, 3)), smooth_sigma(rng, 20, 70, 3.0)
    result = gather(planes_of(image), sigma, sigma * 4, truncate=truncate)
    truth = gather_reference(planes_of(image).transpose(1, 2, 0).astype(float), sigma.astype(float), truncate=truncate)
    assert np.abs(np.moveaxis(result, 0, -1) - truth).max() < TOLERANCE


@pytest.mark.parametrize("sigma", [0.11, 0.5, 1.0, 2.7, 12.0])
def test_constant_sigma_equals_scipys_gaussian_filter(rng, sigma):
    image = planes_of(rng.random((50, 90, 3)))
    field = np.full((50, 90), sigma, np.float32)
    radius = int(np.ceil(np.float32(4.0) * np.float32(sigma)))
    result = gather(image, field, field * 4)
    for plane, blurred in zip(image.astype(np.float64), result, strict=True):
        truth = gaussian_filter(plane, float(np.float32(sigma)), mode="reflect", radius=radius)
        assert np.abs(blurred - truth).max() < TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(1, 1), (6, 64), (25, 131)])
def test_disc_gather_equals_the_float64_truth(rng, height, width):
    image = rng.random((height, width, 3))
    coc = 4 * smooth_sigma(rng, height, width, 5.0) if height * width > 1 else np.full((1, 1), 6.0, np.float32)
    result = gather(planes_of(image), coc / 4, coc, psf="disc")
    radius = np.where(coc / 4 < 0.1, 0.0, disc_radius_px(coc)).astype(float)
    truth = disc_gather_reference(planes_of(image).transpose(1, 2, 0).astype(float), radius)
    assert np.abs(np.moveaxis(result, 0, -1) - truth).max() < TOLERANCE


@pytest.mark.parametrize("coc", [0.6, 1.0, 1.7, 2.5, 4.0, 9.3, 20.0, 40.0, 61.0, 70.0, 90.0])
def test_the_discs_variance_is_that_of_the_circle_of_confusion(coc):
    """A point spread by the disc has the variance coc^2/16 of a uniform disc along each axis."""
    half = 50
    point = np.zeros((1, 2 * half + 1, 2 * half + 1), np.float32)
    point[0, half, half] = 1
    field = np.full(point.shape[1:], coc, np.float32)
    spread = gather(point, field / 4, field, psf="disc")[0].astype(float)
    offset = np.arange(-half, half + 1)
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    assert (spread.sum(0) * offset**2).sum() == pytest.approx(coc**2 / 16, rel=2e-3)


def test_sigma_below_a_tenth_of_a_pixel_is_the_identity_to_the_last_bit(rng):
    image = planes_of(rng.random((10, 70, 3)))
    sigma = np.full((10, 70), 3.0, np.float32)
    sigma[:, ::3] = 0.099
    for psf in ("gaussian", "disc"):
        result = gather(image, sigma, sigma * 4, psf=psf)
        assert (result[:, :, ::3] == image[:, :, ::3]).all()
        assert (gather(image, np.zeros_like(sigma), np.zeros_like(sigma), psf=psf) == image).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 20),
    width=st.integers(1, 140),
    largest=st.floats(0, 9),
    psf=st.sampled_from(["gaussian", "disc"]),
)
def test_gather_stays_within_the_local_range_and_keeps_constants(seed, height, width, largest, psf):
    rng = np.random.default_rng(seed)
    image = rng.random((1, height, width), dtype=np.float32)
    sigma = (largest * rng.random((height, width))).astype(np.float32)
    result = gather(image, sigma, sigma * 4, psf=psf)
    reach = int(np.ceil(4 * largest)) + 2
    padded = np.pad(image[0], reach, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    assert (result[0] <= windows.max((2, 3)) + 1e-6).all()
    assert (result[0] >= windows.min((2, 3)) - 1e-6).all()
    constant = np.full((3, height, width), 0.37, np.float32)
    assert np.abs(gather(constant, sigma, sigma * 4, psf=psf) - 0.37).max() < 1e-6


def test_a_second_process_finds_the_kernels_compiled(tmp_path):
    """Compiling takes seconds at every start otherwise, and an interrupt has to wait for it."""
    code = """
import sys
from defocus_sim import simulate
from defocus_sim.blur import gather as blur
from defocus_sim.blur import pixel_format as planes
from defocus_sim.blur import pyramid as scales
from defocus_sim.blur import tiled as strips
from defocus_sim.blur.options import Rendering
simulate.compile_kernels(Rendering(psf=sys.argv[1]))
kernels = [planes._to_even_planes, planes.mirror_margins, planes.coc_and_sigma, planes.usual_depths]
kernels += [blur._gather_disc, planes.store_even_pixels, scales._smooth, scales._square_sum]
kernels += [strips.strips_kernel(channels) for channels in (1, 3)]
print(sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels))
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for psf in ("gaussian", "disc"):
        misses = [
            int(
                subprocess.run(
                    [sys.executable, "-c", code, psf], env=environment, capture_output=True, check=True
                ).stdout
            )
            for _ in range(2)
        ]
        assert misses[0] >= (8 if psf == "gaussian" else 1)
        assert misses[1] == 0


def test_a_processor_without_wide_vectors_gives_the_same_result(rng, tmp_path):
    """Compiled for the plainest processor of the kind: no fused multiply-add, registers of four values."""
    image, sigma = rng.random((3, 30, 70), dtype=np.float32), smooth_sigma(rng, 30, 70, 9.0)
    np.savez(tmp_path / "in.npz", image=image, sigma=sigma)
    code = """
import sys
import numpy as np
from defocus_sim.blur.gather import gather
from defocus_sim.blur.layered import layered_blur
from defocus_sim.blur.pyramid import gaussian_gather
given = np.load(sys.argv[1])
image, sigma = given["image"], given["sigma"]
made = {psf: gather(image, sigma, 4 * sigma, psf=psf) for psf in ("gaussian", "disc")}
layers = layered_blur(image, 4 * sigma - 9, psf="gaussian")
np.savez(sys.argv[2], **made, grids=gaussian_gather(image, sigma), layers=layers)
"""
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
    }
    command = [sys.executable, "-c", code, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run(command, env=environment, check=True)
    plain = np.load(tmp_path / "out.npz")
    for psf in ("gaussian", "disc"):
        assert np.abs(plain[psf] - gather(image, sigma, 4 * sigma, psf=psf)).max() < 1e-6
    assert np.abs(plain["grids"] - gaussian_gather(image, sigma)).max() < 1e-6
    assert (plain["grids"] != plain["gaussian"]).any()
    assert np.abs(plain["layers"] - layered_blur(image, 4 * sigma - 9, psf="gaussian")).max() < 2e-6
