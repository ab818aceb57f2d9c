"""One wild depth costs neither memory nor time, is counted, and changes nothing far from it."""

import json
import math
import resource

import numpy as np
import pytest
from sources import SmoothSource, small_settings

from defocus_sim.convert.run import convert
from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.errors import DepthError
from defocus_sim.lens import Lens, coc_limit_px
from defocus_sim.simulate import defocus

MODES = [(mode, psf) for mode in ("gather", "layered") for psf in ("gaussian", "disc")]
WILD_M = (1e-3, 1e-5, 1e-20, 1e-42)


def scene(hw, rng):
    depth_m = np.broadcast_to(np.linspace(1, 6, hw[1], dtype=np.float32), hw).copy()
    return rng.integers(0, 256, (*hw, 3), dtype=np.uint8), depth_m


@pytest.mark.parametrize(("mode", "psf"), MODES)
def test_one_millimetre_in_a_frame_takes_no_gigabyte(mode, psf, rng):
    image, depth_m = scene((240, 320), rng)
    lens = Lens.preset("paper")
    defocus(image, depth_m, lens, mode=mode, psf=psf)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for wild_m in WILD_M:
        depth_m[100, 150] = wild_m
        assert defocus(image, depth_m, lens, mode=mode, psf=psf).shape == image.shape
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 400 * 1024


@pytest.mark.parametrize("wild_m", WILD_M)
def test_gather_changes_no_other_pixel(wild_m, rng):
    image, depth_m = scene((60, 80), rng)
    usual = defocus(image, depth_m, Lens.preset("paper"))
    depth_m[30, 40] = wild_m
    differs = (defocus(image, depth_m, Lens.preset("paper")) != usual).any(axis=-1)
    differs[30, 40] = False
    assert not differs.any()


def test_the_limit_is_the_longer_side_and_what_the_lens_says_otherwise(rng):
    image, depth_m = scene((48, 64), rng)
    depth_m[:24] = 0.02
    limited = defocus(image, depth_m, Lens.preset("paper"))
    assert (limited == defocus(image, depth_m, Lens.preset("paper", max_coc_px=64))).all()
    assert (limited != defocus(image, depth_m, Lens.preset("paper", max_coc_px=math.inf))).any()
    assert coc_limit_px(Lens.preset("paper"), (48, 64)) == 64
    assert coc_limit_px(Lens.preset("paper", max_coc_px=9), (48, 64)) == 9


def test_without_a_limit_what_no_memory_holds_is_refused_by_name(rng):
    image, depth_m = scene((48, 64), rng)
    depth_m[0, 0] = 1e-5
    with pytest.raises(DepthError, match=r"1e-05 m has a circle of confusion of .* px.*max_coc_px"):
        defocus(image, depth_m, Lens.preset("paper", max_coc_px=math.inf))


def test_a_depth_whose_circle_is_not_finite_is_a_hole(rng):
    image, depth_m = scene((48, 64), rng)
    wild, hole = depth_m.copy(), depth_m.copy()
    wild[20:30, 20:30], hole[20:30, 20:30] = 1e-42, 0
    for mode, psf in MODES:
        one, other = (defocus(image, depth, Lens.preset("paper"), mode=mode, psf=psf) for depth in (wild, hole))
        assert (one == other).all()


def test_a_lens_without_a_limit_survives_json():
    lens = Lens.preset("paper", max_coc_px=math.inf)
    assert Lens(**json.loads(json.dumps(lens.to_json(), allow_nan=False))) == lens


class WildSource(SmoothSource):
    """One pixel of 1 mm in one frame, one depth so small that it is a hole in another."""

    def read(self, index):
        frame = super().read(index)
        depth_m = frame.depth_m.copy()
        if index == 1:
            depth_m[5, 5], depth_m[6, 6] = 1e-3, 2e-3
        if index == 2:
            depth_m[7, 7] = 1e-42
        return RgbdFrame(frame.aif, depth_m)


def test_what_was_limited_is_counted_and_a_depth_without_a_circle_is_stored_as_a_hole(tmp_path):
    lens = Lens.preset("paper", aperture_mm=5)
    plain = convert(small_settings(lens=lens), tmp_path / "plain.zarr").store.manifest.statistics
    store = convert(small_settings(lens=lens, source=WildSource()), tmp_path / "a.zarr").store
    statistics = store.manifest.statistics
    assert statistics["limited_px"] == plain["limited_px"] + 2
    assert statistics["coc_px"][0] == -48
    split = store.split("train")
    assert split.read([split.names.index("frame-2")])["depth_m"][0, 7, 7] == 0


def test_the_closing_lines_say_how_much_was_limited_and_none_lifts_it(tmp_path, run_command):
    command = (
        "dfd-prepare",
        "synthetic",
        "--count",
        "2",
        "--size",
        "48x32",
        "--aperture",
        "40cm",
        "--focal-length",
        "1m",
    )
    limited = run_command(*command, "--out", tmp_path / "a.zarr")
    assert limited.returncode == 0, limited.stderr
    assert "limited    CoC of" in limited.stdout
    free = run_command(*command, "--max-coc", "none", "--out", tmp_path / "b.zarr")
    assert free.returncode == 0, free.stderr
    assert "limited" not in free.stdout
