"""What a command writes never takes the place of what it reads, and a URL never becomes a local folder."""

import shutil

import pytest

URL = "s3://bucket/there"


def assert_one_line_refusal(result, *words):
    assert result.returncode == 2, result.stdout
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("dfd-train", "--shards", "{store}", "--out", URL),
        ("dfd-train", "plot", "{store}", "--out", URL),
        ("dfd-eval", "--shards", "{store}", "--checkpoint", "run", "--out", URL),
        ("dfd-eval", "table2", "--out", URL),
        ("dfd-predict", "a.png", "--checkpoint", "run", "--out", URL),
        ("dfd-predict", "export", "--checkpoint", "run", "--onnx", URL),
        ("dfd-prepare", "preview", "{store}", "--out", URL),
        ("dfd-prepare", "lens", "--plot", URL),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_results_for_a_url_are_refused_and_no_folder_of_that_name_appears(command, small_store, tmp_path, run_command):
    result = run_command(*(word.format(store=small_store.url) for word in command), cwd=tmp_path)
    assert_one_line_refusal(result, "URL", "local")
    assert not list(tmp_path.iterdir())


def test_a_contact_sheet_is_not_written_into_the_store(small_store, tmp_path, run_command):
    store = tmp_path / "a.zarr"
    shutil.copytree(small_store.url, store)
    result = run_command("dfd-prepare", "preview", store, "--out", store / "zarr.json")
    assert_one_line_refusal(result, "inside of the store")
    assert run_command("dfd-prepare", "verify", store).returncode == 0


def test_a_contact_sheet_that_cannot_be_written_leaves_a_finished_store_finished(tmp_path, run_command):
    (tmp_path / "a_contact_sheet.png").mkdir()
    command = ("dfd-prepare", "synthetic", "--count", "2", "--size", "48x32", "--out", tmp_path / "a.zarr")
    result = run_command(*command)
    assert result.returncode == 0, result.stderr
    assert "cannot be written" in result.stdout
    assert run_command("dfd-prepare", "verify", tmp_path / "a.zarr").returncode == 0


STACK = "dfd-calibrate --stack {run}/stack.csv --depth-at 1m "


@pytest.mark.parametrize(
    "command",
    [
        "dfd-predict export --checkpoint {run} --torch {run}/checkpoints/best.pt",
        "dfd-predict export --checkpoint {run} --onnx {run}/config.json",
        "dfd-predict export --checkpoint {run}/w.safetensors --weights {run}/w.safetensors",
        "dfd-train plot {run} --out {run}/metrics.csv",
        "dfd-prepare lens --bound {run}/depth.png --depth-scale 0.001 --plot {run}/depth.png",
        "dfd-prepare lens --lens {run}/lens.toml --plot {run}/lens.toml",
        STACK + "--sharp {run}/lens.png --plot {run}/lens.png --out b.toml",
        STACK + "--sharp {run}/lens.png --out {run}/lens.toml",
        STACK + "--sharp {run}/lens.png --out {run}/other.toml --lens {run}/other.toml",
    ],
)
def test_no_file_that_a_command_reads_or_that_makes_a_run_is_overwritten(command, tmp_path, run_command):
    names = (
        "config.json",
        "metrics.csv",
        "w.safetensors",
        "depth.png",
        "lens.toml",
        "other.toml",
        "stack.csv",
        "lens.png",
    )
    (tmp_path / "checkpoints").mkdir()
    for name in (*names, "checkpoints/best.pt"):
        (tmp_path / name).write_text("content")
    result = run_command(*command.format(run=tmp_path).split())
    assert_one_line_refusal(result, "must end in" if "must end" in result.stderr else "is read by this command")
    for name in (*names, "checkpoints/best.pt"):
        assert (tmp_path / name).read_text() == "content"
