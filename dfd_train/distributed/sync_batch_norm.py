"""Batch normalisation over the batches of all processes; torch's own exists for CUDA only, this one serves gloo."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """A sum over all processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """`values` summed."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Every process's output depends on this one's input, so the gradients of all are summed."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of all processes together."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, normalised; B may differ between processes."""
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        own = torch.cat([wide.sum((0, 2, 3)), wide.new_full((1,), x.numel() / x.shape[1])])
        sums = _SumOverProcesses.apply(own)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        # Two passes: the mean of squares minus the squared mean loses digits in float32.
        centred = wide - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronise_batch_norm(net: nn.Module, device: torch.device) -> None:
    """Replace every `nn.BatchNorm2d` inside `net` by a synchronised one with the same parameters and names.

    On the CPU the sums share the gradients' process group: one thread walks back the same graph on every process, so
    all of them talk in the same order.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return
    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
                synced.weight, synced.bias = child.weight, child.bias
                synced.running_mean, synced.running_var = child.running_mean, child.running_var
                synced.num_batches_tracked = child.num_batches_tracked
                setattr(module, name, synced)
