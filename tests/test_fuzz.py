"""Damaged input of every kind, by the thousand: a named error or success, no crash, no hang, no gigabyte.

Cases run in a process of their own, as a bug may end or stop it; each is a pure function of (kind, seed, number).

    python tests/test_fuzz.py --count 2000          # shared between the kinds; prints a table and the failures
    python tests/test_fuzz.py --kind store --case 17 # one case here, with its traceback
"""

import argparse
import json
import queue
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import faults
import h5py
import numpy as np
import pytest
from scipy.io import savemat
from sources import small_settings

SEED = 20240611
KINDS = ("labelled", "splits", "grid", "store", "manifest", "state")
# Of every ten cases; a resumed conversion takes longest.
SHARE = {"labelled": 3, "splits": 1.5, "grid": 1.5, "store": 2, "manifest": 1.5, "state": 0.5}
SECONDS_A_CASE = 20
MEMORY_BYTES = 2**30
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1, 2**31, 2**20)
LEAVES = (None, True, -1, 0, 1, 3, 2**31, 2**70, 1.5, -1e308, 1e308, "", "x" * 3000, "\0", [], {}, [0], [[]], {"a": 1})


def mutated(data, chance, low=0, high=None):
    """`data` with one to four small changes between `low` and `high`."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        end = min(high or len(data), len(data))
        if end <= low:
            return bytes(data)
        at = chance.randrange(low, end)
        match chance.randrange(7):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2 | 3:
                word = struct.pack("<Q", chance.choice(WORDS))[: chance.choice((1, 2, 4, 8))]
                data[at : at + len(word)] = word
            case 4:
                size = chance.randrange(1, 64)
                data[at : at + size] = bytes(len(data[at : at + size]))
            case 5:
                source, size = chance.randrange(low, end), chance.randrange(1, 32)
                data[at : at + size] = data[source : source + size][: len(data[at : at + size])]
            case 6:
                if chance.random() < 0.3:
                    del data[at:]
                else:
                    data[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(data)


def changed_leaf(content, chance):
    """`content` (JSON) with one value replaced, dropped or doubled, anywhere in the tree."""
    places = []

    def collect(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                collect(node[key])

    collect(content)
    node, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, list):
            node.append(node[key])
        case _:
            node[key] = chance.choice(LEAVES)
    return content


class Cases:
    """Sound originals in `folder`, and what is done with a mutation of each."""

    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "work"
        self.labelled = faults.write_nyu(folder / "labelled.mat", frames=2)
        self.splits = faults.write_splits(folder / "splits.mat", [1], [2])
        self.grid = folder / "depth_sph_corr-a.mat"
        grid = np.random.default_rng(1).uniform(1, 80, (55, 305, 4))
        savemat(self.grid, {"Position3DGrid": grid}, do_compression=False)
        self.packed_grid = folder / "depth_sph_corr-b.mat"
        savemat(self.packed_grid, {"Position3DGrid": grid}, do_compression=True)
        with h5py.File(self.labelled) as file:
            offset = file.userblock_size
            chunks = [file[n].id.get_chunk_info(i) for n in file if n[0] != "#" for i in self._chunks(file[n])]
            self.data_start = min(c.byte_offset for c in chunks) + offset
            ranges = [(c.byte_offset + offset, c.byte_offset + offset + c.size) for c in chunks]
        # Where HDF5 keeps its own structures; the pixels are most of the file and the least of the danger.
        ends = [0, *(stop for _, stop in sorted(ranges))]
        starts = [*(start for start, _ in sorted(ranges)), self.labelled.stat().st_size]
        self.metadata = [(a, b) for a, b in zip(ends, starts, strict=True) if b > a]
        self.store = folder / "store.zarr"
        self.unfinished = folder / "unfinished.zarr.partial"

    @staticmethod
    def _chunks(dataset):
        return range(dataset.id.get_num_chunks()) if dataset.chunks else ()

    def prepare_stores(self):
        """A finished store, and one that was interrupted."""
        from defocus_sim.convert.run import convert
        from defocus_sim.errors import ConvertError

        if not self.store.exists():
            convert(small_settings(), self.store)

            def stop(done, total):
                if done >= 6:
                    raise ConvertError("stop")

            try:
                convert(small_settings(), self.folder / "unfinished.zarr", workers=1, on_progress=stop)
            except ConvertError:
                assert self.unfinished.exists()

    def run(self, kind, number, seed=SEED):
        """Do one case; raises what it raises."""
        chance = random.Random(f"{kind} {seed} {number}")
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        getattr(self, f"_{kind}")(chance)

    def _labelled(self, chance):
        low, high = (0, None) if chance.random() < 0.15 else chance.choice(self.metadata)
        path = self.work / "labelled.mat"
        path.write_bytes(mutated(self.labelled.read_bytes(), chance, low, high))
        self._read_nyu(path, None, chance.choice(("filled", "raw")))

    def _splits(self, chance):
        path = self.work / "splits.mat"
        path.write_bytes(mutated(self.splits.read_bytes(), chance))
        self._read_nyu(self.labelled, path, None)

    @staticmethod
    def _read_nyu(path, splits, depth):
        from defocus_sim.datasets.nyu import NyuSource

        source = NyuSource(path=path, splits=splits, depth=depth or "filled")
        samples = source.samples()
        if depth is None:
            return
        source.provenance()
        with source.open() as reader:
            for index in range(min(len(samples), 4)):
                frame = reader.read(index)
                assert frame.aif.shape == (427, 561, 3)
                assert frame.depth_m.shape == (427, 561)
                assert np.isfinite(frame.depth_m).all()

    def _grid(self, chance):
        from defocus_sim.datasets.make3d import read_grid

        path = self.work / "depth_sph_corr-a.mat"
        original = chance.choice((self.grid, self.packed_grid)).read_bytes()
        path.write_bytes(mutated(original, chance, 0, chance.choice((200, 300, None))))
        grid = read_grid(path)
        assert grid.shape == (55, 305)
        assert np.isfinite(grid).all()

    def _store(self, chance):
        """A flipped byte anywhere is found, or changes nothing that is read."""
        place = self.work / "store.zarr"
        shutil.copytree(self.store, place)
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        path = chance.choice([place / "zarr.json", *files])
        # The end of a shard is its index.
        size = path.stat().st_size
        low = chance.choice((0, max(0, size - 40)))
        path.write_bytes(mutated(path.read_bytes(), chance, low))
        wanted = self._arrays(self.store)
        for split, batch in self._arrays(place).items():
            assert all((batch[name] == wanted[split][name]).all() for name in batch), "a changed pixel was read"

    def _manifest(self, chance):
        """Values that cannot be, under a checksum that fits."""
        from defocus_sim.shards.manifest import digest

        place = self.work / "store.zarr"
        shutil.copytree(self.store, place)
        root = json.loads((place / "zarr.json").read_bytes())
        manifest = root["attributes"]["dfd"]
        del manifest["checksum"]
        for _ in range(chance.choice((1, 1, 2))):
            changed_leaf(manifest, chance)
        manifest["checksum"] = digest(manifest)
        (place / "zarr.json").write_text(json.dumps(root))
        self._arrays(place)

    @staticmethod
    def _arrays(place):
        from defocus_sim.errors import ShardError
        from defocus_sim.shards.store import open_store, verify_store

        store = open_store(place, check_files=False)
        problems = [problem for _, problem in verify_store(store)]
        batches = {}
        for name in store.split_names:
            split = store.split(name)
            for index in range(len(split)):
                split.lens(index)
            try:
                batches[name] = split.read(range(len(split)))
            except ShardError:
                assert any(problems), "read refuses what verify found sound"
        open_store(place)
        return batches

    def _state(self, chance):
        from defocus_sim.convert.run import convert

        out, place = self.work / "a.zarr", self.work / "a.zarr.partial"
        shutil.copytree(self.unfinished, place)
        path = chance.choice(sorted(p for p in (place / ".markers").iterdir()))
        if chance.random() < 0.5:
            path.write_text(json.dumps(changed_leaf(json.loads(path.read_bytes()), chance)))
        else:
            path.write_bytes(mutated(path.read_bytes(), chance))
        convert(small_settings(), out, resume=True, workers=1)
        assert faults.tree_bytes(out) == faults.tree_bytes(self.store)


def outcome(cases, kind, number, seed=SEED):
    """A word for how the case ended: the name of the error, "sound", or "BUG ..." with the traceback."""
    from defocus_sim.errors import DefocusSimError

    try:
        cases.run(kind, number, seed)
    except DefocusSimError as error:
        return type(error).__name__ if "\n" not in str(error) else f"BUG message of several lines: {error}"
    except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
        return "BUG " + traceback.format_exc(limit=-4)
    return "sound"


def run_batch(kind, first, stop, folder, seed):
    """In the child process: announce and report each case on standard output."""
    # What cases import and what is only loaded once must not count as theirs.
    cases = Cases(Path(folder))
    if kind in ("store", "manifest", "state"):
        import defocus_sim.convert.run

        assert defocus_sim.convert.run
        cases.prepare_stores()
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, now + MEMORY_BYTES))
    for number in range(first, stop):
        print(json.dumps(["begin", number]), flush=True)
        print(json.dumps(["end", number, outcome(cases, kind, number, seed)]), flush=True)
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps(["peak", peak]), flush=True)


def fuzz(kind, count, folder, seed=SEED):
    """{case: outcome} of `count` cases and the peak memory in bytes; a dead or stuck child becomes an outcome."""
    results, peak, first, stop = {}, 0, 0, count
    while first < stop:
        place = Path(folder) / f"{kind}-{first}"
        place.mkdir(parents=True)
        command = [sys.executable, __file__, "--child", "--kind", kind, "--case", str(first), "--stop", str(stop)]
        process = subprocess.Popen(
            [*command, "--folder", str(place), "--seed", str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = queue.Queue()
        reader = threading.Thread(target=lambda p=process, q=lines: [q.put(line) for line in p.stdout] + [q.put(None)])
        reader.start()
        current, stuck = None, False
        while True:
            try:
                line = lines.get(timeout=SECONDS_A_CASE if current is not None else 120)
            except queue.Empty:
                stuck = True
                process.kill()
                continue
            if line is None:
                break
            event, *facts = json.loads(line)
            if event == "begin":
                current = facts[0]
            elif event == "end":
                results[facts[0]] = facts[1]
            else:
                peak = max(peak, facts[0])
        reader.join()
        error = process.communicate()[1]
        shutil.rmtree(place)
        if process.returncode == 0:
            break
        if current is None:
            raise RuntimeError(f"the child did not begin: {error[-2000:]}")
        results.setdefault(current, f"BUG {'hang' if stuck else f'process ended with {process.returncode}'}")
        first = current + 1
    return results, peak


def bugs(results):
    return {number: text for number, text in results.items() if text.startswith("BUG")}


# The whole 2,000 are run by hand (docs/scaling.md says with what result); these run always.
@pytest.mark.parametrize(
    ("kind", "count"),
    [("labelled", 60), ("splits", 80), ("grid", 80), ("store", 30), ("manifest", 80), ("state", 12)],
)
def test_damaged_files_end_in_a_named_error_or_in_nothing(kind, count, tmp_path):
    results, peak = fuzz(kind, count, tmp_path)
    assert sorted(results) == list(range(count))
    assert not bugs(results), "\n".join(f"{kind} {number}: {text}" for number, text in bugs(results).items())
    assert peak < MEMORY_BYTES


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--case", type=int)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--folder")
    options = parser.parse_args()
    if options.child:
        run_batch(options.kind, options.case, options.stop, options.folder, options.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.case is not None:
            cases = Cases(Path(folder))
            cases.prepare_stores()
            print(outcome(cases, options.kind, options.case, options.seed))
            return
        kinds, failed = [options.kind] if options.kind else KINDS, 0
        total = sum(SHARE[kind] for kind in kinds)
        for kind in kinds:
            began = time.monotonic()
            results, peak = fuzz(kind, round(options.count * SHARE[kind] / total), folder, options.seed)
            counts = Counter(text if not text.startswith("BUG") else "BUG" for text in results.values())
            ends = ", ".join(f"{name} {count}" for name, count in counts.most_common())
            seconds = time.monotonic() - began
            print(
                f"{kind:9} seed {options.seed} cases {len(results):5} {seconds:6.1f} s {peak / 2**20:5.0f} MiB: {ends}"
            )
            for number, text in bugs(results).items():
                failed += 1
                print(f"  case {number}: {text}")
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
