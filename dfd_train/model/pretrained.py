"""ImageNet weights for the encoder: every tensor of a DenseNet-121 whose name and shape fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor

from dfd_train.config.train import CACHED
from dfd_train.errors import CheckpointError
from dfd_train.files import load_tensors
from dfd_train.model.encoder import Encoder

# The file that torchvision downloads still has the names of 2017 ("norm.1"); the module has "norm1".
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")

# Channels at the bottom of a DenseNet-121.
FULL_DEPTH = 1024


class Matched(NamedTuple):
    """How many of the encoder's tensors were taken over, and which were left as they were."""

    matched: int
    total: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        left = f"; left at random: {', '.join(self.left)}" if 0 < len(self.left) <= 12 else ""
        return f"{self.matched} of {self.total} encoder tensors taken from pretrained weights{left}"


@torch.no_grad()
def load_matching(encoder: Encoder, state: Mapping[str, Tensor]) -> Matched:
    """Copy into `encoder` every tensor of `state` that has the same name and shape.

    `state`: a DenseNet-121 state dict (keys with or without "features.", new or old layer names). Raises
    `CheckpointError` where nothing fits.
    """
    own = encoder.state_dict()
    given = {_OLD_NAME.sub(r"\1\2", name.removeprefix("features.")): value for name, value in state.items()}
    fitting = [
        name for name, value in own.items() if isinstance(given.get(name), Tensor) and given[name].shape == value.shape
    ]
    if not fitting:
        raise CheckpointError("no tensor of the pretrained weights fits this encoder by name and shape")
    for name in fitting:
        own[name].copy_(given[name])
    return Matched(len(fitting), len(own), tuple(name for name in own if name not in set(fitting)))


def start_encoder(encoder: Encoder, source: str) -> str:
    """Start `encoder` from the weights that `source` names, see `pretrained_state`; returns a line that says so.

    With "cached", a machine without the weights goes on without, and the line says so; an encoder of other widths, which
    they could not fit, goes on without a word. Raises as `load_matching` and `pretrained_state`.
    """
    if source != CACHED:
        return str(load_matching(encoder, pretrained_state(source)))
    if encoder.channels[-1] != FULL_DEPTH:
        return ""
    path = cached_imagenet()
    if path is None:
        return "encoder starts at random: no ImageNet weights on this machine (--pretrained imagenet fetches them)"
    return str(load_matching(encoder, pretrained_state(str(path))))


def cached_imagenet() -> Path | None:
    """The file of DenseNet-121's ImageNet weights where torchvision keeps it, or None where it is not there."""
    found = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob("densenet121-*.pth"))
    return found[-1] if found else None


def pretrained_state(source: str) -> dict[str, Tensor]:
    """The state dict that `source` names: "imagenet" (torchvision's DenseNet-121) or a file.

    Raises `CheckpointError` where ImageNet's weights cannot be fetched or the file is no state dict, and
    `CheckpointMissingError` where there is no such file.
    """
    if source == "imagenet":
        from torchvision.models import DenseNet121_Weights  # slow to import, and needed by this branch only

        try:
            return dict(DenseNet121_Weights.IMAGENET1K_V1.get_state_dict(progress=False))
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise CheckpointError(
                f"cannot download the ImageNet weights of DenseNet-121 ({reason}); without network, fetch "
                f"{DenseNet121_Weights.IMAGENET1K_V1.url} elsewhere and give the file: --pretrained FILE"
            ) from error
    state = load_tensors(Path(source), "pretrained weights")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"pretrained weights {source} hold no state dict")
    return dict(state)
