"""An exponential moving average of a network's weights: smoother than the last step's, and what is evaluated."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


class WeightAverage(Generic[Net]):
    """Keeps `net`, a copy of a network whose every tensor follows the original's.

    After step t (from 1) the average moves by `1 - min(decay, (1 + t) / (10 + t))` towards the weights, so that a short
    run is not dragged down by its random start. Statistics of batch normalisation are averaged likewise.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self.net: Net = copy.deepcopy(net)
        self.net.eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: Net, step: int) -> None:
        """Take in the weights of `net` after step `step`, counted from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averaged, current = self.net.state_dict(), net.state_dict()
        floating = [name for name, value in averaged.items() if value.is_floating_point()]
        torch._foreach_lerp_([averaged[name] for name in floating], [current[name] for name in floating], weight)
        for name in averaged.keys() - set(floating):
            averaged[name].copy_(current[name])
