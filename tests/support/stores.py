"""Stores written shard by shard from whole arrays."""

import numpy as np

from defocus_sim.lens import Lens
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.manifest import Manifest, SplitManifest
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.storage import storage_at
from defocus_sim.shards.store import open_store
from defocus_sim.shards.write import write_manifest, write_shard, write_skeleton


def write_store(root, arrays, per_shard, compression):
    """A store of one split from whole arrays (N, H, W, ...)."""
    count, height, width = arrays["depth_m"].shape
    storage = storage_at(root)
    write_skeleton(storage, {"train": count}, (height, width), per_shard, compression)
    files = []
    for shard in plan_shards(count, per_shard):
        samples = ({name: arrays[name][i] for name in ARRAYS} for i in range(shard.start, shard.stop))
        files.append(write_shard(storage, "train", shard.index, samples, per_shard, compression))
    names = tuple(f"frame-{i}" for i in range(count))
    split = SplitManifest(
        names=names,
        scenes=names,
        lens=(0,) * count,
        focus_distance_m=(2.0,) * count,
        aperture_mm=(44.8,) * count,
        shards=tuple(files),
    )
    manifest = Manifest(
        size_hw=(height, width),
        samples_per_shard=per_shard,
        compression=compression,
        lenses=(Lens.preset("paper").to_json(),),
        rendering={},
        source={},
        statistics={"samples": count, "coc_px": None, "psnr_db": None, "psnr_db_range": None, "unblurred": 0},
        splits={"train": split},
        created_by="test",
        settings="",
    )
    write_manifest(storage, manifest)
    return open_store(root)


def random_arrays(seed, count, height, width):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (2, count, height, width, 3), dtype=np.uint8)
    depth = rng.uniform(0, 10, (count, height, width)).astype(np.float32)
    return {"defocused": image[0], "aif": image[1] // 32 * 32, "depth_m": np.where(depth < 2, np.float32(0), depth)}
