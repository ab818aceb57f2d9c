"""A lens in a TOML file: the table `[lens]`, and what else is written for the record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from defocus_sim.errors import LensError, parse_toml


def read_fields(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The fields of the table `[lens]`; raises `LensError`, without the file's name, for anything that is no lens."""
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LensError(f"the lens cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except ValueError as error:
        raise LensError(f"not a TOML file ({error})") from error
    fields = content.get("lens")
    if not isinstance(fields, dict):
        raise LensError("there is no table [lens]: dfd-calibrate and Lens.save write one")
    unknown = sorted(fields.keys() - set(known))
    if unknown:
        raise LensError(f"{', '.join(unknown)} in [lens] is not a property of a lens")
    for key in ("name", "sensor_distance"):
        if not isinstance(fields.get(key, ""), str):
            raise LensError(f"{key}={fields[key]!r} in [lens] is not text")
    return fields


def write_tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> Path:
    """`tables` of numbers, texts and lists of numbers as TOML, None left out; returns `path`. Raises `LensError`."""
    content = {name: {k: v for k, v in table.items() if v is not None} for name, table in tables.items()}
    try:
        path.write_text(tomli_w.dumps(content), encoding="utf-8")
    except OSError as error:
        raise LensError(f"the lens {path} cannot be written: {error.strerror}") from error
    return path
