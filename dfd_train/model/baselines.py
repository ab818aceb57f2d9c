"""DnCNN (Zhang et al., TIP 2017) and IRCNN's network (Zhang et al., CVPR 2017), of the paper's Table IV."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfd_train.config.model import ModelConfig
from dfd_train.model.two_headed import Output

WIDTH = 64
# Of every layer, first and last included.
DILATIONS = {"dncnn": (1,) * 17, "ircnn": (1, 2, 3, 4, 3, 2, 1)}
# Whether the first and the last convolution have a bias; what lies between has batch normalisation instead.
_OUTER_BIAS = {"dncnn": False, "ircnn": True}


class ResidualNet(nn.Module):
    """A plain stack of 3x3 convolutions that predicts what to take away from its input; one image head, no depth.

    BN and ReLU follow every layer but the first (ReLU only) and the last. `config`: its method names the stack.
    `generator`: source of the initial weights.
    """

    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        bias = _OUTER_BIAS[config.method]
        first, *middle, last = DILATIONS[config.method]
        layers: list[nn.Module] = [_convolution(3, WIDTH, first, bias), nn.ReLU(inplace=True)]
        for dilation in middle:
            layers += [_convolution(WIDTH, WIDTH, dilation, False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)]
        ending = _convolution(WIDTH, 3, last, bias)
        self.layers = nn.Sequential(*layers, ending)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if config.zero_last_aif:
            nn.init.zeros_(ending.weight)

    def forward(self, image: Tensor) -> Output:
        """`image` (B, 3, H, W) sRGB in [0, 1], any size -> `Output` with `aif` of the same shape, not clamped."""
        # A residual in [-1, 1] is twice as large as the same in [0, 1].
        signed = self.config.input_range == "signed"
        return Output(None, image - (self.layers(image * 2 - 1) / 2 if signed else self.layers(image)))


def _convolution(channels_in: int, channels_out: int, dilation: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=bias)
