"""`dfd-calibrate`: from photographs to a lens that the other commands take."""

import subprocess
import sys

import photographs
import pytest

from defocus_sim import Lens

TRUE = photographs.LENS.changed(aperture_mm=28.0, focus_distance_m=1.8, focus_blur_px=0.4)
FOLDERS = ("--defocused", "defocused", "--sharp", "sharp", "--depth-dir", "depth", "--depth-scale", "0.001")
CAMERA = ("--focal-length", "35mm", "--sensor-width", "23.6mm")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photographs.write_pairs(folder, 4, lens=TRUE, size_wh=(320, 240))
    return folder


def calibrate(*arguments, cwd):
    command = [sys.executable, "-m", "dfd_cli.calibrate", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_folders_to_a_lens_that_prepare_takes(run_command, photos, tmp_path):
    made = calibrate(*FOLDERS, *CAMERA, "--out", tmp_path / "lens.toml", cwd=photos)
    assert made.returncode == 0, made.stderr
    for words in ("focus distance", "95 %", "aperture", "f/1.", "sigma per CoC", "blur in focus"):
        assert words in made.stdout
    lens = Lens.load(tmp_path / "lens.toml")
    assert lens.focus_distance_m == pytest.approx(1.8, rel=0.03)
    assert lens.aperture_mm == pytest.approx(28, rel=0.1)
    assert (tmp_path / "lens.png").stat().st_size > 10_000
    shown = run_command("dfd-prepare", "lens", "--lens", tmp_path / "lens.toml", "--width", "320", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("calibrated, F 35 mm")


def test_a_store_brings_its_own_camera(run_command, photos, tmp_path):
    options = (*CAMERA, "--f-number", "1.25", "--focus", "1.8m", "--out", tmp_path / "a.zarr")
    stored = run_command("dfd-prepare", "pairs", *FOLDERS, *options, cwd=photos)
    assert stored.returncode == 0, stored.stderr
    made = calibrate("a.zarr", "--sharp-aperture", "f/16", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    lens = Lens.load(tmp_path / "lens.toml")
    # Of a pixel, so that it holds for the whole photograph as well as for the frames without its border.
    assert lens.pixel_pitch_um == pytest.approx(23.6e3 / 320, rel=1e-6)


@pytest.mark.parametrize(("prepared", "expected"), [(("--falloff",), 0.8), ((), 1.0)], ids=["falloff", "even"])
def test_the_fall_off_of_a_store_is_part_of_the_lens(run_command, tmp_path, prepared, expected):
    photographs.write_pairs(tmp_path, 4, lens=TRUE.changed(corner_light=0.8), size_wh=(320, 240))
    options = (*CAMERA, "--f-number", "1.25", "--focus", "1.8m", *prepared, "--out", "a.zarr")
    stored = run_command("dfd-prepare", "pairs", *FOLDERS, *options, cwd=tmp_path)
    assert stored.returncode == 0, stored.stderr
    made = calibrate("a.zarr", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    lens = Lens.load(tmp_path / "lens.toml")
    assert lens.corner_light == pytest.approx(expected, abs=0.04)
    assert ("corner light" in made.stdout) == bool(prepared)
    assert ("corner_light_95" in (tmp_path / "lens.toml").read_text()) == bool(prepared)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give one of"),
        (("--defocused", "defocused"), "--sharp"),
        (("--defocused", "defocused", "--sharp", "sharp"), "--depth-dir"),
        (("nowhere.zarr",), "nowhere.zarr"),
        ((*FOLDERS, "--focal-length", "35mm"), "belong together"),
        ((*FOLDERS, "--sharp-aperture", "f/8"), "needs the camera"),
        (("--stack", "stack.csv", "--sharp", "sharp/000.png"), "needs its depth"),
    ],
)
def test_wrong_options_give_one_line(photos, tmp_path, options, words):
    result = calibrate(*options, "--out", tmp_path / "lens.toml", cwd=photos)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert words in result.stderr
