"""The paper's tables from a store, every run trained, scored and laid out; the command is `dfd-reproduce`."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from defocus_sim.errors import parse_json
from defocus_sim.progress import counted
from dfd_train.config.reproduction import STACK_HINT, Plan, runs
from dfd_train.config.train import TrainConfig, changed_fields
from dfd_train.data.stream import ShardDataset
from dfd_train.distributed.device import pick_device, versions
from dfd_train.errors import CheckpointMissingError, ConfigError, EvaluationError
from dfd_train.evaluation.evaluate import EvalConfig, evaluate
from dfd_train.evaluation.tables import PaperTable, paper_table, read_results, write_tables
from dfd_train.files import write_atomically
from dfd_train.runs.checkpoint import latest_checkpoint, load_checkpoint
from dfd_train.runs.curves import read_curves
from dfd_train.runs.run_folder import CONFIG_FILE, run_config
from dfd_train.training.train import train

PAPER_EPOCHS = 500
REPORT = "report"


def reproduce(plan: Plan, *, console: Console | None = None, command: str = "") -> PaperTable | None:
    """Train, score and lay out `plan`; returns the table, or None where a signal stopped it before it was complete.

    Below `plan.out`: a folder for each run with its report, TABLE.md, TABLE.tex, TABLE.html, and results.json with every
    figure, the rate of training and `command`. A run that is there must have the settings that are asked for. Raises what
    `train` and `evaluate` raise, `ConfigError` for a run with other settings.
    """
    wanted = runs(plan)
    console = console or Console()
    for store in {config.shards for config in wanted.values()}:
        ShardDataset(store, "test")
    for name, config in wanted.items():
        _require_same(name, config)
    for number, (name, config) in enumerate(wanted.items(), 1):
        _say(console, f"{plan.table}, run {number} of {len(wanted)}: {name}")
        if not _trained(config, console):
            return None
        _scored(plan, config, console)
    table = _noted(plan, paper_table(plan.table, [config.out for config in wanted.values()], shards=plan.shards))
    if first_process():
        write_tables(table, plan.table, plan.out)
        facts = {name: _facts(config) for name, config in wanted.items()}
        about: dict[str, Any] = {"table": plan.table, "command": command, "commit": _commit()}
        about["versions"] = versions(pick_device(str(plan.options.get("device") or "auto")))
        content = json.dumps({**about, "runs": facts}, indent=2, allow_nan=False) + "\n"
        write_atomically(plan.out / "results.json", content.encode())
    return table


def _require_same(name: str, wanted: TrainConfig) -> None:
    if not (Path(wanted.out) / CONFIG_FILE).is_file():
        return
    changed = changed_fields(run_config(Path(wanted.out)), wanted)
    if changed:
        raise ConfigError(
            f"the run {name} in {wanted.out} has another {', '.join(changed)}: choose another --out, or remove it"
        )


def _trained(config: TrainConfig, console: Console) -> bool:
    """Train what is missing of the run; whether it is complete now."""
    quiet = console if first_process() else Console(quiet=True)
    if not (Path(config.out) / CONFIG_FILE).is_file():
        return not train(config, console=quiet).interrupted
    try:
        if load_checkpoint(latest_checkpoint(Path(config.out))).epoch >= config.epochs:
            return True
    except CheckpointMissingError:
        # Stopped before its first checkpoint: there is nothing to lose.
        return not train(config, overwrite=True, console=quiet).interrupted
    return not train(config, resume=True, console=quiet).interrupted


def _scored(plan: Plan, config: TrainConfig, console: Console) -> None:
    report = Path(config.out) / REPORT / "report.json"
    # A report that is damaged, as after a power cut, is made again.
    with suppress(EvaluationError, KeyError, TypeError):
        settings = read_results(str(report))[0].settings if report.is_file() else {}
        asked = min(plan.limit or settings["images_in_split"], settings["images_in_split"])
        if settings["epochs"] == config.epochs and settings["images"] == asked:
            return
    evaluate(
        EvalConfig(
            shards=config.shards,
            checkpoint=f"{config.out}@last",
            out=str(report.parent),
            lens=config.lens,
            device=config.device,
            limit=plan.limit,
        ),
        console=console,
    )


def _noted(plan: Plan, table: PaperTable) -> PaperTable:
    """`table`, saying how it was trained where that is not the paper's way, and what doing nothing scores."""
    made = list(runs(plan).values())
    epochs = sorted({config.epochs for config in made})
    title = table.title
    if epochs[0] < PAPER_EPOCHS:
        title += (
            f", after {' or '.join(counted(number, 'epoch') for number in epochs)} where the paper has {PAPER_EPOCHS}"
        )
    seeds = ", ".join(map(str, plan.seeds))
    notes = [f"recipe {plan.recipe}, {plan.model} width, seeds {seeds}; the defocus is this program's own"]
    if any(config.model.input == "aif" for config in made):
        notes.append("the network is given the all-in-focus picture: what it finds without defocus")
    for name, what in (("input", "the blurred input as it is"), ("mean depth", "the mean depth everywhere")):
        for config in made:
            row = _report(config)["rows"].get(name)
            if row is not None:
                notes.append(f"{what} scores " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
                break
    if plan.table == "table4" and plan.stack is None and not plan.only:
        notes.append(f"Song et al. needs a second store: {STACK_HINT}")
    return replace(table, title=title, notes=(*notes, *table.notes))


def _report(config: TrainConfig) -> dict[str, Any]:
    content: dict[str, Any] = parse_json((Path(config.out) / REPORT / "report.json").read_bytes())
    return content


def _facts(config: TrainConfig) -> dict[str, Any]:
    """What results.json says of one run."""
    # Of a file that is damaged, what can be read.
    rates: list[float] = []
    with suppress(ConfigError):
        rates = read_curves(Path(config.out)).get("samples_per_s", ([], []))[1]
    report = _report(config)
    return {
        "scores": report["rows"],
        "samples_per_s": sorted(rates)[len(rates) // 2] if rates else None,
        "epochs": report["settings"]["epochs"],
        "steps": report["settings"]["steps"],
        "images": report["settings"]["images"],
        "size_wh": report["settings"]["size_wh"],
        "training": config.to_dict(),
    }


def _commit() -> str | None:
    """The commit of this program's own source, where it runs from a clone."""
    folder = Path(__file__).parents[2]
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
    ) if (folder / ".git").exists() else None  # fmt: skip
    return asked.stdout.strip() or None if asked is not None and asked.returncode == 0 else None


def first_process() -> bool:
    """Whether this is the process that prints and writes, alone or under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def _say(console: Console, line: str) -> None:
    if first_process():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
