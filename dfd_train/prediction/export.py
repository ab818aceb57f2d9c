"""A trained network as ONNX or as a `torch.export` program, for images of any size."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfd_train.config.model import OF_THE_LENS
from dfd_train.errors import ConfigError, ExportError
from dfd_train.model.build import CameraNet, Model
from dfd_train.model.camera_nets import LensNet
from dfd_train.model.reading import read_depth, told_planes
from dfd_train.model.stem import stem_input
from dfd_train.model.two_headed import STRIDE, TwoHeadedNet
from dfd_train.optics.camera import NO_CAP_PX
from dfd_train.runs.weights_file import write_export

INPUT, LENS_INPUT = "image", "lens"
# Export reads the graph off one example of this size.
_EXAMPLE_HW = (96, 160)
# From when on the third number of an exported network's lens counts as a yes.
_KNOWN = 0.5
# Up to 32 pixels are one cell of the deepest map, which the exporter would take for a constant.
_SMALLEST_SIDE, _LARGEST_SIDE = 33, 2**14


class ExportedNet(nn.Module):
    """`TwoHeadedNet` without branches on the image's size, as an export needs it.

    Input (1, 3, H, W), or (1, 6, H, W) of a model that compares two pictures, sRGB in [0, 1], 33 <= H, W <= 16384; of one
    that needs its lens also (1, 3): focus distance in metres, diameter of the circle of confusion at infinity in pixels of
    this image, and 1 where both are known or 0 where they are a guess that the network is not to be told. Outputs: those
    of `output_names`, (1, 1, H, W) but aif (1, 3, H, W). The image is reflected to multiples of 32 inside, as
    `pad_reflect` does.
    """

    def __init__(self, net: TwoHeadedNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, lens: Tensor | None = None) -> tuple[Tensor, ...]:
        """See the class."""
        height, width = image.shape[-2:]
        padded = image.index_select(2, _reflected(height, image.device)).index_select(
            3, _reflected(width, image.device)
        )
        # As `TwoHeadedNet.forward`, which also says why the residual is halved.
        config = self.net.config
        signed = config.input_range == "signed"
        camera = told = planes = None
        if lens is not None:
            # As `camera_of` has it for a lens without a cap and frames as they were taken.
            rest = lens.new_tensor([[NO_CAP_PX, 0.0, 0.25, 1.0, 1.0, 0.0, -1.0, 1.0]])
            camera, told = torch.cat([lens[:, :2], rest], dim=1), lens[:, 2] > _KNOWN
            planes = told_planes(config, camera, told, height, padded.shape[-2:])
        features = self.net.encoder(stem_input(padded * 2 - 1 if signed else padded, config, planes))
        made: dict[str, Tensor | None] = {}
        if self.net.depth_head is not None:
            made = read_depth(self.net.depth_head(features), config, camera, told)._asdict()
            made["coc_px"] = made["answer"]
        if self.net.aif_head is not None:
            residual = self.net.aif_head(features)
            made["aif"] = (residual / 2 if signed else residual) + padded[:, :3]
        outputs = [made[name] for name in output_names(self.net)]
        # A slice would make the exporter ask whether the padded size is the larger one, which it cannot tell.
        rows, columns = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        return tuple(one.index_select(2, rows).index_select(3, columns) for one in outputs if one is not None)


class ExportedStack(nn.Module):
    """A model that takes an image of any size as it is, as an export needs it: a tuple in, a tuple out."""

    def __init__(self, net: Model) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) sRGB in [0, 1] -> the image in focus, alone in a tuple."""
        return tuple(output for output in self.net(image) if output is not None)


def output_names(net: Model) -> list[str]:
    """Names of the exported outputs, in order: what the heads answer, then how sure they are and what it was read from.

    `coc_px`: circle of confusion in px, negative nearer than the focus; `side_logit`: log-odds of that.
    """
    config = net.config
    names = [name for name, head in (("depth_m", "depth"), ("aif", "aif")) if head in config.heads]
    if "depth" in config.learned:
        names += ["depth_sigma_m"] * config.uncertainty
        names += ["coc_px"] * (config.predict in OF_THE_LENS) + ["side_logit"] * (config.predict == "coc+side")
    return names


def export_program(net: Model) -> torch.export.ExportedProgram:
    """`net`, in evaluation mode, as a `torch.export` program of `ExportedNet`; height and width stay free.

    Raises `ConfigError` for a model in training mode, and for one that is more than its network.
    """
    of_lens = isinstance(net, LensNet)
    if isinstance(net, CameraNet) and not of_lens:
        raise ConfigError(
            f"the model {net.config.name} is more than its network and cannot be exported; use it from Python"
        )
    if net.training:
        raise ConfigError("the model is in training mode: call model.eval() before exporting it")
    device = next(net.parameters()).device
    example: tuple[Tensor, ...] = (torch.zeros(1, 3 * net.config.about.pictures, *_EXAMPLE_HW, device=device),)
    exported = ExportedNet(net) if isinstance(net, TwoHeadedNet) else ExportedStack(net)
    free: tuple[dict[int, Any] | None, ...] = (
        {
            2: torch.export.Dim("height", min=_SMALLEST_SIDE, max=_LARGEST_SIDE),
            3: torch.export.Dim("width", min=_SMALLEST_SIDE, max=_LARGEST_SIDE),
        },
    )
    if of_lens:
        example, free = (*example, torch.tensor([[2.0, 4.0, 1.0]], device=device)), (*free, None)
    with _quiet():
        return torch.export.export(exported.eval(), example, dynamic_shapes=free)


def write_program(net: Model, path: Path) -> None:
    """Write `export_program` to `path` (.pt2, for `torch.export.load`); raises `ExportError` where it cannot be."""
    stream = io.BytesIO()
    with _quiet():
        torch.export.save(export_program(net), stream)
    write_export(path, stream.getvalue())


def write_onnx(net: Model, path: Path) -> None:
    """Write `net` as one ONNX file with the input "image" and, of a network for every lens, "lens".

    Outputs as `output_names` has them; axes "height" and "width" are free. Raises `ExportError` where the packages onnx and
    onnxscript are missing or the file cannot be written.
    """
    program = export_program(net)
    try:
        with _quiet():
            inputs = [INPUT, LENS_INPUT] if isinstance(net, LensNet) else [INPUT]
            made = torch.onnx.export(
                program, (), input_names=inputs, output_names=output_names(net), dynamo=True, verbose=False
            )
    except ImportError as error:
        raise ExportError(f"ONNX export needs more packages ({error}): pip install onnx onnxscript") from error
    if made is None:
        raise ExportError("torch.onnx returned no program: use torch.export instead")
    write_export(path, _with_named_axes(made.model_proto).SerializeToString())


def _with_named_axes(model: Any) -> Any:
    """The exporter calls free axes s73 and s6; whoever opens the file is to read height and width."""
    graph = model.graph
    named = {
        axis.dim_param: name
        for axis, name in zip(graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True)
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"\w+", lambda word: named.get(word.group(), word.group()), axis.dim_param)
    return model


def _reflected(size: int, device: torch.device) -> Tensor:
    """0, 1, .., size-1, size-2, .. up to the next multiple of 32; one turn is enough, as `size` is above 32."""
    along = torch.arange((size + STRIDE - 1) // STRIDE * STRIDE, device=device)
    return torch.minimum(along, 2 * (size - 1) - along)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' own deprecations and progress lines are of no use to who exports a network."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
