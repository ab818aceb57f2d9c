"""The training loop: `train(config)` makes or resumes a run and leaves checkpoints and metrics in its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from dfd_train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from dfd_train.config import TrainConfig, changed_fields
from dfd_train.data.order import batched, epoch_order
from dfd_train.data.stream import Batch, ShardDataset, stream_batches
from dfd_train.data.transforms import training_frames
from dfd_train.device import pick_device, versions
from dfd_train.errors import ConfigError, NonFiniteError
from dfd_train.interrupt import stop_requested
from dfd_train.losses import compute_losses
from dfd_train.metrics import summarise
from dfd_train.model.pretrained import load_matching, pretrained_state
from dfd_train.progress import Meter, clock
from dfd_train.run_folder import MetricsLog, create_run, run_config
from dfd_train.schedule import lr_at
from dfd_train.scoring import score_split
from dfd_train.state import TrainState


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    `out`: its folder. `checkpoint`: the newest. `epochs`, `steps`: completed in all. `interrupted`: stopped by a signal
    before the end. `validation`: the last scores of the test split by metric ({} where none was taken). `seconds`: of
    this session.
    """

    out: Path
    checkpoint: Path
    epochs: int
    steps: int
    interrupted: bool
    validation: dict[str, float]
    seconds: float

    def summary(self) -> str:
        """One or two lines for a person."""
        if self.interrupted:
            return (
                f"stopped in epoch {self.epochs + 1} after {self.steps} steps; go on with: "
                f"dfd-train --out {self.out} --resume"
            )
        scores = "  ".join(f"{name} {value:.4g}" for name, value in self.validation.items())
        return f"{self.epochs} epochs, {self.steps} steps in {clock(self.seconds)}; {self.checkpoint}" + (
            f"\ntest split: {scores}" if scores else ""
        )


def train(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> TrainResult:
    """Train as `config` says; with `resume`, go on from the newest checkpoint of `config.out`.

    A resumed run on the CPU ends with the same bits as one that was never stopped. SIGINT and SIGTERM save and return
    with `interrupted`. Progress goes to `console` (standard output for None).

    Raises `ConfigError` (existing folder, changed configuration on resume, impossible sizes, absent GPU),
    `CheckpointError`, `ShardError` of `defocus_sim`, and `NonFiniteError` naming the samples where a loss or gradient
    is not finite; the weights of the last checkpoint are then intact.
    """
    began = time.perf_counter()
    device = pick_device(config.device)
    # The caller's random state is not ours to change.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = _Run(config, device, resume=resume, overwrite=overwrite, console=console or Console())
        with stop_requested() as asked:
            interrupted = run.loop(asked)
    return TrainResult(
        out=run.out,
        checkpoint=latest_checkpoint(run.out),
        epochs=run.state.epoch,
        steps=run.state.step,
        interrupted=interrupted,
        validation=run.validation,
        seconds=time.perf_counter() - began,
    )


class _Run:
    """A run in progress: its data, its state, and where both are written."""

    def __init__(
        self, config: TrainConfig, device: torch.device, *, resume: bool, overwrite: bool, console: Console
    ) -> None:
        # Everything that can be wrong is found before the folder is touched.
        self.config, self.device, self.console, self.out = config, device, console, Path(config.out)
        self.data = ShardDataset(config.shards, "train")
        self.store_checksum = self.data.store.manifest.checksum
        config.geometry.check_frame(self.data.frame_hw)
        self.steps_per_epoch = math.ceil(len(self.data) / config.batch_size)
        self.state = TrainState(config, self.device)
        self.validation: dict[str, float] = {}
        if resume:
            self._restore()
        else:
            if config.pretrained is not None:
                console.print(
                    str(load_matching(self.state.net.encoder, pretrained_state(config.pretrained))), markup=False
                )
                self.state.reset_average()
            facts = {"versions": versions(self.device), "store_checksum": self.store_checksum}
            create_run(config, facts, overwrite=overwrite)
        self.log = MetricsLog(self.out, before_epoch=self.state.epoch + 1)

    def _restore(self) -> None:
        before = run_config(self.out)
        changed = changed_fields(before, self.config)
        if changed:
            raise ConfigError(
                f"cannot resume {self.out} with another {', '.join(changed)}; leave it out, or start a new run"
            )
        checkpoint = load_checkpoint(self.out)
        if checkpoint.store_checksum != self.store_checksum:
            raise ConfigError(f"cannot resume {self.out}: {self.config.shards} is not the store it was trained on")
        self.state.restore(checkpoint)

    def loop(self, asked: Callable[[], bool]) -> bool:
        """Train to the end, or until `asked()`; returns whether it was interrupted."""
        config, state = self.config, self.state
        self.console.print(self._headline(), markup=False, highlight=False, soft_wrap=True)
        total = self.steps_per_epoch * config.epochs
        with Meter("step", total, done=state.step, console=self.console) as meter:
            while state.epoch < config.epochs:
                if self._epoch(meter, asked):
                    self._save()
                    return True
        return False

    def _epoch(self, meter: Meter, asked: Callable[[], bool]) -> bool:
        """One epoch, or the rest of it; True where a signal asked to stop."""
        config, state = self.config, self.state
        order = epoch_order(len(self.data), seed=config.seed, epoch=state.epoch)
        stream = stream_batches(
            self.data,
            batched(order, config.batch_size),
            start=state.batch,
            prefetch=config.prefetch,
            pin=self.device.type == "cuda",
        )
        state.net.train()
        waiting = time.perf_counter()
        for batch in stream:
            started = time.perf_counter()
            values = self._step(batch)
            ended = time.perf_counter()
            state.record(values, samples=len(batch.indices), waited=started - waiting, seconds=ended - waiting)
            waiting = ended
            meter.step(len(batch.indices), f"epoch {state.epoch + 1}/{config.epochs}  {_brief(values)}")
            if asked():
                stream.close()
                return True
        self._end_epoch(meter)
        return False

    def _step(self, batch: Batch) -> dict[str, float]:
        """Train on one batch; returns the step's terms by column name."""
        config, state = self.config, self.state
        frames = training_frames(batch, config.geometry, self.device, seed=config.seed, epoch=state.epoch)
        terms = compute_losses(state.net(frames.defocused), frames.depth_m, frames.aif, config.loss)
        if terms.depth is not None and terms.deblur is not None and state.balance.measuring:
            state.balance.observe(terms.depth.item(), terms.deblur.item())
        total = terms.total(state.balance.deblur_weight)
        state.optimizer.zero_grad(set_to_none=True)
        total.backward()
        gradients = [p.grad for p in state.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        named: dict[str, Tensor] = {"total": total, "grad_norm": norm, **terms.parts}
        named |= {k: v for k, v in (("depth", terms.depth), ("deblur", terms.deblur)) if v is not None}
        # One transfer for everything that is looked at, since each one waits for the GPU.
        values = dict(zip(named, torch.stack([v.detach().float() for v in named.values()]).tolist(), strict=True))
        self._require_finite(values, batch)
        if config.optim.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(state.net.parameters(), config.optim.clip_norm, norm)
        values["lr"] = lr_at(config.optim, step=state.step, steps_per_epoch=self.steps_per_epoch, epochs=config.epochs)
        values["deblur_weight"] = state.balance.deblur_weight
        state.advance(values["lr"])
        return values

    def _require_finite(self, values: dict[str, float], batch: Batch) -> None:
        wrong = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            samples = ", ".join(self.data.names[index] for index in batch.indices)
            raise NonFiniteError(
                f"epoch {self.state.epoch + 1}, step {self.state.step + 1}: {', '.join(wrong)} on samples {samples}; "
                f"no step was taken with it (a smaller --lr or --clip-norm 1 may help)"
            )

    def _end_epoch(self, meter: Meter) -> None:
        config, state = self.config, self.state
        epoch = state.epoch + 1
        last = epoch == config.epochs
        row = {"epoch": epoch, "step": state.step, **state.averages()}
        if last or (config.validate_every and epoch % config.validate_every == 0):
            self.validation = self._validate()
            row |= {
                f"val_{k}": v for k, v in self.validation.items() if k in ("rmse", "abs_rel", "delta1", "psnr", "ssim")
            }
        self.log.append(row)
        if epoch == 1 and "depth" in row and "deblur" in row:
            complaint = state.balance.complaint(row["depth"], row["deblur"])
            if complaint:
                meter.say(complaint)
        if self.validation and ("val_rmse" in row or "val_psnr" in row):
            scores = "  ".join(f"{name} {row[f'val_{name}']:.4g}" for name in ("rmse", "psnr") if f"val_{name}" in row)
            meter.say(f"epoch {epoch}/{config.epochs}  {_brief(row)}  test: {scores}")
        state.next_epoch()
        if last or epoch % config.checkpoint_every == 0:
            self._save()

    def _validate(self) -> dict[str, float]:
        if "test" not in self.data.store.split_names:
            return {}
        net, geometry = self.state.evaluated, self.config.geometry
        net.eval()
        scores = score_split(
            net,
            ShardDataset(self.config.shards, "test"),
            size=geometry.size,
            device=self.device,
            batch_size=self.config.batch_size,
            limit=self.config.validate_limit,
        )
        return summarise([score.predicted for score in scores])

    def _save(self) -> None:
        save_checkpoint(self.out, self.state.checkpoint(self.store_checksum))

    def _headline(self) -> str:
        config = self.config
        at = f", from step {self.state.step}" if self.state.step else ""
        parameters = sum(p.numel() for p in self.state.net.parameters())
        return (
            f"{config.model.name} network ({parameters:,} parameters, heads {' + '.join(config.model.heads)}), "
            f"recipe {config.recipe}, {len(self.data)} training samples, {config.epochs} epochs of "
            f"{self.steps_per_epoch} steps on {self.device}{at}"
        )


def _brief(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {values[name]:.4g}" for name in ("total", "depth", "deblur") if name in values)
