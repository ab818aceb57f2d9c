"""`dfd-prepare pairs` as installed, and what `dfd-train` and `dfd-eval` make of its stores."""

import json
import os

import photographs
import pytest


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photographs.write_pairs(folder, 6)
    return folder


FOLDERS = ("--defocused", "defocused", "--sharp", "sharp")
DEPTH = ("--depth-dir", "depth", "--depth-scale", "0.001")


def test_pairs_in_one_command(run_command, photos, tmp_path):
    made = run_command(
        "dfd-prepare", "pairs", *FOLDERS, *DEPTH, "--preset", "d3net-camera", "--test-fraction", "0.5", "--falloff",
        "--out", tmp_path / "a.zarr", cwd=photos,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "3 train, 3 test samples of 208x128" in made.stdout
    assert "measured, not simulated" in made.stdout
    assert made.stdout.count(" px apart at most") == 6
    info = run_command("dfd-prepare", "info", tmp_path / "a.zarr")
    assert "mode=measured" in info.stdout
    assert "d3net-camera" in info.stdout


def test_unequal_folders_name_what_is_alone(run_command, photos, tmp_path):
    (tmp_path / "sharp").mkdir()
    for path in sorted((photos / "sharp").iterdir())[:5]:
        os.link(path, tmp_path / "sharp" / path.name)
    options = ("--defocused", photos / "defocused", "--sharp", "sharp", "--register", "none", "--out", "a.zarr")
    made = run_command("dfd-prepare", "pairs", *options, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "5 train" in made.stdout
    assert "005: has no sharp file of its name" in made.stdout
    refused = run_command("dfd-prepare", "pairs", *options, "--by-order", "--overwrite", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "6 defocused, 5 sharp" in refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--defocused", "--pairs")),
        (("nowhere",), ("nowhere", "not there")),
        (("--defocused", "defocused"), ("belong together",)),
        ((*FOLDERS, "--depth-dir", "depth"), ("--depth-scale",)),
        ((*FOLDERS, "--border", "90"), ("90 px",)),
        ((*FOLDERS, "--preset", "d3net-camera", "--focus", "1m,2m"), ("one focus distance",)),
        ((*FOLDERS, "--focus", "1m"), ("aperture is missing",)),
    ],
)
def test_wrong_options_give_one_line(run_command, photos, tmp_path, options, words):
    result = run_command("dfd-prepare", "pairs", *options, "--out", tmp_path / "a.zarr", cwd=photos)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("heads", ["both", "deblur"])
@pytest.mark.parametrize("depth", [(), DEPTH], ids=["no depth", "depth"])
def test_training_and_scores_of_photographs(run_command, photos, tmp_path, heads, depth):
    made = run_command(
        "dfd-prepare", "pairs", *FOLDERS, *depth, "--test-fraction", "0.3", "--val-fraction", "0.3", "--out",
        tmp_path / "a.zarr", cwd=photos,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    trained = run_command(
        "dfd-train", "--shards", "a.zarr", "--out", "run", "--model", "tiny", "--recipe", "fast", "--heads", heads,
        "--crop", "64", "--batch-size", "2", "--epochs", "1", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run/best.pt").exists() or list((tmp_path / "run").rglob("best.pt"))
    options = ("--checkpoint", "run", "--out", "report", "--border", "8", "--json")
    scored = run_command("dfd-eval", "--shards", "a.zarr", *options, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["settings"]["border_px"] == 8
    assert "8 px left out at each side" in (tmp_path / "report/report.md").read_text()
    report = json.loads((tmp_path / "report/report.json").read_text())
    names = {name for row in report["rows"].values() for name in row}
    assert {"psnr", "ssim"} <= names
    assert ("rmse" in names) == (heads == "both" and bool(depth))
