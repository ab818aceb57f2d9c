"""Scenes of many kinds, for networks that have to work on photographs: see `KINDS`.

A scene is a furnished space as in `scenes`, or an enclosure turned anyhow, so that what is low in the picture need not be
near; clutter at log-uniform depths; materials from bare to rough; sun, lamps, an overcast sky or night; and an exposure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from defocus_sim.datasets.synthetic.clutter import CLUTTER, MASKS, any_axes
from defocus_sim.datasets.synthetic.cutouts import Mask, draw_masks
from defocus_sim.datasets.synthetic.materials import MATERIALS, material_pyramids
from defocus_sim.datasets.synthetic.moods import dressed, exposure, lighting
from defocus_sim.datasets.synthetic.rendering.raycast import Cutout, Finish, Shell, Solid
from defocus_sim.datasets.synthetic.rendering.render import Light, Scene
from defocus_sim.datasets.synthetic.scene_builder import Workshop
from defocus_sim.datasets.synthetic.scenes import HFOV_DEG, SCALES, Range, Scale, draw_layout, probe

# Wider than the rooms' scales: from what lies before the lens to the end of a street.
SPANS_M: dict[str, Range] = {"tabletop": (0.3, 2.0), "room": (0.7, 10.0), "hall": (1.5, 60.0), "street": (2.0, 80.0)}
_SOFT, _WALLS = (
    ("plain", "skin", "plain"),
    ("plain", "plain", "plain", "brick", "cloud", "nature", "skin", "facade", "wood"),
)
_GROUNDS = ("wood", "brick", "gravel", "foliage", "nature", "fabric", "plain", "plain", "cloud", "stripes")
_TRIES = 12
_OPEN_AIR = ("hall", "street")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What one kind of scene is made of.

    `clutter`: weights of things of `CLUTTER`, of which there are `count`, `size` wide as a share of the view's width.
    `furnished`: on a floor, with that share of the usual furniture; None: an enclosure turned anyhow. `grounds`, `walls`:
    materials. `night`: dark, with few lamps.
    """

    clutter: Mapping[str, float]
    count: tuple[int, int]
    size: Range = (0.04, 0.3)
    furnished: float | None = None
    grounds: tuple[str, ...] = _GROUNDS
    walls: tuple[str, ...] = _WALLS
    night: bool = False


_OF_ALL = {name: 1.0 for name in CLUTTER if name not in ("slab", "fence", "net", "pane")} | {"pane": 0.5}
KINDS: dict[str, Kind] = {
    "office": Kind(
        clutter={"stack": 3, "sign": 2, "pane": 1.5, "wires": 1, "body": 2},
        count=(4, 14),
        furnished=1.0,
        grounds=("plain", "fabric", "wood"),
        walls=_SOFT,
    ),
    "furnished": Kind(clutter=_OF_ALL, count=(1, 6), furnished=1.0),
    "clutter": Kind(clutter=_OF_ALL | {"body": 4.0}, count=(10, 45)),
    "stacks": Kind(clutter={"stack": 4, "bunch": 1, "body": 1}, count=(6, 16), furnished=0.3),
    "planes": Kind(clutter={"slab": 3, "body": 1, "outline": 1}, count=(4, 10), size=(0.15, 0.7)),
    "foliage": Kind(
        clutter={"leaves": 2, "twigs": 2, "bush": 6, "figure": 0.5, "bunch": 0.5},
        count=(7, 20),
        size=(0.2, 0.8),
        walls=("foliage", "foliage", "nature", "plain"),
    ),
    "fence": Kind(clutter={"fence": 2, "wires": 2, "net": 1, "body": 2, "figure": 1}, count=(5, 14), furnished=0.5),
    "signs": Kind(clutter={"sign": 4, "outline": 2, "figure": 1, "body": 1}, count=(5, 14), furnished=0.3),
    "bare": Kind(
        clutter={"body": 3, "bunch": 1, "slab": 1, "wires": 0.5, "pane": 0.5},
        count=(3, 10),
        size=(0.1, 0.5),
        grounds=_SOFT,
        walls=_SOFT,
    ),
    "night": Kind(clutter=_OF_ALL, count=(3, 10), furnished=0.7, night=True),
}


def draw_kind(rng: np.random.Generator) -> str:
    """One of `KINDS`, all alike often."""
    return str(rng.choice(list(KINDS)))


def build_varied(rng: np.random.Generator, kind: str, scale: str, hw: tuple[int, int]) -> Scene:
    """A scene of one of `KINDS`, every depth of which lies within `SPANS_M[scale]`."""
    chosen = KINDS[kind]
    near, far = SPANS_M[scale]
    for _ in range(_TRIES):
        bare = (
            _furnished(rng, scale, hw, chosen.furnished) if chosen.furnished is not None else _enclosed(rng, scale, hw)
        )
        solids, reach_m = _cluttered(rng, bare, chosen, (near, far), hw)
        scene = replace(bare, solids=solids)
        depth, owner = probe(scene, hw)
        # Not a view of one thing right before the lens.
        share = np.bincount(owner.ravel(), minlength=2)[1:].max() / owner.size
        if share < 0.6 and depth.max() > 1.3 * depth.min():
            break
    names = (rng.choice(chosen.grounds), rng.choice(chosen.walls), *other_materials(rng))
    light, lamps = lighting(rng, reach_m, chosen.night, near)
    return replace(
        scene,
        solids=dressed(rng, scene.solids, scale in _OPEN_AIR and light.reach_m > 50 * reach_m) + lamps,
        light=light,
        textures=material_pyramids(tuple(str(name) for name in names), rng),
        masks=outlines(rng, scene.solids),
        exposure=exposure(rng, chosen.night),
    )


def outlines(rng: np.random.Generator, solids: tuple[Solid, ...]) -> Mask:
    """The outlines in use, each in its place among `MASKS`."""
    used = {solid.mask for solid in solids if isinstance(solid, Cutout)}
    return draw_masks(tuple(name if number in used else "" for number, name in enumerate(MASKS)), rng)


def other_materials(rng: np.random.Generator) -> tuple[str, str, str, str]:
    """Materials of what is natural, soft, printed, and of all sorts."""
    natural = str(rng.choice(["foliage", "nature", "gravel", "wood"]))
    return natural, str(rng.choice(_SOFT)), str(rng.choice(["text", "sign"])), str(rng.choice(MATERIALS))


def _furnished(rng: np.random.Generator, scale: str, hw: tuple[int, int], share: float) -> Scene:
    usual = SCALES[scale]
    least, most = (max(1, round(share * number)) for number in usual.pieces)
    wider: dict[str, Range] = {
        "tabletop": (0.8, 1.7),
        "room": usual.ahead_m,
        "hall": usual.ahead_m,
        "street": (30.0, 72.0),
    }
    layout: Scale = replace(usual, pieces=(least, most), ahead_m=wider[scale], depth_m=SPANS_M[scale])
    while (scene := draw_layout(rng, layout, hw)) is None:
        pass
    return scene


def _enclosed(rng: np.random.Generator, scale: str, hw: tuple[int, int]) -> Scene:
    """A box turned anyhow about the camera: its faces are slanted walls."""
    near, far = SPANS_M[scale]
    light = Light(position=np.zeros(3), reach_m=1.0, ambient=1.0)
    while True:
        distance = float(np.exp(rng.uniform(np.log(2.5 * near), np.log(far))))
        axes = any_axes(rng) if rng.random() < 0.6 else np.eye(3)
        low, high = -distance * rng.uniform(0.3, 1.0, 3), distance * rng.uniform(0.3, 1.0, 3)
        looks = tuple(_look(rng, texture) for texture in (1, 0, 1, 0, 1, 1))
        shell = Shell(centre=((low + high) / 2) @ axes, half=(high - low) / 2, axes=axes, finishes=looks)
        scene = Scene(solids=(shell,), rotation=np.eye(3), light=light)
        depth, _ = probe(scene, hw)
        if depth.min() > 1.1 * near and depth.max() < 0.97 * far:
            return scene


def _look(rng: np.random.Generator, texture: int) -> Finish:
    return Finish(texture=texture, angle=float(rng.uniform(0, 2 * np.pi)), texel_px=float(rng.uniform(0.6, 1.3)))


def _cluttered(
    rng: np.random.Generator, scene: Scene, kind: Kind, span_m: Range, hw: tuple[int, int]
) -> tuple[tuple[Solid, ...], float]:
    """The scene's solids with things at log-uniform depths before its walls, and the depth where most of it ends."""
    near = span_m[0]
    depth, _ = probe(replace(scene, solids=scene.solids[:1]), hw)
    end = float(np.quantile(depth, 0.8))
    shop = Workshop(rng=rng, rotation=scene.rotation, floor_m=0.0, near_m=near, size_m=(0.0, np.inf))
    names, weights = list(kind.clutter), np.array(list(kind.clutter.values()), np.float64)
    tangent = np.tan(np.radians(HFOV_DEG / 2)) * np.array([hw[1], hw[0]]) / max(hw)
    built = list(scene.solids)
    for _ in range(int(np.exp(rng.uniform(np.log(kind.count[0]), np.log(kind.count[1] + 1))))):
        z = float(np.exp(rng.uniform(np.log(1.2 * near), np.log(max(end, 1.5 * near)))))
        u, v = rng.uniform(-1.0, 1.0, 2) * tangent
        size = z * 2 * float(tangent[0]) * float(np.exp(rng.uniform(*np.log(kind.size))))
        name = str(rng.choice(names, p=weights / weights.sum()))
        right, down, ahead = scene.rotation
        upright = rng.random() < 0.4
        axes = np.eye(3) if upright else any_axes(rng)
        parts = CLUTTER[name](shop, z * (u * right + v * down + ahead), size, axes)
        # Nothing nearer than allowed.
        built += [part for part in parts if (part.corners() @ ahead).min() > 1.03 * near]
    return tuple(built), end
