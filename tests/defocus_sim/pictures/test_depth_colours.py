"""One colour map, one direction, one bar, and holes that look like no depth."""

import numpy as np
import pytest

from defocus_sim.pictures.depth_colours import (
    HOLE_RGB,
    depth_colours,
    error_colours,
    with_depth_bar,
    with_error_bar,
)
from defocus_sim.pictures.preview import contact_sheet


def brightness(picture):
    return picture.astype(float) @ [0.299, 0.587, 0.114]


def test_near_is_brighter_than_far_everywhere():
    depth = np.linspace(0.5, 20, 400, dtype=np.float32)[None]
    shown = brightness(depth_colours(depth, 0.5, 20.0))[0]
    assert (np.diff(shown) <= 1).all()
    assert shown[0] > 200 > 60 > shown[-1]


@pytest.mark.parametrize("draw", [
    lambda depth, shown: depth_colours(depth, 0.5, 20.0, shown),
    lambda depth, shown: error_colours(depth, 20.0, shown),
])  # fmt: skip
def test_holes_have_a_colour_that_no_depth_and_no_error_has(draw):
    depth = np.linspace(0.5, 20, 5000, dtype=np.float32)[None]
    everything = draw(depth, np.ones(depth.shape, bool)).reshape(-1, 3).astype(int)
    assert np.abs(everything - HOLE_RGB).sum(axis=1).min() > 60
    shown = np.ones(depth.shape, bool)
    shown[0, 7] = False
    picture = draw(depth, shown)
    assert tuple(picture[0, 7]) == HOLE_RGB
    assert (picture[shown] == draw(depth, np.ones(depth.shape, bool))[shown]).all()


def test_zero_and_unknown_depth_is_a_hole_without_being_told():
    depth = np.array([[0.0, 1.0, 2.0]], np.float32)
    assert tuple(depth_colours(depth, 1.0, 2.0)[0, 0]) == HOLE_RGB


def test_the_bar_runs_from_near_to_far_in_the_colours_of_the_picture():
    picture = depth_colours(np.full((120, 160), 3.0, np.float32), 1.0, 10.0)
    wider = with_depth_bar(picture, 1.0, 10.0)
    assert (wider[:, :160] == picture).all()
    bar = wider[:, 160 + 4]
    assert (bar[0] == depth_colours(np.full((1, 1), 1.0, np.float32), 1.0, 10.0)[0, 0]).all()
    assert (bar[-1] == depth_colours(np.full((1, 1), 10.0, np.float32), 1.0, 10.0)[0, 0]).all()
    ink = (wider[:, 160 + 18 :] < 128).any(axis=(1, 2))
    assert ink[:12].any()
    assert ink[-12:].any()


def test_bars_are_equally_wide_whatever_their_numbers():
    picture = np.zeros((80, 100, 3), np.uint8)
    widths = {with_depth_bar(picture, near, far).shape[1] for near, far in ((0.1, 0.5), (1, 10), (5, 80), (100, 4000))}
    assert len(widths | {with_error_bar(picture, 0.25).shape[1]}) == 1


def test_the_contact_sheet_shows_near_bright_holes_grey_and_a_bar(small_store):
    sheet = contact_sheet(small_store, 4)
    assert sheet.dtype == np.uint8
    # The sheet is four pictures wide and has room for one bar.
    assert sheet.shape[1] > 4 * 324
    assert (sheet == HOLE_RGB).all(axis=-1).any()
