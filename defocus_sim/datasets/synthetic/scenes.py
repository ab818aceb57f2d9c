"""Seeded layouts: an enclosure of planes and furniture at log-spaced depths, in four scales that share one builder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.synthetic.objects import MAKERS
from defocus_sim.datasets.synthetic.rendering.raycast import Shell, Vec3
from defocus_sim.datasets.synthetic.rendering.render import Light, Scene, depth_map
from defocus_sim.datasets.synthetic.scene_builder import Workshop
from defocus_sim.datasets.synthetic.textures import fractal, texture_pyramid

Range = tuple[float, float]

HFOV_DEG = 57.0
_TRIES = 24
_PROBE_LONG_SIDE = 48


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The ranges one kind of scene is drawn from: metres and degrees.

    `depth_m` bounds every pixel's z-depth. `eye_m` is the camera's height over the floor, `pitch_deg` how far it looks
    down. `side_m`, `ahead_m`, `above_m` are the distances of walls and ceiling from the camera. `size_m`
    bounds furniture, of which there are `pieces`, drawn from `makers` with weights.
    """

    depth_m: Range
    eye_m: Range
    pitch_deg: Range
    yaw_deg: Range
    side_m: Range
    ahead_m: Range
    above_m: Range
    size_m: Range
    pieces: tuple[int, int]
    makers: dict[str, float]
    floor_patterns: tuple[str, ...] = ("planks", "tiles", "cloud", "leaves")
    wall_patterns: tuple[str, ...] = ("cloud", "leaves", "tiles", "planks")


SCALES = {
    "tabletop": Scale(
        depth_m=(0.3, 1.5),
        eye_m=(0.34, 0.55),
        pitch_deg=(16.0, 32.0),
        yaw_deg=(-35.0, 35.0),
        side_m=(0.55, 1.1),
        ahead_m=(0.8, 1.25),
        above_m=(0.5, 0.9),
        size_m=(0.05, 0.3),
        pieces=(9, 14),
        makers={"crate": 4, "ball": 3, "pillar": 3, "lamp": 1, "board": 2, "lattice": 1, "picture": 1},
    ),
    "room": Scale(
        depth_m=(0.7, 10.0),
        eye_m=(1.1, 1.6),
        pitch_deg=(2.0, 16.0),
        yaw_deg=(-40.0, 40.0),
        side_m=(1.3, 3.2),
        ahead_m=(4.0, 8.0),
        above_m=(1.0, 1.6),
        size_m=(0.15, 1.9),
        pieces=(9, 14),
        makers={
            "crate": 3,
            "ball": 2,
            "pillar": 2,
            "lamp": 2,
            "board": 2,
            "lattice": 1,
            "table": 2,
            "chair": 3,
            "shelf": 2,
            "pendant": 2,
            "picture": 3,
        },
    ),
    "hall": Scale(
        depth_m=(2.0, 60.0),
        eye_m=(1.5, 3.0),
        pitch_deg=(0.0, 8.0),
        yaw_deg=(-18.0, 18.0),
        side_m=(4.0, 11.0),
        ahead_m=(20.0, 45.0),
        above_m=(4.0, 9.0),
        size_m=(0.5, 6.0),
        pieces=(13, 20),
        makers={"crate": 4, "ball": 2, "pillar": 5, "lamp": 3, "board": 2, "lattice": 1, "shelf": 1, "pendant": 3},
    ),
    "street": Scale(
        depth_m=(2.0, 60.0),
        eye_m=(1.4, 2.2),
        pitch_deg=(-4.0, 4.0),
        yaw_deg=(-12.0, 12.0),
        side_m=(4.0, 9.0),
        ahead_m=(35.0, 52.0),
        above_m=(40.0, 45.0),
        size_m=(0.6, 7.0),
        pieces=(14, 22),
        makers={"crate": 6, "ball": 1, "pillar": 3, "lamp": 6, "board": 2, "lattice": 1},
        wall_patterns=("tiles", "leaves", "tiles", "cloud"),
    ),
}


def focal_length_px(hw: tuple[int, int], hfov_deg: float = HFOV_DEG) -> float:
    """Focal length in px of a synthetic camera that sees `hfov_deg` across the longer side."""
    return max(hw) / 2 / float(np.tan(np.radians(hfov_deg / 2)))


def build_scene(rng: np.random.Generator, scale: Scale, hw: tuple[int, int]) -> Scene:
    """A scene whose depths all lie in `scale.depth_m`, with several bodies in view and no body filling it.

    Layouts are drawn until one passes; after `_TRIES` draws the best so far is taken, so that every seed gives a scene.
    """
    best = _draw_scored(rng, scale, hw)
    for _ in range(_TRIES - 1):
        if best[0] >= 1.0:
            break
        best = max(best, _draw_scored(rng, scale, hw), key=lambda scored: scored[0])
    patterns = (rng.choice(scale.floor_patterns), rng.choice(scale.wall_patterns), "leaves", "cloud", "marks")
    noise = fractal(rng)
    textures = tuple(texture_pyramid(str(pattern), rng, noise) for pattern in patterns)
    return replace(best[1], textures=textures)


def _draw_scored(rng: np.random.Generator, scale: Scale, hw: tuple[int, int]) -> tuple[float, Scene]:
    """The next layout whose enclosure keeps the depth range (about every second one does), and its score."""
    while (layout := draw_layout(rng, scale, hw)) is None:
        pass
    return _score(layout, hw), layout


def _camera(rng: np.random.Generator, scale: Scale) -> Vec3:
    pitch, roll = np.radians(rng.uniform(*scale.pitch_deg)), np.radians(rng.normal(0.0, 1.5))
    ahead = np.array([0.0, np.sin(pitch), np.cos(pitch)])
    right, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(pitch), -np.sin(pitch)])
    return np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, ahead])


def _enclosure(rng: np.random.Generator, scale: Scale, shop: Workshop, eye: float, yaw: float) -> Shell:
    left, right = rng.uniform(*scale.side_m, 2)
    ahead, above = rng.uniform(*scale.ahead_m), rng.uniform(*scale.above_m)
    behind = 0.5 * left
    half = np.array([left + right, eye + above, ahead + behind]) / 2
    axes = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    centre = np.array([(right - left) / 2, (eye - above) / 2, (ahead - behind) / 2]) @ axes
    wall, other, floor, ceiling = (shop.finish(choice) for choice in ((1,), (1, 3), (0,), (3,)))
    return Shell(centre=centre, half=half, axes=axes, finishes=(wall, wall, ceiling, floor, wall, other))


def draw_layout(rng: np.random.Generator, scale: Scale, hw: tuple[int, int]) -> Scene | None:
    """One layout, or None where the enclosure alone is nearer or farther than allowed."""
    near, far = scale.depth_m
    rotation = _camera(rng, scale)
    eye, yaw = rng.uniform(*scale.eye_m), np.radians(rng.uniform(*scale.yaw_deg))
    shop = Workshop(rng=rng, rotation=rotation, floor_m=eye, near_m=near, size_m=scale.size_m)
    shell = _enclosure(rng, scale, shop, eye, yaw)
    light = Light(
        position=np.array([rng.uniform(-1, 1), -0.9 * scale.above_m[0], rng.uniform(0, 0.5) * scale.ahead_m[0]])
        * np.array([scale.side_m[0], 1, 1]),
        reach_m=float(rng.uniform(0.5, 1.0) * scale.ahead_m[1]),
        ambient=float(rng.uniform(0.25, 0.5)),
        colour=(1.0, float(rng.uniform(0.85, 1.0)), float(rng.uniform(0.7, 1.0))),
    )
    bare = Scene(solids=(shell,), rotation=rotation, light=light)
    depth, _ = probe(bare, hw)
    if depth.min() < near * 1.04 or depth.max() > far * 0.97:
        return None
    shop.enclose(shell)
    count = int(rng.integers(scale.pieces[0], scale.pieces[1] + 1))
    names, weights = list(scale.makers), np.array(list(scale.makers.values()))
    # One piece per log-depth stratum: something near, something far, and occlusions between them in every view.
    steps = np.geomspace(near * 1.15, max(float(np.quantile(depth, 0.8)), 2 * near), count + 1)
    tangent = np.tan(np.radians(HFOV_DEG / 2)) * hw[1] / max(hw)
    for low, high in itertools.pairwise(steps):
        name = str(rng.choice(names, p=weights / weights.sum()))
        shop.add(MAKERS[name], float(rng.uniform(low, high)), float(tangent))
    return Scene(solids=(shell, *shop.solids), rotation=rotation, light=light)


def probe(
    scene: Scene, hw: tuple[int, int], hfov_deg: float = HFOV_DEG
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Depth and owners of a picture of `hw`, on a small grid of the same field of view."""
    shrink = _PROBE_LONG_SIDE / max(hw)
    small = (max(4, round(hw[0] * shrink)), max(4, round(hw[1] * shrink)))
    return depth_map(scene, focal_length_px(small, hfov_deg), small)


def _score(scene: Scene, hw: tuple[int, int]) -> float:
    """How good the view is, 1 = nothing to wish for: bodies in view, none too large, depth spread, shell still seen."""
    depth, owner = probe(scene, hw)
    share = np.bincount(owner.ravel(), minlength=len(scene.solids)) / owner.size
    low, high = np.quantile(depth, [0.05, 0.95])
    return min(
        1.0,
        float((share[1:] > 0.004).sum()) / 6,
        0.3 / max(float(share[1:].max(initial=0)), 1e-3),
        float(np.log(high / low) / np.log(2.0)),
        float(share[0]) / 0.25,
        (1 - float(share[0])) / 0.2,
    )
