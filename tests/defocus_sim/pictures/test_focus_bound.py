from __future__ import annotations

import numpy as np
import pytest

from defocus_sim.errors import LensError
from defocus_sim.lens import Lens, coc_diameter_px
from defocus_sim.pictures.focus_bound import bound_lines, focus_bound, save_bound_plot

PAPER = Lens.preset("paper")


def rmse(depths, focus_m, error=0.0, lens=PAPER):
    return float(focus_bound(depths, lens, 561, focus_m=[focus_m], errors=[error]).rmse_m[0, 0])


def test_two_depths_that_share_a_blur_are_answered_with_their_mean():
    # Seen from a focus at 2 m the blur of 1.5 m is that of 3 m. Depths count as spread by 2 %, over which blur changes
    # twice as much at 1.5 m: 0.79 m where for two exact depths it would be 0.75 m.
    halves = np.repeat([1.5, 3.0], 500)
    assert rmse([halves], 2.0) == pytest.approx(0.77, abs=0.03)
    # Three of four at 3 m: sqrt(3/16) of the distance.
    assert rmse([np.repeat([1.5, 3.0, 3.0, 3.0], 500)], 2.0) == pytest.approx(1.5 * np.sqrt(3) / 4, abs=0.03)
    for focus_m in (1.0, 5.0):
        assert rmse([halves], focus_m) < 0.02


def test_the_mean_is_over_images_and_holes_do_not_count():
    near, far = np.full((10, 20), 1.5), np.full((10, 20), 3.0)
    holes = np.where(np.arange(20) < 15, far, [[0.0], [np.nan]] * 5)
    # Both are answered with 2.25 m, whatever share of an image is known.
    assert rmse([near, holes], 2.0) == pytest.approx(0.77, abs=0.04)
    found = focus_bound([near, holes], PAPER, 561)
    assert found.constant_m == pytest.approx(0.75, abs=0.01)
    assert found.depth_m == pytest.approx((1.5, 1.5, 3.0))


@pytest.mark.parametrize(("focus_m", "error"), [(1.5, 0.1), (3.0, 0.2), (8.0, 0.1), (8.0, 0.2)])
def test_it_is_what_a_simulated_reader_of_widths_achieves(focus_m, error):
    rng = np.random.default_rng(0)
    depth = 0.8 + 6 * rng.beta(2, 4, 400_000)
    width = np.log(np.abs(coc_diameter_px(depth, PAPER.at_focus(focus_m), width_px=561)))
    read = width + error * rng.standard_normal(depth.size)
    bins = np.digitize(read, np.linspace(read.min(), read.max(), 600))
    learnt, tried = slice(0, 200_000), slice(200_000, None)
    count = np.bincount(bins[learnt], minlength=601)
    mean = np.bincount(bins[learnt], depth[learnt], 601) / np.maximum(count, 1)
    answer = np.where(count > 0, mean, depth[learnt].mean())[bins[tried]]
    achieved = float(np.sqrt(np.mean((answer - depth[tried]) ** 2)))
    assert rmse([depth[learnt]], focus_m, error) == pytest.approx(achieved, rel=0.04)


def test_more_error_leaves_more_and_never_more_than_one_depth_for_all():
    depth = np.random.default_rng(1).uniform(0.8, 7, 4000)
    found = focus_bound([depth], PAPER, 561, errors=(0.0, 0.05, 0.2, 0.9))
    assert (np.diff(found.rmse_m, axis=1) > -1e-3).all()
    assert found.rmse_m.max() < 1.02 * found.constant_m
    assert found.best(0.0) >= 8 or found.best(0.0) < 0.8


def test_what_a_lens_cannot_show_cannot_be_read():
    depth = np.linspace(3.0, 9.0, 4000)
    free, capped = PAPER.at_focus(2.0), PAPER.changed(focus_distance_m=2.0, max_coc_px=5.0)
    assert rmse([depth], 2.0, lens=free) < 0.05
    # From 3 m on everything is blurred by 5 px.
    assert rmse([depth], 2.0, lens=capped) == pytest.approx(depth.std(), rel=0.02)


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(LensError, match="no valid depth"):
        focus_bound([np.zeros((4, 4))], PAPER, 561)
    with pytest.raises(LensError, match=r"error=1\.5"):
        focus_bound([np.ones(4)], PAPER, 561, errors=[1.5])
    with pytest.raises(LensError, match=r"focus_distance_m=0\.05"):
        focus_bound([np.ones(4)], PAPER, 561, focus_m=[0.05])
    found = focus_bound([np.linspace(1, 5, 100)], PAPER, 561)
    assert len(bound_lines(found)) == 4 + len(found.focus_m)
    assert save_bound_plot(found, tmp_path / "bound.png", "paper").stat().st_size > 10_000
    with pytest.raises(LensError, match="cannot be written"):
        save_bound_plot(found, tmp_path / "none" / "bound.png", "paper")


# Focus: the figures for no error, 10 % and 20 %, made of the same frames by another program.
FIGURES_M = {1.0: (0.05, 0.61, 0.84), 4.0: (0.67, 0.70, 0.73), 6.0: (0.24, 0.31, 0.41), 8.0: (0.06, 0.20, 0.35),
             10.0: (0.01, 0.19, 0.37), 2.0: (0.84, 1.00, 1.07)}  # fmt: skip


def test_the_figures_for_real_rooms_come_out_again(real_data):
    from dfd_cli.support.focus import depths_of

    depths = depths_of(str(real_data / "nyu" / "depths_mirrored"), 9.99547 / 255, most=150)
    found = focus_bound(depths, PAPER, 561, focus_m=list(FIGURES_M))
    expected = np.array(list(FIGURES_M.values()))
    # With focus at 2 m and no error the steps of 8-bit depth decide: a program that does not smooth them finds less.
    assert np.abs(found.rmse_m - expected)[:, 1:].max() < 0.05
    assert np.abs(found.rmse_m - expected)[:, 0].max() < 0.1
    assert found.best(0.1) in (8.0, 10.0)
