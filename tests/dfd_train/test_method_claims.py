"""What each baseline is there to show, on scenes where nothing but blur tells depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.lens import Lens
from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.data.focus_pairs import samples_of
from dfd_train.data.stream import ShardDataset
from dfd_train.data.transforms import Frames, training_frames
from dfd_train.distributed.world import World
from dfd_train.evaluation.metrics import psnr_db
from dfd_train.evaluation.scoring import predict_samples
from dfd_train.model.build import CameraNet, build_model
from dfd_train.model.load import load_network
from dfd_train.model.two_headed import Output
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.state import TrainState
from dfd_train.training.train import train
from dfd_train.training.train_step import Engine

CPU = torch.device("cpu")
HW = (36, 48)


def two_halves(rng: np.random.Generator, depths_m: tuple[float, float]) -> RgbdFrame:
    """Random texture everywhere; one half at each of `depths_m`, and chance decides which."""
    height, width = HW
    texture = rng.integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    depth = np.empty(HW, np.float32)
    depth[:, : width // 2], depth[:, width // 2 :] = rng.permutation(depths_m)
    return RgbdFrame(texture, depth)


def halves(depths_m: tuple[float, float]) -> dict[str, list[RgbdFrame]]:
    rng = np.random.default_rng(0)
    return {name: [two_halves(rng, depths_m) for _ in range(count)] for name, count in (("train", 24), ("test", 16))}


def trained(model: str, store: Path, out: Path, epochs: int, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(true, predicted) depth in metres of every test sample, after a short training."""
    config = recipe_config(
        "fast", model=model, shards=store, out=out, size="native", epochs=epochs, batch_size=6, validate_every=0,
        validate_limit=1, checkpoint_every=epochs, device="cpu", tensorboard=False, **options,
    )  # fmt: skip
    train(config, console=Console(quiet=True))
    net = load_network(config.model, load_checkpoint(out).evaluated)
    data = samples_of(config.model, store, "test")
    return [
        (frames.depth_m[0, 0].numpy(), output.depth_m[0, 0].numpy())
        for _, frames, output in predict_samples(net, data, data.read(np.arange(len(data))), None, CPU)
    ]


def right(found: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """In what share of the images the farther half is predicted farther."""
    half = HW[1] // 2
    return float(
        np.mean([(t[:, :half].mean() > t[:, half:].mean()) == (p[:, :half].mean() > p[:, half:].mean())
                 for t, p in found])
    )  # fmt: skip


def test_two_focus_distances_tell_what_one_cannot(write: Callable[..., Path], tmp_path: Path) -> None:
    # Focused at 2 m, 4/3 m and 4 m are blurred alike: S/x is 1.5 and 0.5, as far from 1. At 6 m they are not.
    frames = halves((4 / 3, 4.0))
    one = write(tmp_path / "one.zarr", frames, aperture_mm=100.0, focus_m=(2.0,))
    two = write(tmp_path / "two.zarr", frames, aperture_mm=100.0, focus_m=(2.0, 6.0))
    assert right(trained("song-tiny", two, tmp_path / "song", 20)) >= 15 / 16
    # The same encoder and head, as long, on the same scenes: no better than a coin.
    assert right(trained("d3net-tiny", one, tmp_path / "d3net", 20)) <= 13 / 16


def test_depth_is_learnt_without_a_single_label(write: Callable[..., Path], tmp_path: Path) -> None:
    store = write(tmp_path / "a.zarr", halves((1.0, 4.0)), aperture_mm=100.0, focus_m=(0.7,))
    assert right(trained("gur-tiny", store, tmp_path / "gur", 12)) >= 15 / 16


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_without_labels_depth_gets_right_in_metres(write: Callable[..., Path], tmp_path: Path) -> None:
    store = write(tmp_path / "a.zarr", halves((1.0, 4.0)), aperture_mm=100.0, focus_m=(0.7,))
    found = trained("gur-tiny", store, tmp_path / "gur", 60)
    assert np.mean([np.abs(p - t)[t == 1].mean() for t, p in found]) < 0.1
    assert np.mean([np.abs(p - t)[t == 4].mean() for t, p in found]) < 0.8


def test_no_true_depth_enters_the_loss_without_labels(store: Path, tmp_path: Path) -> None:
    config = recipe_config("fast", model="gur-tiny", shards=store, out=tmp_path, size="48x33")
    data = ShardDataset(store)
    batch = data.read(np.arange(4))
    frames = training_frames(batch, config.geometry, CPU, seed=0, epoch=0)
    results = []
    for depth_m in (frames.depth_m, torch.rand_like(frames.depth_m) * 50):
        state = TrainState(config, World(device=CPU))
        engine = Engine(state)
        engine.train_mode()
        values = engine.gradients([frames._replace(depth_m=depth_m)], [True], cameras=[data.cameras(batch.indices)])
        results.append((values.values["total"], [p.grad.clone() for p in state.net.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_the_parts_of_a_batch_add_up_to_its_loss_without_labels(store: Path, tmp_path: Path) -> None:
    config = recipe_config("fast", model="gur-tiny", shards=store, out=tmp_path, size="48x33", batch_norm="frozen")
    data = ShardDataset(store)
    frames = training_frames(data.read(np.arange(3)), config.geometry, CPU, seed=0, epoch=0)
    cameras = data.cameras(np.arange(3), (33, 48))
    totals = []
    for cuts in ([slice(0, 3)], [slice(0, 1), slice(1, 3)]):
        engine = Engine(TrainState(config, World(device=CPU)))
        engine.train_mode()
        parts = [Frames(*(array[cut] for array in frames)) for cut in cuts]
        totals.append(engine.gradients(parts, [True] * len(cuts), cameras=[cameras[cut] for cut in cuts]).values)
    assert totals[0]["total"] == pytest.approx(totals[1]["total"], rel=1e-5)
    assert totals[0]["grad_norm"] == pytest.approx(totals[1]["grad_norm"], rel=1e-4)


class TrueDepth(nn.Module):
    """A depth head that knows the answer."""

    def __init__(self, depth_m: torch.Tensor) -> None:
        super().__init__()
        self.depth_m = depth_m

    def forward(self, _: Any) -> torch.Tensor:
        # The network pads to multiples of 32 and crops back.
        height, width = self.depth_m.shape[-2:]
        return nn.functional.pad(self.depth_m, (0, -width % 32, 0, -height % 32), value=2.0)


@pytest.mark.parametrize("size", [None, (96, 84)])
def test_the_pipeline_sharpens_what_it_sees_when_its_depth_is_right(
    tmp_path: Path, size: tuple[int, int] | None
) -> None:
    # Resized to another shape, the blur is an ellipse that the camera knows of.
    source = SyntheticSource(count=2, size_wh=(160, 128), test_fraction=0.0)
    lens = Lens.preset("paper", aperture_mm=100.0)
    store = tmp_path / "a.zarr"
    convert(ConversionSettings(source=source, lens=lens), store)
    data, net = ShardDataset(store), build_model(variant("anwar-tiny")).eval()
    assert isinstance(net, CameraNet)
    for index in range(2):
        batch = data.read(np.array([index]))
        found: dict[str, float] = {}
        for what in ("right", "wrong"):
            ((_, frames, _),) = predict_samples(_Nothing(), data, batch, size, CPU)
            true = frames.depth_m if what == "right" else torch.full_like(frames.depth_m, float(frames.depth_m.max()))
            net.depth_head = TrueDepth(true)
            ((_, frames, output),) = predict_samples(net, data, batch, size, CPU)
            found[what] = psnr_db(float(((output.aif - frames.aif) ** 2).mean()))
        before = psnr_db(float(((frames.defocused - frames.aif) ** 2).mean()))
        assert found["right"] > before + 0.7
        assert found["right"] > found["wrong"] + 0.5


class _Nothing(nn.Module):
    def forward(self, _: torch.Tensor) -> Output:
        return Output(None, None)
