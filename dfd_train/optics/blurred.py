"""The picture that each camera of a batch takes: gathered or in layers, of square pixels or not, on the CPU or a GPU."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfd_train.optics.camera import (
    COC_PX,
    FOCUS_M,
    IN_FOCUS_PX,
    MOST_PX,
    PER_COC,
    SCALE_X,
    SCALE_Y,
    SHARP_PX,
    aspect,
    coc_px_from,
)
from dfd_train.optics.defocus import blur_size, kernel_width
from dfd_train.optics.gather import gather
from dfd_train.optics.resample import resampled

# Of the blur in training: what lies beyond three sigmas is a hundredth of a grey level.
_TRUNCATE = 3.0
_PSFS: dict[bool, Literal["gaussian", "disc"]] = {False: "gaussian", True: "disc"}


def compile_blur(device: torch.device, *, layered: bool = False) -> None:
    """Have the kernels of `blurred_by` compiled, or loaded, now rather than at the first batch."""
    image, sigma = torch.rand(2, 3, 16, 16, device=device), torch.full((2, 1, 16, 16), 2.0, device=device)
    disc = torch.tensor([False, True], device=device)
    if device.type == "cuda":
        gather(image, kernel_width(sigma, 4 * sigma, disc), disc, truncate=_TRUNCATE)
    else:
        _by_the_simulator(image, sigma, 4 * sigma, disc)
    if layered:
        # An edge of something near, so that nothing of what layers need is left out.
        depth_m, camera = torch.full((1, 1, 32, 32), 4.0), torch.zeros(1, 10)
        depth_m[..., 8:20] = 1.0
        camera[:, [FOCUS_M, COC_PX, MOST_PX, PER_COC, SCALE_Y, SCALE_X]] = torch.tensor([2.0, 6.0, 9.0, 0.25, 1.0, 1.0])
        for is_disc in _PSFS:
            _in_layers(torch.rand(1, 3, 32, 32), depth_m, camera, is_disc)


def blurred_by(image: Tensor, depth_m: Tensor, cameras: Tensor, disc: Tensor, layered: Tensor) -> Tensor:
    """`image` (B, 3, H, W) under the blur of `cameras` (B, 10) at `depth_m` (B, 1, H, W) metres, > 0 everywhere.

    `disc`, `layered`: (B,) bool, which are blurred by discs instead of Gaussians, and in layers instead of gathered.
    """
    if bool((aspect(cameras) == 1).all()):
        return _blurred(image, depth_m, cameras, disc, layered)
    # One by one: each becomes a picture of square pixels, of its own shape.
    rows = [slice(row, row + 1) for row in range(len(image))]
    return torch.cat([_blurred_as_square(image[r], depth_m[r], cameras[r], disc[r], layered[r]) for r in rows])


def filled(depth_m: Tensor) -> Tensor:
    """`depth_m` (B, 1, H, W) with holes closed from their surroundings, in ever larger windows."""
    depth = torch.where(torch.isfinite(depth_m) & (depth_m > 0), depth_m, 0.0)
    if bool((depth > 0).all()):
        return depth
    for side in (5, 17, 65):
        known = (depth > 0).to(depth)
        mean = F.avg_pool2d(depth, side, 1, side // 2) / F.avg_pool2d(known, side, 1, side // 2).clamp(min=1e-9)
        depth = torch.where(depth > 0, depth, mean)
    whole = depth.sum((2, 3), keepdim=True) / (depth > 0).sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(depth > 0, depth, whole.clamp(min=0.1))


def _blurred(image: Tensor, depth_m: Tensor, cameras: Tensor, disc: Tensor, layered: Tensor) -> Tensor:
    """`image` (B, 3, H, W) of square pixels under the blur of `cameras`, each gathered or in layers."""
    if bool(layered.any()):
        pictures = []
        for row, in_layers in enumerate(layered.tolist()):
            r = slice(row, row + 1)
            if in_layers:
                pictures.append(_in_layers(image[r], depth_m[r], cameras[r], bool(disc[row])))
            else:
                pictures.append(_blurred(image[r], depth_m[r], cameras[r], disc[r], layered[r]))
        return torch.cat(pictures)
    sigma, coc_px = blur_size(depth_m, cameras)
    if image.is_cuda:
        return gather(image, kernel_width(sigma, coc_px, disc), disc, truncate=_TRUNCATE)
    return _by_the_simulator(image, sigma, coc_px, disc)


def _in_layers(image: Tensor, depth_m: Tensor, camera: Tensor, disc: bool) -> Tensor:
    """One picture (1, 3, H, W) with occlusion, by the simulator, which does this on the CPU whatever the device."""
    from defocus_sim.blur.layered import layered_blur

    scale, most, sharp, per_coc, in_focus = camera[0, [SCALE_X, MOST_PX, SHARP_PX, PER_COC, IN_FOCUS_PX]].tolist()
    coc_px = coc_px_from(depth_m, camera)[0, 0].clamp(-scale * most, scale * most)
    made = layered_blur(
        np.ascontiguousarray(image[0].cpu().numpy()),
        coc_px.contiguous().cpu().numpy(),
        psf=_PSFS[disc],
        sigma_per_coc=per_coc,
        sharp_below_px=scale * sharp,
        focus_blur_px=scale * in_focus,
        truncate=_TRUNCATE,
    )
    return torch.from_numpy(made)[None].to(image)


def _blurred_as_square(image: Tensor, depth_m: Tensor, camera: Tensor, disc: Tensor, layered: Tensor) -> Tensor:
    """`_blurred` of one picture whose pixels are not square: drawn out until they are, blurred, and brought back."""
    height, width = image.shape[-2:]
    shape = float(aspect(camera)[0])
    # Drawn out along the axis of the coarser pixels, so that nothing is lost.
    square_hw = (round(height / shape), width) if shape < 1 else (height, round(width * shape))
    scale = square_hw[1] / width
    square = camera.clone()
    square[:, SCALE_X] = square[:, SCALE_Y] = scale
    square_depth_m = F.interpolate(depth_m, size=square_hw, mode="nearest-exact")
    seen = _blurred(resampled(image, square_hw), square_depth_m, square, disc, layered)
    return resampled(seen, (height, width))


def _by_the_simulator(image: Tensor, sigma: Tensor, coc_px: Tensor, disc: Tensor) -> Tensor:
    """As `gather`, by the simulator's kernels, which on a CPU are hundreds of times faster."""
    from defocus_sim.blur.gather import gather as gather_array

    made = []
    for one, s, coc, is_disc in zip(image, sigma[:, 0], coc_px[:, 0], disc.tolist(), strict=True):
        planes, psf = np.ascontiguousarray(one.numpy()), _PSFS[is_disc]
        array = gather_array(planes, s.contiguous().numpy(), coc.contiguous().numpy(), psf=psf, truncate=_TRUNCATE)
        made.append(torch.from_numpy(np.ascontiguousarray(array)))
    return torch.stack(made)
