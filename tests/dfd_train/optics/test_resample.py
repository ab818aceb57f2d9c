from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft

from dfd_train.optics.resample import resampled


@pytest.mark.parametrize("size", [(20, 31), (27, 24), (33, 40)])
def test_a_picture_that_grew_comes_back_without_loss(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    assert float((resampled(resampled(image, size), (20, 24)) - image).abs().max()) < 2e-6


def test_it_is_scipys_cosine_series_read_off_a_finer_grid() -> None:
    signal = np.random.default_rng(1).random(12)
    padded = np.zeros(30)
    padded[:12] = fft.dct(signal, norm="ortho")
    expected = fft.idct(padded, norm="ortho") * np.sqrt(30 / 12)
    made = resampled(torch.from_numpy(signal)[None, None, None].float(), (1, 30))
    assert np.allclose(made[0, 0, 0].numpy(), expected, atol=1e-6)
    across = resampled(torch.from_numpy(signal)[None, None, :, None].float(), (30, 1))
    assert torch.allclose(across[0, 0, :, 0], made[0, 0, 0], atol=1e-6)
