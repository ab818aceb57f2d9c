"""The pictures of README and docs, from procedural scenes: `python docs/tools/make_pictures.py` writes docs/images/.

`triples.jpg`: what a store holds. `focus_modes.jpg`: one scene at three focus distances, blurred by gather and layered,
with an occlusion edge enlarged. `pixel_size.jpg`: one lens, three readings of the size of a pixel. `coc_over_depth.png`:
the circle of confusion for three focus distances. `varied.jpg`, `interiors.jpg`: the kinds of scenes of these sets with
their depth. The picture of the README has its own script, `make_restored.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from defocus_sim import Lens, defocus
from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.synthetic.interiors import INTERIORS, SPAN_M, build_interior
from defocus_sim.datasets.synthetic.rendering.render import Scene, render
from defocus_sim.datasets.synthetic.scenes import focal_length_px
from defocus_sim.datasets.synthetic.source import SyntheticSource
from defocus_sim.datasets.synthetic.varied import KINDS, SPANS_M, build_varied
from defocus_sim.pictures.depth_colours import depth_colours
from defocus_sim.pictures.lens_report import save_lens_plot
from defocus_sim.pictures.preview import contact_sheet
from defocus_sim.simulate import blur_maps

IMAGES = Path(__file__).parent.parent / "images"
FOCUS_M = (1.0, 2.0, 4.0)
SCENE_SEED, SCENE_FRAME = 0, 6
ZOOM, ZOOM_PX = 3, 72
SCENE_HW = (360, 480)


def triples() -> np.ndarray:
    """Three samples of a small store, as its contact sheet shows them."""
    source = SyntheticSource(count=3, size_wh=(480, 360), test_fraction=0.0, seed=8)
    with tempfile.TemporaryDirectory() as folder:
        settings = ConversionSettings(source=source, lens=Lens.preset("paper"))
        return contact_sheet(convert(settings, Path(folder) / "a.zarr").store, samples=3)


def focus_modes() -> np.ndarray:
    """Rows gather and layered; columns the focus distances, each with the sharpest depth step enlarged below it."""
    source = SyntheticSource(count=SCENE_FRAME + 1, size_wh=(480, 360), seed=SCENE_SEED)
    with source.open() as reader:
        frame = reader.read(SCENE_FRAME)
    y, x = edge_of_interest(frame.depth_m)
    rows = []
    for mode in ("gather", "layered"):
        cells = []
        for focus_m in FOCUS_M:
            lens = Lens.preset("paper", focus_distance_m=focus_m)
            image = defocus(frame.aif, frame.depth_m, lens, mode=mode, psf="disc", linear_light=True)
            cells.append(cell(image, f"{mode}, focus {focus_m:g} m", y, x))
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows, axis=0)


def pixel_size() -> np.ndarray:
    """A scene, and the paper's lens on it with metres taken for pixels, with Kinect pixels, and with 36 mm of sensor."""
    source = SyntheticSource(count=SCENE_FRAME + 1, size_wh=(560, 426), seed=SCENE_SEED)
    with source.open() as reader:
        frame = reader.read(SCENE_FRAME)
    readings = {
        "pitch 1 m: units mixed up": Lens.preset("paper", pixel_pitch_um=1e6),
        "f = 519 px: Kinect": Lens.preset("kinect"),
        "36 mm across the image": Lens.preset("paper"),
    }
    cells = [titled(frame.aif, "all in focus", "")]
    for title, lens in readings.items():
        image = defocus(frame.aif, frame.depth_m, lens)
        largest = np.abs(blur_maps(frame.depth_m, lens)[0]).max()
        error = np.mean((image.astype(np.float64) - frame.aif) ** 2) / 255**2
        psnr = "identical" if error == 0 else f"PSNR {-10 * np.log10(error):.1f} dB"
        cells.append(titled(image, title, f"largest CoC {largest:.1f} px, {psnr}"))
    return np.concatenate([np.concatenate(cells[:2], axis=1), np.concatenate(cells[2:], axis=1)], axis=0)


def varied() -> np.ndarray:
    """Two scenes of every kind, each over its depth (near bright, even in 1/distance)."""
    cells = []
    for number, kind in enumerate(KINDS):
        for seed, scale in ((number, "room"), (number + 10, list(SPANS_M)[number % 4])):
            scene = build_varied(np.random.default_rng(seed), kind, scale, SCENE_HW)
            cells.append(over_depth(scene, kind, SPANS_M[scale], focal_length_px(SCENE_HW)))
    return in_rows(cells)


def interiors() -> np.ndarray:
    """Two rooms of every kind as `varied`, through the widest lens and a longer one."""
    cells = []
    for first_seed, view_deg in ((20, 57.0), (40, 36.0)):
        for number, kind in enumerate(INTERIORS):
            scene = build_interior(np.random.default_rng(first_seed + number), kind, SCENE_HW, view_deg)
            cells.append(over_depth(scene, kind, SPAN_M, focal_length_px(SCENE_HW, view_deg)))
    return in_rows(cells)


def over_depth(scene: Scene, kind: str, span_m: tuple[float, float], focal_px: float) -> np.ndarray:
    """A scene with its kind, over its depth, both at half the size."""
    frame = render(scene, focal_px, SCENE_HW)
    pictures = (frame.aif, depth_colours(frame.depth_m, *span_m))
    size = (SCENE_HW[1] // 2, SCENE_HW[0] // 2)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in pictures]
    cv2.rectangle(small[0], (0, 0), (9 * len(kind) + 8, 19), (255, 255, 255), -1)
    cv2.putText(small[0], kind, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate(small, axis=0)


def in_rows(cells: list[np.ndarray]) -> np.ndarray:
    """Rows of five."""
    return np.concatenate([np.concatenate(cells[k : k + 5], axis=1) for k in range(0, len(cells), 5)], axis=0)


def titled(image: np.ndarray, title: str, second: str) -> np.ndarray:
    """The image below its title and a second line."""
    canvas = np.full((image.shape[0] + 50, image.shape[1] + 8, 3), 255, np.uint8)
    canvas[46 : 46 + image.shape[0], : image.shape[1]] = image
    cv2.putText(canvas, title, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.62, (20, 20, 20), 1, cv2.LINE_AA)
    cv2.putText(canvas, second, (2, 39), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (90, 90, 90), 1, cv2.LINE_AA)
    return canvas


def edge_of_interest(depth_m: np.ndarray) -> tuple[int, int]:
    """Centre of the window with the largest steps of inverse depth: where a near thing covers a far one."""
    steps = np.abs(np.diff(1 / depth_m, axis=1, append=1 / depth_m[:, -1:]))
    density = cv2.blur((steps > 0.25).astype(np.float32), (ZOOM_PX, ZOOM_PX))
    margin = ZOOM_PX // 2
    inner = density[margin:-margin, margin:-margin]
    y, x = np.unravel_index(np.argmax(inner), inner.shape)
    return int(y) + margin, int(x) + margin


def cell(image: np.ndarray, title: str, y: int, x: int) -> np.ndarray:
    """The image with its title, the window marked, and the window enlarged beside it."""
    half = ZOOM_PX // 2
    window = image[y - half : y + half, x - half : x + half]
    height = image.shape[0]
    large = cv2.resize(window, (height, height), interpolation=cv2.INTER_NEAREST)
    marked = image.copy()
    cv2.rectangle(marked, (x - half, y - half), (x + half, y + half), (255, 220, 0), 2)
    canvas = np.full((height + 26, image.shape[1] + large.shape[1] + 10, 3), 255, np.uint8)
    canvas[24 : 24 + height, : image.shape[1]] = marked
    canvas[24 : 24 + large.shape[0], image.shape[1] + 4 : image.shape[1] + 4 + large.shape[1]] = large
    cv2.putText(canvas, title, (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    return canvas


def save(picture: np.ndarray, name: str) -> None:
    """Write an RGB picture below docs/images and say so."""
    path = IMAGES / name
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(f"docs/images/{name}: {picture.shape[1]}x{picture.shape[0]}")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    save(triples(), "triples.jpg")
    save(focus_modes(), "focus_modes.jpg")
    save(pixel_size(), "pixel_size.jpg")
    save(varied(), "varied.jpg")
    save(interiors(), "interiors.jpg")
    lenses = [Lens.preset("paper", focus_distance_m=focus_m) for focus_m in (1.0, 2.0, 4.0)]
    save_lens_plot(lenses, 561, IMAGES / "coc_over_depth.png", (0.5, 20.0))
    print("docs/images/coc_over_depth.png")
