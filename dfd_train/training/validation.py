"""Scores of the validation samples during training, shared among the processes, and the pictures that go with them."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.config.train import TrainConfig
from dfd_train.data.stream import ShardDataset
from dfd_train.distributed.world import World
from dfd_train.evaluation.figures import Picture, choose_samples, predictions_sheet
from dfd_train.evaluation.metrics import DEFAULT_CAP_M, ImageScore, summarise
from dfd_train.evaluation.scoring import mean_depth_m, score_split
from dfd_train.model.build import Model

PICTURES = 3
# Enough for the mean depth to three digits; the whole split would be read before the first step.
_MOST_FOR_MEAN_DEPTH = 256


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a network scores on `val` beside doing nothing.

    `scores`: metrics by name, empty without validation samples. `nothing`: those of the input as the restored picture
    and of the mean depth everywhere. `sheet`: predictions from best to worst, if asked for.
    """

    scores: dict[str, float]
    nothing: dict[str, float]
    sheet: Picture | None = None


class Validator:
    """Scores networks on the samples `val`; `train`: what the mean depth is taken of."""

    def __init__(self, train: ShardDataset, val: ShardDataset | None, config: TrainConfig, world: World) -> None:
        self._train, self._val, self._config, self._world = train, val, config, world
        self._mean_depth_m: float | None = None

    def validate(self, net: Model, *, pictures: bool) -> Validation:
        """Score `net` on the first `config.validate_limit` validation samples; to be called by all processes.

        Each process scores every `world.size`-th sample with the first one's running statistics. `pictures`: whether to
        draw a sheet, on the first process. Raises `EvaluationError` naming a sample that cannot be scored.
        """
        config, world, val = self._config, self._world, self._val
        if val is None:
            return Validation(scores={}, nothing={})
        if self._mean_depth_m is None and "depth" in config.model.heads:
            self._mean_depth_m = mean_depth_m(self._train, most=_MOST_FOR_MEAN_DEPTH)
        world.share_buffers(net)
        net.eval()
        scored = score_split(
            net,
            val,
            size=config.geometry.size,
            device=world.device,
            batch_size=config.batch_size,
            constant_depth_m=self._mean_depth_m,
            indices=range(world.rank, min(config.validate_limit, len(val)), world.size),
        )
        own = [(score.position, score.predicted, score.untouched) for score in scored]
        every: list[tuple[int, ImageScore, ImageScore]] = sorted(
            (row for part in world.gather(own) for row in part), key=lambda row: row[0]
        )
        scores = [predicted for _, predicted, _ in every]
        sheet = None
        if pictures and world.first:
            samples = choose_samples(scores, PICTURES)
            sheet = predictions_sheet(
                net, val, samples, size=config.geometry.size, device=world.device, cap_m=DEFAULT_CAP_M
            )
        nothing = summarise([untouched for _, _, untouched in every])
        return Validation(scores=summarise(scores), nothing=nothing, sheet=sheet)


def beside(scores: dict[str, float], nothing: dict[str, float]) -> str:
    """The two scores that matter most, each beside that of doing nothing: `rmse 0.51 m (mean depth 1.2)`."""
    parts = []
    for name, unit, what in (("rmse", " m", "mean depth"), ("psnr", " dB", "input")):
        if name in scores:
            other = f" ({what} {nothing[name]:.4g})" if name in nothing else ""
            parts.append(f"{name} {scores[name]:.4g}{unit}{other}")
    return "  ".join(parts)
