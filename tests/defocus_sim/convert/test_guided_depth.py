"""Depth guided by the colour picture: its edges move to those of the picture, and everything else stays."""

from dataclasses import replace

import numpy as np
import pytest
from sources import small_settings

from defocus_sim import defocus
from defocus_sim.convert.guided_depth import guide_depth
from defocus_sim.convert.plan import settings_digest
from defocus_sim.convert.run import convert
from defocus_sim.convert.sample import render_sample
from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.shards.store import open_store


def two_surfaces(size_hw=(96, 128), edge=64):
    rng = np.random.default_rng(0)
    picture = np.full((*size_hw, 3), (60, 90, 120), np.uint8)
    picture[:, edge:] = (200, 160, 90)
    picture = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    depth_m = np.full(size_hw, 1.0, np.float32)
    depth_m[:, edge:] = 4.0
    return picture, depth_m


def test_an_edge_of_depth_moves_to_that_of_the_picture():
    picture, true_m = two_surfaces()
    seen_m = np.where(np.roll(true_m > 2, 5, axis=1), np.float32(4), np.float32(1))
    seen_m[:, :10] = 1.0
    guided = guide_depth(seen_m, picture)
    steps = np.abs(np.diff(1 / guided, axis=1)).mean(axis=0)
    assert steps.argmax() == 63
    assert steps[63] > 5 * steps[65:75].max()
    # What the sensor took for the near surface behind the edge is no longer at its depth.
    assert (1 / guided[:, 64:69]).mean() < 0.6
    np.testing.assert_allclose(guided[:, :60], 1.0, atol=0.03)
    assert guided.dtype == np.float32
    assert seen_m.min() * 0.999 <= guided.min() <= guided.max() <= seen_m.max() * 1.001


def test_one_depth_stays_what_it_is_and_holes_are_filled():
    picture, _ = two_surfaces()
    depth_m = np.full(picture.shape[:2], 2.5, np.float32)
    depth_m[10:30, 20:50] = 0
    np.testing.assert_allclose(guide_depth(depth_m, picture), 2.5, rtol=1e-4)


def test_a_store_says_so_keeps_its_holes_and_is_blurred_by_what_it_holds(tmp_path):
    plain = small_settings()
    guided = replace(plain, guide_depth=True)
    assert settings_digest(plain.to_json()) != settings_digest(guided.to_json())
    assert "guide_depth" not in plain.to_json()["source"]
    convert(guided, str(tmp_path / "guided.zarr"))
    store = open_store(str(tmp_path / "guided.zarr"))
    assert store.manifest.source["guide_depth"] == {"radius_px": 16, "eps": 1e-3}
    picture, depth_m = two_surfaces()
    depth_m[:8, :8] = 0
    arrays, _ = render_sample(guided, RgbdFrame(picture, depth_m), guided.lenses[0], (0,))
    filled = guide_depth(depth_m, picture)
    assert (arrays["depth_m"][:8, :8] == 0).all()
    np.testing.assert_array_equal(arrays["depth_m"][8:], filled[8:])
    expected = defocus(picture, filled, guided.lenses[0], **vars(guided.rendering))
    np.testing.assert_array_equal(arrays["defocused"], expected)


@pytest.mark.parametrize("known", [True, False])
def test_measured_pairs_take_it_too_also_those_without_depth(known):
    picture, depth_m = two_surfaces()
    depth_m = depth_m if known else np.zeros_like(depth_m)
    settings = replace(small_settings(), guide_depth=True)
    frame = RgbdFrame(picture, depth_m, defocused=picture, found={})
    arrays, _ = render_sample(settings, frame, settings.lenses[0], (0,))
    expected = guide_depth(depth_m, picture) if known else depth_m
    np.testing.assert_array_equal(arrays["depth_m"], expected)
    np.testing.assert_array_equal(arrays["defocused"], picture)
