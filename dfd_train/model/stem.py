"""What the first convolution is given beside the image: differences in which a blur is easy to see.

Blur lives in differences that are a few hundredths of the signal. Filters that start at random see them last, so that
training stays on a plateau for long; the same differences as channels of their own, amplified, end it
(docs/results/README.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.config.model import ModelConfig

# Sides in px of the box means that are taken away, by stem.
_WINDOWS_PX: dict[str, tuple[int, ...]] = {"highpass": (5,), "blur": (3, 9)}


def extra_channels(config: ModelConfig) -> int:
    """How many channels `stem_input` adds to those of the image."""
    return 3 * config.about.pictures * len(_WINDOWS_PX.get(config.stem, ())) + (
        2 + config.height_input if config.lens_input else 0
    )


def stem_input(image: Tensor, config: ModelConfig, lens_planes: Tensor | None = None) -> Tensor:
    """`image` (B, C, H, W), then `gain * (image - box mean of image)` for each window of the stem, then `lens_planes`.

    Box means at the border are of the pixels that are there. `lens_planes`: (B, 2 or 3, H, W), for a network that is
    told its lens. Computed in float32, also under autocast: the differences are small.
    """
    parts = [image]
    for side in _WINDOWS_PX.get(config.stem, ()):
        # Along x, then y: a few numbers each instead of side x side, and the same mean, also at the border.
        mean = F.avg_pool2d(image, (1, side), stride=1, padding=(0, side // 2), count_include_pad=False)
        mean = F.avg_pool2d(mean, (side, 1), stride=1, padding=(side // 2, 0), count_include_pad=False)
        parts.append(config.gain * (image - mean))
    if lens_planes is not None:
        parts.append(lens_planes)
    return torch.cat(parts, dim=1) if len(parts) > 1 else image
