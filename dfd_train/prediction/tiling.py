"""Large images in tiles: how far a network sees, where tiles lie, and with which weights they are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfd_train.config.model import ModelConfig
from dfd_train.errors import ConfigError

# Tiles begin at multiples of the network's stride, so that its inner grids fall on the same pixels as in one pass.
STRIDE = 32
DEFAULT_TILE = 1024
DEFAULT_OVERLAP = 384
# The part of an overlap over which one tile gives way to the next; what lies outside it is thrown away.
_RAMP_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Square tiles of `tile` pixels a side, neighbours sharing `overlap` of them; both multiples of 32.

    An image that fits one tile is not cut. Raises `ConfigError` for an impossible value.
    """

    tile: int = DEFAULT_TILE
    overlap: int = DEFAULT_OVERLAP

    def __post_init__(self) -> None:
        if self.tile < 2 * STRIDE or self.tile % STRIDE:
            raise ConfigError(f"tile={self.tile} must be a multiple of {STRIDE} and at least {2 * STRIDE} pixels")
        if self.overlap < 0 or self.overlap % STRIDE or 2 * self.overlap > self.tile:
            raise ConfigError(
                f"overlap={self.overlap} must be a multiple of {STRIDE} between 0 and half the tile, {self.tile // 2}"
            )

    @property
    def margin(self) -> int:
        """Pixels at an inner edge of a tile that are computed but not used."""
        return int(self.overlap * (1 - _RAMP_SHARE) / 2)

    def exact_for(self, radius: int) -> bool:
        """Whether a network that sees `radius` pixels far gives the same as in one pass, to the float's rounding."""
        return self.margin >= radius


class AxisTile(NamedTuple):
    """Pixels `start` to `stop` along one axis, and their weights, (stop - start,) float32.

    The weights of all tiles add up to 1 at every pixel.
    """

    start: int
    stop: int
    weights: NDArray[np.float32]


def axis_tiles(length: int, tiling: Tiling) -> tuple[AxisTile, ...]:
    """The tiles along an axis of `length` >= 1 pixels."""
    step = tiling.tile - tiling.overlap
    starts = [0]
    while starts[-1] + tiling.tile < length:
        starts.append(starts[-1] + step)
    tiles = []
    rise = _rise(tiling.overlap)
    for start in starts:
        stop = min(start + tiling.tile, length)
        weights = np.ones(stop - start, np.float32)
        if start > 0:
            weights[: tiling.overlap] = rise
        if stop < length:
            weights[len(weights) - tiling.overlap :] = 1 - rise
        tiles.append(AxisTile(start, stop, weights))
    return tuple(tiles)


def _rise(overlap: int) -> NDArray[np.float32]:
    """0 to 1 over the middle quarter of `overlap` pixels, smooth at both ends."""
    at = (np.arange(overlap) + 0.5) / max(overlap, 1)
    t = np.clip((at - 0.5) / _RAMP_SHARE + 0.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def receptive_radius(config: ModelConfig) -> int:
    """How many pixels away an input can still change an output of `TwoHeadedNet(config)`, at most (1,143 when full).

    Sums, over every layer on the longest way, half its kernel in units of the pixels its input is apart. What matters
    in practice is far nearer: influence falls off like a bell over this radius.
    """
    # Half a 3x3, or a 7x7; half the largest window of a stem's differences, and the stage at full resolution.
    stem = {"paper": 1, "imagenet": 3, "highpass": 1 + 2, "blur": 1 + 4 + 1}[config.stem]
    # The stem, then the 4x4 convolution on a grid of two pixels: it reaches one cell before and two after.
    radius = stem + 2 * 2
    spacing = 4
    for layers in config.blocks[:-1]:
        # Each 3x3 reaches one cell; pooling takes the neighbour in; the next grid is twice as wide.
        radius += spacing * layers + spacing
        spacing *= 2
    radius += spacing * config.blocks[-1]
    for _ in config.decoder:
        # A transposed 4x4 reaches one cell of the coarse grid, the 3x3 after it one of the fine grid.
        radius += spacing + spacing // 2
        spacing //= 2
    return radius + (2 if config.stem == "blur" else 1)
