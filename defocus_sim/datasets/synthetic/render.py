"""A scene of solids as a picture and its depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.datasets.synthetic import shade_kernels
from defocus_sim.datasets.synthetic.raycast import Hits, Solid, Vec3, cast
from defocus_sim.datasets.synthetic.textures import TEXELS, Pyramid, atlas_of

_SUPERSAMPLING = 2
_FACES = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """A lamp at `position` (3,) whose light falls to half at `reach_m`, with `ambient` light from above."""

    position: Vec3
    reach_m: float
    ambient: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Solids around a camera at the origin, the first enclosing all; `rotation` (3, 3) takes world to camera axes."""

    solids: tuple[Solid, ...]
    rotation: Vec3
    light: Light
    textures: tuple[Pyramid, ...] = ()


def depth_map(scene: Scene, focal_px: float, hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """z-depth (H, W) float32 metres through pixel centres, and the number of the solid seen there."""
    hits = cast(scene.solids, scene.rotation, focal_px, hw, np.float64)
    return hits.depth.astype(np.float32), hits.owner


def render(scene: Scene, focal_px: float, hw: tuple[int, int]) -> RgbdFrame:
    """Colour, 2x2 samples a pixel averaged in linear light, and depth, one sample at the pixel's centre.

    Depth is never averaged, so no value lies between two surfaces at an edge.
    """
    fine_px = focal_px * _SUPERSAMPLING
    hits = cast(scene.solids, scene.rotation, fine_px, (hw[0] * _SUPERSAMPLING, hw[1] * _SUPERSAMPLING), np.float32)
    return RgbdFrame(_develop(_shade(scene, hits, fine_px)), depth_map(scene, focal_px, hw)[0])


def _shade(scene: Scene, hits: Hits, focal_px: float) -> NDArray[np.float32]:
    """(H, W, 3) linear light, of half the rays' size."""
    solids = hits.table.astype(np.float32)
    nearest = np.empty((len(solids), _FACES), np.float32)
    shade_kernels.nearest_of_faces(hits.depth, hits.owner, hits.kinds, solids, hits.turn, hits.u, hits.v, nearest)
    finishes = [finish for solid in scene.solids for finish in solid.finishes]
    rows = np.array(
        [[f.texture, np.cos(f.angle), np.sin(f.angle), *f.offset, *f.tint, *f.swap] for f in finishes], np.float64
    )
    first = np.cumsum([0, *(len(solid.finishes) for solid in scene.solids)])[:-1]
    looks = np.array([n + np.arange(_FACES) % len(s.finishes) for n, s in zip(first, scene.solids, strict=True)])
    # A texture's texels have their size on the screen at the nearest point that is seen of a face.
    texel_px = np.array([finish.texel_px for finish in finishes])[looks]
    texel_m = texel_px * _SUPERSAMPLING * nearest.astype(np.float64) / focal_px
    light = scene.light
    lamp = np.array([*light.position, light.reach_m, light.ambient, *light.colour], np.float64)
    atlas, starts = atlas_of(scene.textures)
    out = np.empty((hits.depth.shape[0] // _SUPERSAMPLING, hits.depth.shape[1] // _SUPERSAMPLING, 3), np.float32)
    shade_kernels.shade_into(
        out, hits.depth, hits.owner, hits.kinds, hits.table, solids, hits.turn, hits.u, hits.v, texel_m, rows, looks,
        lamp, atlas, starts, TEXELS,
    )  # fmt: skip
    return out


def _srgb_edges() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Least linear value of every sRGB code, and the code at the lower end of each of 4096 bins of 0..1."""
    code = (np.arange(256) - 0.5) / 255
    edges = np.where(code <= 0.0031308 * 12.92, code / 12.92, (np.maximum(code, 0) / 1.055 + 0.055 / 1.055) ** 2.4)
    edges[0] = 0
    guess = np.searchsorted(edges, np.arange(4097) / 4096, side="right") - 1
    return edges.astype(np.float32), guess.astype(np.uint8)


_EDGES, _GUESS = _srgb_edges()


def _develop(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Exposure to a mean of 0.22 without clipping more than the brightest hundredth, then the sRGB curve, uint8."""
    luminance = light.mean(axis=-1)
    gain = min(0.22 / float(luminance.mean()), 0.95 / float(np.quantile(luminance, 0.99)))
    out = np.empty(light.shape, np.uint8)
    shade_kernels.develop_into(out, light, np.float32(gain), _EDGES, _GUESS)
    return out
