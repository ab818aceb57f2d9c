from __future__ import annotations

import dataclasses
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dfd_cli import predict as predict_command
from PIL import Image
from rich.console import Console

from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError, ExportError
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.optics.answer import Output
from dfd_train.prediction.export import ExportedNet, export_program, write_onnx, write_program
from dfd_train.training.train import train

SIZES = ((64, 96), (33, 47), (100, 130), (33, 170), (45, 33))


def network(**changes: Any) -> TwoHeadedNet:
    config = dataclasses.replace(variant("tiny"), **changes)
    net = TwoHeadedNet(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return net.eval()


def heads_of(output: Output) -> list[torch.Tensor]:
    return [one for one in output if one is not None]


@pytest.fixture(scope="module")
def net() -> TwoHeadedNet:
    return network()


def test_the_program_gives_what_the_network_gives_at_any_size(net: TwoHeadedNet, tmp_path: Path) -> None:
    write_program(net, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for size in SIZES:
        image = torch.rand(1, 3, *size)
        with torch.inference_mode():
            for ours, theirs in zip(heads_of(net(image)), loaded(image), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-5), size


@pytest.mark.parametrize(
    "changes",
    [{"input_range": "signed"}, {"stem": "highpass", "predict": "inverse"}, {"stem": "blur", "uncertainty": True}],
)
def test_a_network_of_another_range_stem_or_answer_is_exported_with_it(changes: dict[str, Any]) -> None:
    net, image = network(**changes), torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(heads_of(Output(*net(image)[:2])), ExportedNet(net)(image), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("heads", [("depth", "aif"), ("aif",)])
def test_onnx_gives_what_the_network_gives_at_any_size(tmp_path: Path, heads: tuple[str, ...]) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = network(heads=heads)
    write_onnx(net, tmp_path / "net.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [
        {"depth": "depth_m", "aif": "aif"}[head] for head in heads
    ]
    axes = ["height", "width"]
    assert session.get_inputs()[0].shape == [1, 3, *axes]
    assert [output.shape for output in session.get_outputs()] == [[1, {"depth": 1, "aif": 3}[h], *axes] for h in heads]
    for size in SIZES:
        image = torch.rand(1, 3, *size)
        with torch.inference_mode():
            ours = [output for output in net(image) if output is not None]
        for expected, found in zip(ours, session.run(None, {"image": image.numpy()}), strict=True):
            assert found.shape == expected.shape
            assert np.abs(found - expected.numpy()).max() < 1e-4, size


EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture(scope="module")
def exported(net: TwoHeadedNet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """An ONNX file, a picture, and the line that both examples are to print about it."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    write_onnx(net, folder / "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    with torch.inference_mode():
        depth = net(torch.from_numpy(pixels).float().div(255).permute(2, 0, 1)[None]).depth_m[0, 0].double()
    return (
        folder / "net.onnx",
        folder / "picture.png",
        f"90x70: depth {depth.mean():.3f} m, middle {depth[35, 45]:.3f} m",
    )


def test_the_python_example_gives_the_network_s_numbers(exported: tuple[Path, Path, str]) -> None:
    pytest.importorskip("onnxruntime")
    model, picture, line = exported
    command = [sys.executable, EXAMPLES / "predict_onnx.py", model, picture]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == line


def test_the_browser_example_gives_the_network_s_numbers(exported: tuple[Path, Path, str], tmp_path: Path) -> None:
    """DFD_ORT_WEB: the folder `dist` of the npm package onnxruntime-web."""
    if not (browser.found() and os.environ.get("DFD_ORT_WEB")):
        pytest.skip("needs Chromium and DFD_ORT_WEB")
    model, picture, line = exported
    served = tmp_path / "served"
    shutil.copytree(os.environ["DFD_ORT_WEB"], served)
    for path in (EXAMPLES / "predict_onnx.html", model, picture):
        shutil.copy(path, served)
    handler = functools.partial(Quiet, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with browser.chromium(tmp_path / "profile") as window:
            address = f"http://127.0.0.1:{server.server_address[1]}/predict_onnx.html"
            window.call("POST", "/url", {"url": address})
            call = "predict('net.onnx','picture.png')"
            assert window.wait(call) == line
    finally:
        server.shutdown()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


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
