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
from typing import Any, NamedTuple

import browser
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dfd_cli import predict as predict_command
from PIL import Image
from rich.console import Console

import dfd_train
from defocus_sim.lens import Lens
from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError, ExportError
from dfd_train.model.build import CameraNet, build_model, run_model
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.optics.answer import Output
from dfd_train.optics.camera import camera_of
from dfd_train.prediction.export import ExportedNet, export_program, write_onnx, write_program
from dfd_train.training.train import train

SIZES = ((64, 96), (33, 47), (100, 130), (33, 170), (45, 33))


FOR_EVERY_LENS: dict[str, Any] = {
    "stem": "blur", "init": "kaiming", "predict": "coc+side", "uncertainty": True, "lens_input": True, "lens_hidden": 0.3,
    "height_input": True,
}  # fmt: skip
LENS = Lens(focal_length_mm=35, f_number=2, focus_distance_m=1.7, sensor_width_mm=36)


def network(**changes: Any) -> TwoHeadedNet:
    config = dataclasses.replace(variant("tiny"), **changes)
    net = build_model(config, generator=torch.Generator().manual_seed(0))
    assert isinstance(net, TwoHeadedNet)
    with torch.no_grad():
        if isinstance(net, CameraNet):
            net.camera.copy_(camera_of(LENS, (64, 64)))
        for _ in range(20):
            net(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        if config.predict == "coc+side":
            # Widths that a lens of f/2 has, and both sides.
            net.depth_head.last.weight[0] *= 20
            net.depth_head.last.weight[2] *= 20
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
        made, exported = net(image), ExportedNet(net)(image)
    expected = [made.depth_m, made.aif] + [made.depth_sigma_m] * net.config.uncertainty
    for ours, theirs in zip(expected, exported, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("predict", ["coc", "coc+side"])
def test_a_network_for_every_lens_takes_the_lens_as_a_second_input(tmp_path: Path, predict: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = network(**{**FOR_EVERY_LENS, "predict": predict})
    write_onnx(net, tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape) for one in session.get_inputs()] == [
        ("image", [1, 3, "height", "width"]),
        ("lens", [1, 3]),
    ]
    names = ["depth_m", "aif", "depth_sigma_m", "coc_px", *["side_logit"] * (predict == "coc+side")]
    assert [output.name for output in session.get_outputs()] == names
    for size in SIZES:
        image, camera = torch.rand(1, 3, *size), camera_of(LENS, size)[None]
        for told in (True, False):
            lens = np.array([[1.7, LENS.coc_at_infinity_px(size[1]), told]], np.float32)
            found = dict(zip(names, session.run(None, {"image": image.numpy(), "lens": lens}), strict=True))
            with torch.inference_mode():
                made = run_model(net, image, camera, told=told)
            for name in names:
                expected = getattr(made, "answer" if name == "coc_px" else name).numpy()
                # But where rounding decides between near and far.
                alike = np.isclose(found[name], expected, rtol=1e-3, atol=1e-4)
                assert alike.mean() > 0.999, (size, told, name)
    assert found["depth_m"].std() > 0.05


def test_the_weights_that_come_along_are_exported_by_the_command(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    result = CliRunner().invoke(predict_command.main, ["export", "--onnx", str(out), "-q"])
    assert result.exit_code == 0, result.output
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, 60, 80), dtype=np.float32)
    lens = np.array([[1.7, LENS.coc_at_infinity_px(80), 1]], np.float32)
    depth_m = session.run(["depth_m"], {"image": image, "lens": lens})[0]
    with torch.inference_mode():
        expected = run_model(
            dfd_train.load("any-lens"), torch.from_numpy(image), camera_of(LENS, (60, 80))[None]
        ).depth_m
    assert np.allclose(depth_m, expected, rtol=1e-3)


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


class Exported(NamedTuple):
    """An ONNX file, a picture, what its lens is to be called, and the line that both examples are to print about it."""

    model: Path
    picture: Path
    lens: tuple[str, ...]
    line: str


@pytest.fixture(scope="module", params=["plain", "for every lens"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    net = network(**FOR_EVERY_LENS if request.param == "for every lens" else {})
    write_onnx(net, folder / "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    image, takes_lens = torch.from_numpy(pixels).float().div(255).permute(2, 0, 1)[None], request.param != "plain"
    with torch.inference_mode():
        made = run_model(net, image, camera_of(LENS, (70, 90))[None] if takes_lens else None)
    assert made.depth_m is not None
    depth = made.depth_m[0, 0].double()
    return Exported(
        folder / "net.onnx",
        folder / "picture.png",
        ("1.7", f"{LENS.coc_at_infinity_px(90):.9g}") if takes_lens else (),
        f"90x70: depth {depth.mean():.3f} m, middle {depth[35, 45]:.3f} m",
    )


def test_the_python_example_gives_the_network_s_numbers(exported: Exported) -> None:
    pytest.importorskip("onnxruntime")
    model, picture, lens, line = exported
    command = [sys.executable, EXAMPLES / "predict_onnx.py", model, picture, *lens]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == line


def test_the_browser_example_gives_the_network_s_numbers(exported: Exported, tmp_path: Path) -> None:
    """DFD_ORT_WEB: the folder `dist` of the npm package onnxruntime-web."""
    if not (browser.found() and os.environ.get("DFD_ORT_WEB")):
        pytest.skip("needs Chromium and DFD_ORT_WEB")
    model, picture, lens, line = exported
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
            named = ", ".join(("'net.onnx'", "'picture.png'", *lens))
            call = f"predict({named})"
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
