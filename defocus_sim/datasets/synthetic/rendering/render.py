"""A scene of solids as a picture and its depth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.datasets.synthetic.rendering import shade_kernels
from defocus_sim.datasets.synthetic.rendering.raycast import NO_MASKS, Hits, Solid, Vec3, cast
from defocus_sim.datasets.synthetic.textures import TEXELS, Pyramid, atlas_of

_SUPERSAMPLING = 2
_FACES = 6
_SHADOW_SIDE = 896


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """A lamp at `position` (3,) whose light falls to half at `reach_m`, with `ambient` light from above.

    `others`: more lamps, of which only position, reach and colour count. `shadow_tangent`: the first lamp throws shadows
    within this tangent of half a field of view about the direction to `aim` (3,); 0 for none. `sky`: colour of the
    ambient light.
    """

    position: Vec3
    reach_m: float
    ambient: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    others: tuple[Light, ...] = ()
    shadow_tangent: float = 0.0
    aim: Vec3 = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    sky: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def row(self) -> list[float]:
        """The lamp as the kernels take it."""
        return [*self.position, self.reach_m, *self.colour]


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How light becomes codes: gain to a `mean` of what is below the quantile `bright`, which lands at `ceiling` at most.

    Then sRGB's curve, to the power `gamma`, with `contrast` (-1 to 1) about the middle; `balance`: gain of the colours;
    `saturation`: 1 as they are, 0 grey.
    """

    mean: float = 0.22
    bright: float = 0.99
    ceiling: float = 0.95
    gamma: float = 1.0
    contrast: float = 0.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Solids around a camera at the origin, the first enclosing all; `rotation` (3, 3) takes world to camera axes.

    `masks` (M, S, S) uint8: outlines of the cutouts.
    """

    solids: tuple[Solid, ...]
    rotation: Vec3
    light: Light
    textures: tuple[Pyramid, ...] = ()
    masks: NDArray[np.uint8] = field(default_factory=lambda: NO_MASKS)
    exposure: Exposure | None = None


def depth_map(scene: Scene, focal_px: float, hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """z-depth (H, W) float32 metres through pixel centres, and the number of the solid seen there."""
    hits = cast(scene.solids, scene.rotation, focal_px, hw, np.float64, masks=scene.masks)
    return hits.depth.astype(np.float32), hits.owner


def render(scene: Scene, focal_px: float, hw: tuple[int, int]) -> RgbdFrame:
    """Colour, 2x2 samples a pixel averaged in linear light, and depth, one sample at the pixel's centre.

    Depth is never averaged, so no value lies between two surfaces at an edge.
    """
    fine_px, fine_hw = focal_px * _SUPERSAMPLING, (hw[0] * _SUPERSAMPLING, hw[1] * _SUPERSAMPLING)
    hits = cast(scene.solids, scene.rotation, fine_px, fine_hw, np.float32, masks=scene.masks)
    light = _shade(scene, hits, fine_px)
    return RgbdFrame(_develop(light, scene.exposure), depth_map(scene, focal_px, hw)[0])


def _shade(scene: Scene, hits: Hits, focal_px: float) -> NDArray[np.float32]:
    """(H, W, 3) linear light, of half the rays' size."""
    solids = hits.table.astype(np.float32)
    nearest = np.empty((len(solids), _FACES), np.float32)
    shade_kernels.nearest_of_faces(hits.depth, hits.owner, hits.kinds, solids, hits.turn, hits.u, hits.v, nearest)
    finishes = [finish for solid in scene.solids for finish in solid.finishes]
    rows = np.array([finish.row() for finish in finishes], np.float64)
    first = np.cumsum([0, *(len(solid.finishes) for solid in scene.solids)])[:-1]
    looks = np.array([n + np.arange(_FACES) % len(s.finishes) for n, s in zip(first, scene.solids, strict=True)])
    # A texture's texels have their size on the screen at the nearest point that is seen of a face.
    texel_px = np.array([finish.texel_px for finish in finishes])[looks]
    texel_m = texel_px * _SUPERSAMPLING * nearest.astype(np.float64) / focal_px
    light = scene.light
    lamps = np.array([lamp.row() for lamp in (light, *light.others)], np.float64)
    sky = (light.ambient * np.array(light.sky)).astype(np.float32)
    atlas, starts = atlas_of(scene.textures)
    out = np.empty((hits.depth.shape[0] // _SUPERSAMPLING, hits.depth.shape[1] // _SUPERSAMPLING, 3), np.float32)
    shade_kernels.shade_into(
        out, hits.depth, hits.owner, hits.kinds, hits.table, solids, hits.turn, hits.u, hits.v, texel_m, rows, looks,
        lamps, sky, *_shadow(scene), atlas, starts, TEXELS,
    )  # fmt: skip
    return out


def _shadow(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.float32], np.float32]:
    """What the first lamp sees of all but the enclosure: z-depth (S, S), its axes (3, 3) and focal length in px."""
    light = scene.light
    if not light.shadow_tangent or len(scene.solids) < 2:
        return np.full((1, 1), np.inf, np.float32), np.eye(3, dtype=np.float32), np.float32(1)
    ahead = light.aim - light.position
    ahead = ahead / np.sqrt((ahead * ahead).sum())
    side = np.cross([0.0, 1.0, 0.0] if abs(ahead[1]) < 0.9 else [0.0, 0.0, 1.0], ahead)
    side = side / np.sqrt((side * side).sum())
    view = np.stack([side, np.cross(ahead, side), ahead])
    focal_px = _SHADOW_SIDE / 2 / light.shadow_tangent
    lit = scene.solids[1:]
    hits = cast(lit, view, focal_px, (_SHADOW_SIDE,) * 2, np.float32, masks=scene.masks, eye=light.position)
    return np.asarray(hits.depth, np.float32), hits.turn.astype(np.float32), np.float32(focal_px)


def _tone_edges(gamma: float, contrast: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Least linear value of every code, and the code at the lower end of each of 4096 bins of 0..1."""
    code = (np.arange(256) - 0.5) / 255
    if contrast:
        levels = np.linspace(0, 1, 4097)
        code = np.interp(code, levels - contrast * np.sin(2 * np.pi * levels) / (2 * np.pi), levels)
    code = np.maximum(code, 0) ** (1 / gamma)
    edges = np.where(code <= 0.0031308 * 12.92, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    edges[0] = 0
    guess = np.searchsorted(edges, np.arange(4097) / 4096, side="right") - 1
    return edges.astype(np.float32), guess.astype(np.uint8)


_SRGB = _tone_edges(1.0, 0.0)


def _develop(light: NDArray[np.float32], exposure: Exposure | None) -> NDArray[np.uint8]:
    """Codes (H, W, 3) uint8 of linear light: as `exposure` says, else a mean of 0.22 without clipping more than 1 %."""
    luminance = light.mean(axis=-1)
    if exposure is None:
        gain = min(0.22 / float(luminance.mean()), 0.95 / float(np.quantile(luminance, 0.99)))
        gains, (edges, guess) = np.full(3, gain), _SRGB
    else:
        bright = float(np.quantile(luminance, exposure.bright))
        gain = min(exposure.mean / float(np.minimum(luminance, bright).mean()), exposure.ceiling / bright)
        light = luminance[..., None] + np.float32(exposure.saturation) * (light - luminance[..., None])
        gains, (edges, guess) = gain * np.array(exposure.balance), _tone_edges(exposure.gamma, exposure.contrast)
    out = np.empty(light.shape, np.uint8)
    shade_kernels.develop_into(out.reshape(-1, 3), light.reshape(-1, 3), gains.astype(np.float32), edges, guess)
    return out
