"""A trained network from its configuration and its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dfd_train.config.model import ModelConfig
from dfd_train.errors import CheckpointError
from dfd_train.model.build import Model, build_model


def load_network(config: ModelConfig, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Model:
    """The model that `config` describes with `weights`, on `device` and in evaluation mode.

    Of a checkpoint: `load_network(checkpoint.config.model, checkpoint.evaluated)`. Raises `CheckpointError` where the
    weights do not fit.
    """
    try:
        if not config.has_usual_widths:
            # Shapes first: what a file says of its network may be more than its weights, and more than the memory.
            with torch.device("meta"):
                build_model(config).load_state_dict(dict(weights), assign=True)
        net = build_model(config)
        net.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"the checkpoint's weights do not fit its {config.name} network: {reason}") from error
    return net.to(device).eval()
