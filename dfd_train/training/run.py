"""A run in progress, step by step and epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from defocus_sim.lens import Lens
from defocus_sim.progress import Meter, counted
from dfd_train.config.train import SCORES, TrainConfig, changed_fields
from dfd_train.data.held_out import train_and_val
from dfd_train.data.lens_draws import draw_lenses, photographed
from dfd_train.data.order import MicroBatch
from dfd_train.data.store_facts import store_facts
from dfd_train.data.stream import Batch
from dfd_train.data.training_stream import TrainingStream
from dfd_train.data.transforms import Frames, first_rows, training_frames
from dfd_train.distributed.device import versions
from dfd_train.distributed.world import World
from dfd_train.errors import ConfigError, NonFiniteError
from dfd_train.model.camera_nets import CameraNet
from dfd_train.model.pretrained import start_encoder
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.optics.blurred import compile_blur
from dfd_train.optics.camera import rows_of
from dfd_train.runs.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from dfd_train.runs.run_folder import RunLock, create_run, run_config
from dfd_train.runs.start_from import start_from
from dfd_train.training.logs import RunLogs, require_wandb
from dfd_train.training.profiling import StepProfile
from dfd_train.training.schedule import lr_at
from dfd_train.training.state import TrainState
from dfd_train.training.train_step import Engine
from dfd_train.training.validation import Validation, Validator, beside
from dfd_train.training.world_size import for_world, step_samples

# float16's loss scale halves at each overflow; so many in a row mean that no scale fits.
MOST_SKIPPED = 20


class Run:
    """A run in progress: its data, its state, and where both are written."""

    def __init__(
        self, config: TrainConfig, world: World, *, resume: bool, overwrite: bool, console: Console, lock: RunLock
    ) -> None:
        # Everything that can be wrong is found before the folder is touched.
        self.world, self.console, self.out = world, console, Path(config.out)
        self.divided = train_and_val(
            config.model,
            config.shards,
            config.val_fraction,
            sharp_train=config.lenses is not None,
            lens=None if config.lens is None else Lens.load(config.lens),
        )
        self.data = self.divided.train
        config = self.config = self._knowing_frames(config)
        self.store_checksum = self.data.store.manifest.checksum
        self.store_facts = store_facts(self.data.store)
        config.geometry.check_frame(self.data.frame_hw)
        require_wandb(config.wandb)
        world.first_does(lambda: lock.hold(self.out))
        if resume:
            self.state = self._restored()
        else:
            self.state = TrainState(config, world)
            self._prepare_network()
            facts = {"versions": versions(world.device), "store_checksum": self.store_checksum}
            world.first_does(lambda: create_run(config, facts, overwrite=overwrite))
            world.first_does(lambda: lock.hold(self.out))
        self.stream = TrainingStream(self.data, self.config, world)
        self.validator = Validator(self.data, self.divided.val, self.config, world)
        self.lenses = self.config.lenses
        self.profile = StepProfile(self.out if config.profile and world.first else None, world.device)
        self.engine = Engine(self.state, self.profile)
        self.scores: dict[str, float] = {}
        self.logs = RunLogs(self.config, epoch=self.state.epoch, step=self.state.step) if world.first else None

    def _prepare_network(self) -> None:
        """What a new network knows before it has learnt anything: pretrained weights, and the lens to assume."""
        net, config = self.state.net, self.config
        told = ""
        if config.init_from is not None:
            told = start_from(net, config.init_from)
        elif config.pretrained is not None and isinstance(net, TwoHeadedNet):
            told = start_encoder(net.encoder, config.pretrained)
        if told:
            self.console.print(told, markup=False, highlight=False, soft_wrap=True)
        if isinstance(net, CameraNet):
            net.camera.copy_(self._cameras(np.zeros(1, np.int64))[0])
        self.state.reset_average()

    def _knowing_frames(self, config: TrainConfig) -> TrainConfig:
        """`config` with a model that knows the size of its training frames, where that is of use to a prediction."""
        frame_hw = (config.geometry.size or self.data.frame_hw) if config.model.predict == "coc+side" else None
        return replace(config, model=replace(config.model, frame_hw=frame_hw))

    def _cameras(self, indices: NDArray[np.int64]) -> Tensor:
        """The lenses of samples as the network sees them, (B, 10)."""
        return self.data.cameras(indices, self.config.geometry.size).to(self.world.device)

    def _restored(self) -> TrainState:
        # A run from before networks knew their frames goes on as one that does.
        before = self._knowing_frames(run_config(self.out))
        checkpoint = load_checkpoint(latest_checkpoint(self.out))
        changed = changed_fields(before, self.config)
        if step_samples(self.config, self.world.size) == step_samples(
            checkpoint.config, int(checkpoint.progress["world"])
        ):
            # Other batches that make the same steps may be asked for: what fits a GPU depends on how many there are.
            changed = [name for name in changed if name not in ("batch_size", "engine.accumulate")]
        if changed:
            raise ConfigError(
                f"cannot resume {self.out} with another {', '.join(changed)}; leave it out, or start a new run"
            )
        if checkpoint.store_checksum != self.store_checksum:
            raise ConfigError(f"cannot resume {self.out}: {self.config.shards} is not the store it was trained on")
        self.config = for_world(self.config, checkpoint, self.world.size)
        state = TrainState(self.config, self.world)
        state.restore(checkpoint)
        return state

    def loop(self, asked: Callable[[], bool]) -> bool:
        """Train to the end, or until `asked()`; returns whether it was interrupted."""
        config, state = self.config, self.state
        for line in (self._headline(), self.divided.told):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.lenses is not None:
            # Before the clock of the rates starts, and by one process for all where they share a machine.
            layered = self.lenses.layered > 0
            self.world.first_does(lambda: compile_blur(self.world.device, layered=layered))
        total = self.stream.steps_per_epoch * config.epochs
        with Meter("step", total, done=state.step, console=self.console) as meter:
            while state.epoch < config.epochs:
                if self._epoch(meter, asked):
                    self._save()
                    return True
            if (told := self.profile.finish()) is not None:
                meter.say(told)
        if self.logs is not None:
            self.logs.close()
        return False

    def _epoch(self, meter: Meter, asked: Callable[[], bool]) -> bool:
        """One epoch, or the rest of it; True where a signal asked any process to stop."""
        config, state = self.config, self.state
        steps = self.stream.steps(state.epoch, state.batch)
        self.engine.train_mode()
        with closing(self.stream.batches(state.epoch, steps)) as stream:
            waiting = time.perf_counter()
            for step in steps:
                with self.profile.part("data wait"):
                    batches = [next(stream) for _ in step]
                started = time.perf_counter()
                values, stop = self._step(step, batches, asked())
                ended = time.perf_counter()
                samples = min(step_samples(config, self.world.size), len(self.data) - state.seen)
                took = ended - waiting
                state.record(values, samples=samples, waited=started - waiting, seconds=took)
                waiting = ended
                if config.log_every and state.step % config.log_every == 0:
                    row = {"step": state.step, "epoch": state.epoch + 1, **values, "samples_per_s": samples / took}
                    if self.logs is not None:
                        self.logs.step(row)
                    meter.say(f"step {state.step}  {_brief(values)}  lr {values['lr']:.3g}")
                wait = state.sums["waited"] / max(state.sums["seconds"], 1e-9)
                meter.step(samples, f"epoch {state.epoch + 1}/{config.epochs}  {_brief(values)}  data wait {wait:.0%}")
                if (told := self.profile.step_ended()) is not None:
                    meter.say(told)
                # Several processes must agree, which they did within the step; one can look again.
                if stop or (self.world.size == 1 and asked()):
                    return True
        self._end_epoch(meter)
        return False

    def _step(self, step: list[MicroBatch], batches: list[Batch], stop: bool) -> tuple[dict[str, float], bool]:
        """Train on one step; returns its terms by column name, and whether any process was asked to stop."""
        config, state = self.config, self.state
        with self.profile.part("copy and transforms"):
            frames, cameras = self._frames(batches)
        found = self.engine.gradients(frames, [micro.counted for micro in step], stop=stop, cameras=cameras)
        values = found.values
        values["lr"] = lr_at(
            config.optim, step=state.step, steps_per_epoch=self.stream.steps_per_epoch, epochs=config.epochs
        )
        values["deblur_weight"] = state.balance.deblur_weight
        overflow = config.engine.precision == "fp16" and not math.isfinite(values["grad_norm"])
        if overflow and math.isfinite(values["total"]) and state.skipped < MOST_SKIPPED:
            state.skip()
            # It would spoil the epoch's mean, and no step was taken with it.
            del values["grad_norm"]
            return values, found.stop
        self._require_finite(values, batches, own_finite=found.own_finite)
        with self.profile.part("optimizer"):
            if config.optim.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(state.net.parameters(), config.optim.clip_norm, found.norm)
            state.advance(values["lr"])
        return values, found.stop

    def _frames(self, batches: list[Batch]) -> tuple[list[Frames], list[Tensor] | None]:
        """What the network trains on, and the cameras (B, 10) of each batch where the model needs to know the lens."""
        config, epoch = self.config, self.state.epoch
        frames = [
            training_frames(batch, config.geometry, self.world.device, seed=config.seed, epoch=epoch)
            for batch in batches
        ]
        if self.lenses is None:
            cameras = [self._cameras(batch.indices) for batch in batches] if config.model.needs_camera else []
        else:
            size = config.geometry.size
            width_px = (size or self.data.frame_hw)[1]
            taken = []
            for one, batch in zip(frames, batches, strict=True):
                draws = draw_lenses(self.lenses, batch.indices, seed=config.seed, epoch=epoch)
                taken.append(photographed(one, draws, width_px, self.data.aspects(batch.indices, size)))
            frames, cameras = [one for one, _ in taken], [camera for _, camera in taken]
        window = config.geometry.crop
        if config.model.height_input and window is not None:
            for number, batch in enumerate(batches):
                tops = first_rows(batch, config.geometry, seed=config.seed, epoch=epoch)
                cameras[number] = rows_of(cameras[number], tops, window[0], self.data.frame_hw[0])
        return frames, cameras if config.model.needs_camera else None

    def _require_finite(self, values: dict[str, float], batches: list[Batch], *, own_finite: bool) -> None:
        wrong = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            return
        # The sums are the same everywhere, so all processes come here together.
        own = [self.data.names[index] for batch in batches for index in batch.indices]
        every = self.world.gather((own_finite, own))
        guilty = [names for finite, names in every if not finite] or [names for _, names in every]
        samples = ", ".join(name for names in guilty for name in names)
        row = f"after {MOST_SKIPPED} skipped steps in a row, " if self.state.skipped >= MOST_SKIPPED else ""
        raise NonFiniteError(
            f"epoch {self.state.epoch + 1}, step {self.state.step + 1}: {row}{', '.join(wrong)} on samples {samples}; "
            f"no step was taken with it (a smaller --lr or --clip-norm 1 may help)"
        )

    def _end_epoch(self, meter: Meter) -> None:
        config, state = self.config, self.state
        epoch = state.epoch + 1
        last = epoch == config.epochs
        row = {"epoch": epoch, "step": state.step, **state.averages()}
        found, best = Validation(scores={}, nothing={}), False
        if last or (config.validate_every and epoch % config.validate_every == 0):
            found = self.validator.validate(state.evaluated, pictures=config.tensorboard)
            self.scores = found.scores
            row |= {f"val_{name}": value for name, value in found.scores.items() if name in SCORES}
            decides = config.best_score
            if config.best_by == "auto" and decides not in found.scores:
                # Photographs without depth: the restored picture is all that can be scored.
                decides = "psnr"
            best = decides in found.scores and state.is_best(found.scores[decides], decides)
        self._report(meter, row, found)
        state.next_epoch()
        if last or best or epoch % config.checkpoint_every == 0:
            self._save(best=best)

    def _report(self, meter: Meter, row: dict[str, Any], found: Validation) -> None:
        """Write an epoch's row everywhere; only the first process has anywhere."""
        state, epoch = self.state, row["epoch"]
        if self.logs is not None:
            self.logs.epoch(row, found.sheet)
        if epoch == 1 and "depth" in row and "deblur" in row:
            complaint = state.balance.complaint(row["depth"], row["deblur"])
            if complaint:
                meter.say(complaint)
        if found.scores:
            scores = beside(found.scores, found.nothing)
            meter.say(f"epoch {epoch}/{self.config.epochs}  {_brief(row)}  val: {scores}")

    def _save(self, *, best: bool = False) -> None:
        checkpoint = self.state.checkpoint(self.store_checksum, self.store_facts)
        self.world.first_does(lambda: save_checkpoint(self.out, checkpoint, keep=self.config.keep, best=best))

    def _headline(self) -> str:
        config = self.config
        at = f", from step {self.state.step}" if self.state.step else ""
        processes = f" and {self.world.size - 1} more" if self.world.size > 1 else ""
        parameters = sum(p.numel() for p in self.state.net.parameters())
        return (
            f"{config.model.name} network ({parameters:,} parameters, heads {' + '.join(config.model.heads)}), "
            f"recipe {config.recipe}, {counted(len(self.data), 'training sample')}, "
            f"{counted(config.epochs, 'epoch')} of {counted(self.stream.steps_per_epoch, 'step')} "
            f"on {self.world.device}{processes}{at}"
        )


def _brief(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {values[name]:.4g}" for name in ("total", "depth", "deblur") if name in values)
