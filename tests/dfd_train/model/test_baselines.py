from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from dfd_cli import train as train_command
from rich.console import Console

from dfd_train.config.model import METHODS, VARIANTS, ModelConfig, variant
from dfd_train.config.train import TrainConfig, recipe_config, with_options
from dfd_train.data.focus_pairs import FocusPairs, samples_of
from dfd_train.data.stream import ShardDataset
from dfd_train.errors import ConfigError
from dfd_train.evaluation.evaluate import PREDICTION, EvalConfig, evaluate
from dfd_train.model.build import build_model
from dfd_train.model.load import load_network
from dfd_train.model.two_headed import parameter_count
from dfd_train.prediction.export import ExportedStack, export_program
from dfd_train.prediction.predict import predict
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.train import train

QUIET = Console(quiet=True)
# Every method in its smallest width.
SMALLEST = ("dncnn", "ircnn", "d3net-tiny", "anwar-tiny", "gur-tiny", "song-tiny")
FOCUS_M = (1.0, 4.0)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def built(name: str) -> Any:
    return build_model(variant(name), generator=seeded())


def test_the_registry_holds_every_baseline_in_its_widths() -> None:
    assert {config.method for config in VARIANTS.values()} == set(METHODS)
    assert all(config.name == name for name, config in VARIANTS.items())
    with torch.device("meta"):
        counts = {name: parameter_count(build_model(VARIANTS[name])) for name in METHODS if name != "2hded"}
    # One more picture is three more channels of the first 3x3 convolution.
    assert counts == {
        "dncnn": 558_336, "ircnn": 188_483, "d3net": 24_212_544, "anwar": 24_212_544, "gur": 24_212_544,
        "song": 24_212_544 + 3 * 64 * 9,
    }  # fmt: skip


def test_parameter_counts_by_hand() -> None:
    assert parameter_count(built("dncnn")) == 3 * 64 * 9 + 15 * (64 * 64 * 9 + 2 * 64) + 64 * 3 * 9
    assert parameter_count(built("ircnn")) == (27 * 64 + 64) + 5 * (64 * 64 * 9 + 2 * 64) + (64 * 27 + 3)
    with torch.device("meta"):
        assert build_model(variant("d3net")).aif_head is None


@pytest.mark.parametrize("name", ["dncnn", "ircnn"])
def test_they_restore_images_of_any_size_and_predict_no_depth(name: str) -> None:
    net = built(name).eval()
    with torch.inference_mode():
        output = net(torch.rand(2, 3, 19, 31))
    assert output.depth_m is None
    assert output.aif.shape == (2, 3, 19, 31)


@pytest.mark.parametrize(("name", "radius"), [("dncnn", 17), ("ircnn", 16)])
def test_they_see_as_far_as_their_kernels_reach(name: str, radius: int) -> None:
    net = built(name).double().eval()
    image = torch.rand(1, 3, 1, 81, dtype=torch.float64)
    with torch.inference_mode():
        before = net(image).aif
        image[..., 40] += 0.5
        changed = (net(image).aif != before).any(dim=1).flatten().nonzero().flatten()
    assert (int(changed.min()), int(changed.max())) == (40 - radius, 40 + radius)


def test_they_learn_to_take_away_what_was_added() -> None:
    net = built("ircnn")
    generator = seeded()
    clean = torch.rand(4, 3, 24, 24, generator=generator)
    noisy = clean + 0.2
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = (net(noisy).aif - clean).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2**2 / 2


def test_a_zero_start_returns_the_input_and_a_signed_range_changes_no_convention() -> None:
    image = torch.rand(1, 3, 16, 16)
    zero = build_model(dataclasses.replace(variant("ircnn"), zero_last_aif=True)).eval()
    assert torch.equal(zero(image).aif, image)
    signed = build_model(dataclasses.replace(variant("ircnn"), input_range="signed"), generator=seeded()).eval()
    plain = built("ircnn").eval()
    assert torch.allclose(signed(image).aif - image, (plain(image * 2 - 1).aif - (image * 2 - 1)) / 2, atol=1e-6)


def test_pairs_hold_the_nearest_and_the_farthest_focus_of_every_frame(stack: Path) -> None:
    pairs, singles = FocusPairs(stack, "train"), ShardDataset(stack, "train")
    assert (len(pairs), len(singles)) == (4, 8)
    assert pairs.names == tuple(f"train-{k:03d}" for k in range(4))
    assert pairs.lens(2).focus_distance_m == FOCUS_M[0]
    batch = pairs.read(np.array([2, 0]))
    position = {name: k for k, name in enumerate(singles.names)}
    for row, frame in enumerate(("train-002", "train-000")):
        near, far = (singles.read(np.array([position[f"{frame}@{focus:g}m"]])) for focus in FOCUS_M)
        assert torch.equal(batch.defocused[row], torch.cat([near.defocused[0], far.defocused[0]], dim=-1))
        assert torch.equal(batch.aif[row], far.aif[0])
        assert torch.equal(batch.depth_m[row], far.depth_m[0])
    assert isinstance(samples_of(variant("song"), stack, "test"), FocusPairs)
    assert not isinstance(samples_of(variant("full"), stack, "test"), FocusPairs)


def test_without_defocus_the_network_is_given_the_sharp_picture_wherever_it_reads(
    stack_with_val: Path, tmp_path: Path
) -> None:
    """Training, validation and the report must agree, or the comparison with the defocused input means nothing."""
    config = run_of("tiny", stack_with_val, tmp_path / "aif", heads="depth", input="aif")
    batch, plain = (
        samples_of(model, stack_with_val, "test").read(np.array([3, 1])) for model in (config.model, variant("tiny"))
    )
    assert torch.equal(batch.defocused, plain.aif)
    assert torch.equal(batch.depth_m, plain.depth_m)
    assert not torch.equal(plain.defocused, plain.aif)
    validated = train(config, console=QUIET).validation["rmse"]
    scored = evaluate(
        EvalConfig(shards=str(stack_with_val), checkpoint=f"{config.out}@last", split="val", device="cpu"),
        console=QUIET,
    )
    assert scored.rows[PREDICTION]["rmse"] == pytest.approx(validated, rel=1e-9)
    with pytest.raises(ConfigError, match="input=aif"):
        run_of("tiny", stack_with_val, tmp_path / "both", input="aif")


def run_of(model: str, store: Path, out: Path, **options: Any) -> TrainConfig:
    given: dict[str, Any] = {"size": "48x33", "epochs": 2, "batch_size": 2, "validate_limit": 4, **options}
    return recipe_config("fast", model=model, shards=store, out=out, tensorboard=False, device="cpu", **given)


@pytest.mark.parametrize("model", SMALLEST)
def test_every_baseline_trains_resumes_to_the_same_bits_and_is_scored(
    stack_with_val: Path, tmp_path: Path, model: str
) -> None:
    whole = run_of(model, stack_with_val, tmp_path / "a", cache="ram")
    scores = train(whole, console=QUIET).validation
    parts = dataclasses.replace(whole, out=str(tmp_path / "b"), keep=5, cache="none")
    train(parts, console=QUIET)
    newest = sorted((tmp_path / "b" / "checkpoints").glob("step-*.pt"))[-1]
    newest.with_suffix(".json").unlink()
    train(parts, resume=True, console=QUIET)
    first, second = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    assert [n for n, value in first.weights.items() if not torch.equal(value, second.weights[n])] == []
    heads = first.config.model.heads
    assert ("rmse" in scores, "psnr" in scores) == ("depth" in heads, "aif" in heads)
    last = list(csv.DictReader((tmp_path / "a" / "metrics.csv").read_text().splitlines()))[-1]
    terms = {"gur-tiny": {"depth", "reblur", "smooth"}}.get(
        model, {"deblur", "charb", "ssim"} if "depth" not in heads else {"depth", "l1", "grad"}
    )
    columns = {"depth", "deblur", "l1", "grad", "charb", "ssim", "reblur", "smooth"}
    assert {name for name in columns if last[name]} == terms
    report = evaluate(
        EvalConfig(shards=str(stack_with_val), checkpoint=f"{tmp_path / 'a'}@last", split="val", device="cpu"),
        console=QUIET,
    )
    assert report.rows["prediction"] == pytest.approx(scores)
    assert report.settings["images"] == (2 if model == "song-tiny" else 4)
    assert json.loads(json.dumps(report.to_dict()))["settings"]["training"]["model"]["name"] == model


@pytest.mark.parametrize("model", ["dncnn", "anwar-tiny", "gur-tiny"])
def test_a_picture_without_a_lens_is_predicted_with_the_lens_of_the_training(
    stack: Path, tmp_path: Path, model: str
) -> None:
    train(run_of(model, stack, tmp_path, epochs=1), console=QUIET)
    checkpoint = load_checkpoint(tmp_path)
    net = load_network(checkpoint.config.model, checkpoint.evaluated)
    found = predict(net, np.full((40, 70, 3), 90, np.uint8))
    assert (found.depth_m is not None, found.aif is not None) == (
        "depth" in checkpoint.config.model.heads,
        "aif" in checkpoint.config.model.heads,
    )
    if model != "dncnn":
        dataset = ShardDataset(stack, "train")
        assert torch.equal(net.camera, dataset.cameras(np.array([0]), (33, 48))[0])


def test_export_takes_stacks_and_pairs_and_refuses_what_is_more_than_a_network() -> None:
    net = built("ircnn").eval()
    image = torch.rand(1, 3, 40, 52)
    assert torch.equal(ExportedStack(net)(image)[0], net(image).aif)
    song = build_model(variant("song-tiny"), generator=seeded()).eval()
    pair = torch.rand(1, 6, 64, 40)
    made = export_program(song).module()(pair)
    assert torch.allclose(made[0], song(pair).depth_m, atol=1e-5)
    with pytest.raises(ConfigError, match="more than its network"):
        export_program(build_model(variant("gur-tiny")).eval())


def dfd_train(*arguments: object) -> Result:
    return CliRunner().invoke(train_command.main, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("--model", "dncnn", "--heads", "depth"), "--heads depth is not possible with the model dncnn: it has deblur"),
        (("--model", "gur-tiny", "--heads", "both"), "--heads both is not possible with the model gur-tiny"),
        (("--model", "anwar", "--heads", "deblur"), "it has both"),
        (("--model", "ircnn", "--stem", "imagenet"), "--stem imagenet is not possible .* no encoder"),
        (("--model", "ircnn", "--pretrained", "imagenet"), "--pretrained imagenet is not possible .* no encoder"),
        (("--model", "gur", "--loss", "l1+l1"), r"--loss l1\+l1 means nothing to the model gur"),
        (("--model", "song-tiny"), "frame train-000 is there at one focus distance only .* --focus 1m,4m"),
        (("--model", "vgg"), "'vgg'"),
    ],
)
def test_impossible_combinations_are_one_line_and_leave_nothing(
    store: Path, tmp_path: Path, arguments: tuple[str, ...], pattern: str
) -> None:
    result = dfd_train("--shards", store, "--out", tmp_path / "new", "--device", "cpu", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert re.search(pattern, line), line
    assert not (tmp_path / "new").exists()


def test_a_width_keeps_the_heads_and_another_method_has_its_own() -> None:
    base = recipe_config("fast", shards="s", out="o", heads="depth")
    assert with_options(base, model="tiny").model.heads == ("depth",)
    assert with_options(base, model="dncnn").model.heads == ("aif",)
    assert with_options(base, model="song", heads="both").model.heads == ("depth", "aif")
    assert with_options(with_options(base, model="dncnn"), model="tiny").model.heads == ("depth", "aif")


def test_an_unknown_method_or_deconvolution_is_refused_by_name() -> None:
    for values, pattern in (({"method": "vgg"}, "vgg"), ({"deconvolution": "magic"}, "magic")):
        with pytest.raises(ConfigError, match=pattern):
            ModelConfig(**values)
