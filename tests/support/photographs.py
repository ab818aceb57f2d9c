"""Pairs of photographs as a camera would take them, of procedural scenes: shifted, brighter, defocused."""

import cv2
import numpy as np

from defocus_sim import Lens, defocus
from defocus_sim.blur.light import linear_to_srgb, srgb_to_linear
from defocus_sim.datasets.synthetic.source import SyntheticSource

AFFINE = ((1, 0, 1.3), (0, 1, -0.6))
LENS = Lens(focus_distance_m=1.5, aperture_mm=12.0, focal_length_mm=35.0, sensor_width_mm=23.6)


def scenes(count, size_wh=(240, 160), seed=0):
    """(aif, depth_m) of `count` procedural rooms."""
    source = SyntheticSource(count=count, size_wh=size_wh, seed=seed)
    with source.open() as reader:
        return [(frame.aif, frame.depth_m) for frame in (reader.read(i) for i in range(count))]


def moved(image, affine):
    """The picture whose pixel `affine @ (x, y, 1)` shows what pixel (x, y) of `image` does."""
    inverse = cv2.invertAffineTransform(np.asarray(affine, np.float64))
    size = (image.shape[1], image.shape[0])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, inverse, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def exposed(image, gain):
    """`image` with `gain` in linear light for each channel."""
    light = srgb_to_linear(image.astype(np.float32) / 255) * np.asarray(gain, np.float32)
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)


def write_pairs(
    folder, count=4, *, affine=((1, 0, 1.3), (0, 1, -0.6)), gain=(0.9, 0.9, 0.9), lens=LENS, size_wh=(240, 160)
):
    """`folder`/defocused, sharp and depth (16 bit, mm) with `count` pairs of `size_wh`; returns the scenes."""
    made = scenes(count, size_wh)
    for name in ("defocused", "sharp", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, (aif, depth_m) in enumerate(made):
        name = f"{index:03d}.png"
        blurred = exposed(defocus(aif, depth_m, lens, psf="disc", linear_light=True), gain)
        cv2.imwrite(str(folder / "defocused" / name), blurred[..., ::-1])
        cv2.imwrite(str(folder / "sharp" / name), moved(aif, affine)[..., ::-1])
        cv2.imwrite(str(folder / "depth" / name), np.rint(depth_m * 1000).astype(np.uint16))
    return made
