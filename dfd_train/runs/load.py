"""`load("runs/a")`: a trained network, ready for `predict`."""

from __future__ import annotations

from pathlib import Path

from dfd_train.distributed.device import pick_device
from dfd_train.model.build import Model
from dfd_train.model.load import load_network
from dfd_train.runs.checkpoint import find_checkpoint, load_checkpoint


def load(place: str | Path, device: str = "cpu") -> Model:
    """The network of a run or a checkpoint on `device` ("auto", "cpu", "cuda", "cuda:1"), in evaluation mode.

    `place`: a run's folder (its best checkpoint, else the newest), `RUN@last`, `RUN@best` or a file. The weights are the
    averaged ones where the run kept them. Raises `CheckpointMissingError`, `CheckpointError`, and `ConfigError` where
    there is no such device.
    """
    checkpoint = load_checkpoint(find_checkpoint(place))
    return load_network(checkpoint.config.model, checkpoint.evaluated, pick_device(device))
