"""What a two-headed network is made of; free of torch, so that a command line can name the variants at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfd_train.errors import ConfigError

HEADS = ("depth", "aif")
STEMS = ("paper", "imagenet")
INPUT_RANGES = ("unit", "signed")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Widths and options of `TwoHeadedNet`; the defaults are the paper's network (41,414,400 parameters).

    `stem_width`: channels after the first convolution. `growth`, `bottleneck`, `blocks`: the DenseNet encoder (channels
    added by a layer, width of its 1x1 in units of `growth`, layers of the four blocks). `decoder`: output channels of
    the decoder's five blocks, deepest first. `stem`: "paper" = 3x3, "imagenet" = DenseNet's own 7x7. `heads`: which of
    "depth" and "aif" exist. `dropout`: probability in the two deepest decoder blocks. `zero_last_aif`: start the last
    AiF convolution at zero, so that the untrained network returns its input as the restored image. `input_range`:
    whether the encoder and the AiF head work on images in [0, 1] ("unit") or [-1, 1] ("signed", as the authors' code);
    the network takes and returns [0, 1] either way.

    Raises `ConfigError` for an impossible value.
    """

    name: str = "full"
    stem_width: int = 64
    growth: int = 32
    bottleneck: int = 4
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    decoder: tuple[int, ...] = (512, 256, 128, 64, 64)
    stem: str = "paper"
    heads: tuple[str, ...] = HEADS
    dropout: float = 0.0
    zero_last_aif: bool = False
    input_range: str = "unit"

    def __post_init__(self) -> None:
        for field in ("stem_width", "growth", "bottleneck"):
            if getattr(self, field) < 1:
                raise ConfigError(f"model {field}={getattr(self, field)} must be at least 1")
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            raise ConfigError(f"model blocks={self.blocks} must be four positive numbers")
        if len(self.decoder) != 5 or min(self.decoder) < 1:
            raise ConfigError(f"model decoder={self.decoder} must be five positive numbers")
        if self.stem not in STEMS:
            raise ConfigError(f"model stem={self.stem!r} must be one of {', '.join(STEMS)}")
        if self.input_range not in INPUT_RANGES:
            raise ConfigError(f"model input_range={self.input_range!r} must be one of {', '.join(INPUT_RANGES)}")
        if not self.heads or set(self.heads) - set(HEADS) or len(set(self.heads)) != len(self.heads):
            raise ConfigError(f"model heads={self.heads} must be one or both of {', '.join(HEADS)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model dropout={self.dropout} must be at least 0 and below 1")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The configuration that `dataclasses.asdict` turned into JSON; raises `ConfigError` for unknown fields."""
        try:
            return cls(**tuples_from_lists(values))
        except TypeError as error:
            raise ConfigError(f"not a model configuration: {error}") from error


def tuples_from_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with every list as a tuple again, which JSON does not know."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


VARIANTS: dict[str, ModelConfig] = {
    "full": ModelConfig(),
    "small": ModelConfig(
        name="small", stem_width=32, growth=16, blocks=(4, 8, 12, 8), decoder=(160, 96, 64, 48, 32), bottleneck=4
    ),
    "tiny": ModelConfig(
        name="tiny", stem_width=16, growth=8, blocks=(2, 4, 6, 4), decoder=(48, 32, 24, 16, 16), bottleneck=4
    ),
}


def variant(name: str) -> ModelConfig:
    """The network called "full", "small" or "tiny"; raises `ConfigError` for another name."""
    if name not in VARIANTS:
        raise ConfigError(f"model={name!r} must be one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
