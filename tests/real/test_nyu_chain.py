"""The three commands on real NYU frames in a real-layout file; runs where DFD_REAL_DATA is set."""

import json
import subprocess
import sys

import cv2
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nyu")


def test_prepare_train_full_network_and_evaluate(real_data, run_command, folder):
    script = real_data / "make_nyu_mat.py"
    making = [sys.executable, str(script), "nyu.mat", "--frames", "0:1449:120", "--splits", "splits.mat"]
    subprocess.run(making, cwd=folder, check=True)
    lens = ["--aperture", "4.48cm", "--focal-length", "70mm", "--focus", "2m"]
    prepared = run_command(
        "dfd-prepare", "nyu", "nyu.mat", "--splits", "splits.mat", *lens, "--out", "nyu.zarr", cwd=folder
    )
    assert prepared.returncode == 0, prepared.stderr
    psnr_db = float(prepared.stdout.split("PSNR ")[1].split()[0])
    # Real rooms through this lens lie near 28 dB; a unit gone wrong is 44 dB and above, or an image without contrast.
    assert 24 < psnr_db < 32
    budget = ["--model", "full", "--epochs", "1", "--size", "64", "--batch-size", "2"]
    trained = run_command("dfd-train", "--shards", "nyu.zarr", "--out", "run", *budget, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    scored = run_command(
        "dfd-eval", "--shards", "nyu.zarr", "--checkpoint", "run", "--out", "report", "--limit", "4", cwd=folder
    )
    assert scored.returncode == 0, scored.stderr
    rows = json.loads((folder / "report" / "report.json").read_text())["rows"]
    assert 20 < rows["input"]["psnr"] < 45
    assert 0.1 < rows["mean depth"]["rmse"] < 5
    assert rows["prediction"]["rmse"] > 0
    assert cv2.imread(str(folder / "report" / "predictions.png")) is not None
