"""`defocus`: what `defocus_sim.defocus` does to arrays, on tensors: batched, differentiable, on the CPU and on CUDA."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from defocus_sim.blur.disc import disc_table
from defocus_sim.lens import Lens
from dfd_train.errors import ConfigError
from dfd_train.optics.camera import IN_FOCUS_PX, MOST_PX, PER_COC, SCALE_X, SHARP_PX, aspect, camera_of, coc_px_from
from dfd_train.optics.gather import IDENTITY_SIGMA_PX, gather


def defocus(
    aif: Tensor,
    depth_m: Tensor,
    lens: Lens | Tensor,
    *,
    psf: Literal["gaussian", "disc"] = "gaussian",
    linear_light: bool = False,
) -> Tensor:
    """Blur all-in-focus images as `lens` would have seen them; shaped like `aif`, differentiable in all three.

    `aif`: (B, 1 or 3, H, W) sRGB, float in [0, 1]. `depth_m`: (B, 1, H, W) metres, > 0 everywhere: holes have to be filled
    before (`defocus_sim.simulate.fill_holes`). `lens`: one `Lens` for the batch, or cameras (B, 10) as
    `optics.camera.camera_of` makes them, through which gradients reach the focus distance and the aperture; in a frame
    whose shape a resize has changed the blur is an ellipse. `psf`,
    `linear_light`: as in `defocus_sim.defocus`, with which the result agrees to half a grey level. The lens's
    `focus_blur_px` is added; its fall-off to the corners is not. Depths below 1/100 of the focus distance count as
    that.

    Raises `ConfigError` for shapes that do not fit, depth that is not positive, or an unknown `psf`.
    """
    if psf not in ("gaussian", "disc"):
        raise ConfigError(f"psf={psf!r} must be 'gaussian' or 'disc'")
    if aif.dim() != 4 or aif.shape[1] not in (1, 3) or depth_m.shape != (len(aif), 1, *aif.shape[2:]):
        raise ConfigError(
            f"aif {tuple(aif.shape)} and depth_m {tuple(depth_m.shape)} must be (B, 1 or 3, H, W) and (B, 1, H, W)"
        )
    if not bool((depth_m.detach() > 0).all()):
        raise ConfigError("depth_m must be positive and finite everywhere: fill its holes before blurring")
    if isinstance(lens, Lens):
        lens = camera_of(lens, (aif.shape[2], aif.shape[3])).to(aif).expand(len(aif), -1)
    discs = torch.full((len(aif),), psf == "disc", device=aif.device)
    source = srgb_to_linear(aif) if linear_light else aif
    width_px, shapes = kernel_width(*blur_size(depth_m, lens), discs), aspect(lens.detach()).tolist()
    if len(set(shapes)) == 1:
        blurred = gather(source, width_px, discs, aspect=shapes[0])
    else:
        rows = (slice(k, k + 1) for k in range(len(aif)))
        each = zip(rows, shapes, strict=True)
        blurred = torch.cat([gather(source[row], width_px[row], discs[row], aspect=shape) for row, shape in each])
    return linear_to_srgb(blurred) if linear_light else blurred


def blur_size(depth_m: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Sigma of a Gaussian, and diameter of a disc, at every pixel: two (B, 1, H, W) in px.

    `camera` (B, 10). The blur that is there in focus adds as a variance.
    """
    at = camera[:, :, None, None, None]
    coc = torch.minimum(coc_px_from(depth_m, camera).abs(), at[:, SCALE_X] * at[:, MOST_PX])
    own = (coc - at[:, SCALE_X] * at[:, SHARP_PX]).clamp(min=0)
    extra = at[:, SCALE_X] * at[:, IN_FOCUS_PX]
    # A square root has no slope at 0: nothing is added where there is nothing to add.
    sigma = torch.where(
        extra > 0, ((at[:, PER_COC] * own) ** 2 + extra**2).clamp(min=1e-12).sqrt(), at[:, PER_COC] * own
    )
    # A uniform disc of diameter d has a standard deviation of d/4.
    return sigma, torch.where(extra > 0, (own**2 + 16 * extra**2).clamp(min=1e-12).sqrt(), own)


def kernel_width(sigma: Tensor, coc_px: Tensor, disc: Tensor) -> Tensor:
    """What `gather` takes: the sigma, or where `disc` (B,) the radius of the soft-rimmed disc; (B, 1, H, W) px."""
    # As in `defocus_sim`, a disc too narrow to change a pixel is the identity.
    radius = torch.where(sigma < IDENTITY_SIGMA_PX, 0.0, _disc_radius_px(coc_px))
    return torch.where(disc[:, None, None, None], radius, sigma)


def _disc_radius_px(coc_px: Tensor) -> Tensor:
    """`defocus_sim.blur.disc.disc_radius_px` with a gradient; `coc_px` >= 0."""
    radii, diameters = (torch.tensor(column, dtype=coc_px.dtype, device=coc_px.device) for column in disc_table())
    at = (torch.searchsorted(diameters, coc_px.detach().contiguous(), right=True) - 1).clamp(0, len(radii) - 2)
    low, high = diameters[at], diameters[at + 1]
    within = radii[at] + (radii[at + 1] - radii[at]) * (coc_px - low) / (high - low)
    # Beyond the table the rim is all there is to correct.
    beyond = (coc_px**2 / 4 - 5 / 12).clamp(min=0.25).sqrt()
    return torch.where(coc_px < diameters[-1], within, beyond)


def srgb_to_linear(values: Tensor) -> Tensor:
    """IEC 61966-2-1 decoding of values in [0, 1]."""
    return torch.where(values <= 0.04045, values / 12.92, ((values.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: Tensor) -> Tensor:
    """IEC 61966-2-1 encoding; values are limited to [0, 1] first."""
    clipped = values.clamp(0, 1)
    return torch.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped.clamp(min=0.003) ** (1 / 2.4) - 0.055)


__all__ = ["blur_size", "defocus", "kernel_width", "linear_to_srgb", "srgb_to_linear"]
