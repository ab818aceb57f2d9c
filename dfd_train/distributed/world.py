"""The processes of one run: who they are (from torchrun's environment), and what they decide together.

Everything here also works for a run of one process, where it does nothing.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dfd_train.distributed.device import pick_device
from dfd_train.errors import ConfigError, DfdTrainError, DistributedError

# How gloo and NCCL say that a peer is gone or does not answer; torch has no error class for it on every path.
_LOST = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Tt]imed out|timeout|Broken pipe")


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the `size` processes of a run: its `rank`, and the `device` it computes on.

    `local_size`: processes on this machine. Every method that talks must be called by all processes at the same point.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over the processes, the same on each; changes `values` itself."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first_does(self, action: Callable[[], object]) -> None:
        """Let the first process do `action`; all wait for it.

        Where it raises one of this package's errors, the first process raises it and the others `DistributedError`.
        """
        error: DfdTrainError | None = None
        if self.first:
            try:
                action()
            except DfdTrainError as caught:
                error = caught
        messages = self.gather(None if error is None else str(error))
        if error is not None:
            raise error
        if messages[0] is not None:
            raise DistributedError(f"process 0 failed: {messages[0]}")

    def share_buffers(self, net: nn.Module) -> None:
        """Give every process the first one's buffers of `net`: the running statistics of its normalisations."""
        if self.size > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, 0)


@contextmanager
def join_world(device: str = "auto", timeout_s: float = 600.0) -> Iterator[World]:
    """Within the block, this process is a member of the run that torchrun started; alone without torchrun.

    Rank and size come from the environment (RANK, WORLD_SIZE, LOCAL_RANK). `device`: as in `pick_device`; on GPUs each
    process of a machine takes its own, and talks by NCCL, on the CPU by gloo. `timeout_s`: how long one may wait for
    the others. A process group that the caller has made is used and left as it is.

    Raises `ConfigError` where there are fewer GPUs than processes, and `DistributedError` instead of torch's own where
    another process is lost within the block.
    """
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(device=pick_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _own_device(device, local_rank)
    ours = not dist.is_initialized()
    try:
        if ours:
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout_s))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield World(device=chosen, rank=dist.get_rank(), size=dist.get_world_size(), local_size=local_size)
    except RuntimeError as error:
        if isinstance(error, DfdTrainError) or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        reason = str(error).split("\n")[0]
        raise DistributedError(
            f"another process of this run ended or does not answer ({reason}); what it printed says why; the last "
            f"checkpoint is intact: go on with --resume"
        ) from error
    finally:
        if ours and dist.is_initialized():
            # What still refers to the group (a wrapped network in a reference cycle) would keep its threads alive after
            # it is destroyed, and the process then aborts at its end.
            gc.collect()
            dist.destroy_process_group()


def _own_device(name: str, local_rank: int) -> torch.device:
    device = pick_device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise ConfigError(f"device={name!r}: with several processes give cuda, and each takes the GPU of its rank")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(f"process {local_rank} of this machine has no GPU: torch sees {torch.cuda.device_count()}")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
