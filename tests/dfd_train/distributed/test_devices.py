"""Whether a forward step stays on the network's device: on tensors without content, so no GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dfd_train.config.geometry import Geometry
from dfd_train.config.loss import TABLE_II
from dfd_train.config.model import variant
from dfd_train.data.stream import Batch
from dfd_train.data.transforms import Frames, training_frames
from dfd_train.losses.terms import compute_losses, count_pixels
from dfd_train.model.build import build_model
from dfd_train.model.two_headed import pad_reflect

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _without_content(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors with a device and a shape only; page-locked memory, which asks for a driver, is ordinary here."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode():
        yield


def frames() -> Frames:
    make = {"device": CUDA}
    return Frames(torch.rand(2, 3, 40, 56, **make), torch.rand(2, 3, 40, 56, **make), torch.rand(2, 1, 40, 56, **make))


def test_mixing_devices_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.rand(3, device=CUDA) + torch.rand(3)


@pytest.mark.parametrize(
    "geometry",
    [Geometry(size=(64, 96), flip=0.5), Geometry(size=None, crop=(40, 56), flip=0.5), Geometry(size=None)],
)
def test_frames_are_made_where_the_network_is(geometry: Geometry) -> None:
    image = torch.zeros(8, 48, 64, 3, dtype=torch.uint8)
    batch = Batch(np.arange(8), image, image, torch.zeros(8, 48, 64))
    made = training_frames(batch, geometry, CUDA, seed=0, epoch=0)
    assert {array.device for array in made} == {CUDA}
    assert made.aif.shape[-2:] == (geometry.size or geometry.crop or (48, 64))


@pytest.mark.parametrize("model", ["tiny", "dncnn", "d3net-tiny"])
def test_a_forward_step_stays_on_the_device(model: str) -> None:
    with CUDA:
        net = build_model(variant(model))
    given = frames()
    output = net(given.defocused)
    assert {out.device for out in output if out is not None} == {CUDA}
    for loss in TABLE_II.values():
        terms = compute_losses(output, given.depth_m, given.aif, loss, count_pixels(given.depth_m))
        assert {value.device for value in (terms.total(0.5), *terms.parts.values())} == {CUDA}


@pytest.mark.parametrize("size", [(5, 9), (40, 56), (64, 32)])
def test_padding_stays_on_the_device(size: tuple[int, int]) -> None:
    assert pad_reflect(torch.rand(1, 3, *size, device=CUDA)).device == CUDA
