"""Facts about the files that a source reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from defocus_sim.errors import SourceError, SourceMissingError


def require_file(path: Path, what: str) -> Path:
    """`path` where it is a readable regular file; otherwise a one-line error that says `what` was wanted."""
    if not path.exists():
        raise SourceMissingError(f"{what} {path} is not there")
    if not path.is_file():
        raise SourceError(f"{what} {path} is not a file")
    return path


def fingerprint(path: Path) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file: enough to know it again, nothing of where it lay."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
