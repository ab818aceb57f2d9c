"""Reading chunk by chunk: the same alone, in threads and in forked processes; damage and shortened files have a name."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import google_crc32c
import numpy as np
import pytest
from stores import random_arrays, write_store
from torch.utils.data import DataLoader

from defocus_sim.errors import ShardCorruptError
from defocus_sim.shards.codec import decode_index, encode_chunk, index_bytes
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.store import open_store
from dfd_train.data.stream import ShardDataset

HEIGHT, WIDTH = 110, 111


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(3, 7, HEIGHT, WIDTH)


@pytest.fixture(params=["none", "fast", "balanced"])
def plain(tmp_path, arrays, request):
    """A store for a test to damage, each of its samples read once."""
    split = write_store(tmp_path / "a.zarr", arrays, 3, request.param).split("train")
    split.read(range(7))
    return split


def shard_file(split, array, shard=1):
    return Path(split.storage.url) / ARRAYS[array].shard_name("train", shard)


def test_the_checksum_of_a_chunk_is_that_of_another_implementation(arrays):
    chunk = encode_chunk(arrays["aif"][0], None)
    assert google_crc32c.value(chunk[:-4]) == int.from_bytes(chunk[-4:], "little")


def test_reading_again_gives_the_same_alone_and_in_threads(plain, arrays):
    order = np.random.default_rng(0).integers(0, 7, 40)
    for split in (plain, open_store(plain.storage.url).split("train")):
        batch = split.read(order)
        assert all((batch[name] == arrays[name][order]).all() for name in ARRAYS)
    with ThreadPoolExecutor(8) as pool:
        for index, sample in pool.map(lambda i: (i % 7, plain.read([i % 7])), range(200)):
            assert all((sample[name][0] == arrays[name][index]).all() for name in ARRAYS)
    assert plain.read([])["aif"].shape == (0, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("compression", ["none", "fast", "small"])
def test_more_shards_than_may_be_open_are_read_alike_by_many_threads(tmp_path, arrays, compression, monkeypatch):
    monkeypatch.setattr("defocus_sim.shards.open_shards._MOST", 5)
    monkeypatch.setattr("defocus_sim.shards.open_shards._KEPT", 3)
    split = write_store(tmp_path / "a.zarr", arrays, 1, compression).split("train")
    orders = np.random.default_rng(3).integers(0, 7, (300, 3))
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(split.read, orders), strict=True):
            assert all((batch[name] == arrays[name][order]).all() for name in ARRAYS)
    assert len(os.listdir("/proc/self/fd")) <= before + 5


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_worker_processes_read_what_their_parent_has_open(plain, arrays, method):
    dataset = ShardDataset(plain.storage.url)
    dataset.read(np.arange(7))
    loader = DataLoader(dataset, batch_size=7, num_workers=1, multiprocessing_context=method, timeout=60)
    for _ in range(2):
        (batch,) = list(loader)
        assert all((batch[name].numpy() == arrays[name]).all() for name in ARRAYS)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_forked_while_other_threads_open_and_read_shards_do_not_wait_for_ever(plain, arrays, monkeypatch):
    monkeypatch.setattr("defocus_sim.shards.open_shards._MOST", 2)
    monkeypatch.setattr("defocus_sim.shards.open_shards._KEPT", 1)
    dataset, stop = ShardDataset(plain.storage.url), threading.Event()

    def read():
        while not stop.is_set():
            dataset.read(np.array([0, 6, 3]))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                found = dataset.read(np.array([6, 0]))
                os._exit(7 if (found.aif.numpy() == arrays["aif"][[6, 0]]).all() else 1)
            assert exit_code(child) == 7
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def exit_code(child):
    """Of a child that ends within 20 seconds; another one is ended."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


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
def test_a_shard_that_shrinks_is_an_error_not_a_crash(plain, array):
    plain.read([3, 4], fields=(array,))
    faults.truncate(shard_file(plain, array), 0.1)
    with pytest.raises(ShardCorruptError, match=rf"train/{array}.* bytes where .* were written"):
        plain.read([5], fields=(array,))


READ_UNTIL_IT_FAILS = """
import sys, threading
from defocus_sim.errors import ShardError
from defocus_sim.shards.store import open_store

split = open_store(sys.argv[1]).split("train")
def read():
    try:
        for _ in range(10**6):
            split.read([3, 4, 5])
    except ShardError as error:
        sys.stdout.write(f"{error}\\n")
threads = [threading.Thread(target=read) for _ in range(2)]
print("reading", flush=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_process_whose_shards_are_shortened_while_it_reads_ends_with_a_name(plain):
    for share in (0.6, 0.3, 0.0):
        kept = shard_file(plain, "aif").read_bytes()
        command = [sys.executable, "-c", READ_UNTIL_IT_FAILS, plain.storage.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "reading\n"
            time.sleep(0.1)
            faults.truncate(shard_file(plain, "aif"), share)
            out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert len(out.splitlines()) == 2
        assert all("shard 1 of train/aif" in line for line in out.splitlines())
        shard_file(plain, "aif").write_bytes(kept)
