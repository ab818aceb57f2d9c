"""New defocus for every epoch: a lens drawn for each sample, and the picture that it takes of the stored sharp one.

What is drawn depends on the seed, the epoch and the sample alone: neither the batch, nor the process, nor where a run was
resumed changes it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfd_train.config.lens_range import LensRange
from dfd_train.data.transforms import Frames
from dfd_train.optics.blurred import blurred_by, filled
from dfd_train.optics.camera import (
    BOTTOM,
    COC_PX,
    FOCUS_M,
    IN_FOCUS_PX,
    MOST_PX,
    NO_CAP_PX,
    PER_COC,
    SCALE_X,
    SCALE_Y,
    TOP,
    coc_px_from,
)
from dfd_train.optics.camera_effects import demosaiced, denoised, jpeg, sharpened, softened
from dfd_train.optics.defocus import linear_to_srgb, srgb_to_linear

# Set apart from the draws of flips and windows, which begin with the same numbers.
_STREAM = 7


class LensDraws(NamedTuple):
    """The numbers drawn for each sample of a batch, (B,) float32 each but `seed` (B,) int64.

    `focus_m`, or a negative number: minus the factor on the depth than which a share `at` squared of the frame is
    nearer. The other names are those of `LensRange`; `disc`, `linear`, `layered`,
    `demosaic`, `clean`: 1 = yes.
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
    demosaic: NDArray[np.float32]
    denoise: NDArray[np.float32]
    tone: NDArray[np.float32]
    exposure: NDArray[np.float32]
    clean: NDArray[np.float32]


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
                # What came later is drawn last, so that runs from before it go on as they began.
                float(rng.random() < ranges.demosaic),
                rng.uniform(*ranges.denoise),
                logarithmic(ranges.tone),
                logarithmic(ranges.exposure),
                float(rng.random() < ranges.clean),
            )
        )
    columns = dict(zip(LensDraws._fields, zip(*rows, strict=True), strict=True))
    seeds = np.array(columns.pop("seed"), np.int64)
    return LensDraws(**{name: np.array(column, np.float32) for name, column in columns.items()}, seed=seeds)


def cameras_of(draws: LensDraws, depth_m: Tensor, width_px: int, aspects: Tensor | None = None) -> Tensor:
    """The drawn lenses as cameras (B, 10) for frames `depth_m` (B, 1, H, W) cut from frames `width_px` wide.

    `aspects`: (B,), see `ShardDataset.aspects`; None: pixels are square.
    """
    device = depth_m.device
    focus, at, focal, f_number, sensor, most = (torch.from_numpy(column).to(device) for column in draws[:6])
    flat = depth_m.flatten(1)
    valid = torch.isfinite(flat) & (flat > 0)
    # Holes last, so that the share counts valid pixels; its square: people focus on what is in front.
    rising = torch.where(valid, flat, torch.inf).sort(dim=1).values
    rank = (at**2 * (valid.sum(1) - 1).clamp(min=0)).long()
    picked = rising.gather(1, rank[:, None])[:, 0]
    picked = torch.where(picked.isfinite(), picked, 1.0)
    focus = torch.maximum(torch.where(focus < 0, -focus * picked, focus), 2 * focal)
    distance_px = focal * focus / (focus - focal) * width_px / sensor
    coc_px = focal / f_number * distance_px / focus
    cameras = torch.zeros(len(focus), 10, device=device)
    cameras[:, FOCUS_M], cameras[:, COC_PX], cameras[:, MOST_PX] = focus, coc_px, NO_CAP_PX
    cameras[:, PER_COC] = torch.from_numpy(draws.sigma_per_coc).to(device)
    cameras[:, IN_FOCUS_PX] = torch.from_numpy(draws.focus_blur_px).to(device)
    cameras[:, SCALE_X] = 1
    cameras[:, TOP], cameras[:, BOTTOM] = -1, 1
    cameras[:, SCALE_Y] = 1 if aspects is None else aspects.to(device)
    # Close the aperture where the blur would be wider than it is to be.
    safe = torch.where(valid, flat, focus[:, None]).reshape(depth_m.shape)
    widest = coc_px_from(safe, cameras).abs().flatten(1)[:, ::7].quantile(0.98, dim=1)
    cameras[:, COC_PX] *= (most / widest.clamp(min=1e-6)).clamp(max=1)
    cameras[:, MOST_PX] = torch.maximum(1.25 * most, torch.full_like(most, 4.0))
    return cameras


@torch.no_grad()
def photographed(
    frames: Frames, draws: LensDraws, width_px: int, aspects: Tensor | None = None
) -> tuple[Frames, Tensor]:
    """`frames` as the drawn cameras take them, and the cameras (B, 10).

    The defocused picture is made anew of the sharp one; what a camera adds to everything (softness, noise, demosaicing,
    noise reduction, sharpening, JPEG) is added to both, as only the defocus is to be undone; the target of a `clean` sample
    has softness and sharpening only. `width_px`: of the frames before they were cut.
    `aspects`: (B,), see `ShardDataset.aspects`; None: pixels are square.
    """
    aif, depth_m = frames.aif, frames.depth_m
    cameras = cameras_of(draws, depth_m, width_px, aspects)
    device = aif.device
    if draws.softness_px.any():
        aif = softened(aif, torch.from_numpy(draws.softness_px).to(device))
    disc, layered = (torch.from_numpy(column).to(device) > 0.5 for column in (draws.disc, draws.layered))
    source, aif = _exposed(aif, draws)
    blurred = _developed(blurred_by(source, filled(depth_m), cameras, disc, layered), draws)
    taken = blurred
    if draws.noise.any():
        taken = taken + _noise(taken, draws)
    if draws.demosaic.any():
        chosen = _each(draws.demosaic, device) > 0.5
        taken = torch.where(chosen, demosaiced(taken.clamp(0, 1)), taken)
    if draws.denoise.any():
        taken = denoised(taken, torch.from_numpy(draws.denoise).to(device))
    weights = torch.from_numpy(draws.sharpen).to(device)
    if draws.sharpen.any():
        taken = sharpened(taken, weights)
    taken = taken.clamp(0, 1)
    if (draws.jpeg < 100).any():
        taken = jpeg(taken, torch.from_numpy(draws.jpeg).to(device))
    taken = (taken * 255).round() / 255
    target = aif + (taken - blurred)
    if draws.clean.any():
        target = torch.where(_each(draws.clean, device) > 0.5, sharpened(aif, weights), target)
    return Frames(taken, target.clamp(0, 1), depth_m), cameras


def _exposed(aif: Tensor, draws: LensDraws) -> tuple[Tensor, Tensor]:
    """What is to be blurred of `aif` (B, 3, H, W), by the draws linear light or values as stored, and the sharp picture.

    Both are `aif` but for samples in linear light: those are exposed, and only what is looked at is clipped at white.
    """
    if not draws.linear.any():
        return aif, aif
    linear, tone, exposure = (_each(column, aif.device) for column in (draws.linear, draws.tone, draws.exposure))
    light = srgb_to_linear(aif)
    if (draws.tone != 1).any():
        light = light**tone
    source = torch.where(linear > 0.5, light * exposure, aif)
    return source, _developed(source, draws) if (draws.exposure != 1).any() else aif


def _developed(seen: Tensor, draws: LensDraws) -> Tensor:
    """Pictures in [0, 1] of what `_exposed` gave to the lens."""
    if draws.linear.any():
        linear, tone = _each(draws.linear, seen.device), _each(draws.tone, seen.device)
        light = seen.clamp(0, 1)
        if (draws.tone != 1).any():
            light = light ** (1 / tone)
        seen = torch.where(linear > 0.5, linear_to_srgb(light), seen)
    return seen.clamp(0, 1)


def _each(column: NDArray[np.float32], device: torch.device) -> Tensor:
    """(B,) as (B, 1, 1, 1), beside pictures."""
    return torch.from_numpy(column).to(device)[:, None, None, None]


def _noise(image: Tensor, draws: LensDraws) -> Tensor:
    noise = []
    for level, seed in zip(draws.noise.tolist(), draws.seed.tolist(), strict=True):
        generator = torch.Generator(device=image.device).manual_seed(seed)
        noise.append(torch.randn(image.shape[1:], generator=generator, device=image.device) * (level / 255))
    # Photon noise: more of it where there is more light.
    return torch.stack(noise) * (0.4 + 0.6 * image.clamp(min=0).sqrt())
