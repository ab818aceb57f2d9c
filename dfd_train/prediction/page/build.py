"""One HTML file for a photograph: click to focus, turn the aperture, compare; it asks for nothing from a network."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.lens import Lens, coc_at_infinity_px
from defocus_sim.pictures.depth_colours import error_colours
from defocus_sim.progress import one_line
from dfd_train.errors import ConfigError
from dfd_train.prediction.refocus import LARGEST_COC_SHARE
from dfd_train.prediction.results import colour_depth, to_eight_bit, uncertainty_bound_m

# Larger screens gain nothing, phones lose time.
LONGEST_PX = 1600
LARGEST_BYTES = 4_000_000
# What a page tries until it is small enough: (longest side, JPEG quality).
_TRIES = tuple((longest, quality) for longest in (LONGEST_PX, 1280, 1024, 768, 512) for quality in (90, 80, 68))
_UNCERTAINTY_PX = 640
# Blur of the farthest or nearest things to begin with, as a share of the longer side.
_FIRST_COC_SHARE = 0.015
_F_NUMBERS = (0.5, 16.0)
_HINTS = {
    "refocused": "Click or tap the picture to focus there.",
    "compare": "Left the photograph, right the restored picture.",
    "depth": "Distance from the camera.",
    "uncertainty": "How far the distance may be off.",
}
_LABELS = {"refocused": "Refocus", "compare": "Before / after", "depth": "Depth", "uncertainty": "Uncertainty"}


@dataclass(frozen=True, kw_only=True)
class PageScene:
    """What a page shows.

    `title`, `stem`: heading, and beginning of the names of saved pictures. `before`, `restored`: (H, W, 3) uint8, uint16
    or floating in [0, 1] sRGB. `depth_m`: (H, W) metres. `depth_sigma_m`: its uncertainty, or None. `lens`: the camera
    to refocus with, described by its sensor's width; its focus and f-number are those to begin with. `f_number`: None =
    chosen so that blur shows. `unit_m`, `unit`: what distances are written in (1.0 and " m"). `facts`: lines for people.
    """

    title: str
    stem: str
    before: NDArray[Any]
    restored: NDArray[Any]
    depth_m: NDArray[np.float32]
    lens: Lens
    f_number: float | None = None
    depth_sigma_m: NDArray[np.float32] | None = None
    unit_m: float = 1.0
    unit: str = " m"
    facts: Mapping[str, str] | None = None


def page_html(scene: PageScene) -> bytes:
    """The page as one UTF-8 file below 4,000,000 bytes, pictures reduced to at most 1600 pixels.

    It holds every byte it needs, and its Content-Security-Policy forbids requests. Raises `ConfigError` for a lens that
    is not described by its sensor's width and focal length.
    """
    if scene.lens.sensor_width_mm is None or scene.lens.focal_length_mm is None:
        raise ConfigError("a page needs a lens with focal_length_mm and sensor_width_mm")
    page = b""
    for longest, quality in _TRIES:
        page = _page(scene, longest, quality)
        if len(page) < LARGEST_BYTES:
            break
    return page


def page_size(shape_hw: tuple[int, ...], longest: int = LONGEST_PX) -> tuple[int, int]:
    """(height, width) of the pictures in a page."""
    share = min(1.0, longest / max(shape_hw[:2]))
    return max(round(shape_hw[0] * share), 1), max(round(shape_hw[1] * share), 1)


def pack_bytes(array: NDArray[np.uint8]) -> str:
    """(H, W) as the page's script unpacks it: differences along the rows, deflated, base64."""
    differences = np.diff(array, axis=1, prepend=np.zeros((len(array), 1), np.uint8))
    return base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode()


def _page(scene: PageScene, longest: int, quality: int) -> bytes:
    height, width = page_size(scene.depth_m.shape, longest)
    before, restored = (_reduced(to_eight_bit(p), (height, width)) for p in (scene.before, scene.restored))
    # Not averaged: between two surfaces there is none.
    depth = cv2.resize(scene.depth_m, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    nearness = 1 / np.maximum(depth.astype(np.float64), 1e-3)
    far, near = (float(v) for v in np.percentile(nearness, (0.2, 99.8)))
    near = max(near, far * 1.001)
    steps = np.rint((np.clip(nearness, far, near) - far) / (near - far) * 255).astype(np.uint8)
    lens = scene.lens
    focus = min(max(1 / lens.focus_distance_m, far), near)
    uncertainty, bound = "", 0.0
    views = ["refocused", "compare", "depth"]
    if scene.depth_sigma_m is not None:
        bound = uncertainty_bound_m(scene.depth_sigma_m)
        small = cv2.resize(scene.depth_sigma_m, page_size(depth.shape, _UNCERTAINTY_PX)[::-1])
        picture = error_colours(small, bound, np.ones(small.shape, bool))
        uncertainty = f'<img id="uncertainty" alt="uncertainty of the depth" src="{_jpeg(picture, 85)}">'
        views.append("uncertainty")
    content = {
        "width": width,
        "height": height,
        "far": far,
        "near": near,
        "focal_mm": lens.focal_length_mm,
        "sensor_mm": lens.sensor_width_mm,
        "most_px": max(LARGEST_COC_SHARE * max(height, width), 1.0),
        "focus_m": 1 / focus,
        "f_number": scene.f_number or _first_f_number(lens, far, near, focus, (height, width)),
        "unit_m": scene.unit_m,
        "unit": scene.unit,
        "uncertainty_m": bound,
        "hints": _HINTS,
        "viridis": base64.b64encode(colour_depth(np.arange(256, dtype=np.uint8)).tobytes()).decode(),
        "nearness": pack_bytes(steps),
    }
    parts = {
        "TITLE": escape(one_line(scene.title)),
        "STEM": escape(scene.stem, quote=True),
        "ASPECT": f"{width / height:.5f}",
        "BEFORE": _jpeg(before, quality),
        "RESTORED": _jpeg(restored, quality),
        "UNCERTAINTY": uncertainty,
        "VIEWS": "".join(
            f'<button type="button" data-view="{view}" aria-pressed="false">{_LABELS[view]}</button>' for view in views
        ),
        "FACTS": "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in (scene.facts or {}).items()),
        # Inside a script element nothing but "</" could end it.
        "SCENE": json.dumps(content, allow_nan=False).replace("</", "<\\/"),
        "CSS": _asset("viewer.css"),
        "SHADER": _asset("blur.glsl"),
        "SCRIPT": _asset("viewer.js"),
    }
    before_and_after = _asset("viewer.html").split("{{")
    page = [before_and_after[0]]
    for piece in before_and_after[1:]:
        name, rest = piece.split("}}", 1)
        page += [parts[name], rest]
    return "".join(page).encode(errors="backslashreplace")


def _first_f_number(lens: Lens, far: float, near: float, focus: float, hw: tuple[int, int]) -> float:
    """The f-number at which what is farthest from the focus is blurred by `_FIRST_COC_SHARE` of the longer side."""
    per_nearness = coc_at_infinity_px(Lens(**{**lens.to_json(), "f_number": 1.0, "aperture_mm": None}), hw[1])
    widest = per_nearness * lens.focus_distance_m * max(near - focus, focus - far)
    wanted = widest / (_FIRST_COC_SHARE * max(hw))
    return float(min(max(wanted, _F_NUMBERS[0]), _F_NUMBERS[1])) if math.isfinite(wanted) else _F_NUMBERS[0]


def _reduced(picture: NDArray[np.uint8], hw: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.shape[:2] == hw:
        return picture
    return np.asarray(cv2.resize(picture, hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(picture: NDArray[Any], quality: int) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), options)[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _asset(name: str) -> str:
    return (files("dfd_train.prediction.page") / name).read_text(encoding="utf-8")
