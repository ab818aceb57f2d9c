"""The manifest: what a store holds, how it was made, and the size and checksum of every file. Written last.

It is the attribute `dfd` of the root group and carries a SHA-256 over its own canonical JSON, so that a changed or torn
manifest is noticed before anything is believed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from defocus_sim.errors import ShardCorruptError, ShardError
from defocus_sim.lens import Lens
from defocus_sim.shards.layout import (
    ARRAYS,
    COMPRESSIONS,
    FORMAT_NAME,
    FORMAT_VERSION,
    MANIFEST_ATTRIBUTE,
    Compression,
)

# What version 1 called "fast" compressed the images as well, which has a name of its own since.
_FAST_OF_VERSION_1: Compression = "balanced"
# The `rendering` of pictures that a camera took, and the entry in `lenses` where nobody says what it looked through.
MEASURED = {"mode": "measured", "psf": "measured"}
UNKNOWN_LENS = {"name": "unknown"}
# What the crops of NYU-Depth v2 leave, by the name that a store's source has for them.
_NYU_HW = {"official": (427, 561), "eigen": (426, 560), "none": (480, 640)}
# What the conversion allows; a larger one is damage, and would be memory asked for in vain.
LARGEST_SIDE_PX = 2**15
_FOLDERS = tuple(f"{array}/" for array in ARRAYS)


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file: its size in bytes and its SHA-256 (hex).

    Not a CRC-32C: a file is blocks that each end in their own CRC-32C, and over such data that checksum depends on the
    lengths alone, so that two shards of equal size could be swapped unnoticed.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SplitManifest:
    """The samples of one split, in order, and its shards' files, `shards[k][array]`.

    `names`: unique; the frame's name, with the focus distance added in a focal stack. `scenes`: samples of one scene are
    in one split. `lens`: index into the manifest's `lenses`; `focus_distance_m` and `aperture_mm` are the sample's own, 0
    with a lens that is not known. `measured`: for photographs, how each pair lies on each other and compares in light;
    empty for others. `blurred_hw`: height and width in px of each sample's frame as it was blurred, which the pixels of
    its lens are of; (0, 0) where that is not known, empty in stores that were made before it was written down.
    """

    names: tuple[str, ...]
    scenes: tuple[str, ...]
    lens: tuple[int, ...]
    focus_distance_m: tuple[float, ...]
    aperture_mm: tuple[float, ...]
    shards: tuple[Mapping[str, ShardFile], ...]
    measured: tuple[Mapping[str, Any], ...] = ()
    blurred_hw: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "names": list(self.names),
            "scenes": list(self.scenes),
            "lens": list(self.lens),
            "focus_distance_m": list(self.focus_distance_m),
            "aperture_mm": list(self.aperture_mm),
            "shards": [{name: asdict(file) for name, file in shard.items()} for shard in self.shards],
            **({"measured": [dict(found) for found in self.measured]} if self.measured else {}),
            **({"blurred_hw": [list(hw) for hw in self.blurred_hw]} if self.blurred_hw else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a store but its pixels.

    `lenses`: fields of each `Lens`; more than one after a merge. `rendering`, `source`: as their owners describe
    themselves. `statistics`: CoC range in px, PSNR of the blurred images. `skipped`: frames that could not be used, with
    the reason. `settings`: SHA-256 of the settings of the conversion. `metadata`: of every `zarr.json` by its name what
    `metadata_digest` says; empty in stores of earlier versions. `checksum`: SHA-256 of all of it.
    """

    size_hw: tuple[int, int]
    samples_per_shard: int
    compression: Compression
    lenses: tuple[dict[str, Any], ...]
    rendering: dict[str, Any]
    source: dict[str, Any]
    statistics: dict[str, Any]
    splits: Mapping[str, SplitManifest]
    skipped: tuple[dict[str, str], ...] = ()
    created_by: str
    settings: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def _content(self) -> dict[str, Any]:
        older = self.format_version == 1 and self.compression == _FAST_OF_VERSION_1
        return {
            "format": FORMAT_NAME,
            "format_version": self.format_version,
            "created_by": self.created_by,
            "settings": self.settings,
            "size_hw": list(self.size_hw),
            "samples_per_shard": self.samples_per_shard,
            "compression": "fast" if older else self.compression,
            "lenses": list(self.lenses),
            "rendering": self.rendering,
            "source": self.source,
            "statistics": self.statistics,
            "skipped": list(self.skipped),
            "splits": {name: split.to_json() for name, split in self.splits.items()},
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
        }

    def seen_through(self, lens: Lens) -> Manifest:
        """The manifest with `lens`, in pixels of the stored frames, for the samples of which nobody said theirs."""
        unknown = {number for number, known in enumerate(self.lenses) if known == UNKNOWN_LENS}
        splits = {}
        for name, split in self.splits.items():
            told = [number in unknown for number in split.lens]
            known_hw = [blurred_hw(self, split, index) or (0, 0) for index in range(len(split.names))]
            own = {"focus_distance_m": lens.focus_distance_m, "aperture_mm": lens.aperture_diameter_m * 1e3}
            columns: dict[str, Any] = {
                key: tuple(value if new else old for new, old in zip(told, getattr(split, key), strict=True))
                for key, value in own.items()
            }
            frames = tuple(self.size_hw if new else hw for new, hw in zip(told, known_hw, strict=True))
            splits[name] = replace(split, **columns, blurred_hw=frames)
        lenses = tuple(lens.to_json() if number in unknown else one for number, one in enumerate(self.lenses))
        return replace(self, lenses=lenses, splits=splits)

    @property
    def checksum(self) -> str:
        """SHA-256 (hex) of the manifest; as it holds every file's checksum, it identifies the whole store."""
        return digest(self._content())

    def to_attributes(self) -> dict[str, Any]:
        """The attributes of the store's root group."""
        return {MANIFEST_ATTRIBUTE: self._content() | {"checksum": self.checksum}}

    @classmethod
    def from_attributes(cls, attributes: Any, where: str) -> Manifest:
        """The inverse of `to_attributes`, everything checked; `where` names the store in messages.

        Raises `ShardError` for a store of another kind or of a newer format, `ShardCorruptError` for a damaged manifest.
        """
        content = attributes.get(MANIFEST_ATTRIBUTE) if isinstance(attributes, dict) else None
        if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
            raise ShardError(
                f"{where} is a Zarr group without a {FORMAT_NAME} manifest: it was not made by dfd-prepare"
            )
        version = content.get("format_version")
        if type(version) is not int or version < 1:
            raise ShardCorruptError(f"{where}: the manifest's format_version is {version!r}")
        if version > FORMAT_VERSION:
            raise ShardError(
                f"{where} has format_version {version}, this program reads up to {FORMAT_VERSION}: update dfd-toolkit"
            )
        rest = dict(content)
        stored = rest.pop("checksum", None)
        if stored != digest(rest):
            raise ShardCorruptError(f"{where}: the manifest does not match its own checksum, it was changed or damaged")
        try:
            manifest = cls._parse(rest)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ShardCorruptError(f"{where}: the manifest is incomplete ({type(error).__name__}: {error})") from error
        return manifest

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> Manifest:
        height, width = (_positive(value) for value in content["size_hw"])
        if max(height, width) > LARGEST_SIDE_PX:
            raise ValueError(f"size {width}x{height}")
        per_shard = _positive(content["samples_per_shard"])
        if content["compression"] not in COMPRESSIONS:
            raise ValueError(f"compression {content['compression']!r}")
        compression = cast(Compression, content["compression"])
        if content["format_version"] == 1 and compression == "fast":
            compression = _FAST_OF_VERSION_1
        splits = {}
        for name, split in content["splits"].items():
            shards = tuple(
                {array: ShardFile(bytes=_positive(f["bytes"]), sha256=str(f["sha256"])) for array, f in shard.items()}
                for shard in split["shards"]
            )
            columns = ("names", "scenes", "lens", "focus_distance_m", "aperture_mm")
            measured = tuple(dict(found) for found in split.get("measured", ()))
            blurred_hw = tuple(_size(hw) for hw in split.get("blurred_hw", ()))
            splits[name] = SplitManifest(
                **{key: tuple(split[key]) for key in columns}, shards=shards, measured=measured, blurred_hw=blurred_hw
            )
            count = len(splits[name].names)
            if any(later and len(later) != count for later in (measured, blurred_hw)):
                raise ValueError(f"the lists of split {name!r} differ in length")
            if any(len(split[key]) != count for key in columns) or len(shards) != -(-count // per_shard):
                raise ValueError(f"the lists of split {name!r} differ in length")
            if not all(type(text) is str for key in ("names", "scenes") for text in split[key]):
                raise ValueError(f"a name in split {name!r} is not text")
            if not all(type(n) in (int, float) and 0 <= n < math.inf for key in columns[3:] for n in split[key]):
                raise ValueError(f"a focus distance or aperture in split {name!r} is not a number from 0")
            if any(type(lens) is not int or not 0 <= lens < len(content["lenses"]) for lens in split["lens"]):
                raise ValueError(f"a sample of split {name!r} has a lens that is not listed")
            if "/" in name or name in ("", ".", ".."):
                raise ValueError(f"a split is called {name!r}")
            if any(set(shard) != set(ARRAYS) for shard in shards):
                raise ValueError(f"a shard of split {name!r} does not name the arrays {', '.join(ARRAYS)}")
        metadata = content.get("metadata", {})
        covered = {"zarr.json", *(f"{name}/{part}zarr.json" for name in splits for part in ("", *_FOLDERS))}
        if not isinstance(metadata, dict) or not set(metadata) <= covered:
            raise ValueError("metadata names files that are not metadata")
        _check_described(content)
        return cls(
            size_hw=(height, width),
            samples_per_shard=per_shard,
            compression=compression,
            splits=splits,
            lenses=tuple(dict(lens) for lens in content["lenses"]),
            skipped=tuple(dict(frame) for frame in content["skipped"]),
            metadata={name: str(found) for name, found in metadata.items()},
            format_version=content["format_version"],
            **{key: content[key] for key in ("rendering", "source", "statistics", "created_by", "settings")},
        )


def _check_described(content: Mapping[str, Any]) -> None:
    """Raise what `_parse` may raise where a manifest describes its store otherwise than the conversion does."""
    for key in ("rendering", "source", "statistics"):
        if not isinstance(content[key], dict):
            raise ValueError(f"{key} is no table")
    texts = [content["created_by"], content["settings"]]
    texts += [frame[key] for frame in content["skipped"] for key in ("name", "reason")]
    texts += [content["rendering"][key] for key in ("mode", "psf") if content["rendering"]]
    statistics = content["statistics"]
    counts = [statistics["samples"], statistics["unblurred"], content["source"].get("border_px") or 0]
    counts += [statistics.get(key, 0) for key in ("too_near_px", "wide_coc_samples", "limited_px", "limited_samples")]
    for text, count in statistics.get("notes", ()):
        texts.append(text)
        counts.append(count)
    lists = {"coc_px": 2, "psnr_db_range": 2, "depth_m": 5}
    described = [(statistics.get(key), length) for key, length in lists.items()]
    described.append((statistics["coc_px"], 2))
    described.append((None if statistics["psnr_db"] is None else [statistics["psnr_db"]], 1))
    if not all(type(text) is str for text in texts):
        raise ValueError("a name is not text")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a count is not a whole number from 0")
    for numbers, length in described:
        finite = numbers is None or all(type(number) in (int, float) and abs(number) < 1e300 for number in numbers)
        if not finite or (numbers is not None and len(numbers) != length):
            raise ValueError("the statistics are not the numbers that they should be")
    blurred = statistics["psnr_db"] is not None
    if blurred != (statistics["psnr_db_range"] is not None) or (blurred and counts[1] >= counts[0]):
        raise ValueError("the statistics contradict one another")
    for lens in content["lenses"]:
        if lens != UNKNOWN_LENS:
            Lens(**lens)
    for part in content["source"].get("parts", ()):
        if not isinstance(part["source"], dict):
            raise ValueError("the source of a part is no table")
        samples, renamed = part.get("samples", {}), part.get("renamed", {})
        if not all(type(count) is int and count >= 0 for count in samples.values()):
            raise ValueError("the number of a part's samples is not a whole number from 0")
        if not all(type(names) is list and all(type(name) is str for name in names) for names in renamed.values()):
            raise ValueError("a part's name is not text")


def blurred_hw(manifest: Manifest, split: SplitManifest, index: int) -> tuple[int, int] | None:
    """Height and width in px of the frame that sample `index` of `split` was made of by blurring; None: not known.

    Stores that did not write it down are asked for their source: every frame of some has one known size. Else it is the
    stored size where that makes no difference along x, because the lens is described by the width of its sensor and
    nothing of it in pixels.
    """
    if split.blurred_hw:
        height, width = split.blurred_hw[index]
        return (height, width) if height else None
    known = _size_of_source(manifest.source)
    if known is not None:
        return known
    lens = manifest.lenses[split.lens[index]]
    if (
        lens == UNKNOWN_LENS
        or Lens(**lens | {"solve_max_coc_px": None, "f_number": None, "aperture_mm": 1.0}).counts_pixels
    ):
        return None
    return manifest.size_hw


def _size_of_source(source: Mapping[str, Any]) -> tuple[int, int] | None:
    """The size of every frame of `source` before the blur, where its description says it."""
    kind = source.get("kind")
    if kind == "merge":
        parts = {_size_of_source(part.get("source", {})) for part in source.get("parts", ())}
        return parts.pop() if len(parts) == 1 else None
    if kind == "nyu":
        return _NYU_HW.get(str(source.get("crop")))
    size = source.get("size_hw")
    if kind == "synthetic":
        size = None if source.get("size_wh") is None else source["size_wh"][::-1]
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        return None
    return size[0], size[1]


def digest(content: Any) -> str:
    """SHA-256 (hex) of `content` as canonical JSON: sorted keys, no white space."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _size(value: Any) -> tuple[int, int]:
    """(height, width) in px, or (0, 0) for one that is not known."""
    height, width = value
    if (height, width) == (0, 0):
        return 0, 0
    return _positive(height), _positive(width)


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not a positive whole number")
    return value
