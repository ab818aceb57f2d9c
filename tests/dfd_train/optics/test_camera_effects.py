from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dfd_train.optics.camera_effects import demosaiced, denoised, jpeg, sharpened


def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), (0, 0), 1.5)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.mark.parametrize("quality", [95, 75, 40])
def test_jpeg_loses_what_libjpeg_loses(quality: int) -> None:
    image = picture()
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    made = (jpeg(tensor, torch.tensor([float(quality)]))[0] * 255).round().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
    true = np.asarray(Image.open(file))
    # As far from the original, and far nearer to each other.
    assert psnr(made, image) == pytest.approx(psnr(true, image), abs=0.5)
    assert psnr(made, true) > psnr(true, image) + 3


def test_quality_100_leaves_an_image_alone_and_each_image_has_its_own() -> None:
    tensor = torch.from_numpy(picture()).permute(2, 0, 1)[None].float() / 255
    both = jpeg(tensor.repeat(2, 1, 1, 1), torch.tensor([100.0, 50.0]))
    assert torch.equal(both[0], tensor[0])
    assert torch.allclose(both[1], jpeg(tensor, torch.tensor([50.0]))[0], atol=1e-6)
    assert float((both[1] - tensor[0]).abs().max()) > 0.02


def test_sharpening_adds_to_differences_and_keeps_the_mean() -> None:
    tensor = torch.zeros(1, 3, 9, 9)
    tensor[..., 4, 4] = 1.0
    made = sharpened(tensor, torch.tensor([0.5]))
    assert made[0, 0, 4, 4] == pytest.approx(1 + 0.5 * (1 - 1 / 9))
    assert torch.allclose(made.sum((2, 3)), tensor.sum((2, 3)), atol=1e-6)
    assert torch.equal(sharpened(tensor, torch.tensor([0.0])), tensor)


def test_a_mosaic_of_one_colour_a_pixel_is_made_whole_by_the_published_filters() -> None:
    image = picture()
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    made = demosaiced(tensor)
    # One of the three is as it was: RGGB.
    for channel, rows, columns in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        at = (0, channel, slice(rows, None, 2), slice(columns, None, 2))
        assert torch.equal(made[at], tensor[at])
    # Equations (2), (3) and (4) of the paper at single pixels: green and blue at a red one, red at a green one.
    red, green, blue = tensor[0].numpy().astype(np.float64)
    y, x = 20, 30
    laplacian = red[y, x] - (red[y - 2, x] + red[y + 2, x] + red[y, x - 2] + red[y, x + 2]) / 4
    beside = (green[y - 1, x] + green[y + 1, x] + green[y, x - 1] + green[y, x + 1]) / 4
    assert float(made[0, 1, y, x]) == pytest.approx(beside + laplacian / 2, abs=1e-6)
    corners = (blue[y - 1, x - 1] + blue[y - 1, x + 1] + blue[y + 1, x - 1] + blue[y + 1, x + 1]) / 4
    assert float(made[0, 2, y, x]) == pytest.approx(corners + 3 / 4 * laplacian, abs=1e-6)
    x = 31
    far = green[y, x - 2] + green[y, x + 2] + green[y - 1, x - 1] + green[y - 1, x + 1]
    far += green[y + 1, x - 1] + green[y + 1, x + 1]
    laplacian = green[y, x] - far / 5 + (green[y - 2, x] + green[y + 2, x]) / 10
    assert float(made[0, 0, y, x]) == pytest.approx((red[y, x - 1] + red[y, x + 1]) / 2 + 5 / 8 * laplacian, abs=1e-6)


@pytest.mark.parametrize("hw", [(31, 42), (32, 33)])
def test_a_ramp_of_grey_goes_through_a_mosaic_unchanged_up_to_the_border(hw: tuple[int, int]) -> None:
    ramp = torch.linspace(0, 1, hw[1]).expand(1, 3, *hw)
    assert torch.allclose(demosaiced(ramp)[..., 2:-2], ramp[..., 2:-2], atol=1e-6)
    assert torch.allclose(demosaiced(ramp * 0 + 0.3), ramp * 0 + 0.3, atol=1e-6)


def test_denoising_takes_noise_and_leaves_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    step = torch.zeros(1, 3, 40, 60)
    step[..., 30:] = 0.8
    noisy = step + torch.randn(step.shape, generator=generator) * (2 / 255)
    made = denoised(noisy.repeat(2, 1, 1, 1), torch.tensor([4.0, 0.0]))
    assert torch.allclose(made[1], noisy[0], atol=1e-6)
    assert float((made[0] - step[0]).std()) < 0.6 * float((noisy - step).std())
    assert float(made[0, :, :, 30].mean() - made[0, :, :, 29].mean()) > 0.79
