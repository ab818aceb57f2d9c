"""Groups and arrays of a store, created by zarr-python: this module has their metadata, `write` the shards.

The arrays are `sharding_indexed`, one sample a chunk; see docs/reference/shard-format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from defocus_sim.errors import parse_json
from defocus_sim.shards.layout import ARRAYS, MANIFEST_ATTRIBUTE, ArraySpec, Compression
from defocus_sim.shards.manifest import Manifest, digest
from defocus_sim.shards.storage import Storage

_LAYOUT = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")

if TYPE_CHECKING:
    import zarr


def hierarchy(
    counts: Mapping[str, int],
    size_hw: tuple[int, int],
    samples_per_shard: int,
    compression: Compression,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Every `zarr.json` of a store whose splits have `counts` samples, by its name; `attributes`: of the root group."""
    # Here, as it takes a moment, and reading needs it only for stores of others.
    import zarr

    files: dict[str, Any] = {}
    root = zarr.create_group(zarr.storage.MemoryStore(files), attributes=dict(attributes or {}))
    for split, count in counts.items():
        group = root.create_group(split)
        for spec in ARRAYS.values():
            _create(group, spec, (count, *spec.sample_shape(size_hw)), samples_per_shard, compression)
    return {name: content.to_bytes() for name, content in files.items()}


def _create(
    group: zarr.Group, spec: ArraySpec, shape: tuple[int, ...], samples_per_shard: int, compression: Compression
) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    blosc = spec.codec(compression)
    group.create_array(
        spec.name,
        shape=shape,
        dtype=spec.dtype,
        chunks=(1, *shape[1:]),
        shards=(samples_per_shard, *shape[1:]),
        filters=None,
        compressors=[*([] if blosc is None else [BloscCodec(**vars(blosc))]), Crc32cCodec()],
        fill_value=0,
        attributes={"unit": "metre, 0 = hole"} if spec.name == "depth_m" else {},
        dimension_names=["sample", "y", "x", "channel"][: len(shape)],
    )


def metadata_digest(content: bytes) -> str:
    """SHA-256 (hex) of a `zarr.json` as canonical JSON, without the manifest, which has a checksum of its own.

    Raises `ValueError` for what is not a JSON object.
    """
    described = parse_json(content)
    if not isinstance(described, dict):
        raise ValueError("it is not Zarr metadata")
    attributes = described.get("attributes")
    if isinstance(attributes, dict):
        described["attributes"] = {name: value for name, value in attributes.items() if name != MANIFEST_ATTRIBUTE}
    return digest(described)


def is_rewritten(storage: Storage, manifest: Manifest) -> bool:
    """Whether the arrays of a store with a manifest are laid out otherwise than dfd-prepare does; for the direct reader."""
    counts = {split: len(content.names) for split, content in manifest.splits.items()}
    try:
        ours = hierarchy(counts, manifest.size_hw, manifest.samples_per_shard, manifest.compression)
    except (ValueError, TypeError, OverflowError):
        # Of a manifest that zarr takes for impossible.
        return False
    for name, content in ours.items():
        wanted = parse_json(content)
        if wanted["node_type"] != "array":
            continue
        try:
            found = parse_json(storage.read(name))
            if not isinstance(found, dict) or any(found.get(key) != wanted[key] for key in _LAYOUT):
                return True
        except (OSError, ValueError):
            # Gone or damaged: that is not what other programs do.
            continue
    return False
