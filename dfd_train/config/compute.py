"""How a step is computed: precision, memory layout, gradient accumulation, batch normalisation; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

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

    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    graphs: bool = False
    accumulate: int = 1
    batch_norm: str = "local"

    def __post_init__(self) -> None:
        for field, known in (("precision", PRECISIONS), ("batch_norm", BATCH_NORMS)):
            if getattr(self, field) not in known:
                raise ConfigError(f"{field}={getattr(self, field)!r} must be one of {', '.join(known)}")
        if self.accumulate < 1:
            raise ConfigError(f"accumulate={self.accumulate} must be at least 1")
        if self.graphs and self.accumulate > 1:
            # A replay writes its gradients where those of the batch before it lie.
            raise ConfigError(f"graphs and accumulate={self.accumulate} exclude each other: take a larger batch_size")
