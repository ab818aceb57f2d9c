"""Names, types and codecs of a store; see docs/reference/shard-format.md, which is normative.

    STORE/zarr.json                      root group; its attribute `dfd` is the manifest, written last
    STORE/{train,test}/zarr.json         groups
    STORE/{train,test}/{array}/zarr.json arrays `defocused`, `aif` (N, H, W, 3) uint8, `depth_m` (N, H, W) float32
    STORE/{train,test}/{array}/c/K/0...  shard K of the array

One chunk is one sample, one shard is `samples_per_shard` of them. Inside a shard every chunk ends in its CRC-32C, and so
does the index at the end of the file (`sharding_indexed` of the Zarr v3 specification).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numcodecs import blosc

FORMAT_NAME = "dfd-shards"
FORMAT_VERSION = 2
MANIFEST_ATTRIBUTE = "dfd"
DEFAULT_SAMPLES_PER_SHARD = 32

Compression = Literal["fast", "balanced", "small", "none"]
COMPRESSIONS: tuple[Compression, ...] = ("fast", "balanced", "small", "none")

# c-blosc with several threads writes its blocks in the order in which they happen to finish: not reproducible.
blosc.use_threads = False


@dataclass(frozen=True)
class Blosc:
    """Parameters of one Blosc codec; `typesize` and `blocksize` in bytes, 0: as Blosc chooses."""

    cname: Literal["lz4", "zstd"]
    clevel: int
    shuffle: Literal["bitshuffle", "shuffle"]
    typesize: int
    blocksize: int = 0


@dataclass(frozen=True)
class ArraySpec:
    """One array of a split: (N, H, W, *channels) of `dtype`."""

    name: str
    dtype: np.dtype[Any]
    channels: tuple[int, ...]

    def sample_shape(self, size_hw: tuple[int, int]) -> tuple[int, ...]:
        """Shape of one sample, which is one chunk."""
        return (*size_hw, *self.channels)

    def sample_bytes(self, size_hw: tuple[int, int]) -> int:
        """Bytes of one decoded sample."""
        return math.prod(self.sample_shape(size_hw)) * self.dtype.itemsize

    def codec(self, compression: Compression) -> Blosc | None:
        """What compresses this array's chunks; None for none. Chosen from measurements (docs/decisions)."""
        if compression == "none":
            return None
        if compression == "fast":
            # LZ4 takes a quarter off an image and then costs four times what reading does. Long blocks and few matches: a
            # tenth faster to decode than `balanced`, for 2 % of the size.
            return None if self.dtype.itemsize == 1 else Blosc("lz4", 1, "shuffle", self.dtype.itemsize, 2**18)
        shuffle: Literal["bitshuffle", "shuffle"] = "bitshuffle" if self.dtype.itemsize == 1 else "shuffle"
        if compression == "small":
            return Blosc("zstd", 1, shuffle, self.dtype.itemsize)
        return Blosc("lz4", 5, shuffle, self.dtype.itemsize)

    def shard_name(self, split: str, index: int) -> str:
        """File of shard `index`, relative to the store."""
        return "/".join([split, self.name, "c", str(index), *("0" for _ in range(2 + len(self.channels)))])


ARRAYS: dict[str, ArraySpec] = {
    "defocused": ArraySpec("defocused", np.dtype("uint8"), (3,)),
    "aif": ArraySpec("aif", np.dtype("uint8"), (3,)),
    "depth_m": ArraySpec("depth_m", np.dtype("<f4"), ()),
}
