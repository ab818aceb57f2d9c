"""Stores in object storage: against a real S3 server in a process of its own, on loopback; and in memory."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import faults
import numpy as np
import pytest
import s3fs
from sources import SmoothSource, small_settings

from defocus_sim.convert.run import Workers, convert
from defocus_sim.errors import (
    ConversionInterruptedError,
    ConvertError,
    ShardCorruptError,
    ShardError,
    ShardMissingError,
    ShardReplacedError,
)
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.storage import storage_at
from defocus_sim.shards.store import open_store, verify_store

SECRET = "wJalrXUtnFEMIK7MDENG-not-to-be-seen"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def s3_server():
    """The process of an S3 server and its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield process, address
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server():
    """The address of a server that lives as long as this module's tests."""
    with s3_server() as (_, address):
        yield address


@pytest.fixture(scope="module")
def cloud(server):
    """Environment of a user of the server, as the only way in; gives a raw client."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": server,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        client = s3fs.S3FileSystem(use_listings_cache=False)
        client.mkdir("bucket")
        yield client


@pytest.fixture(scope="module")
def remote_store(cloud):
    """A finished store of ten small frames; not to be changed by a test."""
    return convert(small_settings(), "s3://bucket/small.zarr").store


@pytest.fixture
def place(cloud, request):
    """A URL that no other test uses."""
    return f"s3://bucket/{abs(hash(request.node.nodeid))}.zarr"


def objects(client, url):
    root = url.removeprefix("s3://")
    return {path.removeprefix(root + "/"): client.cat_file(path) for path in client.find(root)}


def copied(client, url, target):
    """`url` copied to `target`, for a test that damages it."""
    for name, content in objects(client, url).items():
        client.pipe_file(f"{target.removeprefix('s3://')}/{name}", content)
    return target


def interrupt_from(samples):
    sent = []

    def on_progress(done, total):
        if done >= samples and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))

    return on_progress


def test_every_object_is_the_local_file_and_nothing_else_is_there(remote_store, small_store, cloud):
    assert objects(cloud, remote_store.url) == faults.tree_bytes(small_store.url)


def test_no_secret_is_stored(remote_store, cloud):
    stored = b"".join(objects(cloud, remote_store.url).values())
    for word in (SECRET, "test-key", "127.0.0.1"):
        assert word.encode() not in stored


def test_reading_gives_the_same_arrays_from_threads_and_after_pickling(remote_store, small_store):
    for name in ("train", "test"):
        ours, theirs = open_store(remote_store.url).split(name), small_store.split(name)
        order = np.random.default_rng(3).permutation(len(theirs))
        wanted = theirs.read(order)
        with ThreadPoolExecutor(4) as pool:
            for row, sample in enumerate(pool.map(lambda i, s=ours: s.read([i]), order)):
                assert all((sample[array][0] == wanted[array][row]).all() for array in ARRAYS)
        copy = pickle.loads(pickle.dumps(ours))
        assert SECRET.encode() not in pickle.dumps(ours)
        assert all((copy.read(order)[array] == wanted[array]).all() for array in ARRAYS)
    assert all(problem is None for _, problem in verify_store(remote_store))


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_training_reads_the_same_batches(remote_store, small_store, method):
    import warnings

    from torch.utils.data import DataLoader

    from dfd_train.data.stream import ShardDataset

    wanted = small_store.split("train").read(range(6))
    dataset = ShardDataset(remote_store.url)
    dataset[0]
    options = {} if method is None else {"num_workers": 1, "multiprocessing_context": method}
    with warnings.catch_warnings():
        # Forking a process with threads is what torch does by default.
        warnings.simplefilter("ignore", DeprecationWarning)
        batches = list(DataLoader(dataset, batch_size=3, timeout=60 if method else 0, **options))
    for array in ARRAYS:
        found = np.concatenate([batch[array].numpy() for batch in batches])
        assert (found == wanted[array]).all()


def test_an_interrupted_conversion_resumes_to_the_same_bytes(place, cloud, small_store):
    with pytest.raises(ConversionInterruptedError, match=r"of 5 shards are kept, continue with --resume"):
        convert(small_settings(), place, workers=1, on_progress=interrupt_from(5))
    with pytest.raises(ShardMissingError, match="--resume"):
        open_store(place)
    with pytest.raises(ConvertError, match="--resume"):
        convert(small_settings(), place)
    with pytest.raises(ConvertError, match="other settings"):
        convert(small_settings(seed=3), place, resume=True)
    done = []
    convert(small_settings(), place, resume=True, on_progress=lambda d, t: done.append(d))
    assert done[0] >= 2
    assert objects(cloud, place) == faults.tree_bytes(small_store.url)


def test_an_interrupt_before_the_first_shard_leaves_no_object(place, cloud):
    with pytest.raises(ConversionInterruptedError, match="nothing is left"):
        settings = small_settings(source=SmoothSource(hw=(480, 640)), samples_per_shard=10)
        convert(settings, place, workers=1, on_progress=interrupt_from(1))
    assert objects(cloud, place) == {}


def test_an_existing_store_is_replaced_only_when_asked(remote_store, cloud, place):
    copied(cloud, remote_store.url, place)
    before = objects(cloud, place)
    with pytest.raises(ConvertError, match="exists already: replace it with --overwrite"):
        convert(small_settings(seed=1), place)
    assert objects(cloud, place) == before
    convert(small_settings(compression="none", samples_per_shard=3), place, overwrite=True)
    assert open_store(place).manifest.compression == "none"
    assert not [name for name in objects(cloud, place) if ".markers" in name or "/c/3/" in name]
    convert(small_settings(compression="none", samples_per_shard=3), place, resume=True)


def test_a_store_that_is_replaced_while_it_is_read_is_named(remote_store, cloud, place):
    split = open_store(copied(cloud, remote_store.url, place)).split("train")
    wanted = split.read(range(6))
    copied(cloud, remote_store.url, place)
    assert all((split.read([4])[name][0] == wanted[name][4]).all() for name in ARRAYS)
    convert(small_settings(source=SmoothSource(kind_of="other")), place, overwrite=True)
    for index in (0, 5):
        with pytest.raises(ShardReplacedError, match="was replaced"):
            split.read([index])


def test_a_prefix_of_something_else_is_never_replaced(cloud, place):
    cloud.pipe_file(f"{place.removeprefix('s3://')}/thesis.tex", b"precious")
    for option in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConvertError, match="left alone"):
            convert(small_settings(), place, **option)
    assert objects(cloud, place) == {"thesis.tex": b"precious"}


def test_a_neighbour_with_the_same_beginning_is_not_touched(remote_store, cloud, place):
    copied(cloud, remote_store.url, place + "2")
    convert(small_settings(), place)
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(seed=1), place, overwrite=True, workers=1, on_progress=interrupt_from(1))
    assert objects(cloud, place + "2") == objects(cloud, remote_store.url)


def test_worker_processes_write_the_same_objects(place, cloud, small_store):
    convert(small_settings(), place, workers=Workers(count=2, processes=True))
    assert objects(cloud, place) == faults.tree_bytes(small_store.url)


@pytest.mark.parametrize("array", ARRAYS)
class TestDamage:
    def test_a_missing_or_short_object_is_found_when_opening(self, remote_store, cloud, place, array):
        copied(cloud, remote_store.url, place)
        path = f"{place.removeprefix('s3://')}/{ARRAYS[array].shard_name('train', 1)}"
        content = cloud.cat_file(path)
        cloud.pipe_file(path, content[:-20])
        with pytest.raises(ShardCorruptError, match=rf"shard 1 of train/{array}"):
            open_store(place)
        cloud.pipe_file(path, b"")
        with pytest.raises(ShardCorruptError, match="has 0 bytes"):
            open_store(place)
        cloud.rm_file(path)
        with pytest.raises(ShardMissingError, match=rf"shard 1 of train/{array}"):
            open_store(place)

    def test_a_changed_byte_is_found_when_reading(self, remote_store, cloud, place, array):
        copied(cloud, remote_store.url, place)
        path = f"{place.removeprefix('s3://')}/{ARRAYS[array].shard_name('train', 1)}"
        content = bytearray(cloud.cat_file(path))
        content[30] ^= 0xFF
        cloud.pipe_file(path, bytes(content))
        with pytest.raises(ShardCorruptError, match=rf"shard 1 of train/{array}.*sample 2"):
            open_store(place).split("train").read([2])
        damaged = [record.name for record, problem in verify_store(open_store(place)) if problem]
        assert damaged == [ARRAYS[array].shard_name("train", 1)]

    def test_an_object_that_goes_while_it_is_read_is_an_error(self, remote_store, cloud, place, array):
        split = open_store(copied(cloud, remote_store.url, place)).split("train")
        split.read([2], fields=(array,))
        cloud.rm_file(f"{place.removeprefix('s3://')}/{ARRAYS[array].shard_name('train', 1)}")
        with pytest.raises((ShardCorruptError, ShardMissingError), match=rf"train/{array}"):
            split.read([3], fields=(array,))


def test_a_damaged_manifest_is_named(remote_store, cloud, place):
    copied(cloud, remote_store.url, place)
    path = f"{place.removeprefix('s3://')}/zarr.json"
    content = json.loads(cloud.cat_file(path))
    content["attributes"]["dfd"]["settings"] = "0"
    cloud.pipe_file(path, json.dumps(content).encode())
    with pytest.raises(ShardCorruptError, match="own checksum"):
        open_store(place)
    cloud.pipe_file(path, b"{")
    with pytest.raises(ShardCorruptError, match="JSON"):
        open_store(place)


def test_commands_read_a_store_at_a_url(remote_store, run_command, tmp_path):
    info = run_command("dfd-prepare", "info", remote_store.url, cwd=tmp_path)
    assert info.returncode == 0, info.stderr
    assert "6 train, 4 test samples of 48x40" in info.stdout
    verify = run_command("dfd-prepare", "verify", remote_store.url, cwd=tmp_path)
    assert "all 15 shard files are as they were written" in verify.stdout
    preview = run_command("dfd-prepare", "preview", remote_store.url, cwd=tmp_path)
    assert preview.returncode == 0, preview.stderr
    assert (tmp_path / "small_contact_sheet.png").is_file()


def one_line(result):
    """The only line of a refusal; it holds no secret."""
    assert result.returncode == 2, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert SECRET not in lines[0]
    return lines[0]


SYNTHETIC = ("synthetic", "--count", "2", "--size", "64x48")
FAULTS = {
    "no bucket": ({}, "s3://no-such-bucket/a.zarr", ["no-such-bucket"]),
    "no server": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://bucket/a.zarr", ["127.0.0.1:9"]),
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        "s3://bucket/a.zarr",
        ["redentials"],
    ),
    "unknown protocol": ({}, "gopher://bucket/a.zarr", ["gopher"]),
    "secret in the URL": ({}, f"s3://key:{SECRET}@bucket/a.zarr", ["credentials", "environment"]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["convert", "info"])
def test_a_store_out_of_reach_is_one_line_without_a_secret(cloud, run_command, tmp_path, command, fault):
    changes, url, words = FAULTS[fault]
    environment = {name: value for name, value in (os.environ | changes).items() if value is not None}
    environment["HOME"] = str(tmp_path)
    arguments = ["info", url] if command == "info" else [*SYNTHETIC, "--out", url]
    line = one_line(run_command("dfd-prepare", *arguments, env=environment, timeout=60, cwd=tmp_path))
    if (command, fault) != ("info", "no bucket"):
        assert any(word in line for word in words), line


def test_rejected_credentials_are_one_line_without_a_secret(cloud, server, run_command, tmp_path):
    """The server looks at signatures from the first request after this call on, until it is told otherwise."""

    def check_after(requests):
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{server}/moto-api/reset-auth", str(requests).encode(), headers)
        urllib.request.urlopen(request, timeout=10).close()

    check_after(0)
    try:
        for arguments in (["info", "s3://bucket/small.zarr"], [*SYNTHETIC, "--out", "s3://bucket/b.zarr"]):
            line = one_line(run_command("dfd-prepare", *arguments, timeout=60, cwd=tmp_path))
            assert "s3://bucket" in line
    finally:
        check_after("inf")


def test_a_server_that_dies_during_a_conversion_is_named_and_nothing_opens(tmp_path, cloud):
    """A second server, killed after the first shards; the message says what failed."""
    with s3_server() as (process, address), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(use_listings_cache=False).mkdir("bucket")

        def kill(done, total):
            if done == 5:
                process.kill()

        with pytest.raises(ConvertError, match=r"s3://bucket/a\.zarr.*(failed|Endpoint)") as caught:
            convert(small_settings(), "s3://bucket/a.zarr", workers=1, on_progress=kill)
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_in_memory_is_the_same(small_store):
    store = convert(small_settings(), "memory://somewhere/a.zarr").store
    storage = storage_at(store.url)
    assert {name: storage.read(name) for name in storage.sizes()} == faults.tree_bytes(small_store.url)
    with pytest.raises(ShardMissingError):
        open_store("memory://somewhere/b.zarr")
    with pytest.raises(ShardError, match="credentials"):
        open_store(f"s3://key:{SECRET}@bucket/a.zarr")


def test_a_secret_in_a_url_is_not_repeated():
    with pytest.raises(ShardError) as caught:
        storage_at(f"s3://key:{SECRET}@bucket/a.zarr")
    assert SECRET not in str(caught.value)
    assert not Path("s3:").exists()
