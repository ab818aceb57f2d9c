"""`--lens`, `--sharp-aperture` and the lens presets, as installed."""

import numpy as np
import pytest

from defocus_sim import Lens
from defocus_sim.shards.store import open_store

SMALL = ("--count", "1", "--size", "64x48")


def test_a_lens_from_a_file_reaches_the_store_with_what_is_laid_over_it(run_command, tmp_path):
    lens = Lens.preset("d3net-camera", focus_distance_m=1.63, focus_blur_px=0.35, corner_light=0.92)
    lens.save(tmp_path / "lens.toml")
    for name, more in (("as it is", ()), ("changed", ("--focus", "2m", "--sigma-per-coc", "0.28"))):
        made = run_command(
            "dfd-prepare", "synthetic", *SMALL, "--lens", "lens.toml", *more, "--out", f"{name}.zarr", cwd=tmp_path
        )
        assert made.returncode == 0, made.stderr
    stored = open_store(tmp_path / "as it is.zarr").split("train").lens(0)
    assert (stored.focus_distance_m, stored.focus_blur_px, stored.corner_light) == (1.63, 0.35, 0.92)
    changed = open_store(tmp_path / "changed.zarr").split("train").lens(0)
    assert (changed.focus_distance_m, changed.sigma_per_coc, changed.focus_blur_px) == (2.0, 0.28, 0.35)


def test_a_sharp_picture_with_an_aperture_of_its_own_gets_less_blur(run_command, tmp_path):
    made = run_command(
        "dfd-prepare", "synthetic", *SMALL, "--preset", "d3net-camera", "--sharp-aperture", "f/8", "--out", "a.zarr",
        cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    lens = open_store(tmp_path / "a.zarr").split("train").lens(0)
    assert lens.aperture_mm == pytest.approx(35 * np.sqrt(1 / 2.8**2 - 1 / 8**2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lens", "nowhere.toml"), ("nowhere.toml", "No such file")),
        (("--lens", "lens.toml", "--preset", "paper"), ("--preset", "--lens")),
        (("--sharp-aperture", "f/1"), ("must be smaller",)),
        (("--preset", "d3"), ("d3net-script", "d3net-camera")),
        (("--corner-light", "1.2"), ("--corner-light",)),
        (("--focus-blur", "-1"), ("--focus-blur",)),
    ],
)
def test_wrong_lens_options_give_one_line(run_command, tmp_path, options, words):
    Lens.preset("paper").save(tmp_path / "lens.toml")
    result = run_command("dfd-prepare", "lens", *options, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_the_old_preset_name_says_what_it_is_now(run_command, tmp_path):
    result = run_command("dfd-prepare", "lens", "--preset", "d3net", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("d3net-script,")
    assert "d3net-camera" in result.stderr
