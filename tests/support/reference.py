"""Slow float64 truths for the blur: what "gather" means, written plainly, and what a camera does, ray by ray.

Nothing here imports the package, so agreement with it is evidence. The tracer is a Monte Carlo thin lens: it knows no
CoC, no kernel and no layer, only rays from an aperture disc through the plane of focus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

SHARP_SIGMA_PX = 0.1  # below this sigma a Gaussian is the identity


def gather_reference(image: np.ndarray, sigma_px: np.ndarray, *, truncate: float = 4.0) -> np.ndarray:
    """Every output pixel a normalised Gaussian mean with its own sigma: image (H,W,C), sigma_px (H,W) -> (H,W,C) float64.

    Window: the square of radius ceil(truncate*sigma), weights exp(-(dx^2+dy^2)/(2 sigma^2)), mirror border.
    """
    reach = np.where(sigma_px < SHARP_SIGMA_PX, 0, np.ceil(truncate * sigma_px)).astype(int)

    def weights(y: int, x: int) -> np.ndarray:
        offsets = np.arange(-reach[y, x], reach[y, x] + 1)
        row = np.exp(-(offsets**2) / (2.0 * float(sigma_px[y, x]) ** 2)) if reach[y, x] else np.ones(1)
        return np.outer(row, row)

    return _gather(image, reach, weights)


def disc_gather_reference(image: np.ndarray, radius_px: np.ndarray) -> np.ndarray:
    """Every output pixel the mean over its own soft-rimmed disc: weights clip(r + .5 - d, 0, 1), mirror border.

    image (H,W,C), radius_px (H,W) >= 0 -> (H,W,C) float64; a radius up to 0.5 px is the identity.
    """
    reach = np.ceil(radius_px + 0.5).astype(int) - 1

    def weights(y: int, x: int) -> np.ndarray:
        offsets = np.arange(-reach[y, x], reach[y, x] + 1)
        return np.clip(float(radius_px[y, x]) + 0.5 - np.hypot(offsets[:, None], offsets[None, :]), 0.0, 1.0)

    return _gather(image, np.maximum(reach, 0), lambda y, x: weights(y, x) if reach[y, x] > 0 else np.ones((1, 1)))


def _gather(image: np.ndarray, reach: np.ndarray, weights: Callable[[int, int], np.ndarray]) -> np.ndarray:
    height, width = reach.shape
    pad = int(reach.max())
    padded = np.pad(image.astype(np.float64), ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    out = np.empty(image.shape, np.float64)
    for y in range(height):
        for x in range(width):
            r = reach[y, x]
            kernel = weights(y, x)
            window = padded[y + pad - r : y + pad + r + 1, x + pad - r : x + pad + r + 1]
            out[y, x] = np.tensordot(kernel, window, axes=2) / kernel.sum()
    return out


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A textured plane x = depth_m + slope_x*X + slope_y*Y (metres), cut out by `covers`.

    `texture` (h,w,C) repeats; its texel pitch is half a pixel as the pinhole sees depth_m. `covers(s, t)` says where the
    plane is solid, in pixels from the optical axis at depth_m; None is solid everywhere.
    """

    depth_m: float
    texture: np.ndarray
    slope_x: float = 0.0
    slope_y: float = 0.0
    covers: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A thin lens: `f_px` lens-to-sensor distance in pixels, aperture diameter and focus distance in metres."""

    height: int
    width: int
    f_px: float = 600.0
    aperture_m: float = 0.0448
    focus_m: float = 2.0

    def coc_px(self, depth_m: np.ndarray | float) -> np.ndarray:
        """Signed CoC diameter of the lens formula, negative nearer than the focus."""
        x = np.asarray(depth_m, np.float64)
        return self.f_px * self.aperture_m * (x - self.focus_m) / (x * self.focus_m)


@dataclass(frozen=True, kw_only=True)
class Traced:
    """`aif` and `defocused` (H,W,C) float64 in linear light, both box-filtered over the pixel; `depth_m` at its centre."""

    aif: np.ndarray
    defocused: np.ndarray
    depth_m: np.ndarray


def noise_texture(seed: int, *, mean: Sequence[float], contrast: float = 0.12, size: int = 512) -> np.ndarray:
    """A periodic random texture (size,size,C) around `mean`: four octaves, the finest of sigma 0.7 px (1.4 texels).

    Band-limited on purpose: the defocused image of 256 samples is then good to 0.2 % of full scale rms (54 dB) even at a
    CoC of 13 px across an occlusion edge, the pinhole image to 0.06 %.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, len(mean)))
    for sigma in (1.4, 3.0, 7.0, 16.0):
        octave = rng.standard_normal(total.shape)
        octave = gaussian_filter(octave, sigma, mode="wrap", axes=(0, 1))
        total += octave / octave.std()
    return np.clip(np.asarray(mean) + contrast * total / 2.0, 0.0, 1.0)


def trace(surfaces: Sequence[Surface], camera: Camera, *, samples: int = 256, seed: int = 0) -> Traced:
    """Trace the scene through the pinhole and through the whole aperture; the last surface should be solid.

    The ray of pixel (u,v) (from the axis, in px) and aperture point (a,b) (m) is at depth x at
    ((1 - x/S)*a + x*u/f_px, (1 - x/S)*b + x*v/f_px). Pixel position and aperture point share one four-dimensional
    low-discrepancy sequence (Roberts' R4), shifted at random in every pixel; deterministic by seed.
    """
    rows, columns = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    v, u = rows + 0.5 - camera.height / 2, columns + 0.5 - camera.width / 2
    centre = np.zeros_like(u)
    depth_m = _shoot(surfaces, camera, u, v, centre, centre)[1]
    root = 1.1673039782614187  # the real root of g^5 = g + 1
    steps = root ** -np.arange(1.0, 5.0)
    shift = np.random.default_rng(seed).random((4, *u.shape))
    aif = np.zeros((*u.shape, surfaces[0].texture.shape[2]))
    defocused = np.zeros_like(aif)
    for i in range(samples):
        du, dv, radial, turn = (shift + (i * steps)[:, None, None]) % 1.0
        radius = 0.5 * camera.aperture_m * np.sqrt(radial)
        a, b = radius * np.cos(2 * np.pi * turn), radius * np.sin(2 * np.pi * turn)
        at_u, at_v = u + du - 0.5, v + dv - 0.5
        aif += _shoot(surfaces, camera, at_u, at_v, centre, centre)[0]
        defocused += _shoot(surfaces, camera, at_u, at_v, a, b)[0]
    return Traced(aif=aif / samples, defocused=defocused / samples, depth_m=depth_m)


def _shoot(
    surfaces: Sequence[Surface], camera: Camera, u: np.ndarray, v: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The colour (H,W,C) and depth (H,W) that one ray per pixel meets first."""
    towards_x, towards_y = u / camera.f_px - a / camera.focus_m, v / camera.f_px - b / camera.focus_m
    nearest = np.full(u.shape, np.inf)
    colour = np.zeros((*u.shape, surfaces[0].texture.shape[2]))
    for surface in surfaces:
        x = (surface.depth_m + surface.slope_x * a + surface.slope_y * b) / (
            1.0 - surface.slope_x * towards_x - surface.slope_y * towards_y
        )
        s = (a + x * towards_x) * (camera.f_px / surface.depth_m)
        t = (b + x * towards_y) * (camera.f_px / surface.depth_m)
        hit = (x > 0) & (x < nearest)
        if surface.covers is not None:
            hit &= surface.covers(s, t)
        nearest[hit] = x[hit]
        colour[hit] = _texel(surface.texture, s[hit], t[hit])
    return colour, nearest


def _texel(texture: np.ndarray, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Bilinear look-up (n,C) in a repeating texture of two texels per pixel."""
    column, row = np.floor(2 * s), np.floor(2 * t)
    across, down = (2 * s - column)[:, None], (2 * t - row)[:, None]
    height, width = texture.shape[:2]
    left, top = column.astype(int) % width, row.astype(int) % height
    right, bottom = (left + 1) % width, (top + 1) % height
    upper = texture[top, left] * (1 - across) + texture[top, right] * across
    lower = texture[bottom, left] * (1 - across) + texture[bottom, right] * across
    return upper * (1 - down) + lower * down
