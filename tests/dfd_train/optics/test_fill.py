from __future__ import annotations

import numpy as np

from dfd_train.optics.fill import filled_by_certainty

H, W = 240, 320
LEFT = np.arange(W)[None].repeat(H, 0) < W // 2


def test_what_is_alike_everywhere_stays_whatever_is_sure() -> None:
    rng = np.random.default_rng(0)
    picture, scale = (rng.random((H, W), np.float32) for _ in range(2))
    (found,) = filled_by_certainty([np.full((H, W), 3.5, np.float32)], scale + 0.2, picture)
    assert np.allclose(found, 3.5, atol=1e-4)


def test_unsure_pixels_take_what_sure_ones_of_their_own_surface_answer() -> None:
    rng = np.random.default_rng(1)
    # Two surfaces side by side, a dark and a bright one, of circles of 2 and 6 px; of both only dots are sure.
    picture = (np.where(LEFT, 0.2, 0.8) + rng.normal(0, 0.01, (H, W))).astype(np.float32)
    truth = np.where(LEFT, 2.0, 6.0).astype(np.float32)
    sure = rng.random((H, W)) < 0.05
    said = np.where(sure, truth + rng.normal(0, 0.1, (H, W)), rng.uniform(0, 8, (H, W))).astype(np.float32)
    scale = np.where(sure, 0.1, 5.0).astype(np.float32)
    side = np.where(LEFT, 2.0, -2.0).astype(np.float32)
    found, sides = filled_by_certainty([said, side], scale, picture)
    assert np.abs(found - truth).mean() < 0.15
    # A step of the picture is a step of the answer: every pixel is nearer to its own surface than to the other.
    assert np.abs(found - truth)[:, W // 2 - 3 : W // 2 + 3].max() < 2
    assert ((sides > 0) == LEFT).mean() > 0.99
