"""Networks of the paper's Table IV that are not two-headed: DnCNN, IRCNN, and D3-Net, which is the depth half of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfd_train.model.config import ModelConfig
from dfd_train.model.two_headed import Output, TwoHeadedNet

WIDTH = 64
DNCNN_LAYERS = 17
IRCNN_DILATIONS = (1, 2, 3, 4, 3, 2, 1)


class ResidualNet(nn.Module):
    """A plain stack of 3x3 convolutions that predicts what to take away from its input; one image head, no depth.

    `dilations`: of each layer, first and last included; BN and ReLU follow all but the first (ReLU only) and the last.
    `outer_bias`: whether the first and the last convolution have a bias. `generator`: source of the initial weights.
    """

    def __init__(
        self, dilations: tuple[int, ...], *, outer_bias: bool, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        first, *middle, last = dilations
        layers: list[nn.Module] = [_convolution(3, WIDTH, first, outer_bias), nn.ReLU(inplace=True)]
        for dilation in middle:
            layers += [_convolution(WIDTH, WIDTH, dilation, False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, _convolution(WIDTH, 3, last, outer_bias))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Output:
        """`image` (B, 3, H, W) sRGB in [0, 1], any size -> `Output` with `aif` of the same shape, not clamped."""
        return Output(None, image - self.layers(image))


def dncnn(generator: torch.Generator | None = None) -> ResidualNet:
    """DnCNN (Zhang et al., TIP 2017) for colour: 17 layers, 64 channels, 558,336 parameters."""
    return ResidualNet((1,) * DNCNN_LAYERS, outer_bias=False, generator=generator)


def ircnn(generator: torch.Generator | None = None) -> ResidualNet:
    """IRCNN's network (Zhang et al., CVPR 2017): 7 layers dilated 1, 2, 3, 4, 3, 2, 1; 188,483 parameters."""
    return ResidualNet(IRCNN_DILATIONS, outer_bias=True, generator=generator)


def d3net(generator: torch.Generator | None = None) -> TwoHeadedNet:
    """D3-Net (Carvalho et al., ECCVW 2018): our encoder with the depth head alone, 24,212,544 parameters."""
    return TwoHeadedNet(ModelConfig(name="d3net", heads=("depth",)), generator=generator)


def _convolution(channels_in: int, channels_out: int, dilation: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=bias)
