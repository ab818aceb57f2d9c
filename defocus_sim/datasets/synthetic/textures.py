"""Albedo textures with the statistics of natural surfaces, and their filtered lookup.

A texture is a tileable square of linear-light albedo with a mip pyramid. Dead leaves (opaque discs whose radii follow
r^-3) and 1/f noise are scale invariant, so their detail survives at every pyramid level: a floor seen from 1 to 10 m
has contrast at pixel scale all along (Lee, Mumford and Huang, "Occlusion models for natural images", 2001).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from defocus_sim.datasets.synthetic.rendering import shade_kernels

F32 = NDArray[np.float32]
Pyramid = tuple[F32, ...]

TEXELS = 512
_LEVELS = 6
_LEAF_COUNT = 4000
_LEAF_RADII = (1.8, 90.0)
_GRAIN = 0.16


def fractal(rng: np.random.Generator, *, exponent: float = 1.15) -> F32:
    """Tileable noise with amplitude spectrum 1/f^exponent: (TEXELS, TEXELS) float32, mean 0, standard deviation 1."""
    fy = np.fft.fftfreq(TEXELS).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(TEXELS).astype(np.float32)[None, :]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1.0
    amplitude = frequency**-exponent
    amplitude[0, 0] = 0.0
    noise = rng.standard_normal((2, *frequency.shape), dtype=np.float32)
    field = np.fft.irfft2(amplitude * (noise[0] + 1j * noise[1]), s=(TEXELS, TEXELS)).astype(np.float32)
    return field / field.std()


def palette(rng: np.random.Generator, count: int) -> F32:
    """(count, 3) float32 linear RGB in [0.02, 0.9]: related hues, mostly muted, values spread from dark to light."""
    # Most things are brown, red or ochre; the rest may have any hue.
    base = rng.normal(0.07, 0.05) if rng.random() < 0.6 else rng.random()
    hue = base + rng.normal(0.0, 0.05, count) + np.where(rng.random(count) < 0.2, 0.45, 0.0)
    saturation = 0.75 * rng.beta(1.5, 2.8, count)
    value = np.clip(rng.permutation(np.linspace(0.3, 0.9, count)) + rng.normal(0.0, 0.05, count), 0.2, 0.97)
    offsets = np.array([0.0, 1 / 3, 2 / 3])
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] - offsets))
    srgb = value[:, None] * (1.0 - saturation[:, None] * (1.0 - wave))
    return np.clip(srgb**2.2, 0.02, 0.9).astype(np.float32)


def ramp(field: F32, colours: F32) -> F32:
    """Colours interpolated along a noise field of standard deviation 1, in 256 steps."""
    stops = np.linspace(0.0, 255.0, len(colours))
    table = np.stack([np.interp(np.arange(256), stops, channel) for channel in colours.T], axis=1).astype(np.float32)
    return table.take(np.clip(field * np.float32(255 / 4.4) + np.float32(127.5), 0, 255).astype(np.uint8), axis=0)


def _leaves(rng: np.random.Generator, cloud: F32) -> F32:
    """Dead leaves: discs of random colour dropped in random order, radii with density r^-3, wrapped at the border."""
    lowest, highest = _LEAF_RADII
    radius = lowest / np.sqrt(1.0 - rng.random(_LEAF_COUNT) * (1.0 - (lowest / highest) ** 2))
    centre = rng.random((_LEAF_COUNT, 2)) * TEXELS
    shade = rng.integers(0, 256, _LEAF_COUNT)
    canvas = np.clip(128 + 45 * cloud, 0, 255).astype(np.uint8)
    for x, y, r, s in zip(*centre.T.tolist(), radius.tolist(), shade.tolist(), strict=True):
        for wrapped_x in {x, x - TEXELS if x + r > TEXELS else x, x + TEXELS if x < r else x}:
            for wrapped_y in {y, y - TEXELS if y + r > TEXELS else y, y + TEXELS if y < r else y}:
                cv2.circle(canvas, (int(wrapped_x * 16), int(wrapped_y * 16)), int(r * 16), s, -1, cv2.LINE_8, 4)
    return palette(rng, 256).take(canvas, axis=0)


def _cloud(rng: np.random.Generator, cloud: F32) -> F32:
    return ramp(cloud, palette(rng, 4))


def _planks(rng: np.random.Generator, cloud: F32) -> F32:
    """Wood-like: boards of different tone, each with warped grain lines."""
    boards = int(rng.integers(6, 15))
    y, x = np.mgrid[0:TEXELS, 0:TEXELS].astype(np.float32) / TEXELS
    board = (y * boards).astype(np.intp)
    along = x + rng.random(boards)[board].astype(np.float32)
    rings = np.sin(2 * np.pi * (y * rng.integers(30, 60) + 1.3 * cloud + 2.0 * np.sin(2 * np.pi * along)))
    tone = 1.2 * rng.uniform(-1, 1, boards)[board].astype(np.float32) + 0.55 * rings + 0.5 * cloud
    gap = (y * boards) % 1.0 < 0.03
    return ramp(tone, palette(rng, 3)) * np.where(gap, 0.35, 1.0).astype(np.float32)[..., None]


def _tiles(rng: np.random.Generator, cloud: F32) -> F32:
    """Checks, tiles or bricks: cells of a few tones with joints."""
    rows = int(rng.choice([4, 8, 16]))
    cols = int(rng.choice([rows, rows // 2]))
    y, x = np.mgrid[0:TEXELS, 0:TEXELS].astype(np.float32) / TEXELS
    row = (y * rows).astype(np.intp)
    shifted = (x * cols + (row % 2) * (0.5 if cols != rows else 0.0)) % cols
    col = shifted.astype(np.intp)
    checks = ((row + col) % 2 * 2.2 - 1.1) * (rng.random() < 0.6)
    tone = checks + 0.7 * rng.uniform(-1, 1, (rows, cols))[row, col] + 0.5 * cloud
    joint = ((y * rows) % 1.0 < 0.05) | (shifted % 1.0 < 0.05 * cols / rows)
    return ramp(tone.astype(np.float32), palette(rng, 4)) * np.where(joint, 0.45, 1.0).astype(np.float32)[..., None]


def _marks(rng: np.random.Generator, cloud: F32) -> F32:
    """Text-like: lines of short strokes in words, in several sizes of type, on paper."""
    canvas = np.zeros((TEXELS, TEXELS), np.uint8)
    y = 4
    while y < TEXELS - 12:
        size = int(rng.choice([4, 5, 6, 8, 12, 22], p=[0.2, 0.25, 0.2, 0.15, 0.12, 0.08]))
        x = int(rng.integers(4, 30))
        end = TEXELS - int(rng.integers(4, 120))
        while x < end:
            for _ in range(int(rng.integers(2, 9))):
                strokes = rng.integers(0, size, (int(rng.integers(2, 4)), 4)) + np.array([x, y, x, y])
                for x0, y0, x1, y1 in strokes.tolist():
                    cv2.line(canvas, (x0, y0), (x1, y1), 255, 1 + size // 8)
                x += size + 2
            x += size
        y += int(size * 1.8)
    ink = (canvas[..., None] / np.float32(255)) * np.float32(0.92)
    paper = ramp(0.4 * cloud + 1.2, palette(rng, 3) * 0.35 + 0.5)
    return paper * (1 - ink) + palette(rng, 2)[0] * 0.25 * ink


_PATTERNS: dict[str, Callable[[np.random.Generator, F32], F32]] = {
    "leaves": _leaves,
    "cloud": _cloud,
    "planks": _planks,
    "tiles": _tiles,
    "marks": _marks,
}
PATTERNS = tuple(_PATTERNS)


def texture_pyramid(pattern: str, rng: np.random.Generator, noise: F32) -> Pyramid:
    """A texture of `PATTERNS` as a mip pyramid of (S, S, 3) float32 linear albedo, S = TEXELS, TEXELS/2, ...

    `noise` is a field of `fractal`, which several textures can share: each takes it shifted, mirrored and turned.
    """
    cloud = np.roll(noise, rng.integers(0, TEXELS, 2), (0, 1))
    cloud = np.ascontiguousarray(cloud.T) if rng.random() < 0.5 else -cloud
    # 1/f grain over every pattern: no patch of any surface is without detail that a blur could remove.
    grain = np.roll(cloud, (TEXELS // 3, TEXELS // 5), (0, 1))
    return pyramid_of(_PATTERNS[pattern](rng, cloud), grain, _GRAIN)


def pyramid_of(albedo: F32, grain: F32, strength: float) -> Pyramid:
    """The mip pyramid of `albedo` (S, S, 3), which `grain` (S, S) has made lighter and darker by `strength`."""
    level = np.ascontiguousarray(albedo, np.float32)
    shade_kernels.roughen(level, grain, np.float32(strength))
    levels = [level]
    for _ in range(_LEVELS - 1):
        levels.append(np.empty((levels[-1].shape[0] // 2, levels[-1].shape[1] // 2, 3), np.float32))
        shade_kernels.halve(levels[-2], levels[-1])
    return tuple(levels)


def atlas_of(pyramids: tuple[Pyramid, ...]) -> tuple[F32, NDArray[np.int64]]:
    """All levels one behind the other as rows of texels (N, 3), and the first row of every pyramid's levels (P, L)."""
    sizes = np.array([[level.shape[0] * level.shape[1] for level in pyramid] for pyramid in pyramids], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64).reshape(sizes.shape)
    return np.concatenate([level.reshape(-1, 3) for pyramid in pyramids for level in pyramid]), starts
