"""Things that may be anywhere in a varied scene, turned anyhow: bodies, outlines, leaves, twigs, wires, nets, signs.

Every maker takes (workshop, centre, size, axes): a point in world metres, the rough size in metres and rows of unit axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from defocus_sim.datasets.synthetic.rendering.raycast import Ball, Box, Cutout, Disc, Finish, Lattice, Rod, Solid, Vec3
from defocus_sim.datasets.synthetic.scene_builder import Built, Workshop

# Places in a varied scene's list of textures.
GROUND, WALL, NATURAL, SOFT, PRINT, OTHER = range(6)
ANY = (NATURAL, SOFT, SOFT, SOFT, PRINT, OTHER)
MASKS = ("blob", "foliage", "twigs", "netting", "letters", "figure")


def any_axes(rng: np.random.Generator) -> Vec3:
    """(3, 3) a turn drawn from all turns alike: rows of unit axes."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.sqrt((q * q).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _facing(shop: Workshop, centre: Vec3, spread: float) -> Vec3:
    """Upright axes whose third points along the line of sight, but for `spread` radians."""
    rng = shop.rng
    yaw = float(np.arctan2(centre[0], centre[2])) + float(rng.normal(0, spread))
    roll = float(rng.normal(0, 0.1))
    x, z = np.array([np.cos(yaw), 0, -np.sin(yaw)]), np.array([np.sin(yaw), 0, np.cos(yaw)])
    y = np.array([0.0, 1.0, 0.0])
    return np.stack([np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x, z])


def _body(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A box, an ellipsoid or a round bar of any proportion."""
    half = size / 2 * shop.rng.uniform(0.35, 1.0, 3)
    kind = (Box, Ball, Rod)[int(shop.rng.integers(3))]
    if kind is Rod:
        half = np.array([half[0] * 0.6, half[1] * 1.4, half[0] * 0.6])
    return [kind(centre=centre, half=half, axes=axes, finishes=(shop.finish(ANY),))]


def _outline(*names: str, textures: tuple[int, ...] = ANY) -> Callable[[Workshop, Vec3, float, Vec3], Built]:
    def make(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
        mask = MASKS.index(str(shop.rng.choice(names)))
        half = size / 2 * np.array([shop.rng.uniform(0.7, 1.3), shop.rng.uniform(0.7, 1.3), 0.0])
        axes = _facing(shop, centre, 0.5)
        return [Cutout(centre=centre, half=half, axes=axes, finishes=(shop.finish(textures),), mask=mask)]

    return make


def _leaves(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A cloud of small leaves."""
    looks = [shop.finish((NATURAL, SOFT)) for _ in range(2)]
    leaf = size * float(shop.rng.uniform(0.06, 0.14))
    spots = centre + shop.rng.normal(0, 0.2, (70, 3)) * size
    return [_leaf(shop, spot, leaf, looks) for spot in spots]


def _leaf(shop: Workshop, centre: Vec3, length: float, looks: list[Finish]) -> Solid:
    half = length * np.array([0.5, float(shop.rng.uniform(0.15, 0.4)), 0.0])
    look = looks[int(shop.rng.integers(len(looks)))]
    return Disc(centre=centre, half=half, axes=any_axes(shop.rng), finishes=(look,))


def bar(start: Vec3, end: Vec3, radius: float, look: Finish) -> Rod:
    """A round bar from `start` to `end`."""
    along = end - start
    length = float(np.sqrt((along * along).sum()))
    y = along / length
    x = np.cross(y, [0.0, 0.0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0.0, 0.0])
    x = x / np.sqrt((x * x).sum())
    axes = np.stack([x, y, np.cross(x, y)])
    return Rod(centre=(start + end) / 2, half=np.array([radius, length / 2, radius]), axes=axes, finishes=(look,))


def _twigs(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A branch that forks three times, with leaves at its ends."""
    rng, wood = shop.rng, shop.finish((NATURAL, OTHER))
    looks = [shop.finish((NATURAL, SOFT)) for _ in range(2)]
    built: Built = []
    ends = [(centre + size * 0.5 * axes[1], -axes[1], 0.4 * size, 0.02 * size)]
    for _ in range(3):
        following = []
        for start, ahead, length, radius in ends:
            end = start + length * ahead
            built.append(bar(start, end, radius, wood))
            for _ in range(2):
                turn = ahead + rng.normal(0, 0.45, 3)
                turn = turn / np.sqrt((turn * turn).sum())
                following.append((end, turn, length * float(rng.uniform(0.6, 0.9)), radius * 0.6))
        ends = following
    for start, ahead, length, radius in ends:
        built.append(bar(start, start + length * ahead, radius, wood))
        spots = start + rng.uniform(0.2, 1.1, (3, 1)) * length * ahead
        built += [_leaf(shop, spot, 0.12 * size, looks) for spot in spots]
    return built


def _wires(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A few cables across the view, sagging, or straight poles."""
    rng, look = shop.rng, shop.finish((SOFT, OTHER))
    distance = float(np.sqrt((centre * centre).sum()))
    across = np.array([1.0, rng.normal(0, 0.3), rng.normal(0, 0.25)])
    if rng.random() < 0.25:
        across = across[[1, 0, 2]]
    reach, sag = 1.3 * distance, float(rng.uniform(0, 0.15)) * distance
    built: Built = []
    for _ in range(int(rng.integers(1, 5))):
        start = centre + rng.normal(0, 0.08, 3) * distance
        radius = distance * float(np.exp(rng.uniform(np.log(6e-4), np.log(5e-3))))
        knots = np.linspace(-0.5, 0.5, 7)
        points = [start + reach * k * across + np.array([0, sag * (0.25 - k * k) * 4, 0]) for k in knots]
        built += [bar(a, b, radius, look) for a, b in itertools.pairwise(points)]
    return built


def _fence(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A grid, railings or slats right across the view."""
    rng = shop.rng
    distance = float(np.sqrt((centre * centre).sum()))
    period = distance * float(np.exp(rng.uniform(np.log(0.02), np.log(0.15))))
    share = float(rng.uniform(0.06, 0.3))
    bars = ((share, share), (share, 0.0), (0.0, share))[int(rng.integers(3))]
    half = distance * np.array([rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.6), 0.0])
    axes, look = _facing(shop, centre, 0.4), shop.finish((SOFT, OTHER, NATURAL))
    return [
        Lattice(centre=centre, half=half, axes=axes, finishes=(look,), period=(period, 1.2 * period), solid=bars),
    ]


def _stack(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """Boxes, cylinders and balls on top of each other."""
    built: Built = []
    rng, foot = shop.rng, centre + np.array([0, size / 2, 0])
    for _ in range(int(rng.integers(3, 8))):
        half = size * rng.uniform(0.08, 0.28, 3)
        kind = (Box, Box, Rod, Ball)[int(rng.integers(4))]
        if kind is Rod:
            half[2] = half[0]
        yaw = float(rng.uniform(-np.pi, np.pi))
        turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        middle = foot - np.array([0, half[1], 0])
        built.append(kind(centre=middle, half=half, axes=turn, finishes=(shop.finish(ANY),)))
        foot = foot - np.array([0, 2 * half[1], 0]) + np.array([rng.normal(), 0, rng.normal()]) * 0.04 * size
    return built


def _sign(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A board with print on it, on a post or without."""
    rng = shop.rng
    turned = _facing(shop, centre, 0.5)
    half = size / 2 * np.array([rng.uniform(0.6, 1.3), rng.uniform(0.4, 0.9), 0.03])
    built: Built = [Box(centre=centre, half=half, axes=turned, finishes=(shop.finish((PRINT,)),))]
    if rng.random() < 0.6:
        end = centre + np.array([0, 3 * size, 0]) + 1.2 * half[2] * turned[2]
        built.append(bar(end - np.array([0, 3.2 * size, 0]), end, 0.04 * size, shop.finish((SOFT,))))
    return built


def _bunch(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """Fruit, pebbles or bubbles: balls of one sort beside each other."""
    rng, look = shop.rng, shop.finish(ANY)
    radius = size * float(rng.uniform(0.08, 0.2))
    spots = centre + rng.normal(0, 0.3, (int(rng.integers(5, 16)), 3)) * size
    return [Ball(centre=spot, half=np.full(3, radius), axes=axes, finishes=(look,)) for spot in spots]


def _slab(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A large slanted plane."""
    half = size * np.array([shop.rng.uniform(0.6, 1.6), shop.rng.uniform(0.6, 1.6), 0.02])
    return [Box(centre=centre, half=half, axes=axes, finishes=(shop.finish((WALL, *ANY)),))]


def _pane(shop: Workshop, centre: Vec3, size: float, axes: Vec3) -> Built:
    """A window, lampshade or screen: a panel that shines, in a frame."""
    rng, turned = shop.rng, _facing(shop, centre, 0.4)
    half = size / 2 * np.array([rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.2), 0.01])
    look = Finish(texture=SOFT, tint=(1.0, 1.0, 1.0), emission=float(np.exp(rng.uniform(np.log(0.3), np.log(6.0)))))
    frame = Box(
        centre=centre + 0.02 * size * turned[2],
        half=half + np.array([0.05, 0.05, 0.0]) * size,
        axes=turned,
        finishes=(shop.finish((SOFT,)),),
    )
    return [Box(centre=centre, half=half, axes=turned, finishes=(look,)), frame]


def point_light(centre: Vec3, radius: float, colour: tuple[float, float, float], emission: float) -> Solid:
    """A small ball that shines."""
    look = Finish(texture=SOFT, tint=colour, emission=emission)
    return Ball(centre=centre, half=np.full(3, radius), finishes=(look,))


CLUTTER: dict[str, Callable[[Workshop, Vec3, float, Vec3], Built]] = {
    "body": _body,
    "outline": _outline("blob", "letters"),
    "figure": _outline("figure", textures=(SOFT, OTHER)),
    "bush": _outline("foliage", "twigs", textures=(NATURAL, SOFT)),
    "net": _outline("netting", textures=(SOFT,)),
    "leaves": _leaves,
    "twigs": _twigs,
    "wires": _wires,
    "fence": _fence,
    "stack": _stack,
    "sign": _sign,
    "bunch": _bunch,
    "pane": _pane,
    "slab": _slab,
}
