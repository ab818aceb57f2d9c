"""What an evaluation says of itself: another camera than was trained on, and a network that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sources import small_settings

import dfd_train
from defocus_sim import Lens
from defocus_sim.convert.run import convert
from defocus_sim.lens import coc_diameter_px
from defocus_sim.shards.store import open_store
from dfd_train.config.lens_range import LensRange
from dfd_train.config.train import recipe_config
from dfd_train.data.store_facts import differences, drawn_facts, store_facts
from dfd_train.errors import CheckpointMissingError, PictureError
from dfd_train.evaluation.collapse import Collapse, lines_of_scores
from dfd_train.evaluation.evaluate import EvalConfig, default_out, evaluate
from dfd_train.prediction.files import PredictConfig, predict_files
from dfd_train.runs.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from dfd_train.training.train import train

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("honest") / "run"
    config = recipe_config(
        "fast",
        shards=store,
        out=out,
        model="tiny",
        size="48x33",
        epochs=2,
        device="cpu",
        tensorboard=False,
        best_by="psnr",
    )
    train(config, console=QUIET)
    return out


def scored(run: Path, store: Path, **options: object) -> tuple[dfd_train.Report, str]:
    console = Console(record=True, force_terminal=False, width=300)
    config = EvalConfig(shards=str(store), checkpoint=str(run), device="cpu", **options)  # type: ignore[arg-type]
    return evaluate(config, console=console), console.export_text()


def test_the_store_that_was_trained_on_needs_no_remark(run: Path, store: Path) -> None:
    report, said = scored(run, store)
    assert report.settings["store_differs"] == []
    assert "differs" not in said + report.text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"lens": Lens.preset("paper", aperture_mm=200.0, focus_distance_m=3.0)},
            "focus distance 3 m (trained with 2 m)",
        ),
        ({"lens": Lens.preset("paper", aperture_mm=100.0)}, "aperture 100 mm (trained with 200 mm)"),
        ({"lens": Lens.preset("paper", aperture_mm=200.0, pixel_pitch_um=9.0)}, "pixel pitch 9 um"),
        ({"lens": Lens.preset("paper", aperture_mm=200.0)}, "frame size 48x40 (trained with 64x48)"),
    ],
)
def test_another_lens_sensor_or_frame_size_is_said_in_a_line_and_in_the_report(
    run: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    other = convert(small_settings(**changes), tmp_path / "other.zarr").store
    report, said = scored(run, Path(other.url), size="native", html=True, out=str(tmp_path / "report"))
    line = next(line for line in said.splitlines() if "differs from the one that was trained on" in line)
    assert words in line
    assert words in report.text()
    assert words in (tmp_path / "report/report.md").read_text()
    assert "differs from the one" in (tmp_path / "report/report.html").read_text()


def test_values_within_what_was_trained_on_are_no_difference() -> None:
    trained = {"focus distance": [1.0, 4.0, "m"], "frame size": "64x48"}
    assert differences(trained, {"focus distance": [2.0, 4.0, "m"], "frame size": "64x48"}) == []
    assert differences(trained, {"focus distance": [2.0, 5.0, "m"]}) == [
        "focus distance 2 to 5 m (trained with 1 to 4 m)"
    ]


def test_a_network_that_drew_its_lenses_is_compared_with_their_ranges_and_not_with_its_stores_lens() -> None:
    stored = {"focus distance": [2.0, 2.0, "m"], "aperture": [44.8, 44.8, "mm"], "frame size": "64x48", "blur": "x y"}
    drawn = LensRange.parse("focus=1m..8m,f_number=2..4,focal_length=30mm..60mm,light=linear")
    trained = drawn_facts(stored, drawn)
    inside = {"focus distance": [3.0, 8.0, "m"], "aperture": [7.5, 30.0, "mm"], "frame size": "64x48"}
    assert differences(trained, inside | {"largest CoC": [64.0, 64.0, "px"]}) == []
    assert differences(trained, inside | {"blur": "gather gaussian in linear light"}) == []
    assert differences(trained, inside | {"aperture": [7.0, 7.0, "mm"], "blur": "gather disc"}) == [
        "aperture 7 mm (trained with 7.5 to 30 mm)",
        "blur gather disc (trained with gather gaussian in linear light)",
    ]
    many = drawn_facts(stored, LensRange.parse("focus=1m..2m,near_depths=0.5,psf=both"))
    assert differences(many, {"focus distance": [9.0, 9.0, "m"], "blur": "layered disc"}) == []
    assert drawn_facts(stored, None) == stored


def test_the_facts_of_a_stack_span_its_distances(stack: Path) -> None:
    assert store_facts(open_store(stack))["focus distance"] == [1.0, 4.0, "m"]


def test_a_run_means_its_best_checkpoint_and_last_is_at_hand(run: Path) -> None:
    assert find_checkpoint(run).name == "best.pt"
    assert find_checkpoint(f"{run}@best").name == "best.pt"
    last = find_checkpoint(f"{run}@last")
    assert last.name.startswith("step-")
    assert find_checkpoint(last) == last
    assert default_out([f"{run}@last"]) == run / "report"
    for wrong in (f"{run}@first", f"{run}x", f"{run}x@last"):
        with pytest.raises(CheckpointMissingError, match="not found"):
            find_checkpoint(wrong)


def test_load_gives_a_network_that_predicts_as_the_best_checkpoint_does(run: Path) -> None:
    net = dfd_train.load(run)
    best = load_checkpoint(run / "checkpoints/best.pt")
    assert not net.training
    assert all(torch.equal(net.state_dict()[name], value) for name, value in best.evaluated.items())
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    found = dfd_train.predict(net, picture)
    assert found.depth_m is not None
    assert found.depth_m.shape == (48, 64)


def test_a_lens_tells_its_circle_of_confusion() -> None:
    lens = Lens.preset("paper")
    depth_m = np.array([[1.0, 2.0, 5.0]])
    assert np.array_equal(lens.coc_px(depth_m, width_px=640), coc_diameter_px(depth_m, lens, width_px=640))


def flattened(run: Path, out: Path, steps: int) -> Path:
    """A run whose network gives one depth and its input back."""
    saved = load_checkpoint(run / "checkpoints/best.pt")
    weights = {k: torch.zeros_like(v) if v.is_floating_point() else v for k, v in saved.evaluated.items()}
    save_checkpoint(out, replace(saved, weights=weights, averaged=None, step=steps))
    return out


@pytest.mark.parametrize("steps", [0, 40])
def test_a_network_that_does_nothing_is_called_so_by_eval_and_predict(
    run: Path, store: Path, tmp_path: Path, steps: int, textured: Callable[..., object]
) -> None:
    flat = flattened(run, tmp_path / "flat", steps)
    report, _ = scored(flat, store)
    text = report.text()
    assert "everywhere (it varies by 0 m): the network is untrained or has collapsed" in text
    assert ("untrained: 0 steps" in text) == (steps == 0)
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), textured(np.random.default_rng(0), 48, 64).aif)  # type: ignore[attr-defined]
    config = PredictConfig(
        images=(str(tmp_path / "a.png"),), checkpoint=str(flat), out=str(tmp_path / "out"), device="cpu"
    )
    (outcome,) = predict_files(config)
    assert outcome.error is None
    assert "untrained or has collapsed" in " ".join(outcome.details)


def test_a_barely_trained_depth_is_called_so_beside_the_mean_depth(run: Path, store: Path) -> None:
    # Two epochs of a few steps: it varies, but says less than one number for every pixel.
    report, _ = scored(run, store)
    net, constant = report.rows["prediction"]["rmse"], report.rows["mean depth"]["rmse"]
    assert net >= constant
    assert f"no better than the mean depth everywhere (RMSE {net:.3f} m against {constant:.3f} m)" in report.text()


def test_a_depth_that_hardly_varies_is_told_from_a_flat_scene() -> None:
    ramp = np.linspace(-1, 1, 600).reshape(20, 30)
    deep, nearly = 3 + ramp, 3 + 0.08 * ramp
    seen = Collapse()
    seen.add_depth(nearly, deep)
    assert "barely trained or has collapsed" in seen.lines(steps=10)[0]
    seen = Collapse()
    seen.add_depth(nearly, np.where(ramp > 0, nearly, 0))
    assert seen.lines(steps=10) == []
    seen = Collapse()
    seen.add_depth(nearly)
    assert "a flat scene, or a network" in seen.lines()[0]


def test_scores_below_doing_nothing_are_said() -> None:
    rows = {"prediction": {"rmse": 1.0, "psnr": 30.0}, "mean depth": {"rmse": 1.2}, "input": {"psnr": 29.0}}
    assert lines_of_scores(rows) == []
    harmful = rows | {"prediction": {"rmse": 1.2, "psnr": 28.9}}
    depth, restored = lines_of_scores(harmful)
    assert "1.200 m against 1.200 m" in depth
    assert "28.90 dB against 29.00 dB" in restored
    assert lines_of_scores({"prediction": {"psnr": 28.0}}) == []


def test_a_network_that_learned_something_is_not_suspected() -> None:
    rng = np.random.default_rng(0)
    seen = Collapse()
    picture = rng.random((3, 20, 30))
    seen.add_depth(rng.uniform(1, 5, (20, 30)))
    seen.add_restored(picture + 0.01, picture)
    assert seen.lines(steps=10) == []
    seen = Collapse()
    seen.add_restored(picture, picture)
    assert "input itself" in seen.lines()[0]


def test_no_picture_at_all_is_an_error_and_makes_no_folder(run: Path, tmp_path: Path) -> None:
    config = PredictConfig(images=("nothing.jpg",), checkpoint=str(run), out=str(tmp_path / "out"), device="cpu")
    with pytest.raises(PictureError, match=r"nothing\.jpg"):
        list(predict_files(config))
    assert not (tmp_path / "out").exists()
