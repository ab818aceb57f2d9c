"""What is known about one picture as the files that are written of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.lens import Lens
from dfd_train.prediction.images import Picture, png_bytes
from dfd_train.prediction.page.build import PageScene
from dfd_train.prediction.photo.lens import PhotoLens
from dfd_train.prediction.photograph import Photograph
from dfd_train.prediction.refocus import rack_focus, refocus
from dfd_train.prediction.results import as_srgb, contact_sheet, depth_picture, uncertainty_picture

_SHEET_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Results:
    """One picture and everything known about it, from which the files are made.

    `name`: of its file. `network`: name of the network. `camera`: the lens that renders it anew. `unit_m`, `unit`: what
    its distances are told in. `lens_used`: whether the network was told the photograph's lens.
    """

    name: str
    picture: Picture
    lens: PhotoLens
    made: Photograph
    network: str
    camera: Lens
    unit_m: float
    unit: str
    lens_used: bool


def pictures(results: Results) -> tuple[dict[str, bytes], list[str]]:
    """Files by the end of their name, and what to say about them."""
    picture, found = results.picture, results.made.found
    height, width = picture.pixels.shape[:2]
    text = [f"{width}x{height}", *picture.notes]
    if results.made.scale < 1:
        text.append(f"worked at {results.made.scale:.2f} of it")
    if (restraint := _restraint(results)) is not None:
        text.append(restraint)
    contents: dict[str, bytes] = {}
    others: list[tuple[str, NDArray[np.uint8]]] = []
    if found.aif is not None:
        contents["_restored.png"] = png_bytes(found.aif, like=picture)
    if found.depth_m is not None:
        depth = found.depth_m / np.float32(results.unit_m)
        low, high = (float(v) for v in np.percentile(depth, (1, 99)))
        text.append(f"depth {low:.2f} to {high:.2f} {results.unit}")
        shown = depth_picture(found.depth_m, unit_m=results.unit_m, unit=_short_unit(results))
        contents["_depth.png"] = png_bytes(depth_millimetres(depth))
        contents["_depth_colour.png"] = png_bytes(shown)
        contents["_depth.npy"] = npy_bytes(depth)
        others.append(("depth", shown))
    if found.depth_sigma_m is not None:
        sigma = found.depth_sigma_m / np.float32(results.unit_m)
        text.append(f"uncertain by {float(np.median(sigma)):.2f}")
        shown = uncertainty_picture(found.depth_sigma_m, unit_m=results.unit_m, unit=_short_unit(results))
        contents["_uncertainty.png"] = png_bytes(shown)
        contents["_uncertainty.npy"] = npy_bytes(sigma)
        others.append(("uncertainty of the depth", shown))
    after = None if found.aif is None else as_srgb(found.aif, picture.profile)
    sheet = contact_sheet(as_srgb(picture.pixels, picture.profile), after, others)
    contents["_sheet.jpg"] = cv2.imencode(
        ".jpg", np.ascontiguousarray(sheet[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _SHEET_QUALITY]
    )[1].tobytes()
    return contents, text


def refocused(
    results: Results, distances_m: Sequence[float], pixels: Sequence[tuple[int, int]]
) -> tuple[dict[str, bytes], list[NDArray[np.uint8]]]:
    """The restored picture at every focus that was asked for, and the frames of a film through them."""
    aif, depth_m = results.made.found.aif, results.made.found.depth_m
    assert aif is not None  # noqa: S101 - the caller has looked
    assert depth_m is not None  # noqa: S101
    wanted = {f"{distance:g}m": distance for distance in distances_m}
    # A depth within the lens, which a network may predict, is not one to focus on.
    nearest = (results.camera.focal_length_mm or 0.0) * 2e-3
    wanted |= {f"at_{x}_{y}": max(float(depth_m[y, x]), nearest) for x, y in pixels}
    contents = {
        f"_refocus_{name}.png": png_bytes(refocus(aif, depth_m, results.camera.at_focus(m)), like=results.picture)
        for name, m in wanted.items()
    }
    frames = rack_focus(aif, depth_m, results.camera, [*wanted.values()]) if len(wanted) > 1 else []
    return contents, frames


def scene(results: Results, stem: str) -> PageScene:
    """What the page of this picture shows; needs both heads. `stem`: beginning of the names of files saved from it."""
    found = results.made.found
    assert found.aif is not None  # noqa: S101 - predict_files has asked for both heads
    assert found.depth_m is not None  # noqa: S101
    height, width = results.picture.pixels.shape[:2]
    facts = {"Picture": f"{width}x{height} px, worked at {results.made.scale:.2f} of it"}
    if (restraint := _restraint(results)) is not None:
        facts["Restored"] = restraint
    facts["Lens"] = results.lens.describe().removeprefix("lens: ")
    if results.lens.relative:
        facts["Only relative"] = "; ".join(results.lens.relative)
    if results.picture.profile is not None:
        facts["Colours"] = "converted to sRGB here; the restored file keeps the photograph's profile"
    facts["Rendered as"] = f"{results.camera.focal_length_mm:.0f} mm on full frame"
    return PageScene(
        title=results.name,
        stem=stem,
        before=as_srgb(results.picture.pixels, results.picture.profile),
        restored=as_srgb(found.aif, results.picture.profile),
        depth_m=found.depth_m,
        depth_sigma_m=found.depth_sigma_m,
        lens=results.camera,
        unit_m=results.unit_m,
        unit=" " + _short_unit(results),
        facts=facts,
    )


def _restraint(results: Results) -> str | None:
    share = results.made.changed_share
    return None if share is None or share > 0.99 else f"little blur seen: {share:.0%} of the change made"


def _short_unit(results: Results) -> str:
    return "m" if results.unit == "m" else "× focus"


def record(results: Results, endings: Sequence[str]) -> bytes:
    """`NAME.json`: what is known about the picture, its lens and its depth."""
    found = results.made.found
    height, width = results.picture.pixels.shape[:2]
    record: dict[str, Any] = {
        "picture": results.name,
        "width_px": width,
        "height_px": height,
        "notes": list(results.picture.notes),
        "network": results.network,
        "worked_at": round(results.made.scale, 4),
        "changed_share": None if results.made.changed_share is None else round(results.made.changed_share, 4),
        "photograph": results.lens.to_json(),
        "lens_used_for_depth": results.lens_used,
    }
    if found.depth_m is not None:
        low, middle, high = (float(v) for v in np.percentile(found.depth_m / results.unit_m, (1, 50, 99)))
        record["depth"] = {"unit": results.unit, "p01": low, "median": middle, "p99": high}
    record["files"] = sorted(endings)
    return (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def depth_millimetres(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    """`depth_m` (H, W) as whole millimetres, 1 to 65,535; what is farther than 65.5 m says 65,535."""
    return np.clip(np.rint(depth_m.astype(np.float64) * 1000), 1, np.iinfo(np.uint16).max).astype(np.uint16)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """`array` as a `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
