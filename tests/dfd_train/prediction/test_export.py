from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dfd_cli import predict as predict_command
from rich.console import Console

from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError, ExportError
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.prediction.export import ExportedNet, export_program, write_onnx, write_program
from dfd_train.training.train import train

SIZES = ((64, 96), (33, 47), (100, 130), (33, 170), (45, 33))


def network(heads: tuple[str, ...] = ("depth", "aif"), input_range: str = "unit") -> TwoHeadedNet:
    config = dataclasses.replace(variant("tiny"), heads=heads, input_range=input_range)
    net = TwoHeadedNet(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return net.eval()


@pytest.fixture(scope="module")
def net() -> TwoHeadedNet:
    return network()


def test_the_program_gives_what_the_network_gives_at_any_size(net: TwoHeadedNet, tmp_path: Path) -> None:
    write_program(net, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for size in SIZES:
        image = torch.rand(1, 3, *size)
        with torch.inference_mode():
            for ours, theirs in zip(net(image), loaded(image), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-5), size


def test_a_network_of_the_authors_range_is_exported_with_it() -> None:
    net, image = network(input_range="signed"), torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(net(image), ExportedNet(net)(image), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("heads", [("depth", "aif"), ("aif",)])
def test_onnx_gives_what_the_network_gives_at_any_size(tmp_path: Path, heads: tuple[str, ...]) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = network(heads)
    write_onnx(net, tmp_path / "net.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [
        {"depth": "depth_m", "aif": "aif"}[head] for head in heads
    ]
    for size in SIZES:
        image = torch.rand(1, 3, *size)
        with torch.inference_mode():
            ours = [output for output in net(image) if output is not None]
        for expected, found in zip(ours, session.run(None, {"image": image.numpy()}), strict=True):
            assert found.shape == expected.shape
            assert np.abs(found - expected.numpy()).max() < 1e-4, size


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        export_program(TwoHeadedNet(variant("tiny")))


def test_a_place_that_cannot_be_written_is_a_named_error(net: TwoHeadedNet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot write"):
        write_program(net, tmp_path / "file" / "net.pt2")


def test_the_command_exports_a_run(store: Path, tmp_path: Path) -> None:
    config = recipe_config(
        "fast", shards=store, out=tmp_path / "run", model="tiny", size="36x48", epochs=1, batch_size=10, device="cpu"
    )
    train(config, console=Console(quiet=True))
    arguments = ["export", "--checkpoint", str(tmp_path / "run")]
    result = CliRunner().invoke(predict_command.main, [*arguments, "--torch", str(tmp_path / "net.pt2")])
    assert result.exit_code == 0, result.output
    assert "net.pt2" in result.output
    assert (tmp_path / "net.pt2").stat().st_size > 1e5
    result = CliRunner().invoke(predict_command.main, arguments)
    assert result.exit_code == 2
    assert "--onnx" in result.stderr
