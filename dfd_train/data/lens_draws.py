"""New defocus for every epoch: a lens drawn for each sample, and the picture that it takes of the stored sharp one.

What is drawn depends on the seed, the epoch and the sample alone: neither the batch, nor the process, nor where a run was
resumed changes it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dfd_train.config.lens_range import LensRange
from dfd_train.data.transforms import Frames
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
from dfd_train.optics.camera_effects import jpeg, sharpened, softened
from dfd_train.optics.defocus import blur_size, kernel_width, linear_to_srgb, srgb_to_linear
from dfd_train.optics.gather import gather
from dfd_train.optics.resample import resampled

# Of the blur in training: what lies beyond three sigmas is a hundredth of a grey level.
_TRUNCATE = 3.0
_NO_CAP_PX = 1e9
_PSFS: dict[bool, Literal["gaussian", "disc"]] = {False: "gaussian", True: "disc"}
# Set apart from the draws of flips and windows, which begin with the same numbers.
_STREAM = 7


class LensDraws(NamedTuple):
    """The numbers drawn for each sample of a batch, (B,) float32 each but `seed` (B,) int64.

    `focus_m`, or a negative number: minus the factor on the depth of the pixel at the share `at` of the frame. The other
    names are those of `LensRange`; `disc`, `linear`, `layered`: 1 = yes.
    """

    focus_m: NDArray[np.float32]
    at: NDArray[np.float32]
    focal_length_m: NDArray[np.float32]
    f_number: NDArray[np.float32]
    sensor_width_m: NDArray[np.float32]
    most_coc_px: NDArray[np.float32]
    sigma_per_coc: NDArray[np.float32]
    focus_blur_px: NDArray[np.float32]
    disc: NDArray[np.float32]
    linear: NDArray[np.float32]
    noise: NDArray[np.float32]
    sharpen: NDArray[np.float32]
    jpeg: NDArray[np.float32]
    seed: NDArray[np.int64]
    layered: NDArray[np.float32]
    softness_px: NDArray[np.float32]


def draw_lenses(ranges: LensRange, indices: NDArray[np.int64], *, seed: int, epoch: int) -> LensDraws:
    """The lenses of the samples `indices` in `epoch`."""
    rows = []
    for index in indices.tolist():
        rng = np.random.default_rng([seed, epoch, index, _STREAM])

        def logarithmic(pair: tuple[float, float], rng: np.random.Generator = rng) -> float:
            return math.exp(rng.uniform(math.log(pair[0]), math.log(pair[1])))

        focus = logarithmic(ranges.focus_m)
        factor = math.exp(rng.uniform(math.log(0.7), math.log(1.4)))
        rows.append(
            (
                -factor if rng.random() < ranges.near_depths else focus,
                rng.random(),
                logarithmic(ranges.focal_length_mm) / 1e3,
                logarithmic(ranges.f_number),
                logarithmic(ranges.sensor_width_mm) / 1e3,
                logarithmic(ranges.most_coc_px),
                rng.uniform(*ranges.sigma_per_coc),
                rng.uniform(*ranges.focus_blur_px),
                {"gaussian": 0.0, "disc": 1.0}.get(ranges.psf, float(rng.random() < 0.5)),
                {"srgb": 0.0, "linear": 1.0}.get(ranges.light, float(rng.random() < 0.5)),
                rng.uniform(*ranges.noise),
                rng.uniform(*ranges.sharpen),
                rng.uniform(*ranges.jpeg),
                int(rng.integers(2**62)),
                float(rng.random() < ranges.layered),
                rng.uniform(*ranges.softness_px),
            )
        )
    columns = dict(zip(LensDraws._fields, zip(*rows, strict=True), strict=True))
    seeds = np.array(columns.pop("seed"), np.int64)
    return LensDraws(**{name: np.array(column, np.float32) for name, column in columns.items()}, seed=seeds)


def cameras_of(draws: LensDraws, depth_m: Tensor, width_px: int, aspects: Tensor | None = None) -> Tensor:
    """The drawn lenses as cameras (B, 8) for frames `depth_m` (B, 1, H, W) cut from frames `width_px` wide.

    `aspects`: (B,), see `ShardDataset.aspects`; None: pixels are square.
    """
    device = depth_m.device
    focus, at, focal, f_number, sensor, most = (torch.from_numpy(column).to(device) for column in draws[:6])
    flat = depth_m.flatten(1)
    valid = torch.isfinite(flat) & (flat > 0)
    picked = flat.gather(1, (at * (flat.shape[1] - 1)).long()[:, None])[:, 0]
    typical = torch.where(valid, flat, 0.0).sum(1) / valid.sum(1).clamp(min=1)
    picked = torch.where(torch.isfinite(picked) & (picked > 0), picked, typical.clamp(min=0.1))
    focus = torch.maximum(torch.where(focus < 0, -focus * picked, focus), 2 * focal)
    distance_px = focal * focus / (focus - focal) * width_px / sensor
    coc_px = focal / f_number * distance_px / focus
    cameras = torch.zeros(len(focus), 8, device=device)
    cameras[:, FOCUS_M], cameras[:, COC_PX], cameras[:, MOST_PX] = focus, coc_px, _NO_CAP_PX
    cameras[:, PER_COC] = torch.from_numpy(draws.sigma_per_coc).to(device)
    cameras[:, IN_FOCUS_PX] = torch.from_numpy(draws.focus_blur_px).to(device)
    cameras[:, SCALE_X] = 1
    cameras[:, SCALE_Y] = 1 if aspects is None else aspects.to(device)
    # Close the aperture where the blur would be wider than it is to be.
    safe = torch.where(valid, flat, focus[:, None]).reshape(depth_m.shape)
    widest = coc_px_from(safe, cameras).abs().flatten(1)[:, ::7].quantile(0.98, dim=1)
    cameras[:, COC_PX] *= (most / widest.clamp(min=1e-6)).clamp(max=1)
    cameras[:, MOST_PX] = torch.maximum(1.25 * most, torch.full_like(most, 4.0))
    return cameras


def compile_blur(device: torch.device) -> None:
    """Have the kernels of `photographed` compiled, or loaded, now rather than at the first batch."""
    image, sigma = torch.rand(2, 3, 16, 16, device=device), torch.full((2, 1, 16, 16), 2.0, device=device)
    disc = torch.tensor([False, True], device=device)
    if device.type == "cuda":
        gather(image, kernel_width(sigma, 4 * sigma, disc), disc, truncate=_TRUNCATE)
    else:
        _by_the_simulator(image, sigma, 4 * sigma, disc)


@torch.no_grad()
def photographed(
    frames: Frames, draws: LensDraws, width_px: int, aspects: Tensor | None = None
) -> tuple[Frames, Tensor]:
    """`frames` as the drawn cameras take them, and the cameras (B, 8).

    The defocused picture is made anew of the sharp one; what a camera adds to everything (softness, noise, sharpening,
    JPEG) is added to both, as only the defocus is to be undone. `width_px`: of the frames before they were cut.
    `aspects`: (B,), see `ShardDataset.aspects`; None: pixels are square.
    """
    aif, depth_m = frames.aif, frames.depth_m
    cameras = cameras_of(draws, depth_m, width_px, aspects)
    device = aif.device
    if draws.softness_px.any():
        aif = softened(aif, torch.from_numpy(draws.softness_px).to(device))
    disc, layered = (torch.from_numpy(column).to(device) > 0.5 for column in (draws.disc, draws.layered))
    linear = (torch.from_numpy(draws.linear).to(device) > 0.5)[:, None, None, None]
    source = torch.where(linear, srgb_to_linear(aif), aif)
    filled = _filled(depth_m)
    if aspects is None or bool((aspects == 1).all()):
        blurred = _blurred(source, filled, cameras, disc, layered)
    else:
        # One by one: each becomes a picture of square pixels, of its own shape.
        rows = [slice(row, row + 1) for row in range(len(aif))]
        blurred = torch.cat([_blurred_as_square(source[r], filled[r], cameras[r], disc[r], layered[r]) for r in rows])
    blurred = torch.where(linear, linear_to_srgb(blurred), blurred).clamp(0, 1)
    taken = blurred
    if draws.noise.any():
        taken = taken + _noise(taken, draws)
    if draws.sharpen.any():
        taken = sharpened(taken, torch.from_numpy(draws.sharpen).to(device))
    taken = taken.clamp(0, 1)
    if (draws.jpeg < 100).any():
        taken = jpeg(taken, torch.from_numpy(draws.jpeg).to(device))
    taken = (taken * 255).round() / 255
    return Frames(taken, (aif + (taken - blurred)).clamp(0, 1), depth_m), cameras


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


def _noise(image: Tensor, draws: LensDraws) -> Tensor:
    noise = []
    for level, seed in zip(draws.noise.tolist(), draws.seed.tolist(), strict=True):
        generator = torch.Generator(device=image.device).manual_seed(seed)
        noise.append(torch.randn(image.shape[1:], generator=generator, device=image.device) * (level / 255))
    # Photon noise: more of it where there is more light.
    return torch.stack(noise) * (0.4 + 0.6 * image.clamp(min=0).sqrt())


def _filled(depth_m: Tensor) -> Tensor:
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
