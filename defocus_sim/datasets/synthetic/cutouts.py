"""Outlines of flat things with holes and fine ends, from leaves to figures: (SIDE, SIDE) uint8, 255 inside."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Angles = NDArray[np.float64]
SIDE = 384


def _blank() -> Mask:
    return np.zeros((SIDE, SIDE), np.uint8)


def _blob(rng: np.random.Generator) -> Mask:
    """A closed outline, round or ragged."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    radius = np.full(160, 0.62)
    rough = float(rng.uniform(0.6, 1.6))
    for wave in range(2, 24):
        radius += 0.3 * wave**-rough / 2 * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.1, 0.97) * SIDE / 2
    points = np.stack([SIDE / 2 + radius * np.cos(angle), SIDE / 2 + radius * np.sin(angle)], -1)
    mask = _blank()
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _leaves(mask: Mask, spots: NDArray[np.float64], lengths: NDArray[np.float64], angles: Angles, slim: float) -> None:
    """Draw leaves that begin at `spots` (N, 2), all as slim."""
    along = np.linspace(0, 1, 8)
    half = slim * np.sin(np.pi * along**0.8)
    x, y = np.concatenate([along, along[::-1]]), np.concatenate([half, -half[::-1]])
    cos, sin = (lengths * np.cos(angles))[:, None], (lengths * np.sin(angles))[:, None]
    outlines = np.stack([spots[:, :1] + x * cos - y * sin, spots[:, 1:] + x * sin + y * cos], -1)
    for outline in np.rint(outlines * 16).astype(np.int32):
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, 4)


def _foliage(rng: np.random.Generator) -> Mask:
    """A bunch of leaves with gaps between them."""
    mask = _blank()
    size, slim = float(rng.uniform(12, 45)), float(rng.uniform(0.08, 0.35))
    count = int(rng.uniform(1.5, 3.5) * (200 / size) ** 2) + 20
    spots = SIDE / 2 + rng.normal(0, 0.16, (count, 2)) * SIDE
    _leaves(mask, spots, size * rng.uniform(0.7, 1.4, count), rng.uniform(0, 2 * np.pi, count), slim)
    return mask


def _twigs(rng: np.random.Generator) -> Mask:
    """A branch that forks down to fine twigs, with leaves or bare."""
    mask = _blank()
    leafy = float(rng.choice([0.0, 0.5, 1.0]))
    size, slim = float(rng.uniform(10, 24)), float(rng.uniform(0.12, 0.35))
    ends = [(SIDE / 2 + float(rng.uniform(-60, 60)), SIDE - 2.0, -np.pi / 2, 0.3 * SIDE, 9.0)]
    leaves: list[tuple[float, float, float]] = []
    for _ in range(140):
        if not ends:
            break
        x, y, angle, length, thick = ends.pop(0)
        x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
        tips = ((int(x * 16), int(y * 16)), (int(x1 * 16), int(y1 * 16)))
        cv2.line(mask, *tips, 255, max(1, round(thick)), cv2.LINE_AA, 4)
        if thick < 3 and rng.random() < leafy:
            leaves.append((x1, y1, angle + float(rng.normal(0, 0.8))))
        if length > 14:
            for _ in range(int(rng.integers(2, 4))):
                bend = angle + float(rng.normal(0, 0.55))
                ends.append((x1, y1, bend, length * float(rng.uniform(0.55, 0.85)), thick * 0.66))
    if leaves:
        table = np.array(leaves)
        _leaves(mask, table[:, :2], np.full(len(table), size), table[:, 2], slim)
    return mask


def _netting(rng: np.random.Generator) -> Mask:
    """Chain-link fence or net."""
    mask = _blank()
    step, thick = int(rng.integers(16, 48)), int(rng.integers(2, 4))
    for start in range(-SIDE, 2 * SIDE, step):
        cv2.line(mask, (start, 0), (start + SIDE, SIDE), 255, thick, cv2.LINE_AA)
        cv2.line(mask, (start, 0), (start - SIDE, SIDE), 255, thick, cv2.LINE_AA)
    return mask


def _letters(rng: np.random.Generator) -> Mask:
    """Letters without a ground."""
    mask = _blank()
    for y in (0.45, 0.9):
        word = "".join(rng.choice(list("ABEGHKMNRSWXZaegkmswx2358"), 3))
        cv2.putText(
            mask, word, (12, int(y * SIDE)), cv2.FONT_HERSHEY_DUPLEX, 5.2, 255, int(rng.integers(6, 22)), cv2.LINE_AA
        )
    return mask


def _figure(rng: np.random.Generator) -> Mask:
    """Someone who stands or walks."""
    mask = _blank()
    unit, middle = SIDE / 16, SIDE / 2

    def limb(x0: float, y0: float, x1: float, y1: float, thick: float) -> None:
        start, end = ((int(middle + x * unit), int(y * unit)) for x, y in ((x0, y0), (x1, y1)))
        cv2.line(mask, start, end, 255, max(1, int(thick * unit)), cv2.LINE_AA)

    cv2.ellipse(mask, (int(middle), int(1.7 * unit)), (int(unit), int(1.25 * unit)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    lean = float(rng.normal(0, 0.3))
    limb(0, 2.5, lean, 8.5, float(rng.uniform(2.2, 3.4)))
    for side in (-1, 1):
        elbow, hand = side * float(rng.uniform(1.2, 3.0)), side * float(rng.uniform(0.5, 4.0))
        limb(side * 0.9, 3.7, elbow, 6.2, 0.9)
        limb(elbow, 6.2, hand, float(rng.uniform(4.5, 9)), 0.7)
        knee = side * float(rng.uniform(0.4, 1.4))
        limb(lean + side * 0.6, 8.5, knee, 11.8, 1.2)
        limb(knee, 11.8, side * float(rng.uniform(0.3, 2.2)), 15.3, 0.9)
    return mask


CUTOUTS: dict[str, Callable[[np.random.Generator], Mask]] = {
    "blob": _blob,
    "foliage": _foliage,
    "twigs": _twigs,
    "netting": _netting,
    "letters": _letters,
    "figure": _figure,
}


def draw_masks(names: tuple[str, ...], rng: np.random.Generator) -> Mask:
    """(len(names), SIDE, SIDE) uint8: one outline a name of `CUTOUTS`; an empty name stands for one not needed."""
    return np.stack([CUTOUTS[name](rng) if name else _blank() for name in names])
