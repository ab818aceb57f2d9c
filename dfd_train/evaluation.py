"""`evaluate(config)`: a checkpoint against a split of a store, beside doing nothing and the paper's figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from dfd_train.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from dfd_train.data.geometry import shape_text
from dfd_train.data.stream import ShardDataset
from dfd_train.device import pick_device, versions
from dfd_train.errors import CheckpointError, ConfigError, EvaluationError
from dfd_train.html_report import html_report
from dfd_train.metrics import CONVENTIONS, DEFAULT_CAP_M, NEAREST_M, DepthSums, ImageScore, ImageSums, summarise
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.pictures import Shown, choose_samples, predictions_sheet, show_samples
from dfd_train.progress import Meter
from dfd_train.report import Comparison, Report, write_report
from dfd_train.scoring import Profile, SampleScore, Truth, mean_depth_m, score_split

NATIVE = "native"
# Make3D's C1: its laser ends at about 81 m, and what is beyond 70 m is mostly sky.
CAPS_M = {"make3d": 70.0}
PREDICTION = "prediction"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """One evaluation.

    `shards`: the store. `checkpoint`: a run's folder (its newest checkpoint) or a file. `split`: of the store. `size`:
    (height, width) that frames are resized to, "native", or None = as in training (native for a run with crops).
    `limit`: only the first so many samples. `cap_m`: depths beyond are not scored; None = 70 m for Make3D (its C1; C2 is
    80 m), 10 m for all else. `convention`: "per-image" or "pooled" (see `metrics.summarise`). `out`: folder for
    report.json, report.md and predictions.png, None = no files; an evaluation that was interrupted goes on from there.
    `html`: also report.html and per_image.csv. `pictures`: images shown. `device`, `prefetch` as in `TrainConfig`.

    Raises `ConfigError` for an impossible value.
    """

    shards: str
    checkpoint: str
    split: str = "test"
    batch_size: int = 8
    size: tuple[int, int] | str | None = None
    limit: int | None = None
    cap_m: float | None = None
    convention: str = "per-image"
    out: str | None = None
    html: bool = False
    pictures: int = 5
    device: str = "auto"
    prefetch: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.size, str) and self.size != NATIVE:
            raise ConfigError(f"size={self.size!r} must be (height, width), {NATIVE!r} or None")
        if isinstance(self.size, tuple) and (len(self.size) != 2 or min(self.size) < 1):
            raise ConfigError(f"size={self.size} must be a height and a width in pixels")
        for name, least in (("batch_size", 1), ("limit", 1), ("pictures", 0), ("prefetch", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value} must be at least {least}")
        if self.cap_m is not None and not self.cap_m > NEAREST_M:
            raise ConfigError(f"cap_m={self.cap_m} must exceed {NEAREST_M} m")
        if self.convention not in CONVENTIONS:
            raise ConfigError(f"convention={self.convention!r} must be one of {', '.join(CONVENTIONS)}")


def load_network(checkpoint: Checkpoint, device: torch.device) -> TwoHeadedNet:
    """The network of `checkpoint` on `device`, ready for inference (averaged weights where the run kept them).

    Raises `CheckpointError` where the weights do not fit the checkpoint's own model configuration.
    """
    net = TwoHeadedNet(checkpoint.config.model)
    try:
        net.load_state_dict(checkpoint.evaluated)
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"the checkpoint's weights do not fit its {net.config.name} network: {reason}") from error
    return net.to(device).eval()


def evaluate(config: EvalConfig, *, truth: Truth | None = None, console: Console | None = None) -> Report:
    """Score a checkpoint and write its report; progress goes to `console` (standard output for None).

    Beside the prediction the report has what doing nothing scores: the defocused input as the restored image, and the
    mean depth of the store's train split as every pixel's depth. `truth`: depths to score on instead of the store's
    (see `score_split`). Raises `CheckpointError`, `ConfigError`, `ShardError` of `defocus_sim`, and `EvaluationError`
    naming a sample that cannot be scored.
    """
    dataset = ShardDataset(config.shards, config.split)
    scored = _score(config, dataset, truth, console)
    if config.out is not None:
        sheet, shown = _pictures(config, dataset, {PREDICTION: scored}, show=config.html)
        extra = html_report(Comparison(reports={PREDICTION: scored.report}), shown) if config.html else {}
        write_report(scored.report, Path(config.out), sheet, extra)
        scored.journal.remove()
    return scored.report


def compare(
    config: EvalConfig, checkpoints: Sequence[str], *, truth: Truth | None = None, console: Console | None = None
) -> Comparison:
    """`evaluate` for several checkpoints on the same samples, in one report; `config.checkpoint` is not used.

    They are called by their runs' folders. Raises as `evaluate`, `ConfigError` where there is no checkpoint.
    """
    if not checkpoints:
        raise ConfigError("there is no checkpoint to compare")
    dataset = ShardDataset(config.shards, config.split)
    scored: dict[str, _Scored] = {}
    for checkpoint, name in zip(checkpoints, run_names(checkpoints), strict=True):
        scored[name] = _score(replace(config, checkpoint=checkpoint), dataset, truth, console)
    comparison = Comparison(reports={name: one.report for name, one in scored.items()})
    if config.out is not None:
        sheet, shown = _pictures(config, dataset, scored, show=True)
        write_report(comparison, Path(config.out), sheet, html_report(comparison, shown))
        for one in scored.values():
            one.journal.remove()
    return comparison


def run_names(checkpoints: Sequence[str]) -> list[str]:
    """What to call each of `checkpoints`: its run's folder, or the file's own name; numbered where two are alike."""
    names: list[str] = []
    for text in checkpoints:
        path = Path(text)
        base = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem if path.suffix else path.name
        name, number = base or "run", 2
        while name in names:
            name, number = f"{base} {number}", number + 1
        names.append(name)
    return names


@dataclass(frozen=True, kw_only=True)
class _Scored:
    report: Report
    scores: list[SampleScore]
    net: TwoHeadedNet
    size: tuple[int, int] | None
    device: torch.device
    journal: _Journal


def _score(config: EvalConfig, dataset: ShardDataset, truth: Truth | None, console: Console | None) -> _Scored:
    device = pick_device(config.device)
    checkpoint = load_checkpoint(Path(config.checkpoint))
    size = _size(config, checkpoint)
    net = load_network(checkpoint, device)
    source = str(dataset.store.manifest.source.get("kind", "unknown"))
    cap_m = CAPS_M.get(source, DEFAULT_CAP_M) if config.cap_m is None else config.cap_m
    constant = None
    if "depth" in net.config.heads and "train" in dataset.store.split_names:
        constant = mean_depth_m(ShardDataset(config.shards, "train"), cap_m)
    total = len(dataset) if config.limit is None else min(config.limit, len(dataset))
    asked = {
        "store_checksum": dataset.store.manifest.checksum,
        "checkpoint_sha256": _sha256(Path(config.checkpoint)),
        "split": config.split,
        "size": shape_text(size or dataset.frame_hw),
        "cap_m": cap_m,
        "depth_scored_on": "the frames" if truth is None else "the source's own grid",
        "versions": versions(device),
    }
    journal = _Journal(config.out, asked)
    scores = journal.read()
    missing = sorted(set(range(total)) - scores.keys())
    with Meter("image", total, done=total - len(missing), unit="images", console=console) as meter:
        for score in score_split(
            net,
            dataset,
            size=size,
            device=device,
            batch_size=config.batch_size,
            cap_m=cap_m,
            constant_depth_m=constant,
            prefetch=config.prefetch,
            indices=missing,
            truth=truth,
            profiles=True,
        ):
            scores[score.position] = score
            journal.append(score)
            meter.step(1)
    ordered = [scores[position] for position in range(total)]
    rows = {PREDICTION: summarise([score.predicted for score in ordered], config.convention)}
    rows |= _doing_nothing([score.untouched for score in ordered], config.convention)
    report = Report(
        rows=rows,
        per_image={score.predicted.name: score.predicted.metrics() for score in ordered},
        input_per_image={score.untouched.name: score.untouched.metrics() for score in ordered},
        profiles=_sum_profiles(ordered),
        constant_depth_m=constant,
        source=source,
        settings={
            "shards": config.shards,
            **asked,
            "trained_on_checksum": checkpoint.store_checksum,
            "images": total,
            "images_in_split": len(dataset),
            "resized": size is not None and size != dataset.frame_hw,
            "convention": config.convention,
            "checkpoint": config.checkpoint,
            "epochs": checkpoint.epoch,
            "steps": checkpoint.step,
            "training": checkpoint.config.to_dict(),
        },
    )
    return _Scored(report=report, scores=ordered, net=net, size=size, device=device, journal=journal)


def _pictures(
    config: EvalConfig, dataset: ShardDataset, scored: dict[str, _Scored], *, show: bool
) -> tuple[NDArray[np.uint8] | None, list[Shown]]:
    """predictions.png of the first checkpoint, and, with `show`, the pictures of all for the HTML report."""
    first = next(iter(scored.values()))
    samples = choose_samples([score.predicted for score in first.scores], config.pictures)
    if not samples:
        return None, []
    cap_m = float(first.report.settings["cap_m"])
    sheet = predictions_sheet(first.net, dataset, samples, size=first.size, device=first.device, cap_m=cap_m)
    if not show:
        return sheet, []
    networks = {name: (one.net, one.size) for name, one in scored.items()}
    return sheet, show_samples(networks, dataset, samples, device=first.device, cap_m=cap_m)


def _sha256(checkpoint: Path) -> str:
    path = checkpoint if checkpoint.is_file() else latest_checkpoint(checkpoint)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Journal:
    """Scores that are done, one JSON line each, below the report's folder until the report is written.

    Its name is a digest of everything the scores depend on, so that other settings never meet it.
    """

    def __init__(self, out: str | None, asked: dict[str, object]) -> None:
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        self.path = None if out is None else Path(out) / f".scores-{digest}.jsonl"

    def read(self) -> dict[int, SampleScore]:
        """Scores by position; a last line that was cut off is left out."""
        if self.path is None or not self.path.is_file():
            return {}
        whole = self.path.read_text().rpartition("\n")[0]
        # A torn line must not be continued by the next score.
        self.path.write_text(whole + "\n" if whole else "")
        return {score.position: score for score in map(_score_from_json, whole.splitlines())}

    def append(self, score: SampleScore) -> None:
        """Keep one score. Raises `EvaluationError` where the folder cannot be written."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(_score_to_json(score) + "\n")
        except OSError as error:
            raise EvaluationError(
                f"cannot write the report to {self.path.parent}: {error.strerror or error}"
            ) from error

    def remove(self) -> None:
        """The report is written: nothing is left to resume."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _score_to_json(score: SampleScore) -> str:
    sides = [
        {"depth": one.depth and vars(one.depth), "image": one.image and vars(one.image)}
        for one in (score.predicted, score.untouched)
    ]
    profile = score.profile and [part.tolist() for part in score.profile]
    return json.dumps([score.position, score.predicted.name, *sides, profile])


def _score_from_json(line: str) -> SampleScore:
    position, name, predicted, untouched, profile = json.loads(line)
    first, second = (
        ImageScore(
            name=name,
            depth=side["depth"] and DepthSums(**side["depth"]),
            image=side["image"] and ImageSums(**side["image"]),
        )
        for side in (predicted, untouched)
    )
    return SampleScore(position, first, second, profile and Profile(*map(np.array, profile)))


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
