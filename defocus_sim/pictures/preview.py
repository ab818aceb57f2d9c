"""Contact sheets: a few samples of a store as one picture, defocused | all in focus | depth | sigma."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from defocus_sim.datasets.files import OWN_PICTURE
from defocus_sim.errors import ShardError
from defocus_sim.lens import Lens, coc_diameter_px, coc_limit_px, sigma_px
from defocus_sim.pictures.depth_colours import HOLE_RGB, depth_colours, depth_range_m, with_depth_bar
from defocus_sim.shards.store import ShardStore

RGB = NDArray[np.uint8]
DEFAULT_SAMPLES = 8
_CELL_WIDTH_PX = 320
_BAR_PX = 22
_GAP_PX = 4
_DEPTH_COLUMN = 2


def contact_sheet(store: ShardStore, samples: int = DEFAULT_SAMPLES) -> RGB:
    """`samples` of `store`, spread evenly over its splits, one a row; (H, W, 3) uint8 RGB.

    Columns: defocused, all in focus, depth (near is bright, with a bar in metres; holes grey), signed blur (sigma in px,
    blue nearer than focus, red beyond). Each picture carries its range. Raises `ShardError` for fewer than one sample.
    """
    if samples < 1:
        raise ShardError(f"samples={samples} must be at least 1")
    rows = []
    total = sum(len(store.split(name)) for name in store.split_names)
    for split_name in store.split_names:
        split = store.split(split_name)
        share = max(1, round(samples * len(split) / total))
        for index in np.unique(np.linspace(0, len(split) - 1, min(share, len(split))).round().astype(int)).tolist():
            sample = {name: array[0] for name, array in split.read([index]).items()}
            lens = split.lens(index) if split.has_lens(index) else None
            rows.append(_row(sample, lens, f"{split_name} {split.names[index]}"))
    return np.concatenate(rows[: max(samples, len(store.split_names))], axis=0)


def sheet_path(place: str | Path) -> Path:
    """Where the contact sheet of the store at `place` goes: beside it, as no foreign file belongs inside.

    That of a store at a URL goes into the current folder.
    """
    path = Path(str(place).rstrip("/").rsplit("/", 1)[-1]) if "://" in str(place) else Path(place)
    return path.with_name(f"{path.stem}_contact_sheet.png")


def save_contact_sheet(store: ShardStore, path: Path, samples: int = DEFAULT_SAMPLES) -> Path:
    """Write `contact_sheet` as a PNG.

    Parameters
    ----------
    store
        An open store.
    path
        The picture, outside of the store.
    samples
        Rows of the sheet.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ShardError
        Where it cannot be written, or would lie in the store.
    """
    if Path(store.url).is_dir() and path.resolve().is_relative_to(Path(store.url).resolve()):
        raise ShardError(f"the contact sheet {path} would lie inside of the store: choose another --out")
    encoded, mark = io.BytesIO(), PngInfo()
    mark.add_text("Software", OWN_PICTURE)
    Image.fromarray(contact_sheet(store, samples)).save(encoded, "PNG", pnginfo=mark, compress_level=1)
    try:
        path.write_bytes(encoded.getvalue())
    except OSError as error:
        raise ShardError(f"the contact sheet {path} cannot be written: {error.strerror}") from error
    return path


def _row(sample: dict[str, NDArray[Any]], lens: Lens | None, title: str) -> RGB:
    depth = sample["depth_m"]
    valid = depth > 0
    near, far = depth_range_m(depth, valid)
    signed, blur = np.zeros(depth.shape), "no depth" if lens is not None else "the lens is not known"
    if lens is not None and valid.any():
        limit = coc_limit_px(lens, depth.shape)
        coc = np.clip(coc_diameter_px(np.where(valid, depth, lens.focus_distance_m), lens), -limit, limit)
        signed = np.copysign(sigma_px(coc, lens), coc)
        blur = f"sigma to {np.abs(signed).max():.1f} px, focus {lens.focus_distance_m:g} m"
    cells = (
        (sample["defocused"], title),
        (sample["aif"], "all in focus"),
        (depth_colours(depth, near, far, valid), f"depth {near:.2f} to {far:.2f} m" if valid.any() else "no depth"),
        (_sigma_picture(signed, valid), blur),
    )
    parts = []
    for column, (picture, text) in enumerate(cells):
        cell = _cell(picture, text)
        # The bar has the height of the cell, below its line of text.
        parts.append(_with_bar(cell, near, far) if column == _DEPTH_COLUMN else cell)
    return np.concatenate(parts, axis=1)


def _sigma_picture(signed_sigma: NDArray[Any], valid: NDArray[np.bool_]) -> RGB:
    share = signed_sigma / max(float(np.abs(signed_sigma).max()), 1e-6)
    near, far = np.clip(-share, 0, 1)[..., None], np.clip(share, 0, 1)[..., None]
    white, blue, red = (np.array(c, np.float64) for c in ((245, 245, 245), (33, 90, 180), (190, 30, 45)))
    picture = white + near * (blue - white) + far * (red - white)
    return np.where(valid[..., None], picture, np.float64(HOLE_RGB[0])).astype(np.uint8)


def _with_bar(cell: RGB, near_m: float, far_m: float) -> RGB:
    body = cell[_BAR_PX : len(cell) - _GAP_PX, : cell.shape[1] - _GAP_PX]
    wider = with_depth_bar(body, near_m, far_m)
    framed = np.full((len(cell), wider.shape[1] + _GAP_PX, 3), 255, np.uint8)
    framed[:, : cell.shape[1]] = cell
    framed[_BAR_PX : _BAR_PX + len(body), : wider.shape[1]] = wider
    return framed


def _cell(picture: RGB, text: str) -> RGB:
    height = max(1, round(picture.shape[0] * _CELL_WIDTH_PX / picture.shape[1]))
    method = cv2.INTER_AREA if picture.shape[1] > _CELL_WIDTH_PX else cv2.INTER_NEAREST
    scaled = cv2.resize(picture, (_CELL_WIDTH_PX, height), interpolation=method)
    cell = np.full((height + _BAR_PX + _GAP_PX, _CELL_WIDTH_PX + _GAP_PX, 3), 255, np.uint8)
    cell[_BAR_PX : _BAR_PX + height, :_CELL_WIDTH_PX] = scaled
    cv2.putText(cell, text, (2, _BAR_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
    return cell
