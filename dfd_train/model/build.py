"""From a model's configuration to the model."""

from __future__ import annotations

import torch
from torch import Tensor

from dfd_train.config.model import ModelConfig
from dfd_train.model.baselines import ResidualNet
from dfd_train.model.camera_nets import AnwarNet, CameraNet, GurNet, LensNet
from dfd_train.model.two_headed import Output, TwoHeadedNet

# Every model: `config`, and images (B, 3 or 6, H, W) -> `Output`.
Model = TwoHeadedNet | ResidualNet
_CLASSES: dict[str, type[Model]] = {"dncnn": ResidualNet, "ircnn": ResidualNet, "anwar": AnwarNet, "gur": GurNet}


def build_model(config: ModelConfig, *, generator: torch.Generator | None = None) -> Model:
    """The model that `config` describes; `generator`: source of the initial weights, torch's global one for None."""
    usual = LensNet if config.needs_camera else TwoHeadedNet
    return _CLASSES.get(config.method, usual)(config, generator=generator)


def run_model(net: torch.nn.Module, image: Tensor, camera: Tensor | None, *, told: bool = True) -> Output:
    """`net(image)`, with the `camera` (B, 10) where there is one to tell it.

    `told`: False for a `camera` of which the focus distance is a guess, so that it turns the answer into metres only.
    """
    if camera is None:
        output: Output = net(image)
    elif not told and isinstance(net, LensNet) and net.config.lens_hidden:
        output = net(image, camera, told=torch.zeros(len(image), dtype=torch.bool, device=image.device))
    else:
        output = net(image, camera)
    return output


__all__ = ["CameraNet", "Model", "build_model", "run_model"]
