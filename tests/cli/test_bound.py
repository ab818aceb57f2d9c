"""`dfd-prepare lens --bound`, and the word about a focus inside the depths, as installed."""

import cv2
import numpy as np
import pytest

SMALL = ("--count", "6", "--size", "64x48", "--seed", "3")


@pytest.fixture(scope="module")
def rooms(run_command, tmp_path_factory):
    """A store focused inside its depths, and what the conversion said."""
    place = tmp_path_factory.mktemp("rooms")
    return place / "rooms.zarr", run_command("dfd-prepare", "synthetic", *SMALL, "--out", "rooms.zarr", cwd=place)


def table(text):
    rows = [line.split() for line in text.splitlines()]
    return {float(row[0]): [float(v) for v in row[1:]] for row in rows if len(row) == 4 and row[0][0].isdigit()}


def test_a_focus_inside_the_depths_is_said_with_a_better_one(rooms, run_command, tmp_path):
    _, made = rooms
    (line,) = [line for line in made.stdout.splitlines() if "lies inside the depths" in line]
    assert "the focus at 2 m" in line
    assert "two depths share each blur" in line
    assert line.endswith("dfd-prepare lens --bound rooms.zarr")
    for options in (("--focus", "80m"), ("--focus", "1m,3m")):
        other = run_command(
            "dfd-prepare", "synthetic", *SMALL, *options, "--out", "far.zarr", "--overwrite", cwd=tmp_path
        )
        assert other.returncode == 0
        assert "lies inside" not in other.stdout


def test_the_preset_for_studies_is_the_papers_lens_focused_beyond_a_room(run_command, tmp_path):
    done = run_command("dfd-prepare", "lens", "--preset", "paper-far")
    assert "focus 10 m" in done.stdout
    assert "F 70 mm, f/1.56" in done.stdout


def test_bound_of_a_store_is_a_table_and_a_picture(rooms, run_command, tmp_path):
    store, _ = rooms
    done = run_command("dfd-prepare", "lens", "--bound", store, "--focus", "2.5m", "--plot", tmp_path / "b.png")
    assert (done.returncode, done.stderr) == (0, "")
    found = table(done.stdout)
    assert found[2.5][0] > 5 * found[80.0][0]
    assert found[80.0][0] <= found[80.0][1] <= found[80.0][2]
    assert "least at" in done.stdout
    assert cv2.imread(str(tmp_path / "b.png")).shape[0] > 300


def test_bound_takes_depth_files_folders_and_the_labelled_nyu_file(run_command, nyu_files, tmp_path):
    depth = np.repeat([[1500, 3000]], 40, axis=0).repeat(20, axis=1).astype(np.uint16)
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set" / "a_depth.png"), depth)
    cv2.imwrite(str(tmp_path / "set" / "a.jpg"), np.zeros((40, 40, 3), np.uint8))
    np.save(tmp_path / "one.npy", (depth / 1000).astype(np.float32))
    for place, more in (("set", ("--depth-scale", "0.001")), ("one.npy", ())):
        done = run_command("dfd-prepare", "lens", "--bound", place, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert table(done.stdout)[2.0][0] == pytest.approx(0.77, abs=0.04)
    assert table(run_command("dfd-prepare", "lens", "--bound", nyu_files[0]).stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--bound", "nowhere"), "nowhere is not there: give a store, a depth file, or a folder of them"),
        (("--bound", "empty"), "empty holds neither a finished store nor a depth file"),
        (("--bound", "plain.png"), "--depth-scale 0.001 for mm"),
        (("--depth-scale", "0.001"), "--depth-scale belongs to --bound"),
    ],
)
def test_what_holds_no_depth_is_one_line(run_command, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((4, 4), 900, np.uint16))
    done = run_command("dfd-prepare", "lens", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
