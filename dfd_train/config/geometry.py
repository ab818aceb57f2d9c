"""How frames of the store become frames of the network; free of torch, so that a command line can parse it at once."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.config.options import DATA, check_options, option
from dfd_train.errors import ConfigError

# 32x32 leaves one pixel at the bottom of the encoder, of which a batch of one has no variance to normalise by.
SMALLEST_TRAINING_SIDE = 33


def shape_text(hw: tuple[int, ...]) -> str:
    """(192, 256) as "192x256": height first."""
    return "x".join(str(side) for side in hw)


def parse_shape(text: str) -> tuple[int, int]:
    """ "256" as (256, 256), "192x256" as (192, 256): height x width; raises `ConfigError` for anything else."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"size {text!r} must be one number or HEIGHTxWIDTH in pixels, such as 256 or 192x256")
    sides = [int(part) for part in parts]
    return sides[0], sides[-1]


def read_shape(value: str | int | tuple[int, int]) -> tuple[int, int]:
    """A shape as people write it, 256 or "192x256"; one that is ready stays as it is."""
    return value if isinstance(value, tuple) else parse_shape(str(value))


def read_size(value: str | int | tuple[int, int]) -> tuple[int, int] | None:
    """As `read_shape`, "native" = None: frames keep their own size."""
    return None if value == "native" else read_shape(value)


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
        metavar="PX|HxW|native",
        read=read_size,
        written=(str, int),
        help="Resize frames to this.",
    )
    crop: tuple[int, int] | None = option(
        None, group=DATA, metavar="PX|HxW", read=read_shape, written=(str, int),
        help="Random crops at native resolution instead of --size.",
    )  # fmt: skip
    flip: float = option(0.5, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        if self.size is not None and self.crop is not None:
            raise ConfigError(f"size={shape_text(self.size)} and crop={shape_text(self.crop)} exclude each other")
        for name, value in (("size", self.size), ("crop", self.crop)):
            if value is not None and (len(value) != 2 or min(value) < SMALLEST_TRAINING_SIDE):
                raise ConfigError(f"{name}={shape_text(value)} must be at least {SMALLEST_TRAINING_SIDE} pixels a side")
        check_options(self)

    def check_frame(self, frame_hw: tuple[int, int]) -> None:
        """Raise `ConfigError` where frames of height and width `frame_hw` are too small to train with."""
        if self.crop is not None and (self.crop[0] > frame_hw[0] or self.crop[1] > frame_hw[1]):
            raise ConfigError(
                f"crop={shape_text(self.crop)} is larger than the store's frames, {shape_text(frame_hw)}; "
                "give a smaller --crop, or --size"
            )
        if self.size is None and min(self.crop or frame_hw) < SMALLEST_TRAINING_SIDE:
            raise ConfigError(
                f"the store's frames, {shape_text(frame_hw)}, are smaller than {SMALLEST_TRAINING_SIDE} pixels a side; "
                f"give --size"
            )
