"""`start`: a run from flat options, as the command line gives them; `train(config)` is the same for a ready config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfd_train.config import recipe_config, with_options
from dfd_train.errors import ConfigError
from dfd_train.run_folder import run_config
from dfd_train.trainer import TrainResult, train


def start(
    *,
    out: str | Path,
    shards: str | Path | None = None,
    recipe: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> TrainResult:
    """Train the run that a recipe and options describe (`recipe_config`), or resume the one in `out`.

    With `resume`, settings come from the run's folder; an option that is given must agree with it. Raises what
    `recipe_config` and `train` raise, and `ConfigError` without `shards` where nothing is resumed.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if resume:
        before = run_config(Path(out))
        if recipe not in (None, before.recipe):
            raise ConfigError(f"cannot resume {out} with another recipe: it was started with {before.recipe}")
        return train(with_options(before, shards=shards, out=out, **options), resume=True)
    if shards is None:
        raise ConfigError("give the shard store: --shards STORE")
    return train(recipe_config(recipe or "paper", shards=shards, out=out, **options), overwrite=overwrite)
