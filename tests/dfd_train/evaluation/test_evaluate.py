from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from defocus_sim.datasets.base import RgbdFrame
from dfd_train.config.train import recipe_config
from dfd_train.data.stream import ShardDataset
from dfd_train.errors import CheckpointError, ConfigError, EvaluationError
from dfd_train.evaluation.evaluate import EvalConfig, evaluate
from dfd_train.evaluation.figures import choose_samples
from dfd_train.evaluation.metrics import ImageScore, ImageSums, summarise
from dfd_train.evaluation.paper_tables import published_figures
from dfd_train.evaluation.report import Report
from dfd_train.evaluation.scoring import mean_depth_m, score_split
from dfd_train.model.two_headed import Output
from dfd_train.runs.checkpoint import load_checkpoint, save_checkpoint
from dfd_train.training.train import train

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained `fast` network's run (one step of no consequence), whose restoration is nearly the input."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(
        recipe_config(
            "fast", shards=store, out=out, model="tiny", size="48x36", epochs=1, batch_size=10, lr=1e-9, device="cpu"
        ),
        console=QUIET,
    )
    return out


def evaluated(store: Path, run: Path, **options: object) -> Report:
    return evaluate(EvalConfig(shards=str(store), checkpoint=str(run), device="cpu", **options), console=QUIET)


class Deterministic(nn.Module):
    """Stands in for a network: each output pixel depends on its own input pixel only, to the last bit."""

    def forward(self, image: torch.Tensor) -> Output:
        return Output(1 + 5 * image[:, :1], 0.9 * image)


@pytest.mark.parametrize("convention", ["per-image", "pooled"])
def test_any_batch_size_gives_the_same_digits(store: Path, convention: str) -> None:
    dataset = ShardDataset(store, "train")
    results = []
    for batch_size in (1, 3, 16):
        scores = list(score_split(Deterministic(), dataset, size=(36, 48), device=CPU, batch_size=batch_size))
        assert [score.position for score in scores] == list(range(10))
        results.append(summarise([score.predicted for score in scores], convention))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("convention", ["per-image", "pooled"])
def test_a_real_network_scores_the_same_digits_at_any_batch_size(store: Path, run: Path, convention: str) -> None:
    # Convolutions over several images sum in another order: the last bit would differ.
    reports = [evaluated(store, run, batch_size=size, convention=convention, split="train") for size in (1, 3, 16)]
    for report in reports[1:]:
        assert report.rows == reports[0].rows
        assert report.per_image == reports[0].per_image


@pytest.fixture
def on_two_processes() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function (arguments) -> `dfd-eval` run by two processes that talk gloo."""

    def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*torchrun, "-m", "dfd_cli.evaluate", *map(str, arguments), "--device", "cpu"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)

    return launch


def test_two_processes_score_the_same_digits_as_one(
    store: Path, run: Path, tmp_path: Path, on_two_processes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = on_two_processes("--shards", store, "--checkpoint", run, "--out", tmp_path / "two", "--batch-size", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("RMSE (m)") == 1
    alone = evaluated(store, run, out=str(tmp_path / "one"))
    two, one = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("two", "one"))
    for part in ("rows", "per_image", "constant_depth_m"):
        assert two[part] == one[part]
    assert alone.rows == one["rows"]
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    for name in ("per_image.csv", "report.md"):
        same, other = ((tmp_path / folder / name).read_text().replace("prediction", "") for folder in ("two", "one"))
        assert same == other


def test_an_image_that_cannot_be_scored_ends_all_processes_with_its_name(
    make_store: Callable[..., Path], textured: Callable[..., RgbdFrame], run: Path, tmp_path: Path,
    on_two_processes: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    frames = [textured(rng, 48, 64) for _ in range(4)]
    frames[1].depth_m[:] = 11
    store = make_store({"test": frames})
    done = on_two_processes("--shards", store, "--checkpoint", run, "--out", tmp_path / "r")
    assert done.returncode != 0
    assert done.stderr.count("Error: test-001: no pixel has a true depth") >= 1
    assert not list(tmp_path.glob("r/report*"))


def test_doing_nothing_is_scored_beside_the_prediction(store: Path, run: Path) -> None:
    report = evaluated(store, run, size="native")
    test, training = ShardDataset(store, "test"), ShardDataset(store, "train")
    arrays = test.split.read(range(5))
    psnr = [
        peak_signal_noise_ratio(a, d, data_range=255) for a, d in zip(arrays["aif"], arrays["defocused"], strict=True)
    ]
    assert report.rows["input"] == pytest.approx({"psnr": np.mean(psnr), "ssim": report.rows["input"]["ssim"]})
    depth = training.split.read(range(10), fields=("depth_m",))["depth_m"]
    mean = depth[depth > 0].astype(np.float64).mean()
    assert report.constant_depth_m == pytest.approx(mean, rel=1e-9)
    rmse = [np.sqrt(np.mean((mean - d[d > 0].astype(np.float64)) ** 2)) for d in arrays["depth_m"]]
    assert report.rows["mean depth"]["rmse"] == pytest.approx(np.mean(rmse), rel=1e-6)
    assert set(report.rows["mean depth"]).isdisjoint(report.rows["input"])


def test_an_untouched_zero_start_scores_like_its_input(store: Path, run: Path) -> None:
    report = evaluated(store, run)
    assert report.settings["size_wh"] == [48, 36]
    assert report.rows["prediction"]["psnr"] == pytest.approx(report.rows["input"]["psnr"], abs=1e-3)


def test_the_report_folder_holds_everything_to_redo_it(store: Path, run: Path, tmp_path: Path) -> None:
    report = evaluated(store, run, out=str(tmp_path / "report"), limit=4, pictures=3, convention="pooled", cap_m=4.0)
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["rows"] == report.rows
    settings = content["settings"]
    assert (settings["images"], settings["images_in_split"], settings["convention"], settings["cap_m"]) == (
        4,
        5,
        "pooled",
        4.0,
    )
    assert settings["store_checksum"] == settings["trained_on_checksum"] == ShardDataset(store).store.manifest.checksum
    assert settings["training"]["model"]["name"] == "tiny"
    assert settings["versions"]["torch"] == torch.__version__
    assert list(content["per_image"]) == [f"test-00{k}" for k in range(4)]
    assert "not comparable" in content["published"]["note"]
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| RMSE (m) ↓ |" in markdown
    assert "4 of 5 images" in markdown
    picture = cv2.imread(str(tmp_path / "report" / "predictions.png"))
    assert picture.shape[0] > 3 * 144
    assert picture.shape[1] > 6 * 192


def test_the_table_names_what_is_published_and_fits_a_terminal(store: Path, run: Path) -> None:
    text = evaluated(store, run).text()
    table = [line for line in text.splitlines() if re.match(r"(RMSE|AbsRel|delta|PSNR|SSIM| )", line)]
    assert max(map(len, table)) <= 80
    for word in ("prediction", "input", "mean depth", "paper", "per-image metrics", "not comparable"):
        assert word in text
    assert "0.2410" in next(line for line in table if line.startswith("RMSE (m)"))


def test_make3d_is_shown_beside_its_own_published_row(
    make_store: Callable[..., Path], textured: Callable[..., RgbdFrame], run: Path
) -> None:
    rng = np.random.default_rng(0)
    store = make_store({"test": [textured(rng, 48, 64) for _ in range(2)]}, kind="make3d")
    report = evaluated(store, run)
    assert report.published == published_figures("make3d")
    assert "mean depth" not in report.rows
    assert report.constant_depth_m is None


@pytest.mark.parametrize("heads", ["depth", "deblur"])
def test_a_network_of_one_head_is_scored_on_that_head(store: Path, tmp_path: Path, heads: str) -> None:
    out = tmp_path / "run"
    config = recipe_config(
        "fast", shards=store, out=out, model="tiny", heads=heads, size="48x36", epochs=1, batch_size=10, device="cpu"
    )
    train(config, console=QUIET)
    report = evaluated(store, out, out=str(tmp_path / "report"))
    assert set(report.rows) == {"prediction", "mean depth" if heads == "depth" else "input"}
    assert ("psnr" in report.rows["prediction"]) == (heads == "deblur")
    assert (tmp_path / "report" / "predictions.png").exists()


def test_averaged_weights_are_the_ones_that_are_evaluated(store: Path, run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run)
    assert checkpoint.averaged is not None
    spoiled = {
        k: torch.full_like(v, float("nan")) if v.is_floating_point() else v for k, v in checkpoint.weights.items()
    }
    save_checkpoint(tmp_path, dataclasses.replace(checkpoint, weights=spoiled))
    assert evaluated(store, tmp_path).rows == evaluated(store, run).rows


def test_a_network_that_predicts_nan_is_an_error_naming_the_image(store: Path, run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run)
    spoiled = {
        **checkpoint.averaged,
        "depth_head.last.weight": torch.full_like(checkpoint.averaged["depth_head.last.weight"], float("nan")),
    }
    save_checkpoint(tmp_path, dataclasses.replace(checkpoint, averaged=spoiled))
    with pytest.raises(EvaluationError, match="test-000: the predicted depth is NaN"):
        evaluated(store, tmp_path)


def test_a_truth_beyond_the_cap_only_is_an_error_naming_the_image(
    make_store: Callable[..., Path], textured: Callable[..., RgbdFrame], run: Path
) -> None:
    rng = np.random.default_rng(0)
    frames = [textured(rng, 48, 64) for _ in range(3)]
    frames[1].depth_m[:] = 11
    with pytest.raises(EvaluationError, match="test-001: no pixel has a true depth"):
        evaluated(make_store({"test": frames}), run)


def test_a_checkpoint_whose_weights_are_of_another_network_is_refused(store: Path, run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run)
    model = dataclasses.replace(checkpoint.config.model, stem_width=8)
    save_checkpoint(
        tmp_path, dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, model=model))
    )
    with pytest.raises(CheckpointError, match="do not fit"):
        evaluated(store, tmp_path)


def test_a_report_that_cannot_be_written_is_a_named_error(store: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="cannot write the report"):
        evaluated(store, run, out=str(tmp_path / "file"), pictures=0)


def test_a_checkpoint_file_that_was_copied_away_from_its_run_is_enough(store: Path, run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "best.pt"
    shutil.copy(next((run / "checkpoints").glob("*.pt")), copied)
    assert evaluated(store, copied).rows == evaluated(store, run).rows


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "big"), ("size", (0, 4)), ("batch_size", 0), ("limit", 0), ("cap_m", 0.0), ("convention", "median"),
     ("cap_m", float("nan")), ("border_px", -1)],
)  # fmt: skip
def test_an_impossible_evaluation_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        EvalConfig(shards="s", checkpoint="c", **{field: value})


class SpoiltEdges(nn.Module):
    """Right, by the store's frames scaled, but for the outermost 4 pixels, which are wildly wrong."""

    def forward(self, image: torch.Tensor) -> Output:
        depth_m, aif = 1 + 5 * image[:, :1], 0.9 * image
        for one, wrong in ((depth_m, 9.0), (aif, 1.0)):
            inner = one[..., 4:-4, 4:-4].clone()
            one.fill_(wrong)
            one[..., 4:-4, 4:-4] = inner
        return Output(depth_m, aif)


def test_what_lies_in_the_border_changes_no_score(store: Path) -> None:
    dataset = ShardDataset(store, "train")
    scored = {"size": (36, 48), "device": CPU, "profiles": True, "constant_depth_m": 2.0}
    for border_px, same in ((0, False), (3, False), (4, True), (10, True)):
        spoilt, whole = (
            list(score_split(net, dataset, **scored, border_px=border_px)) for net in (SpoiltEdges(), Deterministic())
        )
        assert ([s.predicted for s in spoilt] == [s.predicted for s in whole]) == same
        assert {s.predicted.image.count for s in spoilt} == {(36 - 2 * border_px) * (48 - 2 * border_px) * 3}
        assert {s.untouched.image.count for s in spoilt} == {(36 - 2 * border_px) * (48 - 2 * border_px) * 3}
        assert max(s.profile.by_depth[:, 0].sum() for s in spoilt) <= (36 - 2 * border_px) * (48 - 2 * border_px)


def test_the_border_is_said_and_one_that_leaves_nothing_is_refused(store: Path, run: Path, tmp_path: Path) -> None:
    report = evaluated(store, run, border_px=5, out=str(tmp_path / "report"))
    assert "5 px left out at each side" in report.text()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["settings"]["border_px"] == 5
    assert "left out" not in evaluated(store, run).text()
    with pytest.raises(ConfigError, match=r"border_px=13 .* 12 at most"):
        evaluated(store, run, border_px=13)


def test_the_constant_depth_needs_some_depth(
    make_store: Callable[..., Path], textured: Callable[..., RgbdFrame]
) -> None:
    frame = textured(np.random.default_rng(0), 48, 64)
    frame.depth_m[:] = 11
    with pytest.raises(EvaluationError, match="no depth below"):
        mean_depth_m(ShardDataset(make_store({"train": [frame]}), "train"))


def test_samples_go_from_the_best_by_the_median_to_the_worst() -> None:
    scores = [
        ImageScore(name=str(k), image=ImageSums(count=1, square=s, ssim=0))
        for k, s in enumerate([0.3, 0.1, 0.5, 0.2, 0.4])
    ]
    assert choose_samples(scores, 3) == [(1, "best by PSNR"), (0, "median by PSNR"), (2, "worst by PSNR")]
    assert [label for _, label in choose_samples(scores, 5)] == [
        "best by PSNR",
        "rank 2 of 5 by PSNR",
        "median by PSNR",
        "rank 4 of 5 by PSNR",
        "worst by PSNR",
    ]
    assert choose_samples(scores[:1], 5) == [(0, "best by PSNR")]
    assert choose_samples([], 5) == []
