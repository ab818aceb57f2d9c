"""Settings that a person can give, each defined once: beside its field in a configuration's dataclass.

`name: type = option(default, help=..., group=...)` is all it takes: the command lines, TOML, `with_options`, resuming, the
checks and the reproduction read it from there. A field without `help` is set in a table of TOML or from Python only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dfd_train.errors import ConfigError

# Headings of the help, in their order.
RUN, NETWORK, LOSS, STEPS = "Run", "Network", "Loss", "Optimization"
DATA, ENGINE, CHECKPOINTS = "Data", "Engine", "Checkpoints and scores"
GROUPS = (RUN, NETWORK, LOSS, STEPS, DATA, ENGINE, CHECKPOINTS)
_KEY = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of a setting.

    `help`: for the command line, "" = not offered there. `group`: its heading. `metavar`: what stands for its value.
    `flag`: its name there where it is not the field's. `default_text`: how the default is told where its value does not
    say enough. `choices`: texts that it can be. `at_least`, `above`, `at_most`, `below`: its range; numbers are always
    finite. `read`: turns what a person writes (of the types `written`) into the field's value. `volatile`: may change
    when a run is resumed, since it decides where and how fast a run goes, never what it computes.

    `name`, `part` (the nested configuration it belongs to, "" = none), `annotation` and `default` are its field's.
    """

    help: str = ""
    group: str = RUN
    metavar: str | None = None
    flag: str = ""
    default_text: str = ""
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    read: Callable[[Any], Any] | None = None
    written: tuple[type, ...] = (str,)
    volatile: bool = False
    name: str = ""
    part: str = ""
    annotation: str = ""
    default: Any = None

    def check(self, value: Any, prefix: str) -> None:
        """Raise `ConfigError`, naming the field, where `value` is none of the choices or out of range."""
        if value is None:
            return
        if self.choices and self.read is None and value not in self.choices:
            raise ConfigError(f"{prefix}{self.name}={value!r} must be one of {', '.join(self.choices)}")
        bounds = (self.at_least, self.above, self.at_most, self.below)
        if any(bound is not None for bound in bounds) and not self._in_range(value):
            raise ConfigError(f"{prefix}{self.name}={value} must {self._range()}")

    def _in_range(self, value: float) -> bool:
        return (
            abs(value) < float("inf")
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _range(self) -> str:
        if self.above == 0 and self.at_most is None and self.below is None:
            return "be positive and finite"
        limits = (
            ("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below),
        )  # fmt: skip
        return "be " + " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


def about(**facts: Any) -> dict[str, Any]:
    """The metadata of a dataclass's field that is a setting with these facts of `Option`."""
    return {_KEY: Option(**facts)}


def option(default: Any, **facts: Any) -> Any:
    """A dataclass's field with this default and these facts of `Option`."""
    return field(default=default, metadata=about(**facts))


def options_of(config: type, part: str = "") -> dict[str, Option]:
    """The settings among the fields of the dataclass `config`, by name, told where they belong."""
    return {
        f.name: replace(f.metadata[_KEY], name=f.name, part=part, annotation=str(f.type), default=f.default)
        for f in fields(config)
        if _KEY in f.metadata
    }


_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def check_types(part: type, values: Any) -> None:
    """Raise `TypeError` where `values` (as JSON has them) do not have the plain types of the dataclass `part`'s fields."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{str(values)[:50]!r} is no table")
    for field_ in fields(part):
        kind, _, optional = str(field_.type).partition(" | ")
        value = values.get(field_.name)
        if field_.name not in values or optional not in ("", "None") or (value is None and optional):
            continue
        inner = kind.removeprefix("tuple[").partition(",")[0]
        if inner not in _TYPES:
            continue
        if inner != kind and not isinstance(value, list | tuple):
            raise TypeError(f"{field_.name} = {value!r} is no list")
        parts: Iterable[Any] = (value,) if inner == kind else value or ()
        for one in parts:
            if not isinstance(one, _TYPES[inner]) or (isinstance(one, bool) and inner != "bool"):
                raise TypeError(f"{field_.name} = {value!r} is not of the type {kind}")
            # JSON knows whole numbers beyond those that torch takes.
            if isinstance(one, int) and abs(one) >= 2**63:
                raise TypeError(f"{field_.name} is a number of more than 63 bits")


def check_options(config: Any, prefix: str = "") -> None:
    """Raise `ConfigError` where a field of the dataclass `config` is none of its choices or out of its range."""
    for name, setting in options_of(type(config)).items():
        setting.check(getattr(config, name), prefix)
