"""What stands in rooms that people live and work in, in its usual size in metres.

Every maker takes (workshop, foot, yaw): a point on the floor or on a table top in world metres, and the direction in
radians of what is the piece's front towards -z. It returns the piece's solids.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from defocus_sim.datasets.synthetic.clutter import ANY, MASKS, NATURAL, OTHER, PRINT, SOFT, bar
from defocus_sim.datasets.synthetic.objects import box_on, rod_on, turned
from defocus_sim.datasets.synthetic.rendering.raycast import Ball, Cutout, Disc, Finish, Vec3
from defocus_sim.datasets.synthetic.scene_builder import Built, Workshop

Maker = Callable[[Workshop, Vec3, float], Built]
DESK_M = (0.66, 0.8)
_WOOD = (SOFT, OTHER, NATURAL)


def _screen(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A monitor on its stand, dark, shining or with print."""
    rng, axes = shop.rng, turned(yaw)
    width = float(rng.uniform(0.35, 0.65))
    height, lift = width * float(rng.uniform(0.56, 0.8)), float(rng.uniform(0.06, 0.16))
    dark = Finish(texture=SOFT, tint=(0.12, 0.12, 0.13), gloss=0.2, sharpness=60.0)
    shown = dark
    if rng.random() < 0.4:
        shown = Finish(
            texture=int(rng.choice((PRINT, SOFT))), tint=(0.9, 0.95, 1.0), emission=float(rng.uniform(0.2, 1.0))
        )
    return [
        box_on(foot, axes, (0, lift, 0.02), (width, height, 0.03), dark),
        box_on(foot, axes, (0, lift + 0.015, 0), (width - 0.03, height - 0.03, 0.012), shown),
        box_on(foot, axes, (0, 0, 0.06), (0.06, lift + 0.1, 0.02), dark),
        box_on(foot, axes, (0, 0, 0.04), (0.24, 0.015, 0.18), dark),
    ]


def _laptop(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    look = shop.finish((SOFT,))
    lid = turned(yaw, float(shop.rng.uniform(0.1, 0.5)))
    top = foot + np.array([0, 0, 0.11]) @ turned(yaw)
    return [
        box_on(foot, turned(yaw), (0, 0, 0), (0.33, 0.02, 0.23), look),
        box_on(top, lid, (0, 0.01, 0), (0.33, 0.22, 0.01), shop.finish((SOFT, PRINT))),
    ]


def _keyboard(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    return [box_on(foot, turned(yaw), (0, 0, 0), (0.43, 0.02, 0.14), shop.finish((PRINT, OTHER)))]


def _cup(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A mug, glass, tin or bottle."""
    radius, height = float(shop.rng.uniform(0.025, 0.05)), float(shop.rng.uniform(0.08, 0.28))
    look = shop.finish(ANY)
    built: Built = [rod_on(foot, radius, height, look)]
    if height > 0.18:
        built.append(rod_on(foot - np.array([0, height, 0]), 0.4 * radius, 0.3 * height, look))
    return built


def _papers(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """Sheets that lie over each other."""
    built: Built = []
    for layer in range(int(shop.rng.integers(1, 5))):
        spot = foot + np.array([shop.rng.normal(0, 0.05), -0.003 * layer, shop.rng.normal(0, 0.05)])
        turn = turned(yaw + float(shop.rng.normal(0, 0.5)))
        built.append(box_on(spot, turn, (0, 0, 0), (0.21, 0.003, 0.3), shop.finish((PRINT, SOFT))))
    return built


def _books(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A pile that lies, or a row that stands."""
    rng, axes = shop.rng, turned(yaw)
    built: Built = []
    at = 0.0
    upright = rng.random() < 0.6
    for _ in range(int(rng.integers(3, 10))):
        thick, tall = float(rng.uniform(0.012, 0.05)), float(rng.uniform(0.18, 0.3))
        look = shop.finish((SOFT, SOFT, PRINT, OTHER))
        if upright:
            built.append(box_on(foot, axes, (at + thick / 2, 0, 0), (0.95 * thick, tall, 0.17), look))
        else:
            turn = turned(yaw + float(rng.normal(0, 0.2)))
            built.append(box_on(foot - np.array([0, at, 0]), turn, (0, 0, 0), (tall, thick, 0.7 * tall), look))
        at += thick
    return built


def _carton(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """One to three boxes on each other."""
    built: Built = []
    for _ in range(int(shop.rng.integers(1, 4))):
        extent = shop.rng.uniform([0.12, 0.08, 0.12], [0.45, 0.35, 0.4])
        size = (float(extent[0]), float(extent[1]), float(extent[2]))
        built.append(box_on(foot, turned(yaw), (0, 0, 0), size, shop.finish((SOFT, PRINT, OTHER))))
        foot = foot - np.array([0, size[1], 0])
        yaw += float(shop.rng.normal(0, 0.3))
    return built


def _round(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A ball, globe, fruit or bag."""
    half = float(shop.rng.uniform(0.04, 0.16)) * shop.rng.uniform(0.7, 1.0, 3)
    return [Ball(centre=foot - np.array([0, half[1], 0]), half=half, axes=turned(yaw), finishes=(shop.finish(ANY),))]


def _desk_lamp(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    look = shop.finish((SOFT,))
    elbow = foot + np.array([0.12, -0.35, 0.0]) @ turned(yaw)
    head = elbow + np.array([-0.28, -0.08, 0.0]) @ turned(yaw)
    shade = Ball(centre=head, half=np.array([0.08, 0.05, 0.08]), finishes=(look,))
    return [rod_on(foot, 0.08, 0.02, look), bar(foot, elbow, 0.01, look), bar(elbow, head, 0.01, look), shade]


def _plant(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """Leaves on stalks out of a pot."""
    rng, size = shop.rng, float(shop.rng.uniform(0.2, 0.9))
    pot = rod_on(foot, 0.16 * size, 0.25 * size, shop.finish((SOFT, OTHER)))
    green = Finish(texture=NATURAL, tint=(0.5, 0.9, 0.4))
    base = foot - np.array([0, 0.25 * size, 0])
    built: Built = [pot]
    for _ in range(int(rng.integers(6, 16))):
        end = base + size * np.array([rng.normal(0, 0.25), -rng.uniform(0.2, 0.9), rng.normal(0, 0.25)])
        built.append(bar(base, end, 0.008 * size, green))
        half = size * np.array([rng.uniform(0.06, 0.14), rng.uniform(0.12, 0.25), 0.0])
        leaf = turned(float(rng.uniform(-3, 3)), float(rng.normal(0, 0.6)))
        built.append(Disc(centre=end, half=half, axes=leaf, finishes=(green,)))
    return built


def _cables(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    look = Finish(texture=SOFT, tint=(0.15, 0.15, 0.15))
    knots = np.cumsum(shop.rng.normal(0, 0.07, (6, 3)) * [1, 0, 1], axis=0) - np.array([0, 0.008, 0])
    return [bar(foot + a, foot + b, 0.006, look) for a, b in itertools.pairwise(knots)]


ON_TOP: dict[str, Maker] = {
    "screen": _screen,
    "laptop": _laptop,
    "keyboard": _keyboard,
    "cup": _cup,
    "papers": _papers,
    "books": _books,
    "carton": _carton,
    "round": _round,
    "lamp": _desk_lamp,
    "plant": _plant,
    "cables": _cables,
}


def things(shop: Workshop, top: Vec3, axes: Vec3, span: tuple[float, float], yaw: float, crowd: float) -> Built:
    """Things on a surface of `span` metres whose middle is `top`, each on its own patch of 0.3 m, `crowd` of them taken."""
    rng, built = shop.rng, []
    patches = [max(1, round(length / 0.3)) for length in span]
    for i in range(patches[0]):
        for j in range(patches[1]):
            if rng.random() < crowd:
                at = [((n + 0.5) / of - 0.5) * length for n, of, length in zip((i, j), patches, span, strict=True)]
                spot = top + (np.array([at[0], 0.0, at[1]]) + np.array([1, 0, 1]) * rng.normal(0, 0.03, 3)) @ axes
                maker = ON_TOP[str(rng.choice(list(ON_TOP)))]
                built += maker(shop, spot, yaw + float(rng.normal(0, 0.5)))
    return built


def desk(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A desk, table or counter with what lies on it."""
    rng, axes = shop.rng, turned(yaw)
    span = (float(rng.uniform(0.9, 2.2)), float(rng.uniform(0.6, 0.95)))
    height, look = float(rng.uniform(*DESK_M)), shop.finish(_WOOD)
    built: Built = [box_on(foot, axes, (0, height - 0.03, 0), (span[0], 0.03, span[1]), look)]
    side = look if rng.random() < 0.5 else shop.finish((SOFT,))
    for sign in (-1, 1):
        x = sign * (span[0] / 2 - 0.04)
        if rng.random() < 0.4:
            built.append(box_on(foot, axes, (x, 0, 0), (0.03, height - 0.03, 0.9 * span[1]), side))
        else:
            built += [
                box_on(foot, axes, (x, 0, z), (0.05, height - 0.03, 0.05), side)
                for z in (-0.4 * span[1], 0.4 * span[1])
            ]
    if rng.random() < 0.4:
        built.append(box_on(foot, axes, (0.25 * span[0], 0.05, 0), (0.42, height - 0.12, 0.5), shop.finish((SOFT,))))
    top = foot - np.array([0, height, 0])
    return built + things(shop, top, axes, span, yaw, float(rng.uniform(0.2, 0.9)))


def office_chair(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A seat and a back on one stem."""
    rng, axes, look = shop.rng, turned(yaw), shop.finish((SOFT, OTHER))
    seat, wide = float(rng.uniform(0.42, 0.52)), float(rng.uniform(0.42, 0.52))
    lean = turned(yaw, float(rng.uniform(0.0, 0.25)))
    behind = foot + np.array([0, -seat, 0.45 * wide]) @ axes
    dark = Finish(texture=SOFT, tint=(0.15, 0.15, 0.16))
    built: Built = [
        box_on(foot, axes, (0, seat - 0.07, 0), (wide, 0.07, wide), look),
        box_on(behind, lean, (0, 0.08, 0), (0.95 * wide, float(rng.uniform(0.35, 0.65)), 0.06), look),
        rod_on(foot, 0.03, seat - 0.07, dark),
    ]
    for turn in np.arange(5) * 2 * np.pi / 5 + yaw:
        tip = foot + np.array([0.28 * np.sin(turn), -0.04, 0.28 * np.cos(turn)])
        built.append(bar(foot - np.array([0, 0.09, 0]), tip, 0.02, dark))
    if rng.random() < 0.5:
        built += [box_on(foot, axes, (s * wide / 2, seat + 0.18, 0), (0.05, 0.03, 0.28), dark) for s in (-1, 1)]
    return built


def stool(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A chair of four legs with a back of bars, or without a back."""
    rng, axes, look = shop.rng, turned(yaw), shop.finish(_WOOD)
    seat, wide, rest = float(rng.uniform(0.42, 0.75)), float(rng.uniform(0.36, 0.46)), float(rng.uniform(0.3, 0.5))
    built: Built = [box_on(foot, axes, (0, seat - 0.04, 0), (wide, 0.04, wide), look)]
    corners = [(x * wide / 2.2, z * wide / 2.2) for x in (-1, 1) for z in (-1, 1)]
    backed = rng.random() < 0.7
    for x, z in corners:
        built.append(box_on(foot, axes, (x, 0, z), (0.035, seat + (rest if backed and z > 0 else 0), 0.035), look))
    if backed:
        heights = seat + rest * np.linspace(0.3, 1.0, int(rng.integers(2, 5)))
        built += [box_on(foot, axes, (0, float(y) - 0.05, wide / 2.2), (wide, 0.05, 0.02), look) for y in heights]
    return built


def cupboard(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """Closed with doors, or open with boards and what stands on them."""
    rng, axes, look = shop.rng, turned(yaw), shop.finish(_WOOD)
    wide, deep, high = (float(rng.uniform(*pair)) for pair in ((0.6, 1.6), (0.3, 0.5), (0.7, 2.2)))
    if rng.random() < 0.4:
        built: Built = [box_on(foot, axes, (0, 0, 0.02), (wide, high, deep), look)]
        doors, front = int(rng.integers(1, 4)), shop.finish(_WOOD)
        for n in range(doors):
            x = ((n + 0.5) / doors - 0.5) * wide
            built.append(box_on(foot, axes, (x, 0.05, -deep / 2), (0.97 * wide / doors, high - 0.08, 0.02), front))
        return built + things(shop, foot - np.array([0, high, 0]), axes, (wide, deep), yaw, 0.4)
    built = [box_on(foot, axes, (s * wide / 2, 0, 0), (0.03, high, deep), look) for s in (-1, 1)]
    built.append(
        box_on(foot, axes, (0, 0, deep / 2), (wide, high, 0.01), look if rng.random() < 0.5 else shop.finish((SOFT,)))
    )
    crowd = float(rng.uniform(0.2, 1.0))
    for level in np.arange(0.06, high, float(rng.uniform(0.28, 0.42))):
        built.append(box_on(foot, axes, (0, float(level) - 0.02, 0), (wide, 0.02, deep), look))
        spot = foot - np.array([0, float(level), 0])
        for x in np.arange(-wide / 2 + 0.14, wide / 2 - 0.1, 0.26):
            if rng.random() < crowd:
                maker = (_books, _books, _cup, _round, _carton)[int(rng.integers(5))]
                place = spot + np.array([x - (0.1 if maker is _books else 0.0), 0, -0.03]) @ axes
                built += [part for part in maker(shop, place, yaw) if _below(part.corners(), spot, 0.28)]
    return built


def _below(corners: Vec3, foot: Vec3, height: float) -> bool:
    return bool((foot[1] - corners[:, 1]).max() < height)


def sofa(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """A sofa, armchair or bed with cushions."""
    rng, axes, look = shop.rng, turned(yaw), shop.finish((SOFT, OTHER))
    wide, deep, seat = float(rng.uniform(0.8, 2.2)), float(rng.uniform(0.8, 1.9)), float(rng.uniform(0.35, 0.5))
    built: Built = [
        box_on(foot, axes, (0, 0, 0), (wide, seat, deep), look),
        box_on(foot, axes, (0, 0, deep / 2), (wide, seat + float(rng.uniform(0.2, 0.5)), 0.2), look),
    ]
    if rng.random() < 0.6:
        built += [box_on(foot, axes, (s * wide / 2, 0, 0), (0.18, seat + 0.2, deep), look) for s in (-1, 1)]
    for _ in range(int(rng.integers(0, 4))):
        half = rng.uniform([0.15, 0.12, 0.06], [0.28, 0.22, 0.12])
        spot = foot + np.array([rng.uniform(-0.4, 0.4) * wide, -seat - half[1], rng.uniform(0.0, 0.4) * deep]) @ axes
        built.append(
            Ball(
                centre=spot, half=half, axes=turned(yaw + float(rng.normal(0, 0.5)), 0.4), finishes=(shop.finish(ANY),)
            )
        )
    return built


def person(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """An outline of a person, upright and facing the camera."""
    half = float(shop.rng.uniform(0.75, 0.95)) * np.array([0.5, 1.0, 0.0])
    facing = turned(float(np.arctan2(foot[0], foot[2])))
    centre = foot - np.array([0, half[1], 0])
    look = shop.finish((SOFT, OTHER))
    return [Cutout(centre=centre, half=half, axes=facing, finishes=(look,), mask=MASKS.index("figure"))]


def bin_or_pot(shop: Workshop, foot: Vec3, yaw: float) -> Built:
    """What stands on floors: bins, potted plants, cartons, bags."""
    maker = (_plant, _carton, _round, _cup)[int(shop.rng.integers(4))]
    if maker is not _cup:
        return maker(shop, foot, yaw)
    return [rod_on(foot, float(shop.rng.uniform(0.12, 0.2)), float(shop.rng.uniform(0.25, 0.6)), shop.finish(ANY))]


STANDING: dict[str, Maker] = {
    "desk": desk,
    "office chair": office_chair,
    "stool": stool,
    "cupboard": cupboard,
    "sofa": sofa,
    "person": person,
    "bin": bin_or_pot,
}
