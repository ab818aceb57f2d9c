"""2HDED:NET: one encoder, a depth head and an all-in-focus (AiF) head (Nazir et al., IEEE TCI 2023, Table I)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfd_train.config.model import HEADS, ModelConfig
from dfd_train.errors import ConfigError
from dfd_train.model.decoder import DecoderHead
from dfd_train.model.encoder import Encoder
from dfd_train.model.reading import read_depth, told_planes
from dfd_train.model.stem import stem_input
from dfd_train.optics.answer import Output

STRIDE = 32
INIT_STD = 0.02


class TwoHeadedNet(nn.Module):
    """Defocused image -> metric depth and all-in-focus image; the "song" method takes two images, focused differently.

    `config`: widths, heads and options (`ModelConfig()` is the paper's network). `generator`: source of the initial
    weights; torch's global one where it is None.
    """

    def __init__(self, config: ModelConfig | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        self.encoder = Encoder(config)
        outputs = {"depth": 1 + config.uncertainty + (config.predict == "coc+side"), "aif": 3}
        heads = {
            head: DecoderHead(self.encoder.channels, config.decoder, count, config.dropout, self.encoder.full_channels)
            for head, count in outputs.items()
            if head in config.learned
        }
        self.depth_head, self.aif_head = heads.get("depth"), heads.get("aif")
        initialise(self, generator, config.init)
        if self.aif_head is not None and config.zero_last_aif:
            nn.init.zeros_(self.aif_head.last.weight)

    def forward(self, image: Tensor, heads: tuple[str, ...] | None = None) -> Output:
        """The outputs for `image`, see `outputs`."""
        return self.outputs(image, heads)

    def outputs(
        self,
        image: Tensor,
        heads: tuple[str, ...] | None = None,
        camera: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Output:
        """Run the encoder and the heads that are asked for; a head that is not costs nothing.

        `image`: (B, 3 or, of two images, 6, H, W) sRGB in [0, 1], any H, W >= 1: reflected at the bottom and right to
        the next multiple of 32, and the outputs are cropped back. `heads`: of ("depth", "aif"); None = all that the
        network has. `camera`: (B, 10), for a network that needs its lens; `told`: (B,) bool, which of them
        the network itself is told (None = all), where the others only turn its answer into metres. The AiF output is
        `last(x) + image`, a global residual to the first image. Raises `ConfigError`
        for a head that the network lacks.
        """
        wanted = self.config.learned if heads is None else heads
        missing = [head for head in wanted if head not in self.config.learned]
        if missing or not wanted:
            raise ConfigError(f"heads={wanted}: this network has {', '.join(self.config.learned)}")
        height, width = image.shape[-2:]
        padded = pad_reflect(image)
        # A residual in [-1, 1] is twice as large as the same in [0, 1].
        signed = self.config.input_range == "signed"
        planes = None
        if camera is not None:
            everyone = torch.ones(len(image), dtype=torch.bool, device=image.device)
            planes = told_planes(self.config, camera, everyone if told is None else told, height, padded.shape[-2:])
        features = self.encoder(stem_input(padded * 2 - 1 if signed else padded, self.config, planes))
        depth = Output(None, None)
        aif = None
        if self.depth_head is not None and "depth" in wanted:
            depth = read_depth(self.depth_head(features)[..., :height, :width], self.config, camera, told)
        if self.aif_head is not None and "aif" in wanted:
            residual = self.aif_head(features)
            aif = ((residual / 2 if signed else residual) + padded[:, :3])[..., :height, :width]
        # Spelled out: `_replace` stops torch.compile.
        return Output(depth.depth_m, aif, depth.answer, depth.log_scale, depth.depth_sigma_m, depth.side_logit)


def pad_reflect(image: Tensor, multiple: int = STRIDE) -> Tensor:
    """An image reflected at the bottom and right edge to the next multiples of a size.

    The reflection goes to and fro (a triangle wave) as often as needed, which `F.pad` refuses when the padding is not
    smaller than the image; for one pixel it repeats that pixel. Where both agree, the values are those of `F.pad`.

    Parameters
    ----------
    image
        (B, C, H, W).
    multiple
        Of height and width of the result.

    Returns
    -------
    Tensor
        (B, C, H', W').
    """
    height, width = image.shape[-2:]
    extra_h, extra_w = -height % multiple, -width % multiple
    if extra_h < height and extra_w < width:
        return F.pad(image, (0, extra_w, 0, extra_h), mode="reflect") if extra_h or extra_w else image
    rows = _triangle_wave(height, height + extra_h, image.device)
    columns = _triangle_wave(width, width + extra_w, image.device)
    return image[..., rows[:, None], columns]


def _triangle_wave(size: int, length: int, device: torch.device) -> Tensor:
    """Indices 0, 1, .., size-1, size-2, .., 0, 1, .. of the given length."""
    period = max(2 * (size - 1), 1)
    phase = torch.arange(length, device=device) % period
    return torch.minimum(phase, period - phase) if size > 1 else torch.zeros_like(phase)


@torch.no_grad()
def initialise(net: nn.Module, generator: torch.Generator | None = None, init: str = "paper") -> None:
    """The paper's start: convolutions N(0, 0.02), BN weights N(1, 0.02), every bias 0.

    Parameters
    ----------
    net
        Changed in place.
    generator
        Of the random numbers; None: torch's own.
    init
        "paper", or "kaiming": a convolution keeps the variance of what it is given (He et al. 2015) instead, but for
        the last ones of the heads, whose answers begin small either way.
    """
    last = {module.last for module in net.modules() if isinstance(module, DecoderHead)}
    for module in net.modules():
        if init == "kaiming" and isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module not in last:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            continue
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
            nn.init.normal_(module.weight, mean, INIT_STD, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers of a module (buffers are not parameters).

    Parameters
    ----------
    module
        Any.

    Returns
    -------
    int
        Their count.
    """
    return sum(parameter.numel() for parameter in module.parameters())


__all__ = ["HEADS", "Output", "TwoHeadedNet", "initialise", "pad_reflect", "parameter_count"]
