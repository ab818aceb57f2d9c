"""A scene of solids as a picture and its depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.datasets.synthetic.raycast import Array, Finish, Rays, Solid, Vec3, camera_rays, cast
from defocus_sim.datasets.synthetic.textures import TEXELS, Pyramid, lookup

_SUPERSAMPLING = 2


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
    depth, owner = cast(scene.solids, camera_rays(scene.rotation, focal_px, hw, np.float64), scene.rotation, focal_px)
    return depth.astype(np.float32), owner


def render(scene: Scene, focal_px: float, hw: tuple[int, int]) -> RgbdFrame:
    """Colour, 2x2 samples a pixel averaged in linear light, and depth, one sample at the pixel's centre.

    Depth is never averaged, so no value lies between two surfaces at an edge.
    """
    fine_hw = (hw[0] * _SUPERSAMPLING, hw[1] * _SUPERSAMPLING)
    fine_px = focal_px * _SUPERSAMPLING
    rays = camera_rays(scene.rotation, fine_px, fine_hw, np.float32)
    depth, owner = cast(scene.solids, rays, scene.rotation, fine_px)
    light = _shade(scene, rays, depth, owner, fine_px)
    light = 0.25 * (light[0::2, 0::2] + light[1::2, 0::2] + light[0::2, 1::2] + light[1::2, 1::2])
    return RgbdFrame(_develop(light), depth_map(scene, focal_px, hw)[0])


def _shade(scene: Scene, rays: Rays, depth: Array, owner: NDArray[np.int16], focal_px: float) -> NDArray[np.float32]:
    """(H, W, 3) linear light."""
    flat = np.stack([rays.x, rays.y, rays.z], axis=-1).reshape(-1, 3)
    depth_flat = depth.ravel()
    order = np.argsort(owner, axis=None, kind="stable")
    bounds = np.searchsorted(owner.ravel()[order], np.arange(len(scene.solids) + 1))
    out = np.zeros((depth.size, 3), np.float32)
    for number, solid in enumerate(scene.solids):
        seen = order[bounds[number] : bounds[number + 1]]
        if len(seen):
            out[seen] = _shade_solid(scene, solid, flat[seen], depth_flat[seen], focal_px)
    return out.reshape(*depth.shape, 3)


def _shade_solid(scene: Scene, solid: Solid, ray: Array, depth: Array, focal_px: float) -> NDArray[np.float32]:
    axes = solid.axes.astype(np.float32)
    point = ray * depth[:, None]
    local = _turn(point - solid.centre.astype(np.float32), axes.T)
    u, v, normal_local, face = solid.surface(local)
    normal = _turn(normal_local, axes)
    slope = np.einsum("ij,ij->i", normal, ray)
    facing = np.abs(slope) / np.sqrt(np.einsum("ij,ij->i", ray, ray))
    normal *= -np.sign(slope)[:, None]
    albedo = np.empty((len(depth), 3), np.float32)
    for number in np.flatnonzero(np.bincount(face)).tolist():
        chosen = np.flatnonzero(face == number)
        finish = solid.finishes[number % len(solid.finishes)]
        pyramid = scene.textures[finish.texture]
        albedo[chosen] = _albedo(pyramid, finish, number, u[chosen], v[chosen], depth[chosen], facing[chosen], focal_px)
    return albedo * _irradiance(scene.light, point, normal)


def _turn(rows: Array, matrix: Array) -> Array:
    """`rows @ matrix` (N, 3) summed in one fixed order: a BLAS may sum otherwise when its number of threads changes."""
    return rows[:, :1] * matrix[0] + rows[:, 1:2] * matrix[1] + rows[:, 2:] * matrix[2]


def _albedo(
    pyramid: Pyramid, finish: Finish, face: int, u: Array, v: Array, depth: Array, facing: Array, focal_px: float
) -> NDArray[np.float32]:
    nearest = float(depth.min())
    texel_m = finish.texel_px * _SUPERSAMPLING * nearest / focal_px
    scale, cos, sin = 1 / (texel_m * TEXELS), np.cos(finish.angle), np.sin(finish.angle)
    # A face's number moves it to another part of the texture: edges of a box do not mirror the pattern.
    tile_u = ((u * cos - v * sin) * scale + finish.offset[0] + 0.37 * face).astype(np.float32)
    tile_v = ((u * sin + v * cos) * scale + finish.offset[1] + 0.61 * face).astype(np.float32)
    # Geometric mean of the two axes of a sample's footprint on the surface.
    footprint = depth / focal_px / texel_m / np.sqrt(np.maximum(facing, 0.05))
    found = lookup(pyramid, tile_u, tile_v, footprint.astype(np.float32))
    # A slow variation at an unrelated scale hides that the tile repeats.
    slow = lookup(pyramid, tile_v * np.float32(0.173), tile_u * np.float32(0.173), np.full(len(u), 32, np.float32))
    shade = slow.mean(axis=1, keepdims=True)
    shade = np.clip(shade / pyramid[-1].mean(), 0.55, 1.5)
    return found[:, list(finish.swap)] * np.asarray(finish.tint, np.float32) * shade


def _irradiance(light: Light, point: Array, normal: Array) -> NDArray[np.float32]:
    """(N, 3): Lambert's cosine with inverse-square falloff beyond `reach_m`, and ambient light that prefers the sky."""
    towards = light.position.astype(np.float32) - point
    squared = np.einsum("ij,ij->i", towards, towards)
    cosine = np.maximum(np.einsum("ij,ij->i", towards, normal), 0) / np.sqrt(squared)
    direct = cosine / (1 + squared / np.float32(light.reach_m) ** 2)
    ambient = np.float32(light.ambient) * (1 - 0.35 * normal[:, 1])
    colour = np.asarray(light.colour, np.float32)
    return (direct[:, None] * colour + ambient[:, None]).astype(np.float32)


def _develop(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Exposure to a mean of 0.22 without clipping more than the brightest hundredth, then the sRGB curve, uint8."""
    luminance = light.mean(axis=-1)
    gain = min(0.22 / float(luminance.mean()), 0.95 / float(np.quantile(luminance, 0.99)))
    linear = np.clip(light * np.float32(gain), 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** np.float32(1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)
