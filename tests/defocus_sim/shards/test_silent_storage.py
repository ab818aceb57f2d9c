"""An object store that hangs, resets or cuts is named within a minute, by every command that reads or writes one."""

import os
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest
import s3fs
from sources import small_settings

from defocus_sim.convert.merge import merge
from defocus_sim.convert.run import convert
from defocus_sim.errors import ShardError, StorageTimeoutError
from defocus_sim.shards.store import open_store

KINDS = ("hang", "reset", "cut")


class BadServer:
    """Takes every connection and treats it badly."""

    def __init__(self, kind):
        self._kind, self._socket, self._kept = kind, socket.create_server(("127.0.0.1", 0)), []
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._kind == "hang":
                self._kept.append(connection)
                continue
            with connection, suppress(OSError):
                if self._kind == "cut":
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                # With a linger of 0, closing is a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self):
        # Wakes the thread, which closing alone does not.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for connection in (self._socket, *self._kept):
            connection.close()


@pytest.fixture(params=KINDS)
def bad_server(request, monkeypatch):
    server = BadServer(request.param)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_ENDPOINT_URL": server.address,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "DFD_STORAGE_TIMEOUT_S": "3",
    }.items():
        monkeypatch.setenv(name, value)
    # A client remembers the address that it was made with.
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.close()


def test_a_bad_store_is_named_in_time(bad_server, small_store, tmp_path):
    url = f"s3://bucket-{bad_server.address.rpartition(':')[2]}/a.zarr"
    for work in (
        lambda: open_store(url),
        lambda: convert(small_settings(), url, overwrite=True),
        lambda: merge([small_store.url, url], tmp_path / "out.zarr"),
        lambda: merge([small_store.url, small_store.url], url),
    ):
        began = time.monotonic()
        with pytest.raises((ShardError, RuntimeError), match="bucket-"):
            work()
        # Three seconds an attempt, twice at most, and what a loaded machine adds.
        assert time.monotonic() - began < 15
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "soon", "-1", "inf", "nan"])
def test_an_impossible_time_limit_is_named(value, monkeypatch):
    monkeypatch.setenv("DFD_STORAGE_TIMEOUT_S", value)
    with pytest.raises(ShardError, match=f"DFD_STORAGE_TIMEOUT_S={value}"):
        open_store("memory://nothing")


def test_the_error_is_what_its_callers_expect():
    assert issubclass(StorageTimeoutError, ShardError)
    assert issubclass(StorageTimeoutError, TimeoutError)
