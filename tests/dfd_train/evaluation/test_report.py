from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from dfd_cli import evaluate as eval_command
from rich.console import Console
from scipy.io import savemat

import dfd_train.evaluation.evaluate as evaluation
from defocus_sim.datasets.base import RgbdFrame
from dfd_train.config.train import recipe_config
from dfd_train.data.stream import ShardDataset
from dfd_train.evaluation.evaluate import EvalConfig, compare, evaluate, run_names
from dfd_train.evaluation.metrics import DEPTH_METRICS, IMAGE_METRICS
from dfd_train.evaluation.page.html import html_page
from dfd_train.evaluation.paper_tables import published_figures
from dfd_train.evaluation.report import Comparison, Report
from dfd_train.evaluation.scoring import DEPTH_EDGES_M, SIGMA_EDGES_PX, Profile, TrueGrid, score_split
from dfd_train.training.train import train

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of another seed, one of them without a depth head."""
    folder = tmp_path_factory.mktemp("runs")
    for name, heads in (("both", "both"), ("sharp", "deblur")):
        config = recipe_config(
            "fast", shards=store, out=folder / name, model="tiny", heads=heads, size="48x36", epochs=1, batch_size=10,
            device="cpu",
        )  # fmt: skip
        train(config, console=QUIET)
    return [folder / "both", folder / "sharp"]


def config(store: Path, run: Path, **options: object) -> EvalConfig:
    return EvalConfig(shards=str(store), checkpoint=str(run), device="cpu", **options)


def dfd_eval(*arguments: object) -> Result:
    return CliRunner().invoke(eval_command.main, list(map(str, arguments)))


def test_several_checkpoints_stand_in_one_table_with_their_own_digits(
    store: Path, runs: list[Path], tmp_path: Path
) -> None:
    result = dfd_eval(
        "--shards", store, "--checkpoint", *runs, "--device", "cpu", "--out", tmp_path / "r", "--batch-size", 3
    )
    assert result.exit_code == 0, result.output
    header = next(line for line in result.output.splitlines() if "both" in line and "sharp" in line)
    assert header.split() == ["both", "sharp", "input", "mean", "depth", "paper"]
    content = json.loads((tmp_path / "r" / "report.json").read_text())["reports"]
    for run in runs:
        assert content[run.name]["rows"] == evaluate(config(store, run), console=QUIET).rows
    assert {p.name for p in (tmp_path / "r").iterdir()} == {
        "report.json", "report.md", "report.html", "per_image.csv", "predictions.png",
    }  # fmt: skip
    assert "| both | sharp |" in (tmp_path / "r" / "report.md").read_text()
    lines = list(csv.DictReader(io.StringIO((tmp_path / "r" / "per_image.csv").read_text())))
    assert [line["image"] for line in lines] == [f"test-00{k}" for k in range(5)] * 2
    assert float(lines[2]["rmse"]) == content["both"]["per_image"]["test-002"]["rmse"]
    assert lines[7]["rmse"] == ""
    assert set(lines[0]) > {"input_psnr", "mean_depth_rmse", *DEPTH_METRICS, *IMAGE_METRICS}


def test_the_page_asks_nothing_of_a_network_and_shows_every_section(
    store: Path, runs: list[Path], tmp_path: Path
) -> None:
    evaluate(config(store, runs[0], out=str(tmp_path / "r"), html=True, pictures=3), console=QUIET)
    page = (tmp_path / "r" / "report.html").read_text()
    assert_self_contained(page)
    for words in (
        *(f"{word} by PSNR: test-" for word in ("best", "median", "worst")),
        "defocused, enlarged", "AbsRel against sigma (px)",
                  "PSNR (dB) against depth (m)", "checkpoint_sha256", "store_checksum", "predicted depth"):  # fmt: skip
        assert words in page, words
    assert page.count("<img") == 3 * (6 + 3)
    assert page.count("<svg") == 5 + 6


def assert_self_contained(page: str) -> None:
    assert not re.findall(r"<(?:script|link|iframe|object|embed)\b|@import|url\((?!#)", page)
    sources = re.findall(r"(?:src|href)\s*=\s*\"([^\"]{0,20})", page)
    # Charts refer to their own parts.
    assert all(source.startswith(("data:image/", "#")) for source in sources)


def test_654_images_stay_below_15_megabytes(store: Path, runs: list[Path]) -> None:
    scored = evaluate(config(store, runs[0]), console=QUIET)
    many = {f"image-{k:04d}-with-a-long-name": row for k, row in enumerate(list(scored.per_image.values()) * 131)}
    untouched = dict(zip(many, list(scored.input_per_image.values()) * 131, strict=True))
    big = Report(
        **{**{f: getattr(scored, f) for f in ("rows", "profiles", "constant_depth_m", "source", "settings")},
           "per_image": dict(list(many.items())[:654]), "input_per_image": dict(list(untouched.items())[:654])}
    )  # fmt: skip
    noise = np.random.default_rng(0).integers(0, 256, (427, 561, 3), dtype=np.uint8)
    from dfd_train.evaluation.figures import Shown

    shown = [Shown(title=str(k), pictures=dict.fromkeys("abcdef", noise), patches=dict.fromkeys("abc", noise[:64, :64]))
             for k in range(5)]  # fmt: skip
    page = html_page(Comparison(reports={"a": big}), shown)
    assert len(page.encode()) < 5e6
    assert page.count("<tr>") > 654


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_digits(
    store: Path, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(config(store, runs[0]), console=QUIET)
    out = tmp_path / "r"
    scored = []

    def stopping(*args: object, indices: list[int], **options: object) -> object:
        scored.append(list(indices))
        for count, score in enumerate(score_split(*args, indices=indices, **options)):
            if len(scored) == 1 and count == 3:
                raise KeyboardInterrupt
            yield score

    monkeypatch.setattr(evaluation, "score_split", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(store, runs[0], out=str(out)), console=QUIET)
    (journal,) = out.iterdir()
    with open(journal, "a") as file:
        file.write('[4, "torn')
    resumed = evaluate(config(store, runs[0], out=str(out)), console=QUIET)
    assert scored == [[0, 1, 2, 3, 4], [3, 4]]
    assert resumed.rows == whole.rows
    assert resumed.per_image == whole.per_image
    assert not list(out.glob(".scores*"))


def test_other_settings_do_not_take_over_the_scores(
    store: Path, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for size in ((36, 48), (24, 32)):
        with pytest.raises(KeyboardInterrupt):
            evaluate(config(store, runs[0], out=str(tmp_path / "r"), size=size), console=QUIET)
    assert len(list((tmp_path / "r").glob(".scores-*.jsonl"))) == 2


def test_profiles_add_up_to_the_pixels_and_the_pooled_metrics(store: Path, runs: list[Path]) -> None:
    report = evaluate(config(store, runs[0], size="native", convention="pooled"), console=QUIET)
    depth = ShardDataset(store, "test").split.read(range(5), fields=("depth_m",))["depth_m"]
    assert isinstance(report.profiles, Profile)
    assert report.profiles.by_depth.shape == (len(DEPTH_EDGES_M), 6)
    assert report.profiles.by_sigma.shape == (len(SIGMA_EDGES_PX), 6)
    for sums in report.profiles:
        total = sums.sum(axis=0)
        assert total[0] == total[1] == (depth > 0).sum()
        assert np.sqrt(total[2] / total[1]) == pytest.approx(report.rows["prediction"]["rmse"], rel=1e-9)
        assert total[3] / total[1] == pytest.approx(report.rows["prediction"]["abs_rel"], rel=1e-9)
    bins = np.histogram(depth[depth > 0], [*DEPTH_EDGES_M, np.inf])[0]
    assert np.array_equal(report.profiles.by_depth[:, 0], bins)


@pytest.fixture
def make3d(
    make_store: Callable[..., Path], textured: Callable[..., RgbdFrame], tmp_path: Path
) -> tuple[Path, Path, np.ndarray]:
    """A Make3D store of two test samples, the root with their grids, and the first grid in metres."""
    rng = np.random.default_rng(0)
    store = make_store({"test": [textured(rng, 48, 64) for _ in range(2)]}, kind="make3d")
    root, grids = tmp_path / "make3d", []
    import cv2

    for k in range(2):
        for folder in ("Test134", "Test134Depth"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "Test134" / f"img-test-00{k}.jpg"), rng.integers(0, 256, (72, 54, 3), dtype=np.uint8))
        grid = np.zeros((55, 305, 4))
        grid[..., 2] = grid[..., 3] = rng.uniform(1, 81, (55, 305))
        grids.append(grid[..., 3])
        savemat(root / "Test134Depth" / f"depth_sph_corr-test-00{k}.mat", {"Position3DGrid": grid})
    return store, root, grids[0]


def test_make3d_is_scored_on_its_own_grid_up_to_c1_or_c2(
    make3d: tuple[Path, Path, np.ndarray], runs: list[Path]
) -> None:
    store, root, grid = make3d
    counts = {}
    for cap in (None, 80):
        extra = () if cap is None else ("--cap-m", cap)
        arguments = ("--shards", store, "--checkpoint", runs[0], "--device", "cpu", "--make3d-root", root, *extra)
        result = dfd_eval(*arguments)
        assert result.exit_code == 0, result.output
        assert f"depth up to {cap or 70} m" in result.output
        assert "source's own grid" in result.output
        counts[cap] = next(line for line in result.output.splitlines() if line.startswith("RMSE (m)")).split()[-1]
    assert counts == {None: "4.1780", 80: "6.1320"}
    assert published_figures("make3d", cap_m=80) == {"rmse": 6.132, "abs_rel": 0.170, "psnr": 24.76, "ssim": 0.78}
    assert published_figures("make3d", "gur") == {"rmse": 8.822, "abs_rel": 0.568}
    assert published_figures("synthetic", "dncnn") == {"psnr": 32.43, "ssim": 0.67}
    dataset = ShardDataset(store, "test")

    class Plane(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> object:
            from dfd_train.model.two_headed import Output

            columns = torch.linspace(0.5 / 64, 1 - 0.5 / 64, 64) * 50 + 10
            return Output(columns.expand(len(image), 1, 48, 64), None)

    scored = {"size": None, "device": torch.device("cpu"), "cap_m": 70, "limit": 1}
    (score,) = score_split(Plane(), dataset, **scored, truth=lambda _: TrueGrid(grid.astype("f4")))
    true = grid.astype(np.float32).astype(np.float64)
    # The plane at the centres of the cells; linear in between, constant beyond the outermost pixels' centres.
    at = np.clip((np.arange(305) + 0.5) / 305, 0.5 / 64, 1 - 0.5 / 64) * 50 + 10
    error = ((at[None] - true) ** 2)[true < 70]
    assert score.predicted.depth.count == error.size
    assert score.predicted.depth.square == pytest.approx(error.sum(), rel=1e-5)
    # The grid says the distance along the ray, the network z: it is scored on the distance of its own points.
    rays = TrueGrid((1.25 * grid).astype("f4"), grid.astype("f4"))
    (score,) = score_split(Plane(), dataset, **scored, truth=lambda _: rays)
    error = 1.25**2 * ((at[None].clip(0, 70 / 1.25) - true) ** 2)[1.25 * true < 70]
    assert score.predicted.depth.square == pytest.approx(error.sum(), rel=1e-5)


def test_a_grid_that_is_missing_is_one_line(make3d: tuple[Path, Path, np.ndarray], runs: list[Path]) -> None:
    store, root, _ = make3d
    (root / "Test134Depth" / "depth_sph_corr-test-001.mat").unlink()
    result = dfd_eval("--shards", store, "--checkpoint", runs[0], "--device", "cpu", "--make3d-root", root)
    assert result.exit_code == 2
    assert "no grid for sample test-001" in result.stderr


def test_runs_are_called_by_their_folders(tmp_path: Path) -> None:
    assert run_names(["runs/a", "runs/b/checkpoints/step-1.pt", "best.pt", "other/a/"]) == ["a", "b", "best", "a 2"]


def test_compare_with_one_checkpoint_is_evaluate(store: Path, runs: list[Path], tmp_path: Path) -> None:
    copied = tmp_path / "best.pt"
    shutil.copy(next((runs[0] / "checkpoints").glob("*.pt")), copied)
    comparison = compare(config(store, copied), [str(copied)], console=QUIET)
    assert comparison.reports["best"].rows == evaluate(config(store, runs[0]), console=QUIET).rows
