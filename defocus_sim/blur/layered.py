"""The occlusion-aware blur: the scene cut into layers of equal CoC, blurred one by one and composited front to back.

Each pixel of the photograph is a visible surface, and behind depth edges there is a hidden one (`hidden`). With G_k the
kernel of layer k and T the light that the layers in front let pass, per pixel

    A = G_k * [visible surface in k]      Q = G_k * [visible surface in k or behind]
    B = G_k * [hidden surface in k]       U = G_k * [hidden surface in k or behind]

layer k stops (T - S)*A/Q + S*B/U, where S is the light that meets the hidden surface. Dividing by Q, by what can be seen
from k on, makes the layers of a slanted surface add up to 1; plain "over" compositing leaks between them.

What S is follows from the aperture. In the photograph 1 - Q of layer k's kernel is covered by things in front. On one
side of the focus, these block the light of the same directions, so S = max(T - Q, 0): the hidden surface is met only if
less is blocked than is covered. Across the focus the rays have crossed: what is blocked is the other half of the kernel,
and the light that passes meets the covered half first, S = min(T, 1 - Q). At the edge between a near and a far blur this
is worth 10 dB with the true hidden surface (43.5 against 33.2) and 3 dB with the guessed one (35.7 against 32.7).
"""

import numpy as np

from defocus_sim.blur.compositing import NOWHERE, render
from defocus_sim.blur.layers import (
    LayerPlan,
    disc_diameter_px,
    disc_quarter_kernel,
    gaussian_half_kernel,
    layer_coordinate,
    place_pixels,
    plan_layers,
)
from defocus_sim.blur.occlusion import find_surfaces
from defocus_sim.blur.options import DEFAULT_TRUNCATE, Psf
from defocus_sim.blur.pixel_format import mirrored


def layered_blur(
    planes: np.ndarray,
    coc_px: np.ndarray,
    *,
    psf: Psf,
    sigma_per_coc: float = 0.25,
    sharp_below_px: float = 0.0,
    focus_blur_px: float = 0.0,
    truncate: float = DEFAULT_TRUNCATE,
) -> np.ndarray:
    """Defocus (C,H,W) float32 planes, C 1 or 3, by the signed CoC diameter (H,W) float32 px; returns (C,H,W) float32.

    `coc_px` is finite, negative nearer than the focus and ascending with depth, which it also orders. `psf`: "gaussian"
    of sigma = sigma_per_coc * max(|c| - sharp_below_px, 0) out to truncate*sigma, or "disc" of diameter |c|, both widened
    by a Gaussian of `focus_blur_px`; a layer of sigma < 0.1 px stays sharp. Border: half-sample mirror. Every output
    value is a weighted mean of input values.
    Serial, releases the GIL, deterministic.
    """
    coordinate = layer_coordinate(coc_px)
    plan = plan_layers(coc_px, coordinate)
    kernels, reach = _kernels(plan, psf, sigma_per_coc, sharp_below_px, focus_blur_px, truncate)
    pad = int(reach.max())
    if pad == 0:
        return planes.copy()
    place = place_pixels(coc_px, coordinate, plan)
    surfaces = find_surfaces(planes, coc_px, coordinate)
    flat_place = place.ravel()
    hidden_place = np.where(surfaces.far_from >= 0, flat_place[surfaces.far_from], NOWHERE)
    out = np.empty_like(planes)
    render(
        _mirror(surfaces.near, pad, "near"),
        _mirror(flat_place[surfaces.near_from], pad, "near place"),
        _mirror(surfaces.far, pad, "far"),
        _mirror(hidden_place, pad, "far place"),
        _mirror(surfaces.near_share, pad, "near share"),
        pad,
        kernels,
        reach,
        plan.centre_px,
        psf == "disc",
        out,
    )
    return out


def _kernels(
    plan: LayerPlan, psf: Psf, sigma_per_coc: float, sharp_below_px: float, focus_blur_px: float, truncate: float
) -> tuple[np.ndarray, np.ndarray]:
    """The kernels of all layers in one zero-padded float32 array, as `render` wants them, and their radii (K,)."""
    if psf == "disc":
        quarters = [disc_quarter_kernel(float(c)) for c in disc_diameter_px(plan.centre_px, focus_blur_px)]
        # Row dy of the disc as a sum of centred boxes: its weights differenced along the row.
        parts = [quarter - np.pad(quarter[:, 1:], ((0, 0), (0, 1))) for quarter in quarters]
    else:
        sigma = sigma_per_coc * np.maximum(np.abs(plan.centre_px) - sharp_below_px, 0.0)
        sigma = sigma if focus_blur_px == 0 else np.hypot(sigma, focus_blur_px)
        parts = [gaussian_half_kernel(float(s), truncate)[None] for s in sigma]
    reach = np.array([part.shape[1] - 1 for part in parts])
    kernels = np.zeros((len(parts), max(len(part) for part in parts), int(reach.max()) + 1), np.float32)
    for kernel, part in zip(kernels, parts, strict=True):
        kernel[: part.shape[0], : part.shape[1]] = part
    return kernels, reach


def _mirror(array: np.ndarray, pad: int, name: str) -> np.ndarray:
    """Pad the last two axes by `pad`, half-sample mirror, as often as it takes; `name` as of `pixel_format.scratch`."""
    planes = array.reshape(-1, *array.shape[-2:])
    padded = mirrored(planes, None, (pad, pad), planes.shape[1:], name)
    return padded.reshape(*array.shape[:-2], *padded.shape[1:])
