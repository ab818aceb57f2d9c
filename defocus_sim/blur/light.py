"""Light and sensor: the sRGB curve, Poisson-Gaussian noise, quantisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import RenderingError

F32 = np.float32


@dataclass(frozen=True, kw_only=True)
class SensorNoise:
    """Poisson-Gaussian noise of a sensor: variance = shot * value + read^2 (Foi et al. 2008), values in [0, 1].

    `shot`: variance of the photon noise at full scale (1/full-well for a sensor that counts electrons). `read`: standard
    deviation of the signal-independent part. Raises `RenderingError` for a negative or non-finite value.
    """

    shot: float = 0.0
    read: float = 0.0

    def __post_init__(self) -> None:
        """Check both values."""
        for name, value in (("shot", self.shot), ("read", self.read)):
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise RenderingError(f"noise {name}={value:g} must lie in [0, 1]")

    def apply(self, values: NDArray[F32], rng: np.random.Generator) -> NDArray[F32]:
        """`values` (any shape, [0, 1]) with noise, clipped to [0, 1]; photon counts are drawn, not approximated."""
        noisy: NDArray[Any] = values.astype(np.float64)
        if self.shot > 0:
            noisy = rng.poisson(np.maximum(noisy, 0) / self.shot) * self.shot
        if self.read > 0:
            noisy = noisy + rng.normal(0.0, self.read, values.shape)
        return np.clip(noisy, 0, 1).astype(F32)


def srgb_to_linear(values: NDArray[F32]) -> NDArray[F32]:
    """IEC 61966-2-1 decoding, [0, 1] to [0, 1], float32."""
    return np.where(values <= 0.04045, values / F32(12.92), ((values + F32(0.055)) / F32(1.055)) ** F32(2.4)).astype(
        F32
    )


def linear_to_srgb(values: NDArray[F32]) -> NDArray[F32]:
    """IEC 61966-2-1 encoding, [0, 1] to [0, 1], float32; inverse of `srgb_to_linear`."""
    clipped = np.clip(values, 0, 1)
    curve = F32(1.055) * clipped ** F32(1 / 2.4) - F32(0.055)
    return np.where(clipped <= 0.0031308, clipped * F32(12.92), curve).astype(F32)


def corner_gain(height: int, width: int, corner_light: float) -> NDArray[F32]:
    """(H, W) float32: share of the light that reaches each pixel, 1 in the middle, `corner_light` in the corners.

    1 - (1 - corner_light) * (r / r_corner)^2 with the distance r from the middle: the first term of every fall-off that is
    even in r, cos^4 included.
    """
    y = (np.arange(height, dtype=F32) - F32((height - 1) / 2)) ** 2
    x = (np.arange(width, dtype=F32) - F32((width - 1) / 2)) ** 2
    square = y[:, None] + x
    return (1 - F32(1 - corner_light) * square / max(float(square[0, 0]), 1e-12)).astype(F32)


def darken_corners(planes: NDArray[F32], corner_light: float, linear: bool) -> NDArray[F32]:
    """`planes` (C, H, W) of [0, 1] with `corner_gain`, which is one of light: sRGB values go there and back."""
    gain = corner_gain(planes.shape[1], planes.shape[2], corner_light)
    return planes * gain if linear else linear_to_srgb(srgb_to_linear(np.clip(planes, 0, 1)) * gain)


def to_uint8(values: NDArray[F32], rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """[0, 1] to 0..255 by rounding, or, with `rng`, by adding uniform noise of one step (dither) and flooring."""
    scaled = values * F32(255)
    if rng is not None:
        return np.clip(np.floor(scaled + rng.random(values.shape, dtype=F32)), 0, 255).astype(np.uint8)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
