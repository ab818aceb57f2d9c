"""`evaluate(config)`: a checkpoint against a split of a store, beside doing nothing and the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from dfd_train.checkpoint import Checkpoint, load_checkpoint
from dfd_train.data.geometry import shape_text
from dfd_train.data.stream import ShardDataset
from dfd_train.device import pick_device, versions
from dfd_train.errors import CheckpointError, ConfigError
from dfd_train.metrics import CONVENTIONS, DEFAULT_CAP_M, NEAREST_M, ImageScore, summarise
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.pictures import choose_samples, predictions_sheet
from dfd_train.progress import Meter
from dfd_train.report import Report, write_report
from dfd_train.scoring import mean_depth_m, score_split

NATIVE = "native"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """One evaluation.

    `shards`: the store. `checkpoint`: a run's folder (its newest checkpoint) or a file. `split`: of the store. `size`:
    (height, width) that frames are resized to, "native", or None = as in training (native for a run with crops).
    `limit`: only the first so many samples. `cap_m`: depths beyond are not scored. `convention`: "per-image" or
    "pooled" (see `metrics.summarise`). `out`: folder for report.json, report.md and predictions.png, None = no files.
    `pictures`: rows of predictions.png. `device`, `prefetch` as in `TrainConfig`.

    Raises `ConfigError` for an impossible value.
    """

    shards: str
    checkpoint: str
    split: str = "test"
    batch_size: int = 8
    size: tuple[int, int] | str | None = None
    limit: int | None = None
    cap_m: float = DEFAULT_CAP_M
    convention: str = "per-image"
    out: str | None = None
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
        if not self.cap_m > NEAREST_M:
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


def evaluate(config: EvalConfig, *, console: Console | None = None) -> Report:
    """Score a checkpoint and write its report; progress goes to `console` (standard output for None).

    Beside the prediction the report has what doing nothing scores: the defocused input as the restored image, and the
    mean depth of the store's train split as every pixel's depth. Raises `CheckpointError`, `ConfigError`, `ShardError`
    of `defocus_sim`, and `EvaluationError` naming a sample that cannot be scored.
    """
    device = pick_device(config.device)
    checkpoint = load_checkpoint(Path(config.checkpoint))
    dataset = ShardDataset(config.shards, config.split)
    size = _size(config, checkpoint)
    net = load_network(checkpoint, device)
    constant = None
    if "depth" in net.config.heads and "train" in dataset.store.split_names:
        constant = mean_depth_m(ShardDataset(config.shards, "train"), config.cap_m)
    total = len(dataset) if config.limit is None else min(config.limit, len(dataset))
    scores = []
    with Meter("image", total, unit="images", console=console) as meter:
        for score in score_split(
            net,
            dataset,
            size=size,
            device=device,
            batch_size=config.batch_size,
            limit=config.limit,
            cap_m=config.cap_m,
            constant_depth_m=constant,
            prefetch=config.prefetch,
        ):
            scores.append(score)
            meter.step(1)
    rows = {"prediction": summarise([score.predicted for score in scores], config.convention)}
    for name, row in _doing_nothing([score.untouched for score in scores], config.convention).items():
        rows[name] = row
    report = Report(
        rows=rows,
        per_image={score.predicted.name: score.predicted.metrics() for score in scores},
        constant_depth_m=constant,
        source=str(dataset.store.manifest.source.get("kind", "unknown")),
        settings={
            "shards": config.shards,
            "store_checksum": dataset.store.manifest.checksum,
            "trained_on_checksum": checkpoint.store_checksum,
            "split": config.split,
            "images": len(scores),
            "images_in_split": len(dataset),
            "size": shape_text(size or dataset.frame_hw),
            "resized": size is not None and size != dataset.frame_hw,
            "convention": config.convention,
            "cap_m": config.cap_m,
            "checkpoint": config.checkpoint,
            "epochs": checkpoint.epoch,
            "steps": checkpoint.step,
            "training": checkpoint.config.to_dict(),
            "versions": versions(device),
        },
    )
    if config.out is not None:
        samples = choose_samples([score.predicted for score in scores], config.pictures)
        sheet = (
            predictions_sheet(net, dataset, samples, size=size, device=device, cap_m=config.cap_m) if samples else None
        )
        write_report(report, Path(config.out), sheet)
    return report


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
