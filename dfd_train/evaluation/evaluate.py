"""`evaluate(config)`: a checkpoint against a split of a store, beside doing nothing and the paper's figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from defocus_sim.errors import DefocusSimError
from defocus_sim.lens import Lens
from defocus_sim.progress import Meter
from dfd_train.data.focus_pairs import samples_of
from dfd_train.data.store_facts import differences, drawn_facts, store_facts
from dfd_train.data.stream import ShardDataset
from dfd_train.distributed.device import keep_freed_memory, versions
from dfd_train.distributed.world import World, join_world
from dfd_train.errors import ConfigError, DfdTrainError, EvaluationError
from dfd_train.evaluation.collapse import Collapse, lines_of_scores
from dfd_train.evaluation.figures import Shown, choose_samples, predictions_sheet, show_samples
from dfd_train.evaluation.metrics import DEFAULT_CAP_M, ImageScore, summarise
from dfd_train.evaluation.page.html import html_page, per_image_csv
from dfd_train.evaluation.report import Comparison, Report, differs_line, summarise_sides, write_report
from dfd_train.evaluation.score_cache import ScoreJournal
from dfd_train.evaluation.scoring import (
    Profile,
    SampleScore,
    Truth,
    first_picture,
    mean_depth_m,
    predict_samples,
    score_split,
)
from dfd_train.evaluation.settings import EvalConfig, default_out, run_names
from dfd_train.evaluation.uncertainty import summarise_uncertainty
from dfd_train.model.build import Model
from dfd_train.model.load import load_network
from dfd_train.runs.checkpoint import Checkpoint
from dfd_train.runs.start_from import checkpoint_at, file_at

# Make3D's C1: its laser ends at about 81 m, and what is beyond 70 m is mostly sky.
CAPS_M = {"make3d": 70.0}
PREDICTION = "prediction"
_SAMPLES_TO_SUSPECT = 4
# Sums that an interrupted evaluation of another version left behind are not these.
_SCORES_VERSION = 3


def evaluate(config: EvalConfig, *, truth: Truth | None = None, console: Console | None = None) -> Report:
    """Score a checkpoint and write its report.

    Beside the prediction the report has what doing nothing scores: the defocused input as the restored image, and the mean
    depth of the store's train split as every pixel's depth. Under torchrun the processes share the images and all
    return the same digits; the first writes and prints.

    Parameters
    ----------
    config
        What to score, on what, and how.
    truth
        Depths to score on instead of the store's (see `score_split`).
    console
        Where progress goes; standard output for None.

    Returns
    -------
    Report
        What the report holds.

    Raises
    ------
    CheckpointError, ConfigError, ShardError
        For a checkpoint, settings or a store that cannot be used.
    EvaluationError
        Naming a sample that cannot be scored.
    """
    (report,) = _compared(config, {PREDICTION: config.checkpoint}, truth, console).reports.values()
    return report


def compare(
    config: EvalConfig, checkpoints: Sequence[str], *, truth: Truth | None = None, console: Console | None = None
) -> Comparison:
    """`evaluate` for several checkpoints on the same samples, in one report.

    Parameters
    ----------
    config
        As for `evaluate`; its `checkpoint` is not used.
    checkpoints
        They are called by their runs' folders.
    truth, console
        As for `evaluate`.

    Returns
    -------
    Comparison
        What the report holds.

    Raises
    ------
    ConfigError
        Where there is no checkpoint or one takes other samples than the rest; otherwise as `evaluate`.
    """
    if not checkpoints:
        raise ConfigError("there is no checkpoint to compare")
    return _compared(config, dict(zip(run_names(checkpoints), checkpoints, strict=True)), truth, console)


def _compared(
    config: EvalConfig, checkpoints: Mapping[str, str], truth: Truth | None, console: Console | None
) -> Comparison:
    with join_world(config.device) as world:
        keep_freed_memory(world.device)
        subjects = {name: _load(replace(config, checkpoint=path), world.device) for name, path in checkpoints.items()}
        _require_same_samples(subjects)
        scored = {name: _score(subject, world, truth, console) for name, subject in subjects.items()}
        comparison = Comparison(reports={name: one.report for name, one in scored.items()})
        if config.out is not None:
            world.first_does(lambda: _write(config, Path(config.out or ""), scored, comparison))
        return comparison


def _write(config: EvalConfig, out: Path, scored: Mapping[str, _Scored], comparison: Comparison) -> None:
    sheet, shown = _pictures(config, scored)
    written: Report | Comparison = comparison if list(scored) != [PREDICTION] else scored[PREDICTION].report
    page = {"report.html": html_page(comparison, shown).encode(errors="backslashreplace")} if config.html else {}
    write_report(
        written, out, sheet, {"per_image.csv": per_image_csv(comparison).encode(errors="backslashreplace"), **page}
    )
    for one in scored.values():
        one.journal.remove()


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is scored: a checkpoint's network on the samples that it takes."""

    config: EvalConfig
    checkpoint: Checkpoint
    net: Model
    dataset: ShardDataset
    size: tuple[int, int] | None
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class _Scored:
    subject: _Subject
    report: Report
    scores: list[SampleScore]
    journal: ScoreJournal


def _load(config: EvalConfig, device: torch.device) -> _Subject:
    checkpoint = checkpoint_at(config.checkpoint)
    lens = None if config.lens is None else Lens.load(config.lens)
    return _Subject(
        config=config,
        checkpoint=checkpoint,
        net=load_network(checkpoint.config.model, checkpoint.evaluated, device),
        dataset=samples_of(checkpoint.config.model, config.shards, config.split, lens=lens),
        size=_size(config, checkpoint),
        device=device,
    )


def _require_same_samples(subjects: Mapping[str, _Subject]) -> None:
    first, *others = subjects.items()
    for name, subject in others:
        if subject.dataset.names != first[1].dataset.names:
            raise ConfigError(
                f"{name} and {first[0]} take other samples of the store (one compares two focus distances): score them "
                f"one by one, and lay their reports side by side with dfd-eval table4 --runs"
            )


def _score(subject: _Subject, world: World, truth: Truth | None, console: Console | None) -> _Scored:
    config, checkpoint, dataset = subject.config, subject.checkpoint, subject.dataset
    source = str(dataset.store.manifest.source.get("kind", "unknown"))
    cap_m = CAPS_M.get(source, DEFAULT_CAP_M) if config.cap_m is None else config.cap_m
    constant = None
    if "depth" in subject.net.config.heads and "train" in dataset.store.split_names:
        constant = mean_depth_m(ShardDataset(config.shards, "train"), cap_m)
    config.check_border(subject.size or dataset.frame_hw, on_frames=truth is None)
    total = len(dataset) if config.limit is None else min(config.limit, len(dataset))
    asked = {
        "store_checksum": dataset.store.manifest.checksum,
        "checkpoint_sha256": _sha256(config.checkpoint),
        "split": config.split,
        "scores": _SCORES_VERSION,
        "size_wh": list((subject.size or dataset.frame_hw)[::-1]),
        "cap_m": cap_m,
        "depth_scored_on": "the frames" if truth is None else "the source's own grid",
        "border_px": config.border_px,
        "versions": versions(subject.device),
    }
    speaking = console if world.first else Console(quiet=True)
    trained = drawn_facts(checkpoint.store_facts, checkpoint.config.lenses) if checkpoint.store_facts else {}
    differs = differences(trained, store_facts(dataset.store)) if trained else []
    if differs:
        (speaking or Console()).print(f"note: {differs_line(differs)}", markup=False, highlight=False, soft_wrap=True)
    journal = ScoreJournal(config.out, asked, world.rank)
    # Only the first reads, as it also mends what was cut off.
    scores = world.gather(journal.read() if world.first else {})[0]
    missing = sorted(set(range(total)) - scores.keys())
    own: list[SampleScore] = []
    problem: DfdTrainError | DefocusSimError | None = None
    with Meter("image", total, done=total - len(missing), unit="images", console=speaking) as meter:
        try:
            for score in score_split(
                subject.net,
                dataset,
                size=subject.size,
                device=subject.device,
                batch_size=config.batch_size,
                cap_m=cap_m,
                constant_depth_m=constant,
                prefetch=config.prefetch,
                indices=missing[world.rank :: world.size],
                truth=truth,
                profiles=True,
                border_px=config.border_px,
            ):
                own.append(score)
                journal.append(score)
                meter.step(world.size)
        except (DfdTrainError, DefocusSimError) as error:
            problem = error
    every = world.gather((own, None if problem is None else str(problem)))
    if problem is not None:
        raise problem
    for part, message in every:
        if message is not None:
            raise EvaluationError(message)
        scores |= {score.position: score for score in part}
    ordered = [scores[position] for position in range(total)]
    rows = {PREDICTION: summarise([score.predicted for score in ordered], config.convention)}
    rows |= _doing_nothing([score.untouched for score in ordered], config.convention)
    report = Report(
        rows=rows,
        per_image={score.predicted.name: score.predicted.metrics() for score in ordered},
        input_per_image={score.untouched.name: score.untouched.metrics() for score in ordered},
        profiles=_sum_profiles(ordered),
        by_side=summarise_sides([score.sides for score in ordered if score.sides is not None]),
        uncertainty=summarise_uncertainty([one.uncertainty for one in ordered if one.uncertainty is not None]),
        constant_depth_m=constant,
        source=source,
        settings={
            "shards": config.shards,
            **asked,
            "trained_on_checksum": checkpoint.store_checksum,
            "store_differs": differs,
            "collapsed": [*_collapsed(subject, total), *lines_of_scores(rows)],
            "images": total,
            "images_in_split": len(dataset),
            "resized": subject.size is not None and subject.size != dataset.frame_hw,
            "convention": config.convention,
            "checkpoint": config.checkpoint,
            "checkpoint_file": file_at(config.checkpoint).name,
            "epochs": None if checkpoint.known_steps is None else checkpoint.epoch,
            "steps": checkpoint.known_steps,
            "training": checkpoint.config.to_dict(),
        },
    )
    return _Scored(subject=subject, report=report, scores=ordered, journal=journal)


def _collapsed(subject: _Subject, total: int) -> list[str]:
    """What a few samples, spread evenly, say of a network that does nothing."""
    seen = Collapse()
    samples = np.unique(np.linspace(0, total - 1, min(_SAMPLES_TO_SUSPECT, total)).round().astype(np.int64))
    batch = subject.dataset.read(samples)
    for _, frames, output in predict_samples(subject.net, subject.dataset, batch, subject.size, subject.device):
        if output.depth_m is not None:
            true_m = frames.depth_m[0, 0].float().cpu().numpy()
            seen.add_depth(output.depth_m[0, 0].float().cpu().numpy(), true_m)
        if output.aif is not None:
            seen.add_restored(output.aif[0].float().cpu().numpy(), first_picture(frames)[0].float().cpu().numpy())
    return seen.lines(steps=subject.checkpoint.known_steps)


def _pictures(config: EvalConfig, scored: Mapping[str, _Scored]) -> tuple[NDArray[np.uint8] | None, list[Shown]]:
    """predictions.png of the first checkpoint, and for the HTML report the pictures of all."""
    first = next(iter(scored.values()))
    samples = choose_samples([score.predicted for score in first.scores], config.pictures)
    if not samples:
        return None, []
    subject, cap_m = first.subject, float(first.report.settings["cap_m"])
    sheet = predictions_sheet(
        subject.net, subject.dataset, samples, size=subject.size, device=subject.device, cap_m=cap_m
    )
    if not config.html:
        return sheet, []
    networks = {name: (one.subject.net, one.subject.size) for name, one in scored.items()}
    return sheet, show_samples(networks, subject.dataset, samples, device=subject.device, cap_m=cap_m)


def _sha256(checkpoint: str) -> str:
    with open(file_at(checkpoint), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_profiles(scores: Sequence[SampleScore]) -> Profile | None:
    profiles = [score.profile for score in scores if score.profile is not None]
    if not profiles:
        return None
    return Profile(*(np.sum([getattr(p, field) for p in profiles], axis=0) for field in Profile._fields))


def _size(config: EvalConfig, checkpoint: Checkpoint) -> tuple[int, int] | None:
    if config.size is None:
        return checkpoint.config.geometry.size
    return None if isinstance(config.size, str) else config.size


def _doing_nothing(scores: list[ImageScore], convention: str) -> dict[str, dict[str, float]]:
    """Rows "input" (image metrics of the defocused image) and "mean depth" (of the constant), where there are any."""
    rows = summarise(scores, convention)
    image = {name: value for name, value in rows.items() if name in ("psnr", "ssim")}
    depth = {name: value for name, value in rows.items() if name not in image}
    return {name: row for name, row in (("input", image), ("mean depth", depth)) if row}


__all__ = ["PREDICTION", "EvalConfig", "compare", "default_out", "evaluate", "run_names"]
