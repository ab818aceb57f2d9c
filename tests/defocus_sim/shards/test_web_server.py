"""A store behind plain HTTP: read and verified whatever the server can do, never written to."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from sources import SmoothSource, small_settings

from defocus_sim.convert.run import convert
from defocus_sim.convert.state import ConversionState
from defocus_sim.errors import ConvertError, ShardCorruptError, ShardMissingError, ShardReplacedError
from defocus_sim.shards.store import open_store, verify_store


class Quiet(SimpleHTTPRequestHandler):
    """Python's own server: whole files, and pages of links."""

    def log_message(self, *args):
        pass


class WithoutListings(Quiet):
    """As most web servers are set up: no pages of links, and parts of files."""

    def list_directory(self, path):
        self.send_error(403)

    def do_GET(self):
        span = self.headers.get("Range")
        if span is None:
            return super().do_GET()
        with open(self.translate_path(self.path), "rb") as stream:
            content = stream.read()
        first, last = span.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None


@pytest.fixture(params=[Quiet, WithoutListings])
def served(request, tmp_path):
    store = convert(small_settings(), tmp_path / "s.zarr").store
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(request.param, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield store, f"http://127.0.0.1:{server.server_port}/s.zarr"
    server.shutdown()
    server.server_close()


def test_a_store_on_a_web_server_is_read_and_verified(served):
    store, url = served
    remote = open_store(url)
    for split in store.split_names:
        ours, theirs = (one.split(split).read(range(len(one.split(split)))) for one in (store, remote))
        for name, array in ours.items():
            np.testing.assert_array_equal(theirs[name], array)
    assert all(problem is None for _, problem in verify_store(remote))


def test_what_is_missing_or_short_there_is_named(served):
    store, url = served
    record = next(iter(store.records()))
    path = store.storage.root / record.name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ShardCorruptError, match=record.where):
        open_store(url)
    path.unlink()
    with pytest.raises(ShardMissingError, match=record.where):
        open_store(url)
    with pytest.raises(ShardMissingError, match="is not there"):
        open_store(url.replace("s.zarr", "other.zarr"))


@pytest.mark.parametrize("dated", [True, False])
def test_a_store_that_is_replaced_there_is_named(served, tmp_path, monkeypatch, dated):
    if not dated:
        monkeypatch.setattr(Quiet, "send_header", without_dates)
    split = open_store(served[1]).split("train")
    split.read([0])
    place = served[0].storage.root
    place.rename(tmp_path / "before.zarr")
    convert(small_settings(source=SmoothSource(kind_of="other")), place)
    os.utime(place / "zarr.json", (0, 0))
    with pytest.raises(ShardReplacedError, match="was replaced"):
        split.read([0])


def without_dates(self, name, value):
    if name != "Last-Modified":
        SimpleHTTPRequestHandler.send_header(self, name, value)


def test_nothing_is_written_to_a_web_server(served):
    with pytest.raises(ConvertError, match="can be read but not written"):
        ConversionState(served[1].replace("s.zarr", "new.zarr"))
