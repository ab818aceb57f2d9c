"""A decoder head: five up-sampling blocks that take in the encoder's skips, then a linear 3x3 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfd_train.model.encoder import Features


class UpBlock(nn.Sequential):
    """ConvTranspose 4x4 stride 2, BN, [Dropout], ReLU, Conv 3x3, BN, [Dropout], ReLU: twice the height and width."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float = 0.0) -> None:
        def drop() -> list[nn.Module]:
            return [nn.Dropout(dropout)] if dropout > 0 else []

        super().__init__(
            nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1),
            nn.BatchNorm2d(channels_out),
            *drop(),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            *drop(),
            nn.ReLU(inplace=True),
        )


class DecoderHead(nn.Module):
    """One head of the network; 17,200,704 (depth, 1 channel) or 17,201,856 (AiF, 3 channels) parameters when full.

    `encoder_channels`: channels of `Features`, from `skip1` to `deep`. `widths`: output channels of b5, b4, b3, b2, b1.
    `full_channels`: of `Features.full`, which a last 3x3 convolution takes in, 0 = there is none.
    """

    def __init__(
        self,
        encoder_channels: tuple[int, ...],
        widths: tuple[int, ...],
        channels_out: int,
        dropout: float = 0.0,
        full_channels: int = 0,
    ) -> None:
        super().__init__()
        skip1, skip2, skip3, skip4, deep = encoder_channels
        self.b5 = UpBlock(deep, widths[0], dropout)
        self.b4 = UpBlock(widths[0] + skip4, widths[1], dropout)
        self.b3 = UpBlock(widths[1] + skip3, widths[2])
        self.b2 = UpBlock(widths[2] + skip2, widths[3])
        self.b1 = UpBlock(widths[3] + skip1, widths[4])
        self.merge: nn.Sequential | None = None
        if full_channels:
            self.merge = nn.Sequential(
                nn.Conv2d(widths[4] + full_channels, widths[4], 3, padding=1, bias=False),
                nn.BatchNorm2d(widths[4]),
                nn.ReLU(inplace=True),
            )
        self.last = nn.Conv2d(widths[4], channels_out, 3, padding=1, bias=False)

    def forward(self, features: Features) -> Tensor:
        """`Features` of an H x W input -> (B, channels_out, H, W), linear."""
        x = self.b5(features.deep)
        x = self.b4(torch.cat([x, features.skip4], dim=1))
        x = self.b3(torch.cat([x, features.skip3], dim=1))
        x = self.b2(torch.cat([x, features.skip2], dim=1))
        x = self.b1(torch.cat([x, features.skip1], dim=1))
        if self.merge is not None and features.full is not None:
            x = self.merge(torch.cat([x, features.full], dim=1))
        return self.last(x)
