"""Names, types, codecs and metadata of a store; see docs/shard-format.md, which is normative.

    STORE/zarr.json                      root group; its attribute `dfd` is the manifest, written last
    STORE/{train,test}/zarr.json         groups
    STORE/{train,test}/{array}/zarr.json arrays `defocused`, `aif` (N, H, W, 3) uint8, `depth_m` (N, H, W) float32
    STORE/{train,test}/{array}/c/K/0...  shard K of the array

One chunk is one sample, one shard is `samples_per_shard` of them. Inside a shard every chunk ends in its CRC-32C, and so
does the index at the end of the file (`sharding_indexed` of the Zarr v3 specification).
"""

from __future__ import annotations

import json
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

    cname: str
    clevel: int
    shuffle: Literal["bitshuffle", "shuffle"]
    typesize: int
    blocksize: int = 0

    def to_json(self) -> dict[str, Any]:
        """The codec's entry in Zarr metadata."""
        configuration = {
            "typesize": self.typesize,
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": self.shuffle,
            "blocksize": self.blocksize,
        }
        return {"name": "blosc", "configuration": configuration}


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
        cname, clevel = ("zstd", 1) if compression == "small" else ("lz4", 5)
        return Blosc(cname, clevel, "bitshuffle" if self.dtype.itemsize == 1 else "shuffle", self.dtype.itemsize)

    def shard_name(self, split: str, index: int) -> str:
        """File of shard `index`, relative to the store."""
        return "/".join([split, self.name, "c", str(index), *("0" for _ in range(2 + len(self.channels)))])


ARRAYS: dict[str, ArraySpec] = {
    "defocused": ArraySpec("defocused", np.dtype("uint8"), (3,)),
    "aif": ArraySpec("aif", np.dtype("uint8"), (3,)),
    "depth_m": ArraySpec("depth_m", np.dtype("<f4"), ()),
}


def group_metadata(attributes: dict[str, Any] | None = None) -> bytes:
    """A Zarr v3 group's `zarr.json`."""
    return _json({"zarr_format": 3, "node_type": "group", "attributes": attributes or {}})


def array_metadata(
    spec: ArraySpec, count: int, size_hw: tuple[int, int], samples_per_shard: int, compression: Compression
) -> bytes:
    """A Zarr v3 array's `zarr.json`: `count` samples, one a chunk, `samples_per_shard` a shard."""
    sample = spec.sample_shape(size_hw)
    to_bytes: dict[str, Any] = {"name": "bytes"}
    if spec.dtype.itemsize > 1:
        to_bytes["configuration"] = {"endian": "little"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    codec = spec.codec(compression)
    sharding = {
        "chunk_shape": [1, *sample],
        "codecs": [to_bytes, *([codec.to_json()] if codec else []), {"name": "crc32c"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [count, *sample],
            "data_type": spec.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [samples_per_shard, *sample]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0 if spec.dtype.kind == "f" else 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {"unit": "metre, 0 = hole"} if spec.name == "depth_m" else {},
            "dimension_names": ["sample", "y", "x", *(["channel"] if spec.channels else [])],
            "storage_transformers": [],
        }
    )


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
