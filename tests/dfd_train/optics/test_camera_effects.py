from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dfd_train.optics.camera_effects import jpeg, sharpened


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
