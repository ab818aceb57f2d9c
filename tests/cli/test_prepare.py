"""`dfd-prepare` as installed."""

import io
import json
import re
from pathlib import Path

import cv2
import faults
import pytest
import zarr
from dfd_cli.prepare import main
from dfd_cli.support.conversion import slowest_stage
from rich.console import Console

from defocus_sim.shards.store import open_store


def assert_one_line_refusal(result, *words):
    assert result.returncode == 2, result
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


def test_nyu_in_full(run_command, nyu_files, tmp_path):
    mat, splits = nyu_files
    arguments = ["--splits", splits, "--aperture", "4.48cm", "--focal-length", "70mm", "--focus", "2m"]
    result = run_command("dfd-prepare", "nyu", mat, *arguments, "--out", tmp_path / "nyu.zarr")
    assert result.returncode == 0, result.stderr
    assert "3 train, 2 test samples of 561x427" in result.stdout
    assert re.search(r"CoC +-\d+\.\d to \+\d+\.\d px", result.stdout)
    assert re.search(r"PSNR \d+\.\d dB", result.stdout)
    sheet = cv2.imread(str(tmp_path / "nyu_contact_sheet.png"))
    # Four columns, and the bar of the depth's colours.
    assert 4 * 324 < sheet.shape[1] < 4 * 324 + 80
    assert zarr.open_group(tmp_path / "nyu.zarr", mode="r")["test/defocused"].shape == (2, 427, 561, 3)
    lens = open_store(tmp_path / "nyu.zarr").manifest.lenses[0]
    assert (lens["name"], lens["aperture_mm"], lens["focal_length_mm"]) == ("paper", 44.8, 70.0)


def test_profile_says_where_the_time_went(run_command, nyu_files, tmp_path):
    labelled, splits = nyu_files
    result = run_command("dfd-prepare", "nyu", labelled, "--splits", splits, "--out", tmp_path / "a.zarr", "--profile")
    table = result.stdout.partition("stages")[2].splitlines()[1:]
    rows = {line.split()[0]: (float(line.split()[1].rstrip("%")), float(line.split()[2])) for line in table}
    assert list(rows) == ["read", "blur", "encode", "write"]
    assert sum(share for share, _ in rows.values()) == pytest.approx(100, abs=0.3)
    assert all(milliseconds > 0 for _, milliseconds in rows.values())


def test_nyu_alone_finds_the_official_files(run_command, tmp_path):
    (tmp_path / "data").mkdir()
    faults.write_nyu(tmp_path / "data/nyu_depth_v2_labeled.mat", 3)
    faults.write_splits(tmp_path / "data/splits.mat", [1, 2], [3])
    result = run_command("dfd-prepare", "nyu", "--aperture", "4.48cm", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(open_store(tmp_path / "nyu.zarr").split("train")) == 2


def test_synthetic_and_the_tools_on_its_store(run_command, tmp_path):
    made = run_command(
        "dfd-prepare", "synthetic", "--count", "3", "--size", "64x48", "--out", "demo.zarr", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    info = run_command("dfd-prepare", "info", "demo.zarr", cwd=tmp_path)
    assert "2 train, 1 test samples of 64x48" in info.stdout
    assert "kind=synthetic" in info.stdout
    assert "focal_length_mm=70.0" in info.stdout
    assert run_command("dfd-prepare", "verify", "demo.zarr", cwd=tmp_path).returncode == 0
    assert run_command("dfd-prepare", "preview", "demo.zarr", "--out", "sheet.png", cwd=tmp_path).returncode == 0
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None


def test_varied_scenes_come_in_every_scale_unless_one_is_named(run_command, tmp_path):
    arguments = ("dfd-prepare", "synthetic", "--count", "2", "--size", "64x48", "--scenes", "varied", "--overwrite")
    for given, scale in ((), "mixed"), (("--scale", "street"), "street"):
        made = run_command(*arguments, *given, "--out", "v.zarr", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        source = open_store(tmp_path / "v.zarr").manifest.source
        assert (source["scenes"], source["scale"]) == ("varied", scale)


def test_the_progress_line_names_the_stage_that_takes_longest(run_command, tmp_path, monkeypatch):
    assert slowest_stage({}) == "converting"
    assert slowest_stage({"read": 2.0, "blur": 0.1, "encode": 0.1}, "rendering") == "rendering"
    assert slowest_stage({"read": 2.0, "blur": 0.1}) == "reading"
    assert slowest_stage({"read": 0.2, "blur": 3.1}, "rendering") == "blurring"
    shown = io.StringIO()
    monkeypatch.setattr("dfd_cli.support.logging.speaking", lambda **_: Console(file=shown, width=100))
    monkeypatch.setattr("defocus_sim.progress.LINE_EVERY_S", 0.0)
    arguments = ["--count", "3", "--size", "480x360", "--workers", "1", "--out", str(tmp_path / "a.zarr")]
    main(["synthetic", *arguments], standalone_mode=False)
    assert "rendering" in shown.getvalue()
    assert "blurring" not in shown.getvalue()


def test_verify_names_every_damaged_file(run_command, tmp_path):
    run_command("dfd-prepare", "synthetic", "--count", "4", "--size", "64x48", "--samples-per-shard", "2", cwd=tmp_path)
    store = open_store(tmp_path / "synthetic.zarr")
    paths = {(r.split, r.array): Path(store.url) / r.name for r in store.records()}
    paths["train", "aif"].unlink()
    (Path(store.url) / "test/aif/zarr.json").unlink()
    faults.flip_byte(paths["test", "depth_m"], 40)
    result = run_command("dfd-prepare", "verify", "synthetic.zarr", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stdout.splitlines()) == 3
    assert "train/aif" in result.stdout
    assert "test/aif/zarr.json is missing" in result.stdout
    assert re.search(r"test/depth_m\): sample 0 \(synthetic-\d+\) is damaged", result.stdout)
    assert "3 of 18 files" in result.stderr


def test_every_lens_option_reaches_the_store(run_command, tmp_path):
    arguments = [
        "--count",
        "2",
        "--size",
        "64x48",
        "--f-number",
        "2",
        "--focal-length",
        "50mm",
        "--pixel-pitch",
        "80um",
    ]
    arguments += ["--focus", "1m,3m", "--max-coc", "9px", "--mode", "layered", "--psf", "disc", "--linear-light"]
    result = run_command("dfd-prepare", "synthetic", *arguments, "--noise", "0.001,0.002", "--dither", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    manifest = open_store(tmp_path / "synthetic.zarr").manifest
    assert manifest.lenses[0]["f_number"] == 2
    assert manifest.lenses[0]["aperture_mm"] is None
    assert manifest.lenses[0]["pixel_pitch_um"] == 80
    assert manifest.lenses[0]["max_coc_px"] == 9
    assert manifest.rendering == {
        "mode": "layered",
        "psf": "disc",
        "linear_light": True,
        "truncate": 4.0,
        "noise": {"shot": 0.001, "read": 0.002},
        "dither": True,
    }
    assert manifest.splits["train"].focus_distance_m == (1.0, 3.0)
    assert manifest.splits["train"].aperture_mm == (25.0, 25.0)


def test_lens_prints_the_papers_numbers_and_draws(run_command, tmp_path):
    arguments = ["--preset", "paper", "--focus", "2m", "--width", "561", "--plot", "lens.png"]
    result = run_command("dfd-prepare", "lens", *arguments, cwd=tmp_path)
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()[:1].isdigit()}
    assert float(rows["0.70"][0]) == pytest.approx(-47.0, abs=0.05)
    assert float(rows["10.00"][1]) == pytest.approx(20.3 / 4, abs=0.02)
    assert "depth of field" in result.stdout
    assert cv2.imread(str(tmp_path / "lens.png")) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--aperture", "4.48"], ["4.48", "no unit", "mm, cm, m"]),
        (["--aperture", "4.48parsec"], ["parsec"]),
        (["--focus", "5cm"], ["--focus 0.05m", "0.07"]),
        (["--focus", "2m,2m"], ["twice"]),
        (["--f-number", "2", "--aperture", "4cm"], ["more than once"]),
        (["--pixel-pitch", "5um", "--focal-length-px", "500"], ["sensor", "more than once"]),
        (["--preset", "none", "--focus", "2m"], ["missing"]),
        (["--size", "320"], ["320x240"]),
        (["--noise", "3"], ["SHOT,READ"]),
        (["--max-coc", "0"], ["pixels above 0"]),
        (["--truncate", "99"], ["--truncate 99"]),
        (["--colour"], ["--colour"]),
        (["--splits", "nowhere.mat"], ["nowhere.mat"]),
    ],
)
def test_wrong_options_give_one_line_and_no_output(run_command, nyu_files, tmp_path, change, words):
    before = set(tmp_path.iterdir())
    base = [] if "--splits" in change else ["--splits", nyu_files[1]]
    result = run_command("dfd-prepare", "nyu", nyu_files[0], *base, *change, "--out", tmp_path / "x.zarr", cwd=tmp_path)
    assert_one_line_refusal(result, *words)
    assert set(tmp_path.iterdir()) == before


def test_wrong_files_give_one_line_and_no_output(run_command, nyu_files, tmp_path):
    mat, splits = nyu_files
    (tmp_path / "text.mat").write_text("hello")
    short = tmp_path / "short.mat"
    short.write_bytes(mat.read_bytes()[: mat.stat().st_size // 2])
    beyond = faults.write_splits(tmp_path / "beyond.mat", [1, 2], [77])
    before = set(tmp_path.iterdir())
    for file, split, words in (
        (tmp_path / "absent.mat", splits, ["absent.mat", "not there"]),
        (tmp_path / "text.mat", splits, ["text.mat", "HDF5"]),
        (splits, splits, ["splits.mat"]),
        (short, splits, ["short.mat", "truncated"]),
        (mat, beyond, ["frame 77", "1..5"]),
        (tmp_path, splits, ["not a file"]),
    ):
        result = run_command("dfd-prepare", "nyu", file, "--splits", split, "--out", tmp_path / "x.zarr")
        assert_one_line_refusal(result, *words)
        assert set(tmp_path.iterdir()) == before


def test_an_existing_store_is_not_touched_without_overwrite(run_command, small_store, tmp_path):
    result = run_command("dfd-prepare", "synthetic", "--count", "2", "--out", small_store.url, cwd=tmp_path)
    assert_one_line_refusal(result, "exists already", "--overwrite")
    open_store(small_store.url)


def test_without_the_official_files_one_line_says_where_they_come_from(run_command, tmp_path):
    result = run_command("dfd-prepare", "nyu", "--aperture", "4.48cm", cwd=tmp_path)
    assert_one_line_refusal(result, "nyu_depth_v2_labeled.mat", "splits.mat", "NYU Depth Dataset V2")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_target_is_named(run_command, tmp_path):
    target = tmp_path / "file"
    target.write_text("a file where a folder is wanted")
    result = run_command("dfd-prepare", "synthetic", "--count", "2", "--size", "64x48", "--out", target / "x.zarr")
    assert_one_line_refusal(result, "x.zarr")


def test_info_and_verify_speak_json_and_tell_stacks_and_parts(tmp_path, run_command):
    for name, seed in (("a", 0), ("b", 1)):
        made = run_command(
            "dfd-prepare", "synthetic", "--count", 4, "--size", "64x48", "--focus", "1m,3m", "--seed", seed, "--out",
            tmp_path / f"{name}.zarr",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    both = tmp_path / "both.zarr"
    joined = run_command("dfd-prepare", "merge", tmp_path / "a.zarr", tmp_path / "b.zarr", "--out", both)
    assert joined.returncode == 0, joined.stderr
    assert "2 stores joined" in joined.stdout
    assert "part 2   kind=synthetic" in joined.stdout
    assert "seed=1" in joined.stdout
    assert "stack      8 frames, each at 2 focus distances" in joined.stdout
    facts = json.loads(run_command("dfd-prepare", "info", both, "--json").stdout)
    assert facts["size_wh"] == [64, 48]
    assert sum(facts["samples"].values()) == 16
    assert sum(facts["frames"].values()) == sum(facts["scenes"].values()) == 8
    assert facts["focus_distances_m"] == [1.0, 3.0]
    found = json.loads(run_command("dfd-prepare", "verify", both, "--json").stdout)
    assert found["damaged"] == []
    assert found["shard_files"] > 0
    faults.flip_byte(next(both.glob("train/aif/c/*/0/0/0")), 40)
    result = run_command("dfd-prepare", "verify", both, "--json")
    assert result.returncode == 2
    assert "sample" in json.loads(result.stdout)["damaged"][0]
