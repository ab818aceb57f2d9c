"""`start`: a run from flat options, as the command line gives them; `train(config)` is the same for a ready config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from dfd_train.config.toml import configured
from dfd_train.config.train import OPTIONS, TrainConfig, with_options
from dfd_train.errors import ConfigError
from dfd_train.runs.checkpoint import has_checkpoint
from dfd_train.runs.run_folder import CONFIG_FILE, METRICS_FILE, run_config
from dfd_train.runs.start_from import model_of
from dfd_train.training.train import TrainResult, train

AUTO = "auto"


def start(
    *,
    out: str | Path | None = None,
    shards: str | Path | None = None,
    recipe: str | None = None,
    config: str | Path | None = None,
    resume: bool | str = False,
    overwrite: bool = False,
    console: Console | None = None,
    **options: Any,
) -> TrainResult:
    """Train the run that a file `config`, a recipe and options describe (`configured`), or resume the one in `out`.

    With `resume`, settings come from the run's folder; an option that is given must agree with it. Where there is no
    run yet and `shards` says of which data one is wanted, it begins, so that one command starts and restarts; one that
    was stopped before its first checkpoint begins again. With `resume="auto"` that goes for a `config`, too, and settings
    are those that are given. With `init_from` and no `model`, the model is that of the weights. Progress goes to
    `console` (standard output for None). Raises what `configured` and `train` raise, and `ConfigError` without `out`
    where a run is to be resumed.
    """
    if resume == AUTO:
        if overwrite:
            raise ConfigError("--resume=auto and --overwrite exclude each other")
        wanted = _wanted(config, recipe=recipe, shards=shards, out=out, **options)
        there = has_checkpoint(Path(wanted.out))
        # A run that was stopped before its first checkpoint has nothing to lose.
        begun = (Path(wanted.out) / CONFIG_FILE).is_file()
        return train(wanted, resume=there, overwrite=begun and not there, console=console)
    if resume and (overwrite or config is not None):
        other = "--overwrite" if overwrite else "--config"
        hint = "" if overwrite else "; --resume=auto takes both"
        raise ConfigError(f"--resume and {other} exclude each other{hint}")
    if resume:
        if out is None:
            raise ConfigError("give the run's folder: --out RUN")
        if shards is not None and not (Path(out) / CONFIG_FILE).is_file():
            (console or Console()).print(f"nothing to resume in {out}: a new run begins")
            return train(_wanted(None, recipe=recipe, shards=shards, out=out, **options), console=console)
        before = run_config(Path(out))
        if recipe not in (None, before.recipe):
            raise ConfigError(f"cannot resume {out} with another recipe: it was started with {before.recipe}")
        wanted = with_options(before, shards=shards, out=out, **options)
        begin = not has_checkpoint(Path(out)) and not _has_results(Path(out))
        return train(wanted, resume=not begin, overwrite=begin, console=console)
    return train(
        _wanted(config, recipe=recipe, shards=shards, out=out, **options), overwrite=overwrite, console=console
    )


def _has_results(run: Path) -> bool:
    """Whether an epoch is recorded, which a run that is stopped before its first checkpoint has not finished."""
    try:
        return len((run / METRICS_FILE).read_bytes().splitlines()) > 1
    except OSError:
        return False


def _wanted(config: str | Path | None, *, init_from: str | None = None, **options: Any) -> TrainConfig:
    """The run as it is asked for; one that begins with other weights has their model, unless it names one."""
    path = None if config is None else Path(config)
    if init_from is None or config is not None or options.get("model") is not None:
        return configured(path, init_from=init_from, **options)
    of_network = {name for name, setting in OPTIONS.items() if setting.part == "model"}
    own = {name: value for name, value in options.items() if name in of_network}
    wanted = configured(
        None, init_from=init_from, **{name: options[name] for name in options if name not in of_network}
    )
    model = model_of(init_from)
    return with_options(wanted if model is None else replace(wanted, model=model), **own)
