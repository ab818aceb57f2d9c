"""Which run belongs to which row of the paper's tables; free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfd_train.config.loss import TABLE_II
from dfd_train.config.model import HEAD_CHOICES, METHODS, WIDTHS
from dfd_train.config.train import OPTIONS, RECIPES, TrainConfig, recipe_config
from dfd_train.errors import ConfigError

# Of each table that can be reproduced, the keys of its rows.
TABLES: dict[str, tuple[str, ...]] = {
    "table2": tuple(TABLE_II), "table3": tuple(HEAD_CHOICES), "table4": tuple(METHODS),
}  # fmt: skip
# Settings that a table decides for each of its rows.
DECIDED = ("shards", "out", "model", "heads", "loss", "seed")
STACK_HINT = "--stack STORE made with dfd-prepare ... --focus 1m,4m"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to reproduce.

    `table`: "table2" (five losses), "table3" (heads), "table4" (methods). `shards`: the store. `out`: folder of the runs
    and of the table. `stack`: a store with two focus distances, for Table IV's method that compares two; without it that
    row stays empty. `model`: width of the two-headed network and its relatives. `seeds`: each row is trained once for
    each. `only`: rows to train, all where it is empty. `recipe` and `options` as in `recipe_config`. `limit`: score on
    the first so many test images only.

    Raises `ConfigError` for an unknown table, width or row.
    """

    table: str
    shards: str
    out: Path
    stack: str | None = None
    model: str = "full"
    recipe: str = "paper"
    seeds: tuple[int, ...] = (0,)
    only: tuple[str, ...] = ()
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("table", TABLES), ("model", WIDTHS), ("recipe", tuple(RECIPES))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        for key in self.only:
            if key not in TABLES[self.table]:
                raise ConfigError(f"only={key!r} must be one of {', '.join(TABLES[self.table])}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds={self.seeds} must be different numbers, at least one")
        for name in self.options:
            if name in DECIDED:
                raise ConfigError(f"{name} is decided by the table for each of its rows")
        if "song" in self.only and self.stack is None:
            raise ConfigError(f"the row song compares two focus distances: give a store of them, {STACK_HINT}")


def runs(plan: Plan) -> dict[str, TrainConfig]:
    """Every run of `plan`, by its name. Raises `ConfigError` for an impossible option."""
    # A method that compares two pictures takes a store of its own.
    lacking = [key for key, about in METHODS.items() if about.pictures > 1] if plan.stack is None else []
    keys = [key for key in TABLES[plan.table] if (key in plan.only if plan.only else key not in lacking)]
    return {_name(plan, key, seed): _run(plan, key, seed) for key in keys for seed in plan.seeds}


def _name(plan: Plan, key: str, seed: int) -> str:
    return key.replace("+", "-") + (f"-seed{seed}" if len(plan.seeds) > 1 else "")


def _run(plan: Plan, key: str, seed: int) -> TrainConfig:
    row: dict[str, Any] = {"table2": {"loss": key}, "table3": {"heads": key}, "table4": {}}[plan.table]
    model = plan.model
    if plan.table == "table4" and key != "2hded":
        model = key if plan.model == "full" or not METHODS[key].encoder else f"{key}-{plan.model}"
    pairs = plan.table == "table4" and METHODS[key].pictures > 1
    options = {"validate_every": 0, **row, **plan.options}
    if plan.table == "table4" and not METHODS[key].labelled:
        # It has a loss of its own.
        options = {
            name: value for name, value in options.items() if name not in OPTIONS or OPTIONS[name].part != "loss"
        }
    return recipe_config(
        plan.recipe,
        shards=plan.stack if pairs and plan.stack else plan.shards,
        out=plan.out / _name(plan, key, seed),
        model=model,
        seed=seed,
        **options,
    )
