"""Solids and their exact intersection with the rays of a pinhole camera at the origin.

World axes: x right, y down, z ahead, metres, camera at the origin. Ray directions are scaled so that the ray parameter
is z-depth along the optical axis, so a hit's parameter is the depth that an RGB-D camera reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Vec3 = NDArray[np.float64]
Surface = tuple[Array, Array, Array, NDArray[np.intp]]
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Finish:
    """How a surface looks: a texture of the scene, its `texel_px` size at the nearest visible point, place and tint."""

    texture: int
    texel_px: float = 1.0
    angle: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    swap: tuple[int, int, int] = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Unnormalised directions in world axes, three (H, W) arrays, with camera z component 1."""

    x: Array
    y: Array
    z: Array

    def __getitem__(self, key: tuple[slice, slice]) -> Rays:
        return Rays(x=self.x[key], y=self.y[key], z=self.z[key])


@dataclass(frozen=True, kw_only=True, eq=False)
class Solid:
    """A body: `centre` (3,), rows of `axes` (3, 3) its unit axes in world coordinates, `half` (3,) its half extents."""

    centre: Vec3
    half: Vec3
    finishes: tuple[Finish, ...]
    axes: Vec3 = field(default_factory=lambda: np.eye(3))

    def corners(self) -> Vec3:
        """(8, 3) world corners of the oriented bounding box."""
        signs = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], dtype=np.float64)
        return self.centre + (signs * self.half) @ self.axes

    def hit(self, rays: Rays) -> Array:
        """z-depth of the first hit of every ray, infinite where it misses; the type of the rays."""
        axes = self.axes.astype(rays.x.dtype)
        origin = -(self.axes @ self.centre)
        local = tuple(a[0] * rays.x + a[1] * rays.y + a[2] * rays.z for a in axes)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            depth = self._hit_local(tuple(rays.x.dtype.type(o) for o in origin), local)
            return np.where(depth > 0, depth, np.inf).astype(rays.x.dtype)

    def _hit_local(self, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> Array:
        raise NotImplementedError

    def surface(self, point: Array) -> Surface:
        """Surface coordinates (metres), local normals (N, 3) and face numbers of (N, 3) local points on the surface."""
        return self._surface_local(point)

    def _surface_local(self, point: Array) -> Surface:
        return _box_surface(point, self.half)


def _slab(half: Vec3, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> tuple[Array, Array]:
    near: Array = np.full(d[0].shape, -np.inf, d[0].dtype)
    far: Array = np.full(d[0].shape, np.inf, d[0].dtype)
    for extent, start, slope in zip(half, o, d, strict=True):
        inverse = 1 / np.where(np.abs(slope) < _TINY, slope.dtype.type(_TINY), slope)
        low, high = (-slope.dtype.type(extent) - start) * inverse, (slope.dtype.type(extent) - start) * inverse
        near = np.maximum(near, np.minimum(low, high))
        far = np.minimum(far, np.maximum(low, high))
    return near, far


def _box_surface(point: Array, half: Vec3) -> Surface:
    axis = np.argmax(np.abs(point) / half.astype(point.dtype), axis=1)
    rows = np.arange(len(point))
    sign = np.sign(point[rows, axis])
    normal = np.zeros_like(point)
    normal[rows, axis] = sign
    u = np.where(axis == 0, point[:, 2], point[:, 0])
    v = np.where(axis == 1, point[:, 2], point[:, 1])
    return u, v, normal, 2 * axis + (sign > 0)


class Box(Solid):
    """A cuboid."""

    def _hit_local(self, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> Array:
        near, far = _slab(self.half, o, d)
        return np.where(near <= far, near, np.inf)


class Shell(Solid):
    """A cuboid seen from inside; every ray from within hits it. Finishes: of faces -x, +x, -y, +y, -z, +z."""

    def _hit_local(self, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> Array:
        return _slab(self.half, o, d)[1]


class Ball(Solid):
    """An ellipsoid."""

    def _hit_local(self, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> Array:
        scaled_o = [start / start.dtype.type(extent) for start, extent in zip(o, self.half, strict=True)]
        scaled_d = [slope / slope.dtype.type(extent) for slope, extent in zip(d, self.half, strict=True)]
        return _first_root(scaled_o, scaled_d)

    def _surface_local(self, point: Array) -> Surface:
        half = self.half.astype(point.dtype)
        unit = point / half
        radius = half.mean()
        u = np.arctan2(unit[:, 0], -unit[:, 2]) * radius
        v = np.arcsin(np.clip(unit[:, 1], -1, 1)) * radius
        normal = unit / half
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        return u, v, normal, np.zeros(len(point), np.intp)


class Rod(Solid):
    """A round bar along its local y axis with flat ends; half extents x and z are its radius."""

    def _hit_local(self, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> Array:
        radius, length = d[0].dtype.type(self.half[0]), d[0].dtype.type(self.half[1])
        side = _first_root([o[0] / radius, o[2] / radius], [d[0] / radius, d[2] / radius])
        side = np.where(np.abs(o[1] + side * d[1]) <= length, side, np.inf)
        # Only the end that faces the camera can be the first hit.
        end = ((length if o[1] > 0 else -length) - o[1]) / d[1]
        inside = (o[0] + end * d[0]) ** 2 + (o[2] + end * d[2]) ** 2 <= radius**2
        return np.minimum(side, np.where(inside & (end > 0), end, np.inf))

    def _surface_local(self, point: Array) -> Surface:
        radius, length = self.half[0], self.half[1]
        end = np.abs(point[:, 1]) > 0.9999 * length
        end &= np.hypot(point[:, 0], point[:, 2]) < 0.999 * radius
        u = np.where(end, point[:, 0], np.arctan2(point[:, 0], -point[:, 2]) * radius)
        v = np.where(end, point[:, 2], point[:, 1])
        normal = np.where(end[:, None], point * (0, 1, 0), point * (1, 0, 1)).astype(point.dtype)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), _TINY)
        return u.astype(point.dtype), v, normal, np.zeros(len(point), np.intp)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice(Solid):
    """A flat sheet in its local x, y plane with holes: `period` in metres and `solid` part that is bar, along x and y."""

    period: tuple[float, float]
    solid: tuple[float, float]

    def _hit_local(self, o: tuple[np.floating, ...], d: tuple[Array, ...]) -> Array:
        depth = -o[2] / d[2]
        x, y = o[0] + depth * d[0], o[1] + depth * d[1]
        within = (np.abs(x) <= self.half[0]) & (np.abs(y) <= self.half[1])
        # Shifted by half a bar so that the sheet ends in bars and not in loose ends.
        bar_x = np.mod(x + self.half[0], self.period[0]) < self.solid[0] * self.period[0]
        bar_y = np.mod(y + self.half[1], self.period[1]) < self.solid[1] * self.period[1]
        return np.where(within & (bar_x | bar_y), depth, np.inf)

    def _surface_local(self, point: Array) -> Surface:
        normal = np.zeros_like(point)
        normal[:, 2] = 1
        return point[:, 0], point[:, 1], normal, np.zeros(len(point), np.intp)


def _first_root(o: Sequence[np.floating], d: Sequence[Array]) -> Array:
    """Nearer root of |o + t d| = 1, infinite where there is none."""
    a = sum(slope * slope for slope in d)
    b = sum(start * slope for start, slope in zip(o, d, strict=True))
    # |o|^2 - b^2/a is the squared distance of the line from the centre; formed this way it loses no digits far away.
    closest = [start - slope * (b / a) for start, slope in zip(o, d, strict=True)]
    gap = 1 - sum(part * part for part in closest)
    return np.where(gap > 0, (-b - np.sqrt(np.maximum(gap, 0) * a)) / a, np.inf)


def window(solid: Solid, rotation: Vec3, focal_px: float, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of an image of `shape` that can see `solid`: bounds of its projected corners, one pixel wider.

    `rotation` (3, 3) takes world to camera axes; the principal point is the image centre.
    """
    height, width = shape
    x, y, z = rotation @ solid.corners().T
    if z.min() <= 1e-3:
        return slice(0, height), slice(0, width)
    cols, rows = x / z * focal_px + width / 2, y / z * focal_px + height / 2
    return (
        slice(int(np.clip(rows.min() - 1, 0, height)), int(np.clip(rows.max() + 2, 0, height))),
        slice(int(np.clip(cols.min() - 1, 0, width)), int(np.clip(cols.max() + 2, 0, width))),
    )


def camera_rays(rotation: Vec3, focal_px: float, shape: tuple[int, int], dtype: type[np.floating]) -> Rays:
    """Rays through the centres of an image's pixels, in world axes."""
    height, width = shape
    u = ((np.arange(width) + 0.5 - width / 2) / focal_px)[None, :].astype(dtype)
    v = ((np.arange(height) + 0.5 - height / 2) / focal_px)[:, None].astype(dtype)
    r = rotation.astype(dtype)
    return Rays(**{name: r[0, k] * u + r[1, k] * v + r[2, k] for k, name in enumerate("xyz")})


def cast(solids: tuple[Solid, ...], rays: Rays, rotation: Vec3, focal_px: float) -> tuple[Array, NDArray[np.int16]]:
    """First hit of every ray: (H, W) z-depth in metres and (H, W) index of the solid (-1 and infinite where none)."""
    hw = (rays.x.shape[0], rays.x.shape[1])
    depth: Array = np.full(hw, np.inf, rays.x.dtype)
    owner = np.full(hw, -1, np.int16)
    for number, solid in enumerate(solids):
        view = window(solid, rotation, focal_px, hw)
        found = solid.hit(rays[view])
        nearer = found < depth[view]
        depth[view][nearer] = found[nearer]
        owner[view][nearer] = number
    return depth, owner
