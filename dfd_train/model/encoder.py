"""The shared encoder: DenseNet-121 with a 3x3 stem and a strided 4x4 convolution in place of max-pooling.

Names of the inner modules are torchvision's (`denseblock1.denselayer1.norm1`, ...), so that ImageNet weights fit by
name.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfd_train.config.model import ModelConfig
from dfd_train.model.stem import extra_channels

LEAK = 0.2


class Features(NamedTuple):
    """What the encoder hands to a decoder, for an input of H x W (multiples of 32).

    `skip1` H/2, `skip2` H/4, `skip3` H/8, `skip4` H/16, `deep` H/32; in the full network with 64, 128, 256, 512, 1024
    channels. `full`: at H x W, of the stem "blur" only.
    """

    skip1: Tensor
    skip2: Tensor
    skip3: Tensor
    skip4: Tensor
    deep: Tensor
    full: Tensor | None = None


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3: `growth` new channels from everything before it in the block."""

    def __init__(self, channels: int, growth: int, bottleneck: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, bottleneck * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels + growth, H, W)."""
        new = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    """BN, ReLU, 1x1 to half the channels: returned before pooling (the skip) and after it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> (B, C/2, H, W) and (B, C/2, H/2, W/2)."""
        skip = self.conv(self.relu(self.norm(x)))
        return skip, self.pool(skip)


class Encoder(nn.Module):
    """Image -> five maps of features (`Features`); 7,011,840 parameters in the full network.

    `channels` lists the maps' channels, from `skip1` to `deep`; `full_channels` those at full resolution, or 0.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.stem_width
        kernel = 7 if config.stem == "imagenet" else 3
        given = 3 * config.about.pictures + extra_channels(config)
        self.full_channels = width // 2 if config.stem == "blur" else 0
        self.full: nn.Sequential | None = None
        if self.full_channels:
            self.full = nn.Sequential(
                nn.Conv2d(given, self.full_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(self.full_channels),
                nn.LeakyReLU(LEAK),
            )
            given = self.full_channels
        self.conv0 = nn.Conv2d(given, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.norm0 = nn.BatchNorm2d(width)
        self.relu0 = nn.LeakyReLU(LEAK)
        self.downconv0 = nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False)
        self.downnorm0 = nn.BatchNorm2d(width)
        self.downrelu0 = nn.LeakyReLU(LEAK)
        first, second, third, fourth = config.blocks
        self.denseblock1, width1 = _dense_block(width, first, config)
        self.transition1 = Transition(width1)
        self.denseblock2, width2 = _dense_block(width1 // 2, second, config)
        self.transition2 = Transition(width2)
        self.denseblock3, width3 = _dense_block(width2 // 2, third, config)
        self.transition3 = Transition(width3)
        self.denseblock4, deep = _dense_block(width3 // 2, fourth, config)
        self.norm5 = nn.BatchNorm2d(deep)
        self.relu5 = nn.LeakyReLU(LEAK)
        self.channels = (width, width1 // 2, width2 // 2, width3 // 2, deep)

    def forward(self, image: Tensor) -> Features:
        """`image` (B, C, H, W) as `stem.stem_input` makes it, H and W multiples of 32 -> `Features`."""
        full = None if self.full is None else self.full(image)
        skip1 = self.relu0(self.norm0(self.conv0(image if full is None else full)))
        x = self.downrelu0(self.downnorm0(self.downconv0(skip1)))
        skip2, x = self.transition1(self.denseblock1(x))
        skip3, x = self.transition2(self.denseblock2(x))
        skip4, x = self.transition3(self.denseblock3(x))
        return Features(skip1, skip2, skip3, skip4, self.relu5(self.norm5(self.denseblock4(x))), full)


def _dense_block(channels: int, layers: int, config: ModelConfig) -> tuple[nn.Sequential, int]:
    """`layers` dense layers after `channels` channels, and how many channels come out."""
    block = nn.Sequential()
    for layer in range(1, layers + 1):
        block.add_module(f"denselayer{layer}", DenseLayer(channels, config.growth, config.bottleneck))
        channels += config.growth
    return block, channels
