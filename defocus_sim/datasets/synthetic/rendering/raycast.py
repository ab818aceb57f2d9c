"""Solids and their exact intersection with the rays of a pinhole camera at the origin.

World axes: x right, y down, z ahead, metres, camera at the origin. Ray directions are scaled so that the ray parameter
is z-depth along the optical axis, so a hit's parameter is the depth that an RGB-D camera reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.synthetic.rendering import ray_kernels

Array = NDArray[np.floating]
Vec3 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Finish:
    """How a surface looks: a texture of the scene, its `texel_px` size at the nearest visible point, place and tint.

    `gloss`: strength of the highlight, `sharpness` its exponent; `emission`: light of the tint's colour it gives off.
    """

    texture: int
    texel_px: float = 1.0
    angle: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    swap: tuple[int, int, int] = (0, 1, 2)
    gloss: float = 0.0
    sharpness: float = 1.0
    emission: float = 0.0

    def row(self) -> list[float]:
        """The finish as the kernels take it."""
        turn = [float(np.cos(self.angle)), float(np.sin(self.angle))]
        return [self.texture, *turn, *self.offset, *self.tint, *self.swap, self.gloss, self.sharpness, self.emission]


@dataclass(frozen=True, kw_only=True, eq=False)
class Solid:
    """A body: `centre` (3,), rows of `axes` (3, 3) its unit axes in world coordinates, `half` (3,) its half extents."""

    centre: Vec3
    half: Vec3
    finishes: tuple[Finish, ...]
    axes: Vec3 = field(default_factory=lambda: np.eye(3))
    kind: ClassVar[int]

    def corners(self) -> Vec3:
        """(8, 3) world corners of the oriented bounding box."""
        return self.centre + (_CORNER_SIGNS * self.half) @ self.axes

    def row(self) -> list[float]:
        """The solid as the kernels take it."""
        return [*self.centre.tolist(), *self.half.tolist(), *self.axes.ravel().tolist(), 1.0, 1.0, 0.0, 0.0]


_CORNER_SIGNS = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], dtype=np.float64)


class Box(Solid):
    """A cuboid."""

    kind = ray_kernels.BOX


class Shell(Solid):
    """A cuboid seen from inside; every ray from within hits it. Finishes: of faces -x, +x, -y, +y, -z, +z."""

    kind = ray_kernels.SHELL


class Ball(Solid):
    """An ellipsoid."""

    kind = ray_kernels.BALL


class Rod(Solid):
    """A round bar along its local y axis with flat ends; half extents x and z are its radius."""

    kind = ray_kernels.ROD


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice(Solid):
    """A flat sheet in its local x, y plane with holes: `period` in metres and `solid` part that is bar, along x and y."""

    period: tuple[float, float]
    solid: tuple[float, float]
    kind = ray_kernels.LATTICE

    def row(self) -> list[float]:
        """The solid as the kernels take it."""
        return [*super().row()[:15], *self.period, *self.solid]


class Disc(Solid):
    """A flat ellipse in its local x, y plane."""

    kind = ray_kernels.DISC


@dataclass(frozen=True, kw_only=True, eq=False)
class Cutout(Solid):
    """A flat rectangle in its local x, y plane, there where the scene's mask number `mask` is white."""

    mask: int
    kind = ray_kernels.CUTOUT

    def row(self) -> list[float]:
        """The solid as the kernels take it."""
        return [*super().row()[:15], float(self.mask), 0.0, 0.0, 0.0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """First hits of a grid of rays: z-depth `depth` (H, W) in m, `owner` (H, W) the solid, -1 and infinite where none.

    `kinds` (S,), `table` (S, COLUMNS): the solids; `turn` (3, 3), `u` (W,), `v` (H,): the rays, in the type of `depth`.
    """

    depth: Array
    owner: NDArray[np.int16]
    kinds: NDArray[np.int64]
    table: NDArray[np.float64]
    turn: Array
    u: Array
    v: Array


NO_MASKS = np.zeros((1, 2, 2), np.uint8)


def cast(
    solids: tuple[Solid, ...],
    rotation: Vec3,
    focal_px: float,
    hw: tuple[int, int],
    dtype: type[np.floating],
    *,
    masks: NDArray[np.uint8] = NO_MASKS,
    eye: Vec3 | None = None,
) -> Hits:
    """First hits of the rays through the centres of an image's pixels, computed in `dtype`.

    `rotation` (3, 3) takes world to camera axes; the principal point is the image centre. `masks` (M, S, S) of the
    cutouts. `eye` (3,): a camera that is not at the origin.
    """
    height, width = hw
    u = ((np.arange(width) + 0.5 - width / 2) / focal_px).astype(dtype)
    v = ((np.arange(height) + 0.5 - height / 2) / focal_px).astype(dtype)
    hits = Hits(
        depth=np.empty(hw, dtype),
        owner=np.empty(hw, np.int16),
        kinds=np.array([solid.kind for solid in solids], np.int64),
        table=np.array([solid.row() for solid in solids], np.float64),
        turn=np.ascontiguousarray(rotation, dtype),
        u=u,
        v=v,
    )
    if eye is not None:
        hits.table[:, :3] -= eye
    world = np.ascontiguousarray(rotation, np.float64)
    ray_kernels.cast_into(
        hits.depth, hits.owner, hits.kinds, hits.table, masks, world, hits.turn, u, v, float(focal_px), dtype(1e-12)
    )
    return hits
