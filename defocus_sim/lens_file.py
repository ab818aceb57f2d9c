"""A lens as a TOML file: the table `[lens]` with its fields, and further tables that say where the numbers come from."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from defocus_sim.errors import LensError


def read_lens_fields(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The fields of the table `[lens]`; raises `LensError`, without the file's name, for anything that is no lens."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LensError(f"the lens cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except tomllib.TOMLDecodeError as error:
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
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items() if value is not None), ""]
    try:
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise LensError(f"the lens {path} cannot be written: {error.strerror}") from error
    return path


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # A JSON string is a TOML basic string.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return repr(value)
