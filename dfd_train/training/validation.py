"""Scores of the test split during training, shared among the processes, and the pictures that go with them."""

from __future__ import annotations

from dataclasses import dataclass

from dfd_train.config.train import TrainConfig
from dfd_train.data.focus_pairs import samples_of
from dfd_train.distributed.world import World
from dfd_train.evaluation.figures import Picture, choose_samples, predictions_sheet
from dfd_train.evaluation.metrics import DEFAULT_CAP_M, ImageScore, summarise
from dfd_train.evaluation.scoring import score_split
from dfd_train.model.build import Model

PICTURES = 3


@dataclass(frozen=True, kw_only=True)
class Validation:
    """`scores`: metrics by name, empty without a test split. `sheet`: predictions from best to worst, if asked for."""

    scores: dict[str, float]
    sheet: Picture | None = None


def validate(net: Model, config: TrainConfig, world: World, *, pictures: bool) -> Validation:
    """Score `net` on the first `config.validate_limit` samples of the test split; to be called by all processes.

    Each process scores every `world.size`-th sample with the first one's running statistics. `pictures`: whether to
    draw a sheet, on the first process. Raises `EvaluationError` naming a sample that cannot be scored.
    """
    train = samples_of(config.model, config.shards, "train")
    if "test" not in train.store.split_names:
        return Validation(scores={})
    test = samples_of(config.model, config.shards, "test")
    world.share_buffers(net)
    net.eval()
    scored = score_split(
        net,
        test,
        size=config.geometry.size,
        device=world.device,
        batch_size=config.batch_size,
        indices=range(world.rank, min(config.validate_limit, len(test)), world.size),
    )
    own = [(score.position, score.predicted) for score in scored]
    every: list[tuple[int, ImageScore]] = sorted(
        (pair for part in world.gather(own) for pair in part), key=lambda pair: pair[0]
    )
    scores = [score for _, score in every]
    sheet = None
    if pictures and world.first:
        samples = choose_samples(scores, PICTURES)
        sheet = predictions_sheet(
            net, test, samples, size=config.geometry.size, device=world.device, cap_m=DEFAULT_CAP_M
        )
    return Validation(scores=summarise(scores), sheet=sheet)
