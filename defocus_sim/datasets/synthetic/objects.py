"""Things to put into a scene, each built of a few solids around a foot point.

Every maker takes (workshop, foot, size, yaw): a point on the floor in world metres, the piece's rough size in metres
and its direction in radians. It returns the solids of one piece, which the workshop keeps where they fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from defocus_sim.datasets.synthetic.rendering.raycast import Ball, Box, Finish, Lattice, Rod, Vec3
from defocus_sim.datasets.synthetic.scene_builder import Built, Workshop


def turned(yaw: float, tilt: float = 0.0) -> Vec3:
    """Rows: the axes of a body turned about the vertical, then leant back about its own x axis."""
    x, y, z = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    return np.stack([x, np.cos(tilt) * y + np.sin(tilt) * z, np.cos(tilt) * z - np.sin(tilt) * y])


def box_on(
    foot: Vec3,
    axes: Vec3,
    at: tuple[float, float, float],
    size: tuple[float, float, float],
    look: Finish,
) -> Box:
    """A box whose bottom centre is `at` (x, height, z in the piece's own axes) over `foot`, `size` = full extents."""
    half = np.array(size) / 2
    centre = foot + np.array([at[0], -at[1] - half[1], at[2]]) @ axes
    return Box(centre=centre, half=half, axes=axes, finishes=(look,))


def _crate(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """One to three boxes, the upper ones turned."""
    built: Built = []
    base = foot
    for _ in range(int(shop.rng.integers(1, 4))):
        extent = tuple((size * shop.rng.uniform([0.6, 0.4, 0.5], [1.3, 1.1, 1.1])).tolist())
        built.append(box_on(base, turned(yaw), (0, 0, 0), extent, shop.finish()))
        base = base - np.array([0, extent[1], 0])
        yaw += float(shop.rng.uniform(-0.5, 0.5))
        size *= 0.75
    return built


def _ball(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    half = size * 0.5 * shop.rng.uniform([0.8, 0.6, 0.8], [1.1, 1.1, 1.1])
    return [Ball(centre=foot - np.array([0, half[1], 0]), half=half, axes=turned(yaw), finishes=(shop.finish(),))]


def rod_on(foot: Vec3, radius: float, height: float, look: Finish, axes: Vec3 | None = None) -> Rod:
    """A round bar that stands on `foot`, upright or along the second of `axes`."""
    half = np.array([radius, height / 2, radius])
    frame = np.eye(3) if axes is None else axes
    return Rod(centre=foot - frame[1] * height / 2, half=half, axes=frame, finishes=(look,))


def _pillar(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A post: from a pole that leans to a column."""
    thick = float(shop.rng.choice([0.05, 0.09, 0.3]))
    height = size * float(shop.rng.uniform(1.5, 3.5))
    lean = float(shop.rng.normal(0, 0.12)) if thick < 0.2 else 0.0
    return [rod_on(foot, size * thick, height, shop.finish(), turned(yaw, lean))]


def _lamp(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A thin stem with a round head: lamp, tree or flower."""
    height = size * float(shop.rng.uniform(1.5, 3.0))
    head = size * shop.rng.uniform([0.3, 0.25, 0.3], [0.7, 0.6, 0.7])
    crown = foot - np.array([0, height, 0])
    stem = rod_on(foot, size * float(shop.rng.uniform(0.02, 0.05)), height, shop.finish())
    return [stem, Ball(centre=crown, half=head, axes=turned(yaw), finishes=(shop.finish(),))]


def _board(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A leaning panel."""
    tilt = float(shop.rng.uniform(-0.5, 0.5))
    half = size * shop.rng.uniform([0.4, 0.5, 0.02], [0.8, 0.9, 0.04])
    axes = turned(yaw, tilt)
    lift = np.array([0, abs(axes[1, 1]) * half[1] + abs(axes[2, 1]) * half[2], 0])
    return [Box(centre=foot - lift, half=half, axes=axes, finishes=(shop.finish((1, 2, 3, 4, 4)),))]


def _lattice(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A standing grid or a set of slats: many edges with the background between them."""
    half = size * np.array([shop.rng.uniform(0.5, 0.9), shop.rng.uniform(0.5, 0.9), 0.005])
    period = size * float(shop.rng.uniform(0.2, 0.4))
    bars = (float(shop.rng.choice([0.0, 0.25])), float(shop.rng.uniform(0.25, 0.45)))
    # Facing the camera within 50 degrees, or the gaps would close.
    yaw = float(np.arctan2(foot[0], foot[2]) + 0.28 * yaw)
    return [
        Lattice(
            centre=foot - np.array([0, half[1], 0]),
            half=half,
            axes=turned(yaw),
            finishes=(shop.finish((0, 2, 3)),),
            period=(period, period),
            solid=bars,
        )
    ]


def _legs(foot: Vec3, axes: Vec3, span: tuple[float, float], height: float, look: Finish) -> Built:
    thick = 0.07 * min(span)
    spots = [(i * span[0] / 2, j * span[1] / 2) for i in (-0.9, 0.9) for j in (-0.9, 0.9)]
    return [box_on(foot, axes, (x, 0, z), (thick, height, thick), look) for x, z in spots]


def _table(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A slab on four legs with something on it."""
    axes, look = turned(yaw), shop.finish((0, 3))
    span = (size * float(shop.rng.uniform(1.0, 1.6)), size * float(shop.rng.uniform(0.7, 1.0)))
    height = size * float(shop.rng.uniform(0.5, 0.8))
    built: Built = [box_on(foot, axes, (0, height, 0), (span[0], 0.06 * size, span[1]), look)]
    built += _legs(foot, axes, span, height, look)
    top = foot - np.array([0, height + 0.06 * size, 0])
    for side in (-0.25, 0.25):
        spot = top + np.array([side * span[0], 0, 0]) @ axes
        maker = (_crate, _ball, _pillar)[int(shop.rng.integers(3))]
        built += maker(shop, spot, 0.3 * size, yaw)
    return built


def _chair(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    axes, look = turned(yaw), shop.finish((0, 2, 3))
    width, height = 0.6 * size, 0.6 * size
    built: Built = [box_on(foot, axes, (0, height, 0), (width, 0.06 * size, width), look)]
    built += _legs(foot, axes, (width, width), height, look)
    built.append(box_on(foot, axes, (0, height, 0.46 * width), (width, 0.7 * size, 0.05 * size), look))
    return built


def _shelf(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """Uprights and boards with things on them; what stands behind is seen through."""
    axes, look = turned(_along_walls(shop, yaw)), shop.finish((0, 3))
    width, depth, height = size, 0.35 * size, size * float(shop.rng.uniform(1.2, 1.6))
    built: Built = [
        box_on(foot, axes, (side * width / 2, 0, 0), (0.05 * size, height, depth), look) for side in (-1, 1)
    ]
    for level in np.linspace(0.15, 0.95, 4) * height:
        built.append(box_on(foot, axes, (0, float(level), 0), (width, 0.04 * size, depth), look))
        spot = foot + np.array([shop.rng.uniform(-0.25, 0.25) * width, -level - 0.04 * size, 0]) @ axes
        if level < 0.9 * height:
            built += (_ball if shop.rng.random() < 0.5 else _rows_of_books)(shop, spot, 0.2 * size, yaw)
    return built


def _along_walls(shop: Workshop, yaw: float) -> float:
    """The direction of the walls, now and then another: large furniture stands along them."""
    ahead = shop.shell.axes[2]
    return float(np.arctan2(ahead[0], ahead[2])) + (0.1 * yaw if shop.rng.random() < 0.8 else yaw)


def _rows_of_books(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    return [box_on(foot, turned(0.1 * yaw), (0, 0, 0), (1.6 * size, 0.8 * size, 0.8 * size), shop.finish((4,)))]


def _pendant(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A round body on a cord from the ceiling."""
    ceiling = float(shop.shell.centre[1] - shop.shell.half[1])
    half = 0.5 * size * shop.rng.uniform([0.5, 0.4, 0.5], [0.9, 0.8, 0.9])
    cord = float(shop.rng.uniform(0.1, 0.5)) * (shop.floor_m - ceiling)
    middle = np.array([foot[0], ceiling + cord + half[1], foot[2]])
    head = Ball(centre=middle, half=half, axes=turned(yaw), finishes=(shop.finish(),))
    return [rod_on(np.array([foot[0], ceiling + cord, foot[2]]), 0.03 * size, cord, shop.finish()), head]


def _picture(shop: Workshop, foot: Vec3, size: float, yaw: float) -> Built:
    """A framed panel on the far wall."""
    axes = shop.shell.axes
    half = size * shop.rng.uniform([0.3, 0.25, 0.02], [0.7, 0.5, 0.03])
    local = (foot - shop.shell.centre) @ axes.T
    local[1] = -0.4 * shop.shell.half[1] + float(shop.rng.uniform(-0.2, 0.2)) * size
    local[2] = shop.shell.half[2] - half[2]
    return [Box(centre=shop.shell.centre + local @ axes, half=half, axes=axes, finishes=(shop.finish((2, 4)),))]


MAKERS: dict[str, Callable[[Workshop, Vec3, float, float], Built]] = {
    "crate": _crate,
    "ball": _ball,
    "pillar": _pillar,
    "lamp": _lamp,
    "board": _board,
    "lattice": _lattice,
    "table": _table,
    "chair": _chair,
    "shelf": _shelf,
    "pendant": _pendant,
    "picture": _picture,
}
