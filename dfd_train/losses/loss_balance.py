"""Lambda, the weight of the deblurring loss: as given, or measured over a run's first steps and then frozen."""

from __future__ import annotations

from typing import Any

from dfd_train.config.loss import LossConfig

LOPSIDED = 10.0


class LossBalance:
    """The current lambda of a run.

    With `balance="literal"` it is `deblur_weight`. With "auto" it is `deblur_weight * sum(depth) / sum(deblur)` over
    the steps so far, up to `balance_steps` of them (both losses before lambda); after that it does not change any more.
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self.steps = 0
        self.depth = 0.0
        self.deblur = 0.0

    @property
    def measuring(self) -> bool:
        """Whether lambda still follows the losses."""
        return self.config.balance == "auto" and self.steps < self.config.balance_steps

    @property
    def deblur_weight(self) -> float:
        """Lambda, the weight of the deblurring loss."""
        if self.config.balance == "literal" or self.deblur == 0:
            return self.config.deblur_weight
        return self.config.deblur_weight * self.depth / self.deblur

    def observe(self, depth: float, deblur: float) -> None:
        """Take in one step's losses, as long as they are measured."""
        if self.measuring:
            self.steps += 1
            self.depth += depth
            self.deblur += deblur

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "depth": self.depth, "deblur": self.deblur}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.steps, self.depth, self.deblur = int(state["steps"]), float(state["depth"]), float(state["deblur"])

    def complaint(self, depth: float, deblur: float) -> str | None:
        """One line where the weighted sides of the loss differ by more than 10:1, else None."""
        weighted = self.deblur_weight * deblur
        if min(depth, weighted) <= 0 or 1 / LOPSIDED <= depth / weighted <= LOPSIDED:
            return None
        ratio = f"{depth / weighted:.0f}:1" if depth > weighted else f"1:{weighted / depth:.0f}"
        return (
            f"note: depth and lambda x deblur weigh {ratio} in the loss (lambda {self.deblur_weight:.3g}); "
            f"--balance auto evens them"
        )
