"""Places of results: folders and files of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from dfd_train.errors import ConfigError

# Two letters at least: one is a drive. A `Path` has lost one of the slashes of a URL.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def require_local(name: str, place: str | Path) -> None:
    """Raise `ConfigError` where `place`, given as `name`, is a URL: only stores are read and written there."""
    if _URL.match(str(place)):
        raise ConfigError(f"{name}={place} is a URL: results are written to a local folder, which can be copied there")
