"""The error tree: one base for the package, each leaf also the built-in error that a caller would expect.

Every message is one line: what is wrong, the offending value, and what to do about it. Besides, JSON and TOML that others
wrote, of which whatever is wrong is a `ValueError`.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any


class DefocusSimError(Exception):
    """Base of every error that `defocus_sim` raises on purpose."""


class CalibrationError(DefocusSimError):
    """Photographs that cannot tell what a lens does."""


class LensError(DefocusSimError, ValueError):
    """A lens that cannot exist or is not fully described."""


class UnitError(DefocusSimError, ValueError):
    """A length without a unit, or with one that is not known."""


class ImageError(DefocusSimError, ValueError):
    """An image array of a wrong shape, type or range."""


class DepthError(DefocusSimError, ValueError):
    """A depth array of a wrong shape, type or range, or without any valid pixel."""


class SourceError(DefocusSimError, ValueError):
    """A data set that is not what it should be: wrong layout, truncated, unpaired, an impossible split."""


class SourceMissingError(SourceError, FileNotFoundError):
    """A data set's file or folder that is not there."""


class ConvertError(DefocusSimError, RuntimeError):
    """A conversion that cannot start or go on."""


class ShardError(DefocusSimError, ValueError):
    """A store that is not a valid shard store: unfinished, foreign, damaged, or of a newer format."""


class ShardMissingError(ShardError, FileNotFoundError):
    """A store, or a shard that its manifest names, that is not there."""


class ShardCorruptError(ShardError, OSError):
    """A shard whose bytes are not those that were written."""


class ShardReplacedError(ShardError, OSError):
    """A store in whose place another one was put, or none, while it was read."""


class StorageTimeoutError(ShardError, TimeoutError):
    """An object store that does not answer in time."""


class RenderingError(DefocusSimError, ValueError):
    """A rendering option that does not exist or cannot be used."""


class ConversionTakenOverError(ConvertError):
    """A conversion whose unfinished store another conversion has begun to write."""


class ConversionInterruptedError(ConvertError):
    """A conversion that was interrupted; what was finished is kept and can be resumed."""


def parse_json(content: str | bytes) -> Any:
    """What a JSON text says.

    Parameters
    ----------
    content
        The text, or its bytes.

    Returns
    -------
    Any
        Its value.

    Raises
    ------
    ValueError
        For anything that cannot be read: no JSON, another encoding, numbers of thousands of digits, thousands of brackets
        inside one another.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_toml(content: str) -> dict[str, Any]:
    """What a TOML text says.

    Parameters
    ----------
    content
        The text.

    Returns
    -------
    dict[str, Any]
        Its tables.

    Raises
    ------
    ValueError
        As `parse_json`.
    """
    try:
        return tomllib.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
