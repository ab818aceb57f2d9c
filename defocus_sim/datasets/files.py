"""Facts about the files that a source reads."""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path
from typing import Any

from defocus_sim.errors import SourceError, SourceMissingError

_CLOCK_TICK_S = 5.0
# Stands in the head of every picture that shows a store, so that one which lies among photographs is not taken for one.
OWN_PICTURE = "dfd-toolkit contact sheet"
_SHEET_SUFFIX = "_contact_sheet.png"


def is_own_picture(path: Path) -> bool:
    """Whether a file is a contact sheet that this program wrote; those of earlier versions are known by their store."""
    if path.suffix.lower() != ".png":
        return False
    if path.name.endswith(_SHEET_SUFFIX) and path.with_name(path.name.removesuffix(_SHEET_SUFFIX) + ".zarr").is_dir():
        return True
    try:
        with path.open("rb") as stream:
            return OWN_PICTURE.encode() in stream.read(256)
    except OSError:
        return False


def require_file(path: Path, what: str) -> Path:
    """`path` where it is a readable regular file; otherwise a one-line error that says `what` was wanted."""
    if not path.exists():
        raise SourceMissingError(f"{what} {path} is not there")
    if not path.is_file():
        raise SourceError(f"{what} {path} is not a file")
    return path


def fingerprint(path: Path) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file: enough to know it again, nothing of where it lay.

    An unchanged file is read once a process: the labelled set takes seconds, and one converts it with several lenses.
    """
    facts = path.stat()
    if time.time() - facts.st_mtime < _CLOCK_TICK_S:
        # Changed again within one tick of the file system's clock, it could not be told from what it is now.
        sha256 = _sha256.__wrapped__(path)
    else:
        sha256 = _sha256(path.absolute(), facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return {"name": path.name, "bytes": facts.st_size, "sha256": sha256}


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, *_changes_with_content: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
