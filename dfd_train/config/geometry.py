"""How frames of the store become frames of the network; free of torch, so that a command line can parse it at once."""

from __future__ import annotations

from dataclasses import dataclass

from defocus_sim.errors import UnitError
from defocus_sim.units import parse_size_hw, size_text
from dfd_train.config.options import DATA, check_options, option
from dfd_train.errors import ConfigError

# 32x32 leaves one pixel at the bottom of the encoder, of which a batch of one has no variance to normalise by.
SMALLEST_TRAINING_SIDE = 33


def read_crop(value: str | int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size as people write it, 256 or "320x240" (width first); a pair of numbers stays as it is.

    Raises `ConfigError` for anything else.
    """
    if isinstance(value, tuple):
        return value
    try:
        return parse_size_hw(str(value))
    except UnitError as error:
        raise ConfigError(str(error)) from error


def read_size(value: str | int | tuple[int, int]) -> tuple[int, int] | None:
    """As `read_crop`, "native" = None: frames keep their own size."""
    return None if value == "native" else read_crop(value)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Size of the training frames, (height, width) in pixels.

    `size`: every frame is resized to it, as in the paper (a resize scales blur with the image). `crop`: a window of
    this size is cut at the frame's own resolution, which keeps the blur's scale; scored at native resolution. At most
    one of them; with neither, frames stay as they are. `flip`: probability of a left-right flip in training.

    Raises `ConfigError` for an impossible value.
    """

    size: tuple[int, int] | None = option(
        (256, 256),
        group=DATA,
        metavar="PX|WxH|native",
        read=read_size,
        written=(str, int),
        help="Resize frames to this.",
    )
    crop: tuple[int, int] | None = option(
        None, group=DATA, metavar="PX|WxH", read=read_crop, written=(str, int),
        help="Random crops at native resolution instead of --size.",
    )  # fmt: skip
    flip: float = option(0.5, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        if self.size is not None and self.crop is not None:
            raise ConfigError(f"size={size_text(self.size)} and crop={size_text(self.crop)} exclude each other")
        for name, value in (("size", self.size), ("crop", self.crop)):
            if value is not None and (len(value) != 2 or min(value) < SMALLEST_TRAINING_SIDE):
                raise ConfigError(f"{name}={size_text(value)} must be at least {SMALLEST_TRAINING_SIDE} pixels a side")
        check_options(self)

    def check_frame(self, frame_hw: tuple[int, int]) -> None:
        """Raise `ConfigError` where frames of height and width `frame_hw` are too small to train with."""
        if self.crop is not None and (self.crop[0] > frame_hw[0] or self.crop[1] > frame_hw[1]):
            raise ConfigError(
                f"crop={size_text(self.crop)} is larger than the store's frames, {size_text(frame_hw)}; "
                "give a smaller --crop, or --size"
            )
        if self.size is None and min(self.crop or frame_hw) < SMALLEST_TRAINING_SIDE:
            raise ConfigError(
                f"the store's frames, {size_text(frame_hw)}, are smaller than {SMALLEST_TRAINING_SIDE} pixels a side; "
                f"give --size"
            )
