"""Weights alone, in half precision: written by `dfd-predict export`, found by file or by name."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dfd_cli import predict as predict_command
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

import dfd_train
from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import CheckpointError, CheckpointMissingError, ExportError
from dfd_train.evaluation.evaluate import evaluate
from dfd_train.evaluation.settings import EvalConfig
from dfd_train.model.build import build_model
from dfd_train.runs import weights_file
from dfd_train.runs.weights_file import packaged_weights, read_weights, write_weights
from dfd_train.training.train import train


@pytest.fixture
def net() -> torch.nn.Module:
    return build_model(variant("tiny"), generator=torch.Generator().manual_seed(0)).eval()


def test_weights_come_back_to_half_precision_with_their_model(net: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_weights(path, net.config, net.state_dict())
    assert path.stat().st_size < 2.2 * sum(w.numel() for w in net.state_dict().values())
    config, weights = read_weights(path)
    assert config == net.config
    for name, weight in net.state_dict().items():
        assert weights[name].dtype == weight.dtype
        assert torch.allclose(weights[name].double(), weight.double(), rtol=1e-3, atol=1e-7), name
    loaded = dfd_train.load(path)
    assert not loaded.training
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(loaded(image).aif, net(image).aif, atol=5e-3)


def test_what_half_precision_cannot_hold_stays_in_single(net: torch.nn.Module, tmp_path: Path) -> None:
    """The running variance of a normalisation after weights that grew over 20,000 steps was 65,752."""
    weights = net.state_dict()
    name = "depth_head.b4.1.running_var"
    weights[name] = weights[name] + 65_752
    write_weights(tmp_path / "a.safetensors", net.config, weights)
    back = read_weights(tmp_path / "a.safetensors")[1]
    assert torch.equal(back[name], weights[name])
    assert all(one.dtype == weights[other].dtype for other, one in back.items())


def test_what_is_not_finite_is_not_written(net: torch.nn.Module, tmp_path: Path) -> None:
    weights = net.state_dict()
    weights["depth_head.last.weight"] = weights["depth_head.last.weight"] * float("nan")
    with pytest.raises(ExportError, match=r"depth_head\.last\.weight is not finite"):
        write_weights(tmp_path / "a.safetensors", net.config, weights)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files_are_named(net: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_weights(path, net.config, net.state_dict())
    data = path.read_bytes()
    for broken in (data[:100], data[:-7], b"", b"{}" * 40):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read"):
            dfd_train.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="do not say which model"):
        dfd_train.load(path)
    with pytest.raises(CheckpointMissingError, match=r"gone\.safetensors not found"):
        dfd_train.load(tmp_path / "gone.safetensors")


def test_names_are_names_and_not_paths() -> None:
    for name in ("../a", "", "no-such-weights", "a/b"):
        assert packaged_weights(name) is None


def test_the_weights_of_a_run_become_those_that_predict_takes_by_default(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe_config(
        "fast", shards=store, out=tmp_path / "run", model="tiny", size="36x48", epochs=1, batch_size=10, device="cpu"
    )
    train(config, console=Console(quiet=True))
    monkeypatch.setattr(weights_file, "PACKAGED", tmp_path / "weights")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)).save(tmp_path / "a.png")
    command = [str(tmp_path / "a.png"), "--out", str(tmp_path / "o"), "--device", "cpu"]
    none = CliRunner().invoke(predict_command.main, command)
    assert none.exit_code == 2
    assert "no weights of its own (any-lens)" in none.stderr
    assert len(none.stderr.splitlines()) == 1
    target = tmp_path / "weights" / "any-lens.safetensors"
    exported = CliRunner().invoke(
        predict_command.main, ["export", "--checkpoint", str(tmp_path / "run"), "--weights", str(target)]
    )
    assert exported.exit_code == 0, exported.output
    found = CliRunner().invoke(predict_command.main, command)
    assert found.exit_code == 0, found.output
    assert (tmp_path / "o" / "a_restored.png").exists()
    # An evaluation takes them as well, by name as by file, and scores them as the run that they are of.
    rows = {}
    for place in (f"{tmp_path / 'run'}", str(target), "any-lens"):
        settings = EvalConfig(shards=str(store), checkpoint=place, out=str(tmp_path / "r"), size=(36, 48), device="cpu")
        report = evaluate(settings)
        rows[place] = report.rows["prediction"]
        assert ("do not say how long" in report.headline()) == (place != str(tmp_path / "run"))
        assert not any("untrained: 0 steps" in line for line in report.remarks())
    of_run, *of_weights = rows.values()
    for found in of_weights:
        assert found == pytest.approx(of_run, rel=5e-3)


@pytest.mark.parametrize(
    "about",
    ["[" * 100_000, '{"a":' * 50_000, "[]", "null", "3", '"x"', "9" * 5000, '{"name": NaN}', '{"method": null}',
     '{"name": 3}', '{"stem_width": null}', '{"stem_width": true}', '{"stem_width": 2147483648}', '{"stem_width": 1.5}',
     '{"growth": 1e999}',
     '{"blocks": [1000000000, 1, 1, 1]}', '{"blocks": ["a", 1, 1, 1]}', '{"blocks": 3}', '{"decoder": [[], 1, 1, 1, 1]}',
     '{"heads": [1]}', '{"gain": 1000000000000000000000000000000}',
     '{"stem_width": 8192, "growth": 8192, "blocks": [128, 128, 128, 128]}'],
)  # fmt: skip
def test_what_a_file_says_of_its_network_is_checked_before_the_network_is_built(about: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(3)}, path, {weights_file._MODEL: about})
    with pytest.raises(CheckpointError):
        dfd_train.load(path)


def test_a_file_that_asks_for_more_network_than_it_has_weights_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    wide = '{"stem_width": 8192, "growth": 4096, "bottleneck": 32, "decoder": [8192, 8192, 8192, 8192, 8192]}'
    save_file({"a": torch.zeros(3)}, path, {weights_file._MODEL: wide})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="do not fit"):
        dfd_train.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19, "half a GiB in kB"
