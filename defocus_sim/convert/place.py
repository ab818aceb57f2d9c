"""Where a store is built, and how it gets its name: an earlier one gives way by one rename, never file by file.

Of two commands at work on one place, the later one has it: it renames what the earlier one built, whose tasks then find
that they are no longer wanted. A lock on the folder, which ends with its process, orders these moments.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from defocus_sim.errors import ConvertError
from defocus_sim.shards.storage import ObjectStorage, Storage, storage_at

# What an earlier store is called between the moment that it gives way and its removal.
REPLACED_SUFFIX = ".replaced"


def target_storage(out: str | Path) -> Storage:
    """The storage at `out`; what a link points to, so that a store can be renamed into its place.

    Raises `ConvertError` for a web server.
    """
    storage = storage_at(out)
    if isinstance(storage, ObjectStorage) and not storage.lists:
        raise ConvertError(f"{out} is on a web server, where stores can be read but not written: choose another --out")
    return storage_at(os.path.realpath(out)) if storage.renames and os.path.islink(out) else storage


@contextmanager
def locked_folder_of(place: str) -> Iterator[None]:
    """No other process is in such a block for a place in the same folder; without effect where locks do not exist."""
    folder = Path(place).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Some network file systems have none.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def restore_replaced(final: Storage) -> None:
    """Give an earlier store its name back where a command was killed between the two renames of `replace_folder`."""
    kept = Path(final.url + REPLACED_SUFFIX)
    if kept.is_dir() and not Path(final.url).exists():
        with suppress(FileNotFoundError):
            kept.rename(final.url)


def set_aside(folder: Path) -> Path:
    """Rename `folder`, if it is there, to a name that nobody else looks at; returns that, to be removed afterwards."""
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:12]}{REPLACED_SUFFIX}")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    return aside


def replace_folder(new: Path, old: Path) -> None:
    """Give the folder `new` the name of `old`; an earlier one is then what `remove_replaced` removes."""
    kept = old.with_name(old.name + REPLACED_SUFFIX)
    if old.exists():
        # Left by a command that was killed while it removed it.
        storage_at(kept).remove()
        old.rename(kept)
    new.rename(old)


def remove_replaced(final: Storage) -> None:
    """Remove what gave way to the store `final`, also what killed commands have left of it."""
    path = Path(final.url)
    for folder in path.parent.iterdir():
        name = folder.name
        if name.startswith(path.name + ".") and name.endswith(REPLACED_SUFFIX):
            storage_at(folder).remove()


def check_apart(out: str | Path, inputs: Iterable[str | Path], *, staged: bool) -> None:
    """Raise `ConvertError` where writing `out` would change what is still to be read, `inputs` (paths or URLs).

    `staged`: whether the result is built elsewhere and read completely before it takes the place of an input.
    """
    target = _canonical(out)
    for place in inputs:
        source = _canonical(place)
        if source == target:
            if not (staged and storage_at(out).renames):
                raise ConvertError(
                    f"{out} is among the inputs: it cannot be read and replaced at once, choose another --out"
                )
        elif source.startswith(target + "/") or (staged and target.startswith(source + "/")):
            inside = (
                f"{place} lies inside of {out}" if source.startswith(target + "/") else f"{out} lies inside of {place}"
            )
            raise ConvertError(f"{inside}: choose another --out")


def _canonical(place: str | Path) -> str:
    """One spelling for each place, by which two can be compared."""
    text = str(place)
    if "://" not in text:
        return os.path.realpath(text)
    protocol, _, rest = text.partition("://")
    protocol = {"s3a": "s3", "gs": "gcs"}.get(protocol.lower(), protocol.lower())
    return f"{protocol}://" + "/".join(part for part in rest.split("/") if part)
