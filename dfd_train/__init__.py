"""Shards of defocused triples -> 2HDED:NET (depth + all-in-focus image) -> a report.

Public names are loaded on first use, so that `import dfd_train` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfd_train.config.loss import LossConfig
    from dfd_train.config.model import ModelConfig, variant
    from dfd_train.config.train import TrainConfig, recipe_config
    from dfd_train.data.stream import ShardDataset, stream_batches
    from dfd_train.errors import DfdTrainError
    from dfd_train.evaluation.evaluate import EvalConfig, compare, evaluate
    from dfd_train.evaluation.report import Report
    from dfd_train.model.two_headed import TwoHeadedNet
    from dfd_train.prediction.predict import Prediction, load, predict
    from dfd_train.training.train import TrainResult, train

_HOMES = {
    "DfdTrainError": "errors",
    "EvalConfig": "evaluation.evaluate",
    "LossConfig": "config.loss",
    "ModelConfig": "config.model",
    "Prediction": "prediction.predict",
    "Report": "evaluation.report",
    "ShardDataset": "data.stream",
    "TrainConfig": "config.train",
    "TrainResult": "training.train",
    "TwoHeadedNet": "model.two_headed",
    "compare": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "load": "prediction.predict",
    "predict": "prediction.predict",
    "recipe_config": "config.train",
    "stream_batches": "data.stream",
    "train": "training.train",
    "variant": "config.model",
}

__all__ = [
    "DfdTrainError",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "Prediction",
    "Report",
    "ShardDataset",
    "TrainConfig",
    "TrainResult",
    "TwoHeadedNet",
    "compare",
    "evaluate",
    "load",
    "predict",
    "recipe_config",
    "stream_batches",
    "train",
    "variant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
