"""A store under a prefix of an object store, or on a web server, by fsspec."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO

from defocus_sim.errors import ShardError, StorageTimeoutError
from defocus_sim.shards.storage.base import TEMPORARY_SUFFIX, RangeReader, Storage, Version

# What the clients of object stores call that which differs between two objects of one name.
_FACTS = (
    "ETag", "etag", "generation", "md5", "Content-MD5", "content_md5", "Digest",
    "mtime", "created", "LastModified", "last_modified", "Last-Modified", "updated",
)  # fmt: skip
# A network slower than that is taken for one that hangs.
_SLOWEST_BYTES_PER_S = 1e6
# Of one attempt; the client tries again, which a connection that was cut deserves.
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5, 10


def _timeout_s() -> float:
    """Seconds that an object store has to answer; raises `ShardError` for an impossible value in the environment."""
    text = os.environ.get("DFD_STORAGE_TIMEOUT_S", "25")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ShardError(f"DFD_STORAGE_TIMEOUT_S={text} is not a number of seconds above 0")
    return seconds


def client_options(url: str) -> dict[str, Any]:
    """What the client of an fsspec URL is made with."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {"connect_timeout": _CONNECT_TIMEOUT_S, "read_timeout": _READ_TIMEOUT_S}
    return options


def _filesystem(url: str) -> tuple[Any, str]:
    """The client of an fsspec URL, and the path in it."""
    import fsspec

    return fsspec.core.url_to_fs(url, **client_options(url))


# Web servers answer for one file at a time, some with a page of links in place of a listing, without sizes.
_WEB = ("http://", "https://")
_LOOKUPS_AT_ONCE = 16


class ObjectStorage(Storage):
    """A prefix of an object store, by an fsspec URL such as `s3://bucket/nyu.zarr`, or of a web server, to read only.

    Credentials come from the environment of each process (as the store's own client finds them) and are kept nowhere.
    What fails is tried again until it is done, refused, or `DFD_STORAGE_TIMEOUT_S` (25 seconds) are over, and a second more
    for each MB; then `StorageTimeoutError` is raised.
    """

    renames = False

    @property
    def lists(self) -> bool:
        """Whether it can say what is there, and be written to; of a web server the names of files must be known."""
        return not self.url.lower().startswith(_WEB)

    def __init__(self, url: str) -> None:
        if "@" in url.split("://", 1)[1].split("/", 1)[0]:
            raise ShardError("a URL with credentials is refused: put them into the environment")
        self.url = url.rstrip("/")
        try:
            self._client, self._root = _filesystem(self.url)
            self._process = os.getpid()
        except (ImportError, ValueError) as error:
            raise ShardError(
                f"{self.url} cannot be used ({error}); S3 and HTTP need: pip install 'dfd-toolkit[s3]'"
            ) from error

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[str]]:
        return ObjectStorage, (self.url,)

    @property
    def _fs(self) -> Any:
        """The client; a new one after a fork (workers of a torch `DataLoader`), which clients do not survive."""
        if self._process != os.getpid():
            self._client, self._root = _filesystem(self.url)
            self._process = os.getpid()
        return self._client

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _call(self, what: str, method: str, *given: Any, size: int = 0, **options: Any) -> Any:
        """A method of the client, whose errors of its own kinds each become an `OSError` saying that `what` failed.

        `size`: bytes that it is to move, for the time limit.
        """
        limit_s = _timeout_s() + size / _SLOWEST_BYTES_PER_S
        # Of a client without a network there is none.
        if getattr(self._fs, "async_impl", False):
            options["timeout"] = limit_s
        try:
            return getattr(self._fs, method)(*given, **options)
        except FileNotFoundError:
            raise
        except TimeoutError as error:
            raise StorageTimeoutError(
                f"{what} failed: no answer within {limit_s:.0f} s (DFD_STORAGE_TIMEOUT_S sets another limit)"
            ) from error
        except Exception as error:
            raise OSError(f"{what} failed: {type(error).__name__}: {error}") from error

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        content: bytes = self._call(f"reading {self.describe(name)}", "cat_file", self._path(name))
        return content

    def write(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        self._call(f"writing {self.describe(name)}", "pipe_file", self._path(name), content, size=len(content))

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """See `Storage`. The shard is gathered in a local temporary file, so that no unfinished upload is left behind."""
        with tempfile.NamedTemporaryFile(prefix="dfd-", suffix=TEMPORARY_SUFFIX) as stream:
            yield stream  # type: ignore[misc]
            stream.flush()
            what, size = f"writing {self.describe(name)}", os.path.getsize(stream.name)
            self._call(what, "put_file", stream.name, self._path(name), size=size)

    def facts(self, name: str) -> dict[str, Any]:
        """What the store says of an object."""
        found: dict[str, Any] = self._call(f"looking up {self.describe(name)}", "info", self._path(name))
        return found

    def version(self, name: str) -> Version:
        """See `Storage`."""
        found = self.facts(name)
        told = tuple(str(found[fact]) for fact in _FACTS if found.get(fact) is not None)
        return (found.get("size"), *told) if told else None

    def sizes(self) -> dict[str, int]:
        """See `Storage`. Nothing of a web server."""
        if not self.lists:
            return {}
        try:
            found = self._call(f"listing {self.url}", "find", self._root, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._fs._strip_protocol(self._root)) + 1
        return {path[start:]: int(facts["size"]) for path, facts in found.items()}

    def sizes_of(self, names: Iterable[str]) -> dict[str, int]:
        """See `Storage`."""
        if self.lists:
            return super().sizes_of(names)

        def size(name: str) -> int | None:
            try:
                told = self.facts(name)["size"]
                # Some servers do not tell.
                return len(self.read(name)) if told is None else int(told)
            except FileNotFoundError:
                return None

        wanted = list(names)
        with ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "look up") as pool:
            return {
                name: found for name, found in zip(wanted, pool.map(size, wanted), strict=True) if found is not None
            }

    def reader(self, name: str) -> RangeReader:
        """See `Storage`."""
        return _RemoteFile(self, name)

    def remove(self, name: str = "") -> None:
        """See `Storage`."""
        path = self._path(name)
        if self._call(f"looking up {self.describe(name)}", "exists", path):
            self._call(f"removing {self.describe(name)}", "rm", path, recursive=True)


class _RemoteFile(RangeReader):
    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage, self._name = storage, name

    def size(self) -> int:
        """See `RangeReader`."""
        return int(self._storage.facts(self._name)["size"])

    def read_at(self, offset: int, length: int) -> bytes:
        storage, path = self._storage, self._storage._path(self._name)
        what, part = f"reading {storage.describe(self._name)}", {"start": offset, "end": offset + length}
        data: bytes = storage._call(what, "cat_file", path, size=length, **part)
        # A web server that knows no ranges sends the whole file.
        return data[offset : offset + length] if len(data) > length else data
