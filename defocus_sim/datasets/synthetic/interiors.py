"""Rooms as people furnish them: offices, corridors, corners, shelves and living rooms, seen from where people stand.

What tells in a photograph which side of the focus a surface is on is mostly how rooms are laid out: a desk begins before
the lens and runs away from it, walls recede, chairs stand before tables and cupboards against walls. Surfaces are mostly
plain, windows are bright, and much of a picture is one wall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from defocus_sim.datasets.synthetic.clutter import ANY, GROUND, OTHER, PRINT, SOFT, WALL
from defocus_sim.datasets.synthetic.furniture import STANDING
from defocus_sim.datasets.synthetic.materials import material_pyramids
from defocus_sim.datasets.synthetic.moods import dressed, exposure, lighting
from defocus_sim.datasets.synthetic.objects import turned
from defocus_sim.datasets.synthetic.rendering.raycast import Box, Finish, Lattice, Shell, Solid, Vec3
from defocus_sim.datasets.synthetic.rendering.render import Light, Scene, depth_map
from defocus_sim.datasets.synthetic.scene_builder import Built, Workshop
from defocus_sim.datasets.synthetic.scenes import Range, focal_length_px, probe
from defocus_sim.datasets.synthetic.varied import other_materials, outlines

SPAN_M: Range = (0.4, 14.0)
_TRIES = 12
_GROUNDS = ("plain", "plain", "wood", "wood", "fabric", "fabric", "blotches", "brick")
_WALLS = ("plain", "plain", "plain", "plain", "skin", "cloud", "wood", "brick")
# Clear of the lens, so that nothing is seen from inside.
_CLEAR_M = 0.12


@dataclass(frozen=True, kw_only=True)
class Interior:
    """What one kind of room is drawn from, metres and degrees.

    `side_m`, `ahead_m`: distances of the walls; `yaw_deg`: how far the view may turn from the walls. `along`: weights of
    what stands against walls, `free`: in the middle, `before`: near the lens, each with how many there are of them.
    """

    side_m: Range
    ahead_m: Range
    yaw_deg: float
    along: tuple[Mapping[str, float], tuple[int, int]]
    free: tuple[Mapping[str, float], tuple[int, int]]
    before: tuple[Mapping[str, float], tuple[int, int]]


INTERIORS: dict[str, Interior] = {
    "office": Interior(
        side_m=(1.0, 3.5),
        ahead_m=(2.0, 6.5),
        yaw_deg=45,
        along=({"cupboard": 3, "desk": 3, "bin": 1}, (1, 5)),
        free=({"desk": 3, "office chair": 3, "person": 0.5, "bin": 1}, (1, 5)),
        before=({"desk": 6, "office chair": 2, "cupboard": 1, "person": 0.3}, (1, 2)),
    ),
    "corridor": Interior(
        side_m=(0.5, 1.4),
        ahead_m=(3.0, 12.0),
        yaw_deg=30,
        along=({"cupboard": 2, "bin": 2, "stool": 1}, (0, 4)),
        free=({"person": 1, "bin": 1, "stool": 1}, (0, 2)),
        before=({"cupboard": 1, "person": 0.5, "bin": 1}, (0, 1)),
    ),
    "corner": Interior(
        side_m=(0.7, 2.0),
        ahead_m=(0.9, 3.0),
        yaw_deg=70,
        along=({"cupboard": 2, "desk": 1, "bin": 2, "stool": 1}, (0, 3)),
        free=({"bin": 2, "office chair": 1, "stool": 1}, (0, 2)),
        before=({"desk": 2, "bin": 1, "office chair": 1, "cupboard": 1}, (0, 1)),
    ),
    "shelves": Interior(
        side_m=(0.8, 2.5),
        ahead_m=(1.2, 3.5),
        yaw_deg=60,
        along=({"cupboard": 1}, (3, 6)),
        free=({"bin": 2, "stool": 1, "office chair": 1}, (0, 3)),
        before=({"cupboard": 2, "desk": 1, "bin": 1}, (0, 1)),
    ),
    "living": Interior(
        side_m=(1.2, 3.5),
        ahead_m=(2.5, 7.0),
        yaw_deg=45,
        along=({"sofa": 3, "cupboard": 2, "bin": 1, "desk": 1}, (2, 5)),
        free=({"sofa": 2, "desk": 1, "stool": 2, "bin": 2, "person": 0.5}, (1, 5)),
        before=({"sofa": 2, "stool": 2, "desk": 3, "bin": 1, "person": 0.3}, (0, 2)),
    ),
}


def build_interior(rng: np.random.Generator, kind: str, hw: tuple[int, int], hfov_deg: float) -> Scene:
    """A room of one of `INTERIORS` with depths within `SPAN_M`, for a view `hfov_deg` wide across the longer side.

    Layouts are drawn until one is good; after `_TRIES` the best so far is taken, once one keeps the depths.
    """
    room = INTERIORS[kind]
    score, scene = _drawn(rng, room, hw, hfov_deg)
    tries = 1
    while score < 1 and (tries < _TRIES or score == 0):
        score, scene = max((score, scene), _drawn(rng, room, hw, hfov_deg), key=lambda scored: scored[0])
        tries += 1
    names = (str(rng.choice(_GROUNDS)), str(rng.choice(_WALLS)), *other_materials(rng))
    depth, _ = probe(scene, hw)
    light, lamps = lighting(rng, float(np.quantile(depth, 0.8)), rng.random() < 0.05, SPAN_M[0])
    whole = replace(
        scene,
        solids=dressed(rng, scene.solids, False) + lamps,
        light=light,
        textures=material_pyramids(names, rng),
        masks=outlines(rng, scene.solids),
        # Windows clip more often than not: the room is what is exposed for.
        exposure=replace(
            exposure(rng, False), bright=float(rng.uniform(0.7, 0.97)), ceiling=float(rng.uniform(0.6, 1.6))
        ),
    )
    return _without_what_is_too_near(whole, hw, hfov_deg)


def _drawn(rng: np.random.Generator, room: Interior, hw: tuple[int, int], hfov_deg: float) -> tuple[float, Scene]:
    """A layout and how good its view is: 0 = too near or far, 1 = some reach in depth and no thing that fills it."""
    scene = _laid_out(rng, room, hfov_deg)
    depth, owner = probe(scene, hw, hfov_deg)
    if depth.min() < 1.05 * SPAN_M[0] or depth.max() > SPAN_M[1]:
        return 0.0, scene
    share = np.bincount(owner.ravel(), minlength=len(scene.solids)) / owner.size
    low, high = np.quantile(depth, [0.05, 0.95])
    return min(1.0, 0.6 / max(float(share[1:].max(initial=0)), 1e-3), float(np.log(high / low) / np.log(1.4))), scene


def _without_what_is_too_near(scene: Scene, hw: tuple[int, int], hfov_deg: float) -> Scene:
    """The scene less what is thin and right before the lens, which a probe may miss."""
    while True:
        depth, owner = depth_map(scene, focal_length_px(hw, hfov_deg), hw)
        out = set(np.unique(owner[depth < SPAN_M[0]]).tolist())
        if not out:
            return scene
        scene = replace(scene, solids=tuple(solid for n, solid in enumerate(scene.solids) if n not in out))


def _laid_out(rng: np.random.Generator, room: Interior, hfov_deg: float) -> Scene:
    """One layout around a camera that looks ahead, mostly a little down."""
    eye = float(rng.uniform(0.95, 1.75))
    pitch, roll = np.radians(rng.normal(6, 9)), np.radians(rng.normal(0, 1.5))
    ahead = np.array([0.0, np.sin(pitch), np.cos(pitch)])
    right, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(pitch), -np.sin(pitch)])
    rotation = np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, ahead])
    shop = Workshop(rng=rng, rotation=rotation, floor_m=eye, near_m=SPAN_M[0], size_m=(0.0, np.inf))
    shell = _walls(rng, room, shop, eye)
    shop.enclose(shell)
    built: Built = [*_on_walls(shop)]
    for pieces, place in ((room.along, _against_wall), (room.free, _in_view), (room.before, _before_lens)):
        weights, (least, most) = pieces
        names, odds = list(weights), np.array(list(weights.values()), np.float64)
        for _ in range(int(rng.integers(least, most + 1))):
            name = str(rng.choice(names, p=odds / odds.sum()))
            foot, yaw = place(shop, name, hfov_deg)
            built += [part for part in STANDING[name](shop, foot, yaw) if _clear(part)]
    light = Light(position=np.zeros(3), reach_m=1.0, ambient=1.0)
    return Scene(solids=(shell, *built), rotation=rotation, light=light)


def _clear(part: Solid) -> bool:
    """Whether the lens is outside of a part."""
    return bool((np.abs(part.centre @ part.axes.T) > part.half + _CLEAR_M).any())


def _walls(rng: np.random.Generator, room: Interior, shop: Workshop, eye: float) -> Shell:
    left, right = rng.uniform(*room.side_m, 2)
    front, height, behind = float(rng.uniform(*room.ahead_m)), float(rng.uniform(2.4, 3.4)), 1.0
    yaw = np.radians(rng.uniform(-room.yaw_deg, room.yaw_deg))
    half = np.array([left + right, height, front + behind]) / 2
    axes = turned(float(yaw))
    centre = np.array([(right - left) / 2, eye - height / 2, (front - behind) / 2]) @ axes
    wall, ceiling, floor = shop.finish((WALL,)), shop.finish((SOFT,)), shop.finish((GROUND,))
    other = wall if rng.random() < 0.6 else shop.finish((WALL, SOFT, OTHER))
    return Shell(centre=centre, half=half, axes=axes, finishes=(wall, wall, ceiling, floor, wall, other))


@dataclass(frozen=True, kw_only=True)
class _Wall:
    """One of the shell's walls, on the side `sign` of its axis `axis`; `across` is the axis along the wall."""

    shell: Shell
    axis: int
    sign: int

    @property
    def across(self) -> int:
        return 2 - self.axis

    def panel(self, at: float, low: float, size: tuple[float, float], look: Finish, depth: float = 0.03) -> Box:
        """A flat box on the wall, `at` along it from its middle, `low` over the floor, `size` wide and tall."""
        shell, local = self.shell, np.zeros(3)
        local[self.across], local[1] = at, shell.half[1] - low - size[1] / 2
        local[self.axis] = self.sign * (shell.half[self.axis] - depth / 2)
        half = np.array([size[0], size[1], depth]) / 2
        axes = shell.axes[[self.across, 1, self.axis]]
        return Box(centre=shell.centre + local @ shell.axes, half=half, axes=axes, finishes=(look,))


def _on_walls(shop: Workshop) -> Built:
    """Boards along the floor, and one after another doors, windows, boards with print, switches and boxes."""
    rng, shell = shop.rng, shop.shell
    built: Built = []
    skirting = shop.finish((SOFT,))
    for axis, sign in ((0, -1), (0, 1), (2, 1)):
        wall = _Wall(shell=shell, axis=axis, sign=sign)
        length = 2 * float(shell.half[wall.across])
        if rng.random() < 0.7:
            built.append(wall.panel(0.0, 0.0, (length, float(rng.uniform(0.06, 0.14))), skirting, 0.02))
        at = -length / 2 + float(rng.uniform(0.2, 1.2))
        while at < length / 2 - 0.6:
            kind = rng.random()
            wide = float(rng.uniform(0.75, 1.0))
            if kind < 0.25:
                built += _door(shop, wall, at, wide)
            elif kind < 0.45:
                wide *= float(rng.uniform(1.0, 2.2))
                built += _window(shop, wall, at + wide / 2, wide)
            elif kind < 0.8:
                wide *= float(rng.uniform(0.3, 1.8))
                tall, low = float(rng.uniform(0.25, 1.1)), float(rng.uniform(0.8, 1.5))
                built.append(wall.panel(at + wide / 2, low, (wide + 0.05, tall + 0.05), shop.finish((SOFT,)), 0.02))
                shown = shop.finish((PRINT, PRINT, SOFT, OTHER))
                built.append(wall.panel(at + wide / 2, low + 0.025, (wide, tall), shown, 0.025))
            else:
                built.append(wall.panel(at, 0.3, (0.1, 0.1), shop.finish((SOFT,)), 0.03))
                built.append(wall.panel(at, float(rng.uniform(1.0, 2.0)), (0.12, 0.2), shop.finish(ANY), 0.06))
            at += wide + float(rng.exponential(0.6))
    return built


def _door(shop: Workshop, wall: _Wall, at: float, wide: float) -> Built:
    handle = Finish(texture=SOFT, gloss=2.0, sharpness=80.0)
    return [
        wall.panel(at + wide / 2, 0.0, (wide + 0.14, 2.12), shop.finish((SOFT,)), 0.03),
        wall.panel(at + wide / 2, 0.0, (wide, 2.05), shop.finish((SOFT, OTHER, WALL)), 0.05),
        wall.panel(at + 0.1, 1.0, (0.1, 0.03), handle, 0.1),
    ]


def _window(shop: Workshop, wall: _Wall, at: float, wide: float) -> Built:
    """A bright pane in a frame, before which slats may hang."""
    rng = shop.rng
    tall, low = float(rng.uniform(0.9, 1.5)), float(rng.uniform(0.6, 1.1))
    shine = Finish(
        texture=int(rng.choice((SOFT, SOFT, OTHER))),
        tint=(float(rng.uniform(0.8, 1.0)), float(rng.uniform(0.9, 1.0)), 1.0),
        emission=float(np.exp(rng.uniform(np.log(0.3), np.log(3.0)))),
    )
    frame = shop.finish((SOFT,))
    pane = wall.panel(at, low, (wide, tall), shine, 0.03)
    built: Built = [wall.panel(at, low - 0.06, (wide + 0.12, tall + 0.12), frame, 0.02), pane]
    built.append(wall.panel(at, low, (0.05, tall), frame, 0.06))
    if rng.random() < 0.4:
        period = float(rng.uniform(0.03, 0.08))
        slats = Lattice(
            centre=pane.centre - 0.08 * np.sign(pane.axes[2] @ pane.centre) * pane.axes[2],
            half=pane.half * np.array([1.0, 1.0, 0.0]),
            axes=pane.axes,
            finishes=(frame,),
            period=(10.0, period),
            solid=(0.0, float(rng.uniform(0.3, 0.8))),
        )
        built.append(slats)
    return built


def _against_wall(shop: Workshop, name: str, hfov_deg: float) -> tuple[Vec3, float]:
    """A place at one of the three walls in view, the piece's back to it."""
    rng, shell = shop.rng, shop.shell
    axis, sign = ((0, -1), (0, 1), (2, 1), (2, 1))[int(rng.integers(4))]
    local = np.zeros(3)
    gap = 0.28 if name == "cupboard" else 0.5
    local[axis] = sign * (shell.half[axis] - gap)
    across = 2 - axis
    local[across] = float(rng.uniform(-0.9, 0.9)) * shell.half[across]
    foot = shell.centre + local @ shell.axes
    foot[1] = shop.floor_m
    out = sign * shell.axes[axis]
    return foot, float(np.arctan2(out[0], out[2])) + float(rng.normal(0, 0.03))


def _in_view(shop: Workshop, name: str, hfov_deg: float) -> tuple[Vec3, float]:
    """A place on the floor in the view, at any distance alike by its logarithm."""
    rng, shell = shop.rng, shop.shell
    reach = float((shell.centre + shell.half[2] * shell.axes[2])[2])
    z = float(np.exp(rng.uniform(np.log(0.9), np.log(max(reach, 1.2)))))
    x = z * float(np.tan(np.radians(hfov_deg / 2))) * float(rng.uniform(-1.1, 1.1))
    return np.array([x, shop.floor_m, z]), _turn(shop)


def _before_lens(shop: Workshop, name: str, hfov_deg: float) -> tuple[Vec3, float]:
    """A place from which a piece reaches into the view from near, off to a side more often than in the middle."""
    rng = shop.rng
    z = float(rng.uniform(0.35, 1.3)) + (0.3 if name in ("desk", "sofa") else 0.0)
    x = float(rng.choice([-1, 1])) * float(np.sqrt(rng.uniform(0, 1))) * (0.35 + 0.7 * z)
    return np.array([x, shop.floor_m, z]), _turn(shop)


def _turn(shop: Workshop) -> float:
    """Mostly along the walls, in any of four directions."""
    rng = shop.rng
    ahead = shop.shell.axes[2]
    along = float(np.arctan2(ahead[0], ahead[2])) + float(rng.integers(4)) * np.pi / 2
    return along + float(rng.normal(0, 0.08 if rng.random() < 0.7 else 0.6))
