"""Answers whose calibration is known beforehand, and the way of what is found into every report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dfd_cli import evaluate as eval_command
from numpy.typing import NDArray
from rich.console import Console

from dfd_train.config.train import recipe_config
from dfd_train.data.stream import ShardDataset
from dfd_train.evaluation.evaluate import EvalConfig, evaluate
from dfd_train.evaluation.report import summarise_sides
from dfd_train.evaluation.score_cache import ScoreJournal
from dfd_train.evaluation.scoring import SampleScore, score_split
from dfd_train.evaluation.uncertainty import summarise_uncertainty, uncertainty_sums
from dfd_train.model.load import load_network
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.train import train

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
Answers = tuple[NDArray[np.float64], NDArray[np.float64]]


def laplace(seed: int, spread: float = 1.0) -> Answers:
    """(errors, true standard deviations) of 40,000 pixels, whose scales differ by up to e^(2 `spread`)."""
    rng = np.random.default_rng(seed)
    scale = 0.2 * np.exp(rng.uniform(-spread, spread, 40_000))
    return rng.laplace(0, scale), scale * math.sqrt(2)


def found(*answers: Answers) -> dict[str, object]:
    sums = [uncertainty_sums(*one) for one in answers]
    summary = summarise_uncertainty([one for one in sums if one is not None])
    assert summary is not None
    return summary


def test_a_network_that_knows_its_errors_is_calibrated() -> None:
    error, sigma = laplace(0)
    exact = found((error, sigma), laplace(1))
    assert exact["coverage_1_sigma"] == pytest.approx(1 - math.exp(-math.sqrt(2)), abs=0.005)
    assert exact["coverage_2_sigma"] == pytest.approx(1 - math.exp(-2 * math.sqrt(2)), abs=0.005)
    assert (exact["coverage_1_sigma_expected"], exact["coverage_2_sigma_expected"]) == pytest.approx(
        (0.7569, 0.9409), abs=1e-4
    )
    assert exact["calibration_error"] < 0.005
    # The entropy of a Laplace distribution of scale b is 1 + ln 2b.
    assert exact["nll"] == pytest.approx(float(np.mean(1 + np.log(math.sqrt(2) * sigma))), abs=0.02)
    assert exact["mean_error_m"] == pytest.approx(exact["mean_sigma_m"] / math.sqrt(2), rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_too_sure_and_too_careful_are_told_apart_and_cost_likelihood(factor: float) -> None:
    error, sigma = laplace(2)
    exact, wrong = found((error, sigma)), found((error, factor * sigma))
    assert wrong["coverage_1_sigma"] == pytest.approx(1 - math.exp(-factor * math.sqrt(2)), abs=0.006)
    assert wrong["calibration_error"] > 0.1
    # By E|r| = b the surprise grows by ln f + 1/f - 1.
    assert wrong["nll"] - exact["nll"] == pytest.approx(math.log(factor) + 1 / factor - 1, abs=0.02)
    # The order of the pixels is the same.
    assert wrong["ause_m"] == pytest.approx(exact["ause_m"])


def test_sparsification_is_nothing_for_the_right_order_and_flat_for_none() -> None:
    error, sigma = laplace(3)
    oracle = found((error, 3 * np.abs(error)))
    assert oracle["ause_m"] == pytest.approx(0, abs=1e-12)
    flat = found((error, np.full_like(error, 0.3)))
    rmse = math.sqrt(float(np.mean(error**2)))
    assert flat["sparsification"]["rmse_m"] == pytest.approx([rmse] * 20)
    expected = []
    for removed in np.linspace(0, 0.95, 20):
        kept = np.sort(np.abs(error))[: round((1 - removed) * error.size)]
        expected.append(math.sqrt(float(np.mean(kept**2))))
    assert flat["sparsification"]["oracle_rmse_m"] == pytest.approx(expected)
    assert flat["ause_m"] == pytest.approx(rmse - np.mean(expected))
    assert 0 < found((error, sigma))["ause_m"] < 0.7 * flat["ause_m"]
    backwards = found((error, 1 / (np.abs(error) + 1e-3)))
    assert backwards["ause_m"] > flat["ause_m"]
    assert backwards["ause_relative"] == pytest.approx(backwards["ause_m"] / rmse)


def test_coverage_pools_pixels_and_curves_are_means_over_images() -> None:
    one, other = (np.full(10, 1.0), np.full(10, 2.0)), (np.full(30, 4.0), np.full(30, 1.0))
    both = found(one, other)
    assert both["coverage_1_sigma"] == 0.25
    assert both["sparsification"]["rmse_m"] == pytest.approx([2.5] * 20)
    assert uncertainty_sums(np.zeros(0), np.zeros(0)) is None
    assert summarise_uncertainty([]) is None


def test_errors_are_told_apart_by_the_side_of_the_focus() -> None:
    sides = summarise_sides(
        [np.array([[2, 8.0, 1.0, 1], [6, 6.0, 1.5, 0]]), np.array([[0, 0, 0, 0], [8, 8.0, 2.0, 7]])]
    )
    assert sides == {
        "near": {"share": 0.125, "rmse": 2.0, "abs_rel": 0.5, "wrong_side": 0.5},
        "far": {"share": 0.875, "rmse": 1.0, "abs_rel": 0.25, "wrong_side": 0.5},
    }
    assert summarise_sides([np.array([[0, 0, 0, 0], [4, 4.0, 1.0, 0]])]) == {
        "near": {"share": 0.0},
        "far": {"share": 1.0, "rmse": 1.0, "abs_rel": 0.25, "wrong_side": 0.0},
    }
    assert summarise_sides([]) is None


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A network that answers its uncertainty, and one that does not."""
    folder = tmp_path_factory.mktemp("sure")
    for name, uncertainty in (("sure", True), ("plain", False)):
        config = recipe_config(
            "fast", shards=store, out=folder / name, model="tiny", heads="depth", size="48x36", epochs=1, batch_size=10,
            device="cpu", uncertainty=uncertainty, tensorboard=False,
        )  # fmt: skip
        train(config, console=QUIET)
    return [folder / "sure", folder / "plain"]


def test_a_report_holds_what_the_networks_own_answers_come_to(store: Path, runs: list[Path]) -> None:
    report = evaluate(EvalConfig(shards=str(store), checkpoint=str(runs[0]), device="cpu"), console=QUIET)
    checkpoint = load_checkpoint(runs[0])
    net, dataset = load_network(checkpoint.config.model, checkpoint.evaluated, CPU), ShardDataset(store, "test")
    from dfd_train.evaluation.scoring import predict_samples

    within, count, near, far = 0, 0, [], []
    for index, frames, output in predict_samples(net, dataset, dataset.read(np.arange(5)), (36, 48), CPU):
        true, predicted, sigma = (d[0, 0].double() for d in (frames.depth_m, output.depth_m, output.depth_sigma_m))
        where = (true > 1e-3) & (true < 10)
        error = (predicted.clamp(1e-3, 10) - true)[where]
        within += int((error.abs() <= sigma[where]).sum())
        count += int(where.sum())
        focus_m = dataset.lens(index).focus_distance_m
        near += error[true[where] < focus_m].tolist()
        far += error[true[where] >= focus_m].tolist()
    assert report.uncertainty is not None
    assert report.uncertainty["coverage_1_sigma"] == pytest.approx(within / count)
    assert report.by_side is not None
    for name, errors in (("near", near), ("far", far)):
        assert report.by_side[name]["rmse"] == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))))
        assert report.by_side[name]["share"] == pytest.approx(len(errors) / count)
    line = next(line for line in report.text().splitlines() if line.startswith("uncertainty: "))
    assert f"{within / count:.1%} of the errors within 1 sigma (75.7% expected)" in line
    assert "nearer than the focus: RMSE" in report.markdown()


def test_json_and_page_have_both_and_a_network_without_uncertainty_has_none(
    store: Path, runs: list[Path], tmp_path: Path
) -> None:
    arguments = ["--shards", store, "--device", "cpu", "--out", tmp_path / "r", "--json", "--checkpoint", *runs]
    done = CliRunner().invoke(eval_command.main, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    reports = json.loads(done.stdout)["reports"]
    assert set(reports["sure"]["by_side"]) == {"near", "far"}
    assert len(reports["sure"]["uncertainty"]["sparsification"]["rmse_m"]) == 20
    assert reports["plain"]["uncertainty"] is None
    page = (tmp_path / "r" / "report.html").read_text()
    assert "RMSE (m) after the least sure share is taken away" in page
    assert "sure: uncertainty: " in page
    assert "plain: by side of the focus" in page
    alone = CliRunner().invoke(eval_command.main, [*map(str, [*arguments[:-2], runs[1]])])
    assert alone.exit_code == 0, alone.output
    assert "least sure" not in (tmp_path / "r" / "report.html").read_text()


def test_an_interrupted_evaluation_keeps_what_it_found(store: Path, runs: list[Path], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(runs[0])
    net = load_network(checkpoint.config.model, checkpoint.evaluated, CPU)
    scores = list(score_split(net, ShardDataset(store, "test"), size=(36, 48), device=CPU, profiles=True, limit=2))
    journal = ScoreJournal(str(tmp_path), {})
    for score in scores:
        journal.append(score)
    for score, kept in zip(scores, ScoreJournal(str(tmp_path), {}).read().values(), strict=True):
        assert isinstance(kept, SampleScore)
        assert np.array_equal(kept.sides, score.sides)
        assert all(np.array_equal(a, b) for a, b in zip(kept.uncertainty, score.uncertainty, strict=True))
