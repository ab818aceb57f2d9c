"""Shuffled reading of 561x427 triples (two uint8 images, float32 depth): our training's reader against others.

    python benchmarks/speed/loader.py [--samples 256] [--rounds 7] [--batch-sizes 4 16] [--pairs CSV | --mat FILE]
                                [--threads 1] [--work FOLDER] [--json FILE]

Every reader gives the same batches, arrays of shape (B, ...) in a new random order each round, from the page cache.
Each has a process of its own, as its user has: whether an allocator has kept memory for the next batch decides how fast
most of them are, and in one process that is what the readers before have left. They take turns; median of the rounds with
the lowest and the highest, CPU milliseconds a sample (what a busy machine leaves comparable) and the ratio to ours with
the default codec. "Memory kept": every batch is put into the same arrays, so that it is gone with the next: by one copy
out of the map, by plain reads, and by plain reads and checksums, the least that a reader that checks has to do.
WebDataset (raw arrays in tar files, a shuffle buffer of 64) and MosaicML streaming (raw) take part where they are
installed. All check nothing but what their format checks; ours checks each chunk's CRC-32C. `--threads N` lets ours read
N batches at once, as `dfd-train` does.

Frames are those of `--pairs` (as in `dfd-prepare rgbd`) or `--mat` (the layout of nyu_depth_v2_labeled.mat), else
procedural rooms with a sensor's noise.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
import zarr
from crc32c import crc32c
from scale import write_frames

from defocus_sim import Lens
from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.nyu import NyuSource
from defocus_sim.datasets.rgbd_folder import RgbdFolderSource
from defocus_sim.shards.layout import COMPRESSIONS
from defocus_sim.shards.store import open_store
from dfd_train.data.stream import ShardDataset, stream_batches

FIELDS = ("defocused", "aif", "depth_m")
OURS = "ours, default codec"
PEERS = {"webdataset": "WebDataset, raw arrays", "streaming": "MosaicML streaming, raw"}
BUFFER = 64
MEMMAP, KEPT = "np.memmap, raw", "np.memmap, memory kept"
CHECKED = "and CRC-32C, memory kept"


class Like(NamedTuple):
    """What a reader knows of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def arrays_of(store, samples):
    """All samples as arrays."""
    split = open_store(store).split("train")
    if len(split) < samples:
        raise SystemExit(f"there are {len(split)} frames, --samples asks for {samples}")
    return split.read(range(samples))


def size_of(path):
    """Bytes of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def write_memmap(folder, arrays):
    """One file an array."""
    folder.mkdir()
    for name, array in arrays.items():
        array.tofile(folder / name)


def read_memmap(folder, arrays, threads):
    """A function (batches) -> batches."""
    maps = {n: np.memmap(folder / n, a.dtype, "r", shape=a.shape) for n, a in arrays.items()}
    return lambda batches: ({n: m[batch] for n, m in maps.items()} for batch in batches)


def kept_arrays(arrays, fill):
    """Readers whose batches all lie in the memory of the first; `fill(out, indices)` puts one there."""
    kept = {}

    def batch(indices):
        count = len(indices)
        if count not in kept:
            kept[count] = {n: np.empty((count, *a.shape[1:]), a.dtype) for n, a in arrays.items()}
        fill(kept[count], indices)
        return kept[count]

    return lambda batches: map(batch, batches)


def read_memmap_kept(folder, arrays, threads):
    """One copy of each sample, and nothing else."""
    maps = {n: np.memmap(folder / n, a.dtype, "r", shape=a.shape) for n, a in arrays.items()}

    def fill(out, indices):
        for name, array in maps.items():
            # In any other mode than "raise" there is no copy between.
            np.take(array, indices, 0, out[name], mode="clip")

    return kept_arrays(arrays, fill)


def read_plain(folder, arrays, threads, check=len):
    """One positioned read of each sample, and nothing else."""
    files = {n: os.open(folder / n, os.O_RDONLY) for n in arrays}

    def fill(out, indices):
        for row, index in enumerate(indices.tolist()):
            for name, array in out.items():
                target = array[row].reshape(-1).view(np.uint8).data
                os.preadv(files[name], [target], index * len(target))
                check(target)

    return kept_arrays(arrays, fill)


def read_checked(folder, arrays, threads):
    """As `read_plain`, and the checksum of what was read."""
    return read_plain(folder, arrays, threads, crc32c)


def write_hdf5(path, arrays):
    """One sample a chunk, not compressed."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(1, *array.shape[1:]))


def read_hdf5(path, arrays, threads):
    """Each sample read straight into its place."""
    file = h5py.File(path)

    def batch(indices):
        made = {n: np.empty((len(indices), *a.shape[1:]), a.dtype) for n, a in arrays.items()}
        for row, index in enumerate(indices.tolist()):
            for name, out in made.items():
                file[name].read_direct(out, np.s_[index], np.s_[row])
        return made

    return lambda batches: map(batch, batches)


def write_zarr(path, arrays):
    """As zarr does it if nobody says otherwise: default codec, one sample a chunk, 32 a shard."""
    group = zarr.open_group(path, mode="w")
    for name, array in arrays.items():
        shape = array.shape
        made = group.create_array(
            name, shape=shape, dtype=array.dtype, chunks=(1, *shape[1:]), shards=(min(32, shape[0]), *shape[1:])
        )
        made[:] = array


def read_zarr(path, arrays, threads):
    """`array[i]` for each sample."""
    group = zarr.open_group(path, mode="r")
    opened = {n: group[n] for n in arrays}
    return lambda batches: ({n: np.stack([a[int(i)] for i in batch]) for n, a in opened.items()} for batch in batches)


def read_ours(path, arrays, threads):
    """The reader of `dfd-train`."""
    data = ShardDataset(path)

    def batches_of(batches):
        read_ahead = 0 if threads == 0 else 4
        for made in stream_batches(data, batches, prefetch=read_ahead, threads=max(threads, 1)):
            yield {n: getattr(made, n).numpy() for n in FIELDS}

    return batches_of


def write_webdataset(folder, arrays):
    """Tar files of 32 samples, an .npy for each array."""
    folder.mkdir()
    for start in range(0, len(arrays["aif"]), 32):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for index in range(start, min(start + 32, len(arrays["aif"]))):
                for name, array in arrays.items():
                    content = BytesIO()
                    np.save(content, array[index])
                    entry = tarfile.TarInfo(f"{index:06d}.{name}.npy")
                    entry.size = content.tell()
                    content.seek(0)
                    tar.addfile(entry, content)


def read_webdataset(folder, arrays, threads):
    """Its own order: tar files shuffled, then a buffer; batches stacked as its users do."""
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))

    def batches_of(batches):
        made = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(BUFFER).decode()
        samples = iter(made)
        for batch in batches:
            group = [next(samples) for _ in batch]
            yield {n: np.stack([s[f"{n}.npy"] for s in group]) for n in FIELDS}

    return batches_of


def write_streaming(folder, arrays):
    """MDS files of raw bytes."""
    from streaming import MDSWriter

    columns = {n: f"ndarray:{a.dtype.name}:{','.join(map(str, a.shape[1:]))}" for n, a in arrays.items()}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for index in range(len(arrays["aif"])):
            writer.write({n: a[index] for n, a in arrays.items()})


def read_streaming(folder, arrays, threads):
    """Random access to its samples."""
    from streaming import LocalDataset

    data = LocalDataset(str(folder))

    def batch(indices):
        group = [data[int(i)] for i in indices]
        return {n: np.stack([s[n] for s in group]) for n in FIELDS}

    return lambda batches: map(batch, batches)


def importable(name):
    """Whether the package can be used; some are installed without what they need."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{PEERS[name]} left out ({error}): pip install {'mosaicml-streaming' if name == 'streaming' else name}")
        return False
    return True


def timed(read, order, batch_size):
    """Samples a second and CPU ms a sample; every batch is looked at, so that a lazy reader gains nothing."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    wall, cpu, seen = time.perf_counter(), time.process_time(), 0
    for batch in read(batches):
        seen += len(batch["aif"])
        assert all(len(a) == len(batch["aif"]) and a[-1].flat[-1] >= 0 for a in batch.values())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert seen == len(order)
    return seen / wall, cpu / seen * 1000


def answer(pipe, read, place, arrays, threads):
    """The process of one reader: takes (order, batch size) until None comes, gives back what `timed` does."""
    torch.set_num_threads(1)
    reader = read(place, arrays, threads)
    for order, batch_size in iter(pipe.recv, None):
        pipe.send(timed(reader, order, batch_size))


@contextmanager
def reading(*what):
    """The pipe to a process that does `answer`."""
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=answer, args=(there, *what), daemon=True)
    process.start()
    # Else nobody would notice that it has ended.
    there.close()
    yield here
    here.send(None)
    process.join()


def main():
    """The benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--threads", type=int, default=0, help="reading ahead in ours; 0 = in the caller's thread")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--mat", type=Path)
    parser.add_argument("--work", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="loader-", dir=given.work))
    try:
        run(given, work)
    finally:
        shutil.rmtree(work)


def run(given, work):
    """Write every form below `work`, measure and print."""
    if given.pairs is not None:
        source = RgbdFolderSource(pairs_csv=given.pairs)
    else:
        source = NyuSource(path=given.mat or write_frames(work / "frames.mat", given.samples), val_fraction=0)
    for compression in COMPRESSIONS:
        settings = ConversionSettings(source=source, lens=Lens.preset("paper"), compression=compression)
        convert(settings, work / f"{compression}.zarr")
    arrays = arrays_of(work / "fast.zarr", given.samples)
    forms = {
        MEMMAP: ("memmap", write_memmap, read_memmap),
        KEPT: ("memmap", None, read_memmap_kept),
        "plain reads, memory kept": ("memmap", None, read_plain),
        CHECKED: ("memmap", None, read_checked),
        "ours, not compressed": ("none.zarr", None, read_ours),
        OURS: ("fast.zarr", None, read_ours),
        "ours, balanced": ("balanced.zarr", None, read_ours),
        "ours, small": ("small.zarr", None, read_ours),
        "h5py, not compressed": ("raw.h5", write_hdf5, read_hdf5),
        PEERS["webdataset"]: ("wds", write_webdataset, read_webdataset),
        PEERS["streaming"]: ("mds", write_streaming, read_streaming),
        "zarr, defaults, array[i]": ("naive.zarr", write_zarr, read_zarr),
    }
    absent = [name for name in PEERS if not importable(name)]
    for name in absent:
        del forms[PEERS[name]]
    sizes, results = {}, {}
    for name, (place, write, read) in forms.items():
        if write is not None:
            write(work / place, arrays)
        # Of stores only what is read counts: one split.
        samples_there = len(source.samples()) if read is read_ours else given.samples
        sizes[name] = size_of(work / place) / samples_there
    known = {name: Like(array.shape, array.dtype) for name, array in arrays.items()}
    del arrays
    with ExitStack() as stack:
        pipes = {
            name: stack.enter_context(reading(read, work / place, known, given.threads))
            for name, (place, _, read) in forms.items()
        }
        for batch_size in given.batch_sizes:
            rates = {name: [] for name in forms}
            for number in range(given.rounds + 1):
                order = np.random.default_rng([number, batch_size]).permutation(given.samples)
                for name, pipe in pipes.items():
                    pipe.send((order, batch_size))
                    found = pipe.recv()
                    # The first round warms the page cache.
                    if number:
                        rates[name].append(found)
            results[batch_size] = table(rates, sizes, batch_size)
    if given.json is not None:
        facts = {
            "command": " ".join(
                ["python benchmarks/speed/loader.py", f"--samples {given.samples}", f"--rounds {given.rounds}"]
            ),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("numpy", "h5py", "zarr", "numcodecs", "torch")},
        }
        given.json.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")


def table(rates, sizes, batch_size):
    """Print and return the figures of one batch size."""
    print(f"\nbatch {batch_size}{'':21}samples/s (lowest..highest)   CPU ms   MB a sample   against ours (time, CPU)")
    median = {name: [statistics.median(column) for column in zip(*r, strict=True)] for name, r in rates.items()}
    rows = {}
    for name, found in rates.items():
        speed, cpu = median[name]
        # Of each round on its own: they ran side by side.
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found, rates[OURS], strict=True))
        cpu_ratio = statistics.median(b[1] / a[1] for a, b in zip(found, rates[OURS], strict=True))
        lowest, highest = min(r[0] for r in found), max(r[0] for r in found)
        print(
            f"{name:<28} {speed:8.0f} ({lowest:.0f}..{highest:.0f}){'':6} {cpu:8.2f} {sizes[name] / 1e6:10.2f}"
            f" {ratio:14.2f} {cpu_ratio:8.2f}"
        )
        rows[name] = {
            "samples_per_s": speed, "lowest": lowest, "highest": highest, "cpu_ms": cpu, "bytes": sizes[name],
            "ratio": ratio, "cpu_ratio": cpu_ratio,
        }  # fmt: skip
    peers = [name for name in rates if not name.startswith(("ours", "np.memmap")) and not name.endswith("kept")]
    fastest = max(peers, key=lambda name: median[name][0])
    for ours, other in (
        ("ours, not compressed", MEMMAP),
        ("ours, not compressed", KEPT),
        (CHECKED, KEPT),
        (OURS, fastest),
    ):
        pairs = list(zip(rates[ours], rates[other], strict=True))
        rounds, cpu = sorted(a[0] / b[0] for a, b in pairs), statistics.median(b[1] / a[1] for a, b in pairs)
        spread = f"{statistics.median(rounds):.2f} ({rounds[0]:.2f}..{rounds[-1]:.2f})"
        print(f"{ours} against {other}: {spread}, by CPU time {cpu:.2f}")
        rows[ours].setdefault("against", {})[other] = rounds
    return rows


if __name__ == "__main__":
    main()
