"""What surfaces of varied scenes are made of: from walls without a mark to print, each as albedo in linear light.

Every maker takes (rng, cloud, smooth): two tileable fields of mean 0 and deviation 1, with amplitude 1/f and 1/f^2. It
returns (TEXELS, TEXELS, 3) float32.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.synthetic.textures import (
    F32,
    TEXELS,
    Pyramid,
    fractal,
    palette,
    pyramid_of,
    ramp,
    texture_pyramid,
)

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)


def colour(rng: np.random.Generator) -> F32:
    """(3,) any linear colour: greys and muted ones above all, few strong ones; dark and light."""
    # Most of what photographs show is brown, ochre or red, or next to grey.
    hue = float(rng.normal(0.08, 0.05)) if rng.random() < 0.55 else float(rng.random())
    strength = float(rng.choice([0.08, 0.3, 0.95], p=[0.58, 0.32, 0.1])) * float(rng.random())
    # White and black things are more frequent than what lies between.
    low, high = ((0.8, 0.97), (0.08, 0.25), (0.15, 0.95))[int(rng.choice(3, p=[0.3, 0.2, 0.5]))]
    value = float(rng.uniform(low, high))
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([0.0, 1 / 3, 2 / 3])))
    return np.clip((value * (1 - strength * (1 - wave))) ** 2.2, 0.012, 0.92).astype(np.float32)


def _grid() -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    steps = np.arange(TEXELS, dtype=np.float32) / np.float32(TEXELS)
    return steps[:, None], steps[None, :]


def _plain(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Paint or plaster: one colour, hardly lighter here than there."""
    shade = np.float32(1) + np.float32(rng.uniform(0, 0.08)) * smooth + np.float32(rng.uniform(0, 0.015)) * cloud
    return shade[..., None] * colour(rng)


def _skin(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Slow changes of colour without an edge."""
    base = np.array([0.62, 0.36, 0.25], np.float32) * np.float32(rng.uniform(0.25, 1.1))
    if rng.random() < 0.5:
        base = colour(rng)
    other = np.clip(base * rng.uniform(0.5, 1.3, 3), 0.02, 0.9).astype(np.float32)
    part = np.clip(np.float32(0.5) + np.float32(0.3) * smooth, 0, 1)[..., None]
    return base * (1 - part) + other * part


def _nature(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Rock, soil or rust: light, and less so colour, varies with the spectrum of natural pictures."""
    spread = np.float32(rng.uniform(0.25, 0.7))
    tone = spread * np.roll(cloud, TEXELS // 2, 0) + np.float32(0.3) * smooth
    tint = np.float32(rng.uniform(0, 0.25)) * np.roll(cloud.T, TEXELS // 3, 1)
    return np.exp(np.stack([tone + tint, tone, tone - tint], -1)) * colour(rng) * np.float32(0.8)


def _blotches(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Areas of few colours with hard outlines."""
    count = int(rng.integers(2, 6))
    field = smooth + np.float32(rng.uniform(0, 0.5)) * cloud
    colours = np.stack([colour(rng) for _ in range(count)])
    index = np.clip((field * 0.28 + 0.5) * count, 0, count - 1).astype(np.intp)
    return colours.take(index, axis=0)


def _brick(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Courses of bricks or slabs, each of its own tone, with mortar between them."""
    rows = int(rng.choice([6, 10, 16, 24]))
    cols = max(2, rows // int(rng.choice([1, 2, 3])))
    y, x = _grid()
    row = (y * rows).astype(np.intp)
    across = (x * cols + row % 2 * 0.5) % cols
    tone = rng.normal(1.0, 0.16, (rows, cols)).astype(np.float32)[row, across.astype(np.intp)]
    width = float(rng.uniform(0.04, 0.16))
    joint = (y * rows % 1 < width) | (across % 1 < width * cols / rows)
    clay = np.array([0.35, 0.13, 0.08], np.float32) * np.float32(rng.uniform(0.6, 1.6))
    clay = clay if rng.random() < 0.5 else colour(rng)
    brick = (tone * (1 + np.float32(0.15) * cloud))[..., None] * clay
    return np.where(joint[..., None], colour(rng) * (1 + np.float32(0.1) * cloud[..., None]), brick)


def _wood(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Boards with grain along them."""
    y, x = _grid()
    boards = int(rng.integers(1, 9))
    board = np.broadcast_to((x * boards).astype(np.intp), (TEXELS, TEXELS))
    shift = rng.uniform(0, 6, boards).astype(np.float32)[board]
    rings = np.sin(
        2 * np.pi * (x * int(rng.integers(20, 70)) + np.float32(0.9) * smooth + shift + np.sin(2 * np.pi * y))
    )
    tone = 0.45 * rings + 0.35 * cloud + 0.8 * rng.normal(0, 0.5, boards).astype(np.float32)[board]
    dark = np.array([0.18, 0.08, 0.035], np.float32) * np.float32(rng.uniform(0.5, 2.0))
    stops = np.stack([dark, dark * np.float32(2.1), dark * np.float32(3.4)]) if rng.random() < 0.8 else palette(rng, 3)
    gap = (x * boards % 1 < 0.012 * boards) & (boards > 1)
    return (
        ramp(tone.astype(np.float32), np.clip(stops, 0.01, 0.9)) * np.where(gap, 0.3, 1.0).astype(np.float32)[..., None]
    )


def _fabric(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Woven threads, plain, striped or checked."""
    y, x = _grid()
    threads = int(rng.choice([64, 96, 128]))
    weave = np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    bands = int(rng.integers(2, 14))
    colours = np.stack([colour(rng) for _ in range(3)])
    along = rng.integers(0, 3, bands)[(np.arange(TEXELS) * bands // TEXELS)]
    across = along if rng.random() < 0.5 else np.zeros(TEXELS, np.intp)
    cloth = 0.5 * (colours[along][None, :] + colours[across][:, None])
    return cloth * (1 + np.float32(0.18) * weave + np.float32(0.08) * smooth)[..., None].astype(np.float32)


def _scatter(
    rng: np.random.Generator, count: int, sizes: tuple[float, float], colours: NDArray[np.floating], slim: float
) -> F32:
    """Rounded (slim 1) or pointed pieces dropped on one another, wrapped at the border; every tone shaded by its height."""
    canvas = np.zeros((TEXELS, TEXELS), np.uint8)
    radius = sizes[0] * (sizes[1] / sizes[0]) ** rng.random(count) ** 2
    places, turns = rng.random((count, 2)) * TEXELS, rng.uniform(0, 2 * np.pi, count)
    shades = np.clip(np.linspace(40, 235, count) + rng.normal(0, 35, count), 1, 255).astype(int)
    corners = np.linspace(0, 2 * np.pi, 7 if slim == 1 else 5)[:-1]
    bend = rng.uniform(0.75, 1.15, (count, len(corners))) if slim == 1 else np.array([1.0, slim, 1.0, slim])[None]
    angle = corners[None] + turns[:, None]
    reach = radius[:, None] * bend
    shape = np.stack([places[:, :1] + reach * np.cos(angle), places[:, 1:] + reach * np.sin(angle)], -1)
    whole = np.rint(shape * 16).astype(np.int32)
    for outline, shade, (px, py), r in zip(whole, shades.tolist(), places.tolist(), radius.tolist(), strict=True):
        for dx in {0, TEXELS if px < r else -TEXELS if px > TEXELS - r else 0}:
            for dy in {0, TEXELS if py < r else -TEXELS if py > TEXELS - r else 0}:
                points = outline + np.array([16 * dx, 16 * dy], np.int32) if dx or dy else outline
                cv2.fillConvexPoly(canvas, points, shade, cv2.LINE_8, 4)
    table = colours[rng.integers(0, len(colours), 256)] * (np.linspace(0.25, 1.25, 256)[:, None])
    return table.astype(np.float32).take(canvas, axis=0)


def _gravel(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Stones or crumbs of one sort."""
    size = float(rng.uniform(3, 14))
    colours = np.stack([colour(rng) for _ in range(3)]) * 0.5 + 0.5 * colour(rng)
    return _scatter(rng, int(min(2200, 3 * (TEXELS / size) ** 2)), (0.6 * size, 1.6 * size), colours, 1.0)


def _foliage(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """A hedge or a lawn."""
    green = np.array([0.12, 0.22, 0.045], np.float32) * rng.uniform(0.4, 1.5, (4, 1)) * rng.uniform(0.7, 1.3, (4, 3))
    size = float(rng.uniform(5, 16))
    return _scatter(
        rng, int(min(2000, 4 * (TEXELS / size) ** 2)), (size, 2.2 * size), green, float(rng.uniform(0.12, 0.5))
    )


def _word(rng: np.random.Generator) -> str:
    letters = string.ascii_uppercase if rng.random() < 0.3 else string.ascii_lowercase
    if rng.random() < 0.15:
        letters = string.digits
    return "".join(rng.choice(list(letters), int(rng.integers(2, 9))))


def _text(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Print: lines of several sizes on paper, dark on light or the reverse."""
    ink = np.zeros((TEXELS, TEXELS), np.uint8)
    y = 4.0
    while y < TEXELS - 8:
        size = float(rng.choice([0.35, 0.5, 0.8, 1.4, 2.2], p=[0.3, 0.3, 0.2, 0.12, 0.08]))
        font, weight = int(rng.choice(_FONTS)), 1 + int(size * rng.uniform(0.6, 2.0))
        y += 26 * size + 3
        line = " ".join(_word(rng) for _ in range(int(rng.integers(1, int(2 + 9 / size)))))
        cv2.putText(ink, line, (int(rng.integers(4, 40)), int(y)), font, size, 255, weight, cv2.LINE_AA)
    part = ink[..., None] / np.float32(255)
    paper = (1 + np.float32(0.04) * smooth)[..., None] * colour(rng)
    written = np.float32(0.03) if paper.mean() > 0.2 else np.float32(0.75)
    return (paper * (1 - part) + (written * colour(rng) + written) / 2 * part).astype(np.float32)


def _sign(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Few large letters in a strong colour, framed."""
    ink = np.zeros((TEXELS, TEXELS), np.uint8)
    lines = int(rng.integers(2, 6))
    height = TEXELS / lines
    for number in range(lines):
        size = float(height / 34 * rng.uniform(0.6, 1.0))
        place = (int(rng.integers(6, 60)), int((number + 0.75) * height))
        cv2.putText(ink, _word(rng), place, int(rng.choice(_FONTS)), size, 255, 1 + int(2.2 * size), cv2.LINE_AA)
    if rng.random() < 0.5:
        cv2.rectangle(ink, (10, 10), (TEXELS - 10, TEXELS - 10), 255, int(rng.integers(3, 12)))
    part = ink[..., None] / np.float32(255)
    ground = colour(rng)
    letters = colour(rng) * np.float32(0.1) if ground.mean() > 0.15 else np.float32(0.4) + np.float32(0.5) * colour(rng)
    return (ground * (1 - part) + letters * part).astype(np.float32)


def _stripes(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Hard stripes or checks of two colours far from each other in lightness."""
    y, x = _grid()
    first, second = int(rng.choice([4, 8, 16, 32])), int(rng.choice([4, 8, 16, 32]))
    wave = np.broadcast_to(x * first % 1 < rng.uniform(0.3, 0.7), (TEXELS, TEXELS))
    if rng.random() < 0.5:
        wave = wave ^ (y * second % 1 < 0.5)
    return np.where(wave[..., None], np.float32(0.8) * np.sqrt(colour(rng)), np.float32(0.15) * colour(rng))


def _facade(rng: np.random.Generator, cloud: F32, smooth: F32) -> F32:
    """Rows of windows in a wall."""
    wall = (1 + np.float32(0.1) * smooth + np.float32(0.05) * cloud)[..., None] * colour(rng)
    rows, cols = int(rng.integers(3, 9)), int(rng.integers(3, 9))
    y, x = _grid()
    a, b = y * rows % 1, x * cols % 1
    high, wide = float(rng.uniform(0.4, 0.8)), float(rng.uniform(0.35, 0.8))
    frame = (abs(a - 0.5) < high / 2) & (abs(b - 0.5) < wide / 2)
    bar = float(rng.uniform(0.02, 0.05))
    glass = (abs(a - 0.5) < high / 2 - bar) & (abs(b - 0.5) < wide / 2 - bar) & (abs(b - 0.5) > bar / 2)
    tone = rng.choice([0.02, 0.05, 0.12, 0.5], (rows, cols), p=[0.4, 0.3, 0.2, 0.1]).astype(np.float32)
    pane = tone[(y * rows).astype(np.intp), (x * cols).astype(np.intp)][..., None] * np.array(
        [0.9, 1.0, 1.1], np.float32
    )
    wall = np.where(frame[..., None], np.float32(rng.choice([0.1, 0.75])), wall)
    return np.where(glass[..., None], pane, wall)


def _from_textures(pattern: str) -> Callable[[np.random.Generator, F32, F32], F32]:
    return lambda rng, cloud, smooth: texture_pyramid(pattern, rng, cloud)[0]


# With the strength of the 1/f grain over each: what is smooth stays smooth.
_MATERIALS: dict[str, tuple[Callable[[np.random.Generator, F32, F32], F32], float]] = {
    "plain": (_plain, 0.02),
    "skin": (_skin, 0.02),
    "nature": (_nature, 0.15),
    "blotches": (_blotches, 0.06),
    "brick": (_brick, 0.12),
    "wood": (_wood, 0.08),
    "fabric": (_fabric, 0.06),
    "gravel": (_gravel, 0.08),
    "foliage": (_foliage, 0.06),
    "text": (_text, 0.02),
    "sign": (_sign, 0.03),
    "stripes": (_stripes, 0.04),
    "facade": (_facade, 0.05),
    "leaves": (_from_textures("leaves"), 0.0),
    "cloud": (_from_textures("cloud"), 0.0),
}
MATERIALS = tuple(_MATERIALS)


def material_pyramids(names: tuple[str, ...], rng: np.random.Generator) -> tuple[Pyramid, ...]:
    """One texture a name of `MATERIALS`, see `Pyramid`."""
    noise, slow = fractal(rng), fractal(rng, exponent=2.0)
    made = []
    for name in names:
        shift = tuple(rng.integers(0, TEXELS, 2).tolist())
        cloud, smooth = np.roll(noise, shift, (0, 1)), np.roll(slow, shift[::-1], (0, 1))
        maker, strength = _MATERIALS[name]
        grain = np.float32(strength * rng.uniform(0.2, 1.2))
        made.append(pyramid_of(maker(rng, cloud, smooth), np.roll(cloud, TEXELS // 3, 1), float(grain)))
    return tuple(made)
