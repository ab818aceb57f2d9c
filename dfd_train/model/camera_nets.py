"""Models of the paper's Table IV that know the lens: an Anwar-style pipeline and Gur-style self-supervision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dfd_train.config.model import ModelConfig
from dfd_train.model.two_headed import Output, TwoHeadedNet
from dfd_train.optics.camera import ANSWERED_NEARNESS, FOCUS_M, IN_FOCUS_PX, TOP, aspect, sigma_px
from dfd_train.optics.deconvolution import deconvolve

# Depth as S/x, "nearness", is at least this: 1000 times the focus distance S.
LEAST_NEARNESS = 1e-3
# Where a network that answers 0 starts: at half the nearness of the focus distance, twice as far. At the focus itself the
# blur has no slope to follow.
_START = -1.9459101


class CameraNet(TwoHeadedNet):
    """A depth network that needs the lens; `camera` (10,) is the one to assume where a picture comes without its own.

    Training sets it to that of the first training sample; it is kept in the checkpoint.
    """

    camera: Tensor

    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)
        self.register_buffer("camera", torch.tensor([1.0, 0.0, 0.0, 0.0, 0.25, 1.0, 1.0, 0.0, -1.0, 1.0]))
        self.register_load_state_dict_pre_hook(_with_all_numbers)

    def cameras(self, image: Tensor, camera: Tensor | None) -> Tensor:
        """`camera`, or the assumed one for every image of the batch: (B, 10)."""
        return self.camera.expand(len(image), -1) if camera is None else camera


def _with_all_numbers(_net: torch.nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """The camera of an older checkpoint gets what it lacks: no blur in focus, and all rows of the picture."""
    camera = weights.get(f"{prefix}camera")
    if camera is not None and camera.numel() in (IN_FOCUS_PX, TOP):
        camera = camera if camera.numel() == TOP else torch.nn.functional.pad(camera, (0, 1))
        weights[f"{prefix}camera"] = torch.cat([camera, camera.new_tensor([-1.0, 1.0])])


class LensNet(CameraNet):
    """The two-headed network that answers a CoC, or is told its lens: one network for every lens."""

    def forward(  # type: ignore[override]  # takes a camera beside the two-headed network's heads
        self,
        image: Tensor,
        camera: Tensor | None = None,
        heads: tuple[str, ...] | None = None,
        told: Tensor | None = None,
    ) -> Output:
        """`image` (B, 3, H, W) sRGB in [0, 1], `camera` (B, 10) or None = the assumed one -> `Output`.

        `told`: (B,) bool, which lenses the network is told. None: all that are given; in training, all but the share
        `lens_hidden`. One that is assumed is told only to a network that never had to do without.
        """
        hidden = self.config.lens_hidden
        if told is None and hidden and (self.training or camera is None):
            # As dropout draws: a run that is resumed goes on with the same numbers.
            chance = torch.rand(len(image), device=image.device)
            told = chance >= hidden if self.training else torch.zeros_like(chance, dtype=torch.bool)
        return self.outputs(image, heads, self.cameras(image, camera), told)


class AnwarNet(CameraNet):
    """Anwar-style pipeline (BMVC 2017): predicted depth -> blur at every pixel -> non-blind deconvolution.

    Only the depth head learns; the sharpened image has no weights, and is made in evaluation mode only.
    """

    def forward(  # type: ignore[override]  # takes a camera where the two-headed network takes heads
        self, image: Tensor, camera: Tensor | None = None
    ) -> Output:
        """`image` (B, 3, H, W) sRGB in [0, 1], `camera` (B, 10) -> depth and, in evaluation mode, the image in focus."""
        depth_m = self.outputs(image).depth_m
        if self.training or depth_m is None:
            return Output(depth_m, None)
        cameras = self.cameras(image, camera)
        sigma, shapes = sigma_px(depth_m.float(), cameras)[:, 0], aspect(cameras)
        # A depth that is not finite has no blur: it is passed on, to be reported as what it is.
        sharp = [
            deconvolve(one, s, method=self.config.deconvolution, aspect=float(shape)) if s.isfinite().all() else one
            for one, s, shape in zip(image, sigma, shapes, strict=True)
        ]
        return Output(depth_m, torch.stack(sharp))


class GurNet(CameraNet):
    """Gur and Wolf's idea (CVPR 2019): depth learnt by blurring the all-in-focus image until it looks like the input.

    The head answers S/x, the focus distance over the depth, in which blur is linear. Blur alone cannot tell nearer than
    the focus from beyond it.
    """

    def forward(  # type: ignore[override]  # takes a camera where the two-headed network takes heads
        self, image: Tensor, camera: Tensor | None = None
    ) -> Output:
        """`image` (B, 3, H, W) sRGB in [0, 1], `camera` (B, 10) -> depth between 1/4 and 1000 focus distances."""
        raw = self.outputs(image).depth_m
        assert raw is not None  # noqa: S101 - the configuration allows the depth head only
        # Not in the half precision that the layers may have computed in: its steps would show in the depth.
        nearness = (ANSWERED_NEARNESS * torch.sigmoid(raw.float() + _START)).clamp(min=LEAST_NEARNESS)
        return Output(self.cameras(image, camera)[:, FOCUS_M, None, None, None] / nearness, None)
