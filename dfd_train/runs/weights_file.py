"""A network's weights alone, in half precision, with what it is: one safetensors file, small enough to be shipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from defocus_sim.errors import parse_json
from dfd_train.config.model import ModelConfig
from dfd_train.errors import CheckpointError, CheckpointMissingError, ConfigError, ExportError
from dfd_train.files import write_atomically

SUFFIX = ".safetensors"
# The weights that come with an installation, by name.
PACKAGED = Path(__file__).parents[1] / "model" / "weights"
_MODEL = "dfd_train model"


def write_weights(path: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write `weights`, floating ones as float16, and the model they are of; `read_weights` gives both back.

    What is beyond float16 stays float32: the variance of a normalisation grows with weights whose size it takes out.
    Raises `ExportError` where a weight is not finite, or the file cannot be written.
    """
    half = {name: _halved(w).contiguous().cpu() for name, w in weights.items()}
    for name, weight in half.items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise ExportError(f"weight {name} is not finite: these weights are damaged")
    write_export(path, save(half, {_MODEL: json.dumps(asdict(config))}))


def _halved(weight: Tensor) -> Tensor:
    if not weight.is_floating_point():
        return weight
    half = weight.half()
    return half if bool(half.isfinite().all()) else weight.float()


def write_export(path: Path, content: bytes) -> None:
    """Write the file `path`, and the folders above it; raises `ExportError` where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def read_weights(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model and its weights, floating ones as float32, on the CPU.

    Raises `CheckpointMissingError` or `CheckpointError` naming the file.
    """
    if not path.is_file():
        raise CheckpointMissingError(f"weights {path} not found")
    try:
        # What may not be read is said to be missing there.
        with open(path, "rb"), safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get(_MODEL)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if about is None:
            raise CheckpointError(f"weights {path} do not say which model they are of: none of dfd-train")
        config = ModelConfig.from_dict(parse_json(about))
    except CheckpointError:
        raise
    except (OSError, ValueError, ConfigError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"weights {path} cannot be read: damaged, or of another kind ({reason})") from error
    return config, {name: w.float() if w.dtype == torch.float16 else w for name, w in weights.items()}


def packaged_weights(name: str) -> Path | None:
    """The file of the weights called `name` that come with this installation; None without, or where `name` is a file."""
    path = PACKAGED / f"{name}{SUFFIX}"
    return path if name == Path(name).name and path.is_file() and not Path(name).exists() else None
