"""What a store of very many samples takes to open, to look at, to merge and to begin a training with.

    python benchmarks/speed/large_store.py [--samples 100000] [--merge 20000]

Samples are random 16x16 pictures, so that what is measured is what grows with their number. Each step is a process of its
own, whose seconds of CPU and largest memory are printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from defocus_sim.lens import Lens
from defocus_sim.shards.manifest import Manifest, SplitManifest
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.storage import storage_at
from defocus_sim.shards.write import write_manifest, write_shard, write_skeleton

HW, PER_SHARD = (16, 16), 32
STEPS = {
    "open": "from defocus_sim.shards.store import open_store; open_store({0!r})",
    "info": "from dfd_cli.prepare import main; main(['info', {0!r}], standalone_mode=False)",
    "verify": "from dfd_cli.prepare import main; main(['verify', {0!r}], standalone_mode=False)",
    "training until its first batch": (
        "from torch.utils.data import DataLoader; from dfd_train.data.held_out import train_and_val; "
        "from dfd_train.config.train import recipe_config; c = recipe_config('fast', shards={0!r}, out='none'); "
        "d = train_and_val(c.model, c.shards, c.val_fraction, sharp_train=False, lens=None); "
        "next(iter(DataLoader(d.train, batch_size=8, shuffle=True)))"
    ),
    "merge": "from defocus_sim.convert.merge import merge; merge([{1!r}, {2!r}], {3!r})",
}


def write_store(place: Path, count: int, seed: int) -> None:
    """A store of `count` samples as a conversion leaves it, a tenth of them in `test`."""
    storage, rng = storage_at(place), np.random.default_rng(seed)
    counts = {"train": count - count // 10, "test": count // 10}
    write_skeleton(storage, counts, HW, PER_SHARD, "fast")
    splits = {}
    for split, number in counts.items():
        files = []
        for shard in plan_shards(number, PER_SHARD):
            size = shard.stop - shard.start
            images = rng.integers(0, 256, (size, *HW, 3), dtype=np.uint8)
            depth = rng.uniform(1, 9, (size, *HW)).astype(np.float32)
            samples = ({"defocused": i, "aif": i, "depth_m": d} for i, d in zip(images, depth, strict=True))
            files.append(write_shard(storage, split, shard.index, samples, PER_SHARD, "fast"))
        names = tuple(f"scene{k // 50:05d}/{seed}-{k:07d}" for k in range(number))
        splits[split] = SplitManifest(
            names=names,
            scenes=tuple(f"{split}-{seed}-{name.partition('/')[0]}" for name in names),
            lens=(0,) * number,
            focus_distance_m=(2.0,) * number,
            aperture_mm=(44.8,) * number,
            shards=tuple(files),
        )
    facts = {"samples": count, "coc_px": [-1.0, 1.0], "psnr_db": 30.0, "psnr_db_range": [20.0, 40.0], "unblurred": 0}
    manifest = Manifest(
        size_hw=HW,
        samples_per_shard=PER_SHARD,
        compression="fast",
        lenses=(Lens.preset("paper").to_json(),),
        rendering={"mode": "gather", "psf": "gaussian"},
        source={"kind": "made", "seed": seed},
        statistics=facts,
        splits=splits,
        created_by="benchmarks/speed/large_store.py",
        settings=str(seed),
    )
    write_manifest(storage, manifest)


def main() -> None:
    """Print a table: step, seconds, seconds of CPU, MiB at most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--merge", type=int, default=20_000, help="samples of each of two stores that are merged")
    parser.add_argument("--step", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        name, *places = given.step
        began = time.monotonic()
        exec(STEPS[name].format(*places))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
        return
    with tempfile.TemporaryDirectory() as name:
        places = [str(Path(name) / place) for place in ("large.zarr", "a.zarr", "b.zarr", "both.zarr")]
        for place, count, seed in zip(places, (given.samples, given.merge, given.merge), (0, 1, 2), strict=False):
            write_store(Path(place), count, seed)
        size = (Path(places[0]) / "zarr.json").stat().st_size
        print(f"{given.samples} samples: manifest of {size / 1e6:.1f} MB; merged: 2 x {given.merge}")
        for step in STEPS:
            done = subprocess.run(
                [sys.executable, __file__, "--step", step, *places], capture_output=True, text=True, check=True
            )
            seconds, cpu, peak = json.loads(done.stdout.splitlines()[-1])
            print(f"{step:32} {seconds:6.1f} s  {cpu:6.1f} s of CPU  {peak:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
