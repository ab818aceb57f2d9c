"""How a step is computed: precision, memory layout, gradient accumulation, batch normalisation; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.config.options import ENGINE, STEPS, check_options, option
from dfd_train.errors import ConfigError

PRECISIONS = ("fp32", "bf16", "fp16")
BATCH_NORMS = ("local", "sync", "frozen")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a step is computed; the defaults are plain float32 on one process.

    `precision`: "fp32", or autocast to "bf16" or "fp16" (with loss scaling); weights and losses stay float32.
    `channels_last`: memory layout of weights and images. `compile`: through `torch.compile`. `graphs`: also record the
    network's forward and backward pass as CUDA graphs and replay them, for batches so small that a GPU waits for Python;
    on the CPU the same as `compile`. `accumulate`: batches whose gradients are summed into one step. `batch_norm`:
    "local" = statistics of each process's own batch, "sync" = of the batches of all processes together, "frozen" = the
    running ones, which then never change.

    Raises `ConfigError` for an impossible value.
    """

    precision: str = option("fp32", group=ENGINE, choices=PRECISIONS, help="Of the network's layers.")
    channels_last: bool = option(False, group=ENGINE, help="Memory layout.")
    compile: bool = option(False, group=ENGINE, help="Use torch.compile.")
    graphs: bool = option(False, group=ENGINE, help="Compile, and replay as CUDA graphs.")
    accumulate: int = option(1, group=STEPS, metavar="N", at_least=1, help="Batches that make one step.")
    batch_norm: str = option(
        "local", group=STEPS, choices=BATCH_NORMS,
        help="Statistics of each process's batch, of all processes', or the running ones.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self)
        if self.graphs and self.accumulate > 1:
            # A replay writes its gradients where those of the batch before it lie.
            raise ConfigError(f"graphs and accumulate={self.accumulate} exclude each other: take a larger batch_size")
