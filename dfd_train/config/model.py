"""The registry of models and what each is made of; free of torch, so that a command line can name them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfd_train.config.options import NETWORK, check_options, check_types, option
from dfd_train.errors import ConfigError

# The weights that come with an installation, and that are taken where no others are named.
DEFAULT_WEIGHTS = "any-lens"
HEADS = ("depth", "aif")
# What people call the sets of heads.
HEAD_CHOICES = {"both": HEADS, "depth": ("depth",), "deblur": ("aif",)}
STEMS = ("paper", "imagenet", "highpass", "blur")
INITS = ("paper", "kaiming")
# What the depth head answers: metres, one over metres, or the signed circle of confusion in px.
PREDICTIONS = ("depth", "inverse", "coc", "coc+side")
# Those that the lens turns into metres.
OF_THE_LENS = ("coc", "coc+side")
INPUT_RANGES = ("unit", "signed")
INPUTS = ("defocused", "aif")
DECONVOLUTIONS = ("hqs", "wiener")
# Of a block and of a convolution: far beyond every network of this kind, and what only damage asks for is refused at once.
MOST_LAYERS, MOST_CHANNELS = 128, 8192


@dataclass(frozen=True, kw_only=True)
class Method:
    """What sets a model apart from the two-headed network.

    `heads`: the sets of outputs it can have, by their names in `HEAD_CHOICES`, its usual one first. `learned`: outputs
    that come from weights; others are computed from them. `pictures`: differently focused pictures of a scene that it
    takes. `encoder`: whether it has the shared encoder. `camera`: whether it needs to know the lens. `labelled`: whether
    it learns from true depths and images; one that does not compares pictures only.
    """

    heads: tuple[str, ...]
    learned: tuple[str, ...] = HEADS
    pictures: int = 1
    encoder: bool = True
    camera: bool = False
    labelled: bool = True


METHODS: dict[str, Method] = {
    "2hded": Method(heads=("both", "depth", "deblur")),
    "dncnn": Method(heads=("deblur",), encoder=False),
    "ircnn": Method(heads=("deblur",), encoder=False),
    "d3net": Method(heads=("depth",)),
    "anwar": Method(heads=("both",), learned=("depth",), camera=True),
    "gur": Method(heads=("depth",), camera=True, labelled=False),
    "song": Method(heads=("depth", "both", "deblur"), pictures=2),
}


def read_heads(name: str) -> tuple[str, ...]:
    """The heads that people call by one name.

    Parameters
    ----------
    name
        "both", "depth" or "deblur".

    Returns
    -------
    tuple[str, ...]
        The network's heads.

    Raises
    ------
    ConfigError
        For another name.
    """
    if name not in HEAD_CHOICES:
        raise ConfigError(f"heads={name!r} must be one of {', '.join(HEAD_CHOICES)}")
    return HEAD_CHOICES[name]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model: its method and widths; the defaults are the paper's two-headed network (41,414,400 parameters).

    `name`: in `VARIANTS`. `method`: key of `METHODS`; what follows is of its encoder and heads.

    `stem_width`: channels after the first convolution. `growth`, `bottleneck`, `blocks`: the DenseNet encoder (channels
    added by a layer, width of its 1x1 in units of `growth`, layers of the four blocks). `decoder`: output channels of
    the decoder's five blocks, deepest first. `stem`: "paper" = 3x3, "imagenet" = DenseNet's own 7x7, "highpass" = 3x3 on
    the image and `gain` times its difference to a 5x5 mean, "blur" = the same with means of 3x3 and 9x9 and a first stage
    at full resolution, which the heads get as well. `init`: of the convolutions, "paper" = N(0, 0.02) or "kaiming".
    `predict`: what the depth head answers, "depth" in metres, "inverse" in 1/m, "coc", the signed circle of confusion in
    px, which the sample's lens turns into metres, or "coc+side", its width and, apart from that, the log-odds of nearer
    than the focus: two depths share a blur, and an average of both is neither. `uncertainty`: whether it also answers the
    scale of its error. `lens_input`: whether the network is told its lens; `lens_hidden`: for which share of the training
    pictures it is not, so that it also serves pictures of an unknown lens. `height_input`: whether it is also told how high
    in the picture each pixel is: what is low is nearer in most photographs, and filters see no place. `heads`: which of
    "depth" and "aif" exist. `dropout`: probability in the two deepest decoder blocks. `zero_last_aif`: start the last
    AiF convolution at zero, so that the untrained network returns its input as the restored image. `input_range`:
    whether the encoder and the AiF head work on images in [0, 1] ("unit") or [-1, 1] ("signed", as the authors' code);
    the network takes and returns [0, 1] either way. `input`: which of a sample's pictures the network is given; "aif" asks
    how much of the depth it finds without any defocus, with the depth head alone. `deconvolution`: how "anwar" sharpens,
    see `optics.deconvolution.deconvolve`. `frame_hw`: height and width of the whole frames that it has seen, which training
    fills in where "coc+side" is learned: how a scene is laid out is read from a picture at that size.

    Raises `ConfigError` for an impossible value.
    """

    name: str = "full"
    method: str = option("2hded", choices=tuple(METHODS))
    stem_width: int = option(64, at_least=1, at_most=MOST_CHANNELS)
    growth: int = option(32, at_least=1, at_most=MOST_CHANNELS)
    bottleneck: int = option(4, at_least=1, at_most=MOST_LAYERS)
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    decoder: tuple[int, ...] = (512, 256, 128, 64, 64)
    heads: tuple[str, ...] = option(
        HEADS, group=NETWORK, choices=tuple(HEAD_CHOICES), read=read_heads, default_text="both; baselines: their own",
        help="Heads to train.",
    )  # fmt: skip
    stem: str = option("paper", group=NETWORK, choices=STEMS, help="3x3, DenseNet's own 7x7, or one that sees blur.")
    dropout: float = option(0.0, at_least=0, below=1)
    zero_last_aif: bool = False
    input_range: str = option("unit", choices=INPUT_RANGES)
    input: str = option(
        "defocused", group=NETWORK, choices=INPUTS,
        help="Picture that the network is given; aif, with --heads depth: what it finds without defocus.",
    )  # fmt: skip
    deconvolution: str = option("hqs", choices=DECONVOLUTIONS)
    gain: float = option(
        10.0, group=NETWORK, metavar="FACTOR", above=0, help="Of the differences that the stems highpass and blur see."
    )
    init: str = option("paper", group=NETWORK, choices=INITS, help="Start of the convolutions: N(0, 0.02), or He's.")
    predict: str = option(
        "depth", group=NETWORK, choices=PREDICTIONS,
        help="What the depth head answers: metres, 1/m, the signed CoC in px, which the lens turns into metres, or its "
        "width and how likely it is nearer than the focus.",
    )  # fmt: skip
    uncertainty: bool = option(False, group=NETWORK, help="Let the depth head answer the scale of its error as well.")
    lens_input: bool = option(False, group=NETWORK, help="Tell the network its lens.")
    lens_hidden: float = option(
        0.0, group=NETWORK, metavar="0..1", at_least=0, below=1,
        help="With --lens-input: share of the training pictures whose lens it is not told, as of many photographs.",
    )  # fmt: skip

    height_input: bool = option(
        False, group=NETWORK,
        help="With --lens-input: tell the network how high in the picture each pixel is.",
    )  # fmt: skip
    frame_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_options(self, "model ")
        if len(self.blocks) != 4 or not 1 <= min(self.blocks) <= max(self.blocks) <= MOST_LAYERS:
            raise ConfigError(f"model blocks={self.blocks} must be four numbers from 1 to {MOST_LAYERS}")
        if len(self.decoder) != 5 or not 1 <= min(self.decoder) <= max(self.decoder) <= MOST_CHANNELS:
            raise ConfigError(f"model decoder={self.decoder} must be five numbers from 1 to {MOST_CHANNELS}")
        plain = self.method in ("2hded", "d3net")
        for field, usual in (("predict", "depth"), ("uncertainty", False), ("lens_input", False)):
            if getattr(self, field) != usual and not (plain and "depth" in self.heads):
                raise ConfigError(
                    f"{field}={getattr(self, field)} is not possible with the model {self.name} and "
                    f"heads={'+'.join(self.heads)}: it takes a depth head of full, small, light, tiny or d3net"
                )
        if self.lens_hidden and not self.lens_input:
            raise ConfigError(f"lens_hidden={self.lens_hidden:g} means nothing without lens_input")
        if self.height_input and not self.lens_input:
            raise ConfigError("height_input is possible with lens_input only")
        if self.frame_hw is not None and (len(self.frame_hw) != 2 or min(self.frame_hw) < 1):
            raise ConfigError(f"model frame_hw={self.frame_hw} must be a height and a width in pixels")
        if not self.heads or set(self.heads) - set(HEADS) or len(set(self.heads)) != len(self.heads):
            raise ConfigError(f"model heads={self.heads} must be one or both of {', '.join(HEADS)}")
        possible = METHODS[self.method].heads
        if not any(set(self.heads) == set(HEAD_CHOICES[choice]) for choice in possible):
            asked = next(name for name, heads in HEAD_CHOICES.items() if set(heads) == set(self.heads))
            raise ConfigError(
                f"heads={asked} is not possible with the model {self.name}: it has {' or '.join(possible)}"
            )
        if self.input == "aif" and (self.heads != ("depth",) or self.about.pictures > 1 or not self.about.labelled):
            raise ConfigError(
                f"input=aif is not possible with the model {self.name} and heads={'+'.join(self.heads)}: a sharp picture "
                f"has nothing to restore or to compare, so it takes --heads depth alone (models full, small, tiny, d3net)"
            )
        if not METHODS[self.method].encoder and self.stem != "paper":
            raise ConfigError(f"stem={self.stem} is not possible with the model {self.name}: it has no encoder")

    @property
    def about(self) -> Method:
        """The facts of its method."""
        return METHODS[self.method]

    @property
    def needs_camera(self) -> bool:
        """Whether the network must be told the lens of a picture."""
        return self.about.camera or self.predict in OF_THE_LENS or self.lens_input

    @property
    def has_usual_widths(self) -> bool:
        """Whether it is as wide and deep as one of the `WIDTHS`."""
        usual = (ModelConfig(**settings) for settings in WIDTHS.values())
        names = ("stem_width", "growth", "bottleneck", "blocks", "decoder")
        return any(all(getattr(self, name) == getattr(one, name) for name in names) for one in usual)

    @property
    def learned(self) -> tuple[str, ...]:
        """Those of its heads that training improves."""
        return tuple(head for head in self.heads if head in self.about.learned)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The configuration that `dataclasses.asdict` turned into JSON; raises `ConfigError` for unknown fields."""
        try:
            check_types(cls, values)
            return cls(**tuples_from_lists(values))
        except (TypeError, OverflowError) as error:
            raise ConfigError(f"not a model configuration: {error}") from error


def tuples_from_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with every list as a tuple again, which JSON does not know.

    Parameters
    ----------
    values
        As read.

    Returns
    -------
    dict[str, Any]
        A copy.
    """
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


# Of the networks that have the encoder.
WIDTHS: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {"stem_width": 32, "growth": 16, "blocks": (4, 8, 12, 8), "decoder": (160, 96, 64, 48, 32)},
    "light": {"stem_width": 16, "growth": 16, "blocks": (3, 6, 10, 6), "decoder": (112, 72, 40, 24, 16)},
    "tiny": {"stem_width": 16, "growth": 8, "blocks": (2, 4, 6, 4), "decoder": (48, 32, 24, 16, 16)},
}


def _variants() -> dict[str, ModelConfig]:
    """Four widths of the two-headed network; then every baseline, those with an encoder in the same widths."""
    made = {width: ModelConfig(name=width, **settings) for width, settings in WIDTHS.items()}
    for method, about in METHODS.items():
        if method == "2hded":
            continue
        for width, settings in WIDTHS.items() if about.encoder else (("full", {}),):
            name = method if width == "full" else f"{method}-{width}"
            made[name] = ModelConfig(name=name, method=method, heads=HEAD_CHOICES[about.heads[0]], **settings)
    return made


# The names that `dfd-train --model` takes.
VARIANTS: dict[str, ModelConfig] = _variants()


def variant(name: str) -> ModelConfig:
    """A model by its name.

    Parameters
    ----------
    name
        Such as "full", "tiny", "dncnn" or "song-tiny".

    Returns
    -------
    ModelConfig
        The model.

    Raises
    ------
    ConfigError
        For another name.
    """
    if name not in VARIANTS:
        raise ConfigError(f"model={name!r} must be one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
