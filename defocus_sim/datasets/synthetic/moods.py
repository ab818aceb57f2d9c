"""How a scene of any kind looks: finishes that may be glossy or dark, sun, lamps, overcast sky or night, an exposure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from defocus_sim.datasets.synthetic.clutter import SOFT, point_light
from defocus_sim.datasets.synthetic.rendering.raycast import Finish, Solid, Vec3
from defocus_sim.datasets.synthetic.rendering.render import Exposure, Light


def dressed(rng: np.random.Generator, solids: tuple[Solid, ...], sky: bool) -> tuple[Solid, ...]:
    """The solids with finishes that may be glossy, dark or coloured; parts of one look keep one look."""
    known: dict[Finish, Finish] = {}
    dressed = []
    for solid in solids:
        for finish in solid.finishes:
            if finish not in known:
                known[finish] = _restyled(rng, finish)
        dressed.append(replace(solid, finishes=tuple(known[finish] for finish in solid.finishes)))
    if sky:
        # Above, and maybe ahead.
        blue = np.array([1 - rng.uniform(0, 0.5), 1 - rng.uniform(0, 0.25), 1.0]) * rng.uniform(0.3, 1.2)
        look = Finish(texture=SOFT, tint=_colour(blue), emission=1.0)
        faces = [solids[0].finishes[face % len(solids[0].finishes)] for face in range(6)]
        faces[2] = look
        if rng.random() < 0.6:
            faces[5] = look
        dressed[0] = replace(dressed[0], finishes=tuple(known.get(face, face) for face in faces))
    return tuple(dressed)


def _restyled(rng: np.random.Generator, finish: Finish) -> Finish:
    if finish.emission:
        return finish
    glossy, dark, strong, swapped = rng.random(4)
    tint = np.array(finish.tint)
    tint = (0.6 * tint.mean() + 0.4 * tint) * rng.uniform(0.7, 1.15)
    if dark < 0.15:
        tint = tint * rng.uniform(0.08, 0.3)
    if strong < 0.1:
        tint = tint * rng.uniform(0.25, 1.3, 3)
    return replace(
        finish,
        tint=_colour(tint),
        swap=finish.swap if swapped < 0.1 else (0, 1, 2),
        gloss=float(np.exp(rng.uniform(np.log(0.05), np.log(4.0)))) if glossy < 0.4 else 0.0,
        sharpness=float(np.exp(rng.uniform(np.log(8.0), np.log(800.0)))),
    )


def _direction(rng: np.random.Generator) -> Vec3:
    """From above, from any side."""
    way = np.array([rng.normal(0, 1), -rng.uniform(0.3, 2.0), rng.normal(-0.4, 1)])
    return way / np.sqrt((way * way).sum())


def lighting(rng: np.random.Generator, reach_m: float, night: bool, near: float) -> tuple[Light, tuple[Solid, ...]]:
    """Sun, lamp, overcast or night, and the point lights that are in view."""
    middle = np.array([0.0, 0.0, 0.55 * reach_m])
    warm = (1.0, float(rng.uniform(0.8, 1.0)), float(rng.uniform(0.55, 1.0)))
    spots = _spots(rng, reach_m, int(rng.integers(2, 9)) if night else int(rng.choice([0, 0, 0, 1, 4])), near)
    others = tuple(
        Light(position=at - np.array([0, 0, 0.02]) * reach_m, reach_m=0.12 * reach_m, ambient=0, colour=colour)
        for at, colour, _ in spots
    )
    emission = float(np.exp(rng.uniform(np.log(3.0), np.log(40.0))))
    balls = tuple(point_light(at, radius, colour, emission) for at, colour, radius in spots)
    if night:
        light = Light(
            position=middle + 0.6 * reach_m * _direction(rng),
            reach_m=0.3 * reach_m,
            ambient=float(np.exp(rng.uniform(np.log(0.01), np.log(0.1)))),
            colour=warm,
            sky=(0.6, 0.75, 1.0),
            others=others[:4],
            shadow_tangent=1.6,
            aim=middle,
        )
        return light, balls
    dim = tuple(replace(lamp, colour=_colour(0.5 * np.array(lamp.colour))) for lamp in others[:2])
    mood = rng.random()
    if mood < 0.4:
        light = Light(
            position=middle + 6 * reach_m * _direction(rng),
            reach_m=100 * reach_m,
            ambient=float(rng.uniform(0.08, 0.45)),
            colour=(1.0, float(rng.uniform(0.85, 1.0)), float(rng.uniform(0.7, 1.0))),
            sky=(0.8, 0.9, 1.0),
            others=dim,
            shadow_tangent=0.16,
            aim=middle,
        )
    else:
        light = Light(
            position=middle + float(rng.uniform(0.4, 0.9)) * reach_m * _direction(rng),
            reach_m=float(rng.uniform(0.3, 1.5)) * reach_m,
            ambient=float(rng.uniform(0.1, 0.5)) if mood < 0.8 else float(rng.uniform(0.8, 2.0)),
            colour=warm,
            others=dim,
            shadow_tangent=1.6 if mood < 0.8 else 0.0,
            aim=middle,
        )
    return light, balls


def _colour(channels: Vec3) -> tuple[float, float, float]:
    return float(channels[0]), float(channels[1]), float(channels[2])


def _spots(
    rng: np.random.Generator, reach_m: float, count: int, near: float
) -> list[tuple[Vec3, tuple[float, float, float], float]]:
    """Places, colours and radii of point lights, at any depth in view."""
    spots = []
    for _ in range(count):
        z = float(np.exp(rng.uniform(np.log(1.6 * near), np.log(max(reach_m, 2 * near)))))
        at = z * np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.2), 1.0])
        warm = np.array([1.0, rng.uniform(0.5, 1.0), rng.uniform(0.2, 1.0)])
        colour = warm if rng.random() < 0.8 else rng.permutation(warm)
        spots.append((at, _colour(colour), z * float(np.exp(rng.uniform(np.log(0.0012), np.log(0.012))))))
    return spots


def exposure(rng: np.random.Generator, night: bool) -> Exposure:
    """How a picture is exposed: mean, clipping, gamma, contrast, colour; nights are dark and clip their lamps."""
    balance = _colour(np.exp(rng.normal(0, 0.06, 3)))
    if night:
        mean = float(np.exp(rng.uniform(np.log(0.015), np.log(0.1))))
        return Exposure(mean=mean, bright=0.98, ceiling=4.0, gamma=float(rng.uniform(0.85, 1.15)), balance=balance)
    return Exposure(
        mean=float(np.exp(rng.uniform(np.log(0.12), np.log(0.5)))),
        bright=0.97,
        ceiling=float(rng.uniform(0.8, 2.4)),
        gamma=float(np.exp(rng.normal(0, 0.1))),
        contrast=float(rng.uniform(-0.1, 0.7)),
        saturation=float(rng.uniform(0.3, 1.0)),
        balance=balance,
    )
