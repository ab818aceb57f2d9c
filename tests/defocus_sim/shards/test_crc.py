"""The checksum kernel against google-crc32c, and reading through it, from maps of files and without it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import google_crc32c
import numpy as np
import pytest
from stores import random_arrays, write_store
from torch.utils.data import DataLoader

from defocus_sim.errors import ShardCorruptError
from defocus_sim.shards import crc
from defocus_sim.shards.codec import decode_index, index_bytes
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.store import open_store
from dfd_train.data.stream import ShardDataset

needs_kernel = pytest.mark.skipif(not crc.copies_at_once(crc.LEAST_BYTES), reason="this processor has no such vectors")
# Chunks long enough for the kernel.
HEIGHT, WIDTH = 110, 111


@pytest.fixture(scope="module")
def data():
    made = np.random.default_rng(0).integers(0, 256, 3 * crc.LEAST_BYTES, dtype=np.uint8)
    made.flags.writeable = False
    return made


def test_the_checksum_is_that_of_google(data):
    assert crc.crc32c(b"123456789") == 0xE3069283
    for length in (0, 1, crc.LEAST_BYTES - 1, crc.LEAST_BYTES, crc.LEAST_BYTES + 1, len(data) - 3):
        assert crc.crc32c(data[3 : 3 + length]) == google_crc32c.value(data[3 : 3 + length])
        assert crc.crc32c(data[:length].tobytes()) == google_crc32c.value(data[:length])


@needs_kernel
def test_the_kernel_agrees_at_every_length_and_place(data):
    from defocus_sim.shards import crc_kernel

    for length in range(2100):
        for start in (0, 1, 63):
            part = data[start : start + length]
            assert crc_kernel.crc32c(part) == google_crc32c.value(part)
    assert crc_kernel.crc32c(np.zeros(5000, np.uint8)) == google_crc32c.value(bytes(5000))


def chunk_of(payload):
    return np.concatenate([payload, np.array([google_crc32c.value(payload)], "<u4").view(np.uint8)])


@needs_kernel
@pytest.mark.parametrize("soon", [True, False])
@pytest.mark.parametrize("length", [1, 7, 255, 256, 257, 511, 512, 1023, 1024, 5000])
def test_copying_gives_the_bytes_touches_no_others_and_finds_every_flipped_one(data, length, soon):
    chunks = [chunk_of(data[start : start + length]) for start in (0, 1, 700)]
    around = np.full(3 * length + 200, 9, np.uint8)

    places = np.array([[[chunk.ctypes.data, length, 0, 0]] for chunk in chunks], np.uint64)

    def copy(start, rows=(0, 1, 2)):
        target = np.array([around.ctypes.data + start], np.uint64)
        sound = crc.copy_chunks(np.array(rows), places, np.array([0]), target, np.array([length]), False, soon)
        return [True] * len(rows) if sound is None else sound[:, 0].tolist()

    for start in (64, 65, 127):
        around[:] = 9
        assert copy(start) == [True] * 3
        assert (around[start:][: 3 * length] == np.concatenate([chunk[:-4] for chunk in chunks])).all()
        assert (around[:start] == 9).all()
        assert (around[start + 3 * length :] == 9).all()
    assert copy(3, rows=(-1, 2, 3)) == [False, True, False]
    for place in {*np.linspace(0, length + 3, 40).astype(int).tolist(), *range(length, length + 4)}:
        chunks[1][place] ^= 1 << (place % 8)
        assert copy(place % 100) == [True, False, True]
        chunks[1][place] ^= 1 << (place % 8)
    # A longer one than there is room for.
    places[0, 0, 1] += 1
    assert copy(3) == [False, True, True]


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(3, 7, HEIGHT, WIDTH)


@pytest.fixture(params=["none", "fast", "balanced"])
def plain(tmp_path, arrays, request):
    """A store for a test to damage, each of its samples read once: from now on they come out of maps."""
    split = write_store(tmp_path / "a.zarr", arrays, 3, request.param).split("train")
    split.read(range(7))
    return split


def shard_file(split, array, shard=1):
    return Path(split.storage.url) / ARRAYS[array].shard_name("train", shard)


def test_reading_again_gives_the_same_alone_in_threads_and_beside_what_is_new(plain, arrays):
    order = np.random.default_rng(0).integers(0, 7, 40)
    half_known = open_store(plain.storage.url).split("train")
    half_known.read([0, 4, 5])
    for split in (plain, half_known, plain):
        batch = split.read(order)
        assert all((batch[name] == arrays[name][order]).all() for name in ARRAYS)
    with ThreadPoolExecutor(8) as pool:
        for index, sample in pool.map(lambda i: (i % 7, plain.read([i % 7])), range(200)):
            assert all((sample[name][0] == arrays[name][index]).all() for name in ARRAYS)


@pytest.mark.parametrize("compression", ["none", "fast", "small"])
def test_more_shards_than_may_be_open_are_read_alike_by_many_threads(tmp_path, arrays, compression, monkeypatch):
    monkeypatch.setattr("defocus_sim.shards.open_shards._MOST", 5)
    monkeypatch.setattr("defocus_sim.shards.open_shards._KEPT", 3)
    split = write_store(tmp_path / "a.zarr", arrays, 1, compression).split("train")
    orders = np.random.default_rng(3).integers(0, 7, (300, 3))
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(split.read, orders), strict=True):
            assert all((batch[name] == arrays[name][order]).all() for name in ARRAYS)
    assert len(split._shards.maps.held) <= 5


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_worker_processes_read_what_their_parent_has_mapped(plain, arrays, method):
    dataset = ShardDataset(plain.storage.url)
    for _ in range(2):
        dataset.read(np.arange(7))
    loader = DataLoader(dataset, batch_size=7, num_workers=1, multiprocessing_context=method, timeout=60)
    for _ in range(2):
        (batch,) = list(loader)
        assert all((batch[name].numpy() == arrays[name]).all() for name in ARRAYS)


@pytest.mark.parametrize("array", ARRAYS)
def test_every_flipped_byte_is_found_in_a_chunk_that_was_sound_before(plain, arrays, array):
    path = shard_file(plain, array)
    begin, length = decode_index(np.frombuffer(path.read_bytes()[-index_bytes(3) :], np.uint8), 3, 2**40)[1].tolist()
    end = begin + length
    for offset in {*np.linspace(begin, end - 1, 30).astype(int).tolist(), *range(end - 4, end)}:
        faults.flip_byte(path, offset)
        with pytest.raises(ShardCorruptError, match=rf"shard 1 of train/{array}.*sample 4 .*CRC-32C"):
            plain.read([3, 4, 5], fields=(array,))
        faults.flip_byte(path, offset)
    assert (plain.read([3, 4, 5], fields=(array,))[array] == arrays[array][3:6]).all()


@pytest.mark.parametrize("array", ARRAYS)
def test_a_mapped_file_that_shrinks_is_an_error_not_a_crash(plain, array):
    plain.read([3, 4], fields=(array,))
    faults.truncate(shard_file(plain, array), 0.1)
    with pytest.raises(ShardCorruptError, match=rf"train/{array}.*sample 5"):
        plain.read([5], fields=(array,))


@pytest.mark.parametrize(
    "setting", [{}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_ENABLE_AVX": "0"}, {"NUMBA_DISABLE_JIT": "1"}]
)
def test_a_processor_without_wide_vectors_reads_the_same_and_finds_the_same(tmp_path, arrays, setting):
    for name in ("none", "balanced"):
        store = write_store(tmp_path / name, arrays, 3, name)
        faults.flip_byte(shard_file(store.split("train"), "aif"), 5000)
    np.save(tmp_path / "wanted.npy", arrays["aif"])
    code = """
import sys
import numpy as np
from defocus_sim.errors import ShardCorruptError
from defocus_sim.shards.store import open_store
wanted = np.load("wanted.npy")
for name in ("none", "balanced"):
    split = open_store(name).split("train")
    for _ in range(3):
        assert (split.read([6, 0, 4])["aif"] == wanted[[6, 0, 4]]).all()
        try:
            split.read([2, 3])
        except ShardCorruptError as error:
            print(error)
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | setting
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert all("sample 3 (frame-3) is damaged" in line for line in lines)


def test_short_chunks_do_not_import_numba(tmp_path):
    write_store(tmp_path / "a.zarr", random_arrays(1, 7, 12, 18), 3, "none")
    code = """
import sys
from defocus_sim.shards.store import open_store
for _ in range(2):
    open_store("a.zarr").split("train").read(range(7))
print("numba" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "False\n"


def test_nothing_is_read_where_nothing_is_asked_for(plain):
    for _ in range(2):
        assert plain.read([])["aif"].shape == (0, HEIGHT, WIDTH, 3)


@needs_kernel
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say which pages are resident")
def test_only_of_a_store_that_is_not_compressed_do_pages_stay_resident(plain):
    for _ in range(3):
        plain.read(range(7))
    kilobytes, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:
            inside = plain.storage.url in line
        elif inside and name == "Rss":
            kilobytes += int(rest.split()[0])
    assert (kilobytes > 0) == (plain.manifest.compression == "none")


def test_a_file_system_without_maps_is_read_all_the_same(plain, arrays, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(19, "No such device")

    monkeypatch.setattr("defocus_sim.shards.storage.mmap.mmap", refuse)
    for _ in range(2):
        assert all((plain.read([6, 1])[name] == arrays[name][[6, 1]]).all() for name in ARRAYS)
