"""Fine-tuning: a network that begins with the weights of another run, wherever names and shapes agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfd_train.config.geometry import Geometry
from dfd_train.config.model import ModelConfig
from dfd_train.config.train import TrainConfig
from dfd_train.errors import CheckpointError
from dfd_train.files import load_tensors
from dfd_train.runs.checkpoint import FORMAT, Checkpoint, find_checkpoint, load_checkpoint
from dfd_train.runs.weights_file import SUFFIX, packaged_weights, read_weights

_MOST_NAMED = 6


@torch.no_grad()
def start_from(net: nn.Module, place: str) -> str:
    """Copy into `net` every tensor of `place` that has the same name and shape; returns a line that counts them.

    `place`: a run's folder, `RUN@last`, a checkpoint file of it, a file of `torch.save` with a state dict, a file of
    `write_weights`, or the name of weights that come with the installation. Heads and
    layers that the other network lacks, or has in another shape, stay as they are. Raises `CheckpointMissingError`
    where there is no such file, `CheckpointError` where nothing fits.
    """
    path = file_at(place)
    own, given = net.state_dict(), _weights(path)
    fitting = [name for name in own if isinstance(given.get(name), Tensor) and given[name].shape == own[name].shape]
    # Counters and the like fit any network: at least one that is learnt has to.
    if not {name for name, _ in net.named_parameters()} & set(fitting):
        raise CheckpointError(f"no tensor of {path} fits this network by name and shape: is it of another model?")
    for name in fitting:
        own[name].copy_(given[name])
    left = [name for name in own if name not in set(fitting)]
    told = f"{len(fitting)} of {len(own)} tensors taken over from {path}"
    if left:
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        told += f"; as a new network begins: {', '.join(left[:_MOST_NAMED])}{more}"
    return told


def model_of(place: str) -> ModelConfig | None:
    """The model whose weights are at `place`, as for `start_from`; None where the file does not say."""
    path = file_at(place)
    if path.suffix == SUFFIX:
        return read_weights(path)[0]
    try:
        return load_checkpoint(path).config.model
    except CheckpointError:
        return None


def file_at(place: str) -> Path:
    """The file of the weights at `place`, as for `start_from`."""
    return packaged_weights(place) or find_checkpoint(place)


def checkpoint_at(place: str) -> Checkpoint:
    """What is at `place`, as for `start_from`, for an evaluation; weights alone are those of a run of no steps.

    Frames are scored at their own size by weights that do not say at which they were trained.
    """
    path = file_at(place)
    if path.suffix != SUFFIX:
        return load_checkpoint(path)
    model, weights = read_weights(path)
    config = TrainConfig(shards="", out=str(path.parent), model=model, geometry=Geometry(size=None))
    return Checkpoint(
        config=config, store_checksum="", epoch=0, batch=0, step=0, weights=weights, averaged=None, optimizer={}, rng={},
        progress={}, scaler={},
    )  # fmt: skip


def _weights(path: Path) -> Mapping[str, Any]:
    if path.suffix == SUFFIX:
        return read_weights(path)[1]
    payload = load_tensors(path, "weights")
    if isinstance(payload, Mapping) and payload.get("format") == FORMAT:
        return load_checkpoint(path).evaluated
    if not isinstance(payload, Mapping):
        raise CheckpointError(f"{path} holds no state dict")
    nested = payload.get("state_dict", payload)
    return nested if isinstance(nested, Mapping) else payload
