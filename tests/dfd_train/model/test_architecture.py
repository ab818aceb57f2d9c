"""The network against a second one, written from the paper's Table I with plain functions; only the weights are shared."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.config.model import ModelConfig, variant
from dfd_train.model.build import build_model
from dfd_train.model.two_headed import TwoHeadedNet

Weights = dict[str, Tensor]
BLOCKS = (6, 12, 24, 16)


def normalised(x: Tensor, w: Weights, name: str) -> Tensor:
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    scale = w[f"{name}.weight"] / torch.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][:, None, None]


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def encoded(image: Tensor, w: Weights) -> list[Tensor]:
    """Skips s1 to s4 and the deepest map."""
    s1 = leaky(normalised(F.conv2d(image, w["encoder.conv0.weight"], stride=2, padding=1), w, "encoder.norm0"))
    x = F.conv2d(s1, w["encoder.downconv0.weight"], stride=2, padding=1)
    x = leaky(normalised(x, w, "encoder.downnorm0"))
    maps = [s1]
    for block, layers in enumerate(BLOCKS, start=1):
        for layer in range(1, layers + 1):
            name = f"encoder.denseblock{block}.denselayer{layer}"
            new = F.conv2d(relu(normalised(x, w, f"{name}.norm1")), w[f"{name}.conv1.weight"])
            new = F.conv2d(relu(normalised(new, w, f"{name}.norm2")), w[f"{name}.conv2.weight"], padding=1)
            x = torch.cat([x, new], dim=1)
        if block < 4:
            name = f"encoder.transition{block}"
            skip = F.conv2d(relu(normalised(x, w, f"{name}.norm")), w[f"{name}.conv.weight"])
            maps.append(skip)
            x = (skip[..., ::2, ::2] + skip[..., 1::2, ::2] + skip[..., ::2, 1::2] + skip[..., 1::2, 1::2]) / 4
    return [*maps, leaky(normalised(x, w, "encoder.norm5"))]


def decoded(maps: list[Tensor], w: Weights, head: str) -> Tensor:
    s1, s2, s3, s4, x = maps
    for block, skip in (("b5", None), ("b4", s4), ("b3", s3), ("b2", s2), ("b1", s1)):
        x = x if skip is None else torch.cat([x, skip], dim=1)
        name = f"{head}.{block}"
        x = F.conv_transpose2d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], stride=2, padding=1)
        x = relu(normalised(x, w, f"{name}.1"))
        x = relu(normalised(F.conv2d(x, w[f"{name}.3.weight"], padding=1), w, f"{name}.4"))
    return F.conv2d(x, w[f"{head}.last.weight"], padding=1)


def with_lively_weights(net: TwoHeadedNet) -> TwoHeadedNet:
    """Weights and statistics under which every layer matters: with the paper's start the deep ones hardly do."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
            elif name.endswith("running_var") or (name.endswith("weight") and value.dim() == 1):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.dim() == 4:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
    return net.eval()


def test_the_full_network_is_the_papers() -> None:
    net = with_lively_weights(TwoHeadedNet(ModelConfig()))
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(4))
    weights = net.state_dict()
    with torch.inference_mode():
        maps = encoded(image, weights)
        depth, residual = (decoded(maps, weights, head) for head in ("depth_head", "aif_head"))
        made = net(image)
    assert made.depth_m.shape == (1, 1, 64, 96)
    for ours, expected in ((made.depth_m, depth), (made.aif, image + residual)):
        assert float(expected.std()) > 0.05
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("input_range", ["unit", "signed"])
def test_of_two_pictures_the_first_is_the_one_that_is_restored(input_range: str) -> None:
    fields = vars(variant("song-tiny")) | {"heads": ("depth", "aif"), "zero_last_aif": True, "input_range": input_range}
    net = build_model(ModelConfig(**fields)).eval()
    pair = torch.rand(2, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(net(pair).aif, pair[:, :3])
