"""One step's gradients: precision, accumulation over batches, and their sum over processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dfd_train.data.transforms import Frames
from dfd_train.distributed.sync_batch_norm import synchronise_batch_norm
from dfd_train.losses.terms import REBLUR_TERMS, LossTerms, compute_losses, count_pixels, reblur_losses, term_names
from dfd_train.model.build import run_model
from dfd_train.model.two_headed import Output
from dfd_train.training.profiling import StepProfile
from dfd_train.training.state import TrainState

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Gradients(NamedTuple):
    """What `Engine.gradients` found; the gradients themselves are in the network's parameters.

    `values`: the step's losses over all batches and processes by column name, "total" and "grad_norm" among them.
    `norm`: of the whole gradient. `own_finite`: whether this process's own losses were finite. `stop`: whether any
    process was asked to stop.
    """

    values: dict[str, float]
    norm: Tensor
    own_finite: bool
    stop: bool


class Engine:
    """Computes gradients for `state.net` as its engine configuration says, together with the processes of its world.

    The gradient of a step is that of one batch made of all its batches on all processes: every term is divided by the
    number of images, valid pixels or pairs of the whole, however unevenly they are spread. Only batch normalisation
    sees each batch alone (see `EngineConfig.batch_norm`). `profile` is told what takes how long. To be made by all
    processes at the same point.
    """

    def __init__(self, state: TrainState, profile: StepProfile | None = None) -> None:
        self._state, self._world = state, state.world
        self._profile = profile or StepProfile(None, state.world.device)
        self._config = state.config.engine
        if self._config.batch_norm == "sync" and self._world.size > 1:
            synchronise_batch_norm(state.net, self._world.device)
        self._wrapped: DistributedDataParallel | None = None
        run: nn.Module = state.net
        if self._world.size > 1:
            on = [self._world.device] if self._world.device.type == "cuda" else None
            run = self._wrapped = DistributedDataParallel(state.net, device_ids=on, gradient_as_bucket_view=True)
        self._run: Any = run
        if self._config.compile or self._config.graphs:
            self._run = torch.compile(run, mode="reduce-overhead" if self._config.graphs else "default")

    def train_mode(self) -> None:
        """Switch the network to training; frozen normalisations stay as in evaluation."""
        self._state.net.train()
        if self._config.batch_norm == "frozen":
            for module in self._state.net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def gradients(
        self,
        batches: Sequence[Frames],
        counted: Sequence[bool],
        *,
        stop: bool = False,
        cameras: Sequence[Tensor] | None = None,
    ) -> Gradients:
        """Losses and gradients of one step.

        `batches`: this process's, as many as on the others; one that is not `counted` weighs nothing. `stop`: whether
        this process was asked to stop. `cameras`: (B, 10) of each batch, for a model that needs to know the lens.
        """
        state, world = self._state, self._world
        each = [count_pixels(frames.depth_m) for frames, counts in zip(batches, counted, strict=True) if counts]
        nothing = torch.zeros(4, dtype=torch.float64, device=world.device)
        counts = world.sum(torch.stack([nothing, *each]).sum(0))
        state.optimizer.zero_grad(set_to_none=True)
        # The same names on every process, also on one whose batches do not count.
        zero = torch.zeros((), device=world.device)
        shares = dict.fromkeys((*self._term_names(), "total"), zero)
        for number, (frames, counts_here) in enumerate(zip(batches, counted, strict=True)):
            last = number == len(batches) - 1
            with nullcontext() if last or self._wrapped is None else self._wrapped.no_sync():
                with self._profile.part("forward and losses"):
                    terms = self._forward(frames, counts_here, counts, None if cameras is None else cameras[number])
                if number == 0:
                    self._measure_balance(terms)
                # DistributedDataParallel divides the sum over processes by their number.
                total = terms.total(state.balance.deblur_weight)
                with self._profile.part("backward"):
                    state.scaler.scale(total * world.size).backward()
            named = {"depth": terms.depth, "deblur": terms.deblur, "total": total, **terms.parts}
            for name, value in named.items():
                if value is not None:
                    shares[name] = shares[name] + value.detach()
        return self._collect(shares, stop)

    def _term_names(self) -> tuple[str, ...]:
        model = self._state.config.model
        if not model.about.labelled:
            return REBLUR_TERMS
        return term_names(
            self._state.config.loss, model.learned, uncertainty=model.uncertainty, sided=model.predict == "coc+side"
        )

    def _forward(self, frames: Frames, counted: bool, counts: Tensor, camera: Tensor | None) -> LossTerms:
        precision = _TYPES[self._config.precision]
        image = frames.defocused
        if self._config.graphs:
            # What the last replay left may be overwritten: its step was taken.
            torch.compiler.cudagraph_mark_step_begin()
        if self._config.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._world.device.type, precision, enabled=precision != torch.float32):
            output = run_model(self._run, image, camera)
        output = Output(*(None if out is None else out.float() for out in output))
        if counted and camera is not None and not self._state.config.model.about.labelled:
            return reblur_losses(output, frames.defocused, frames.aif, camera, counts)
        if counted:
            config = self._state.config
            return compute_losses(
                output, frames.depth_m, frames.aif, config.loss, counts, predict=config.model.predict, camera=camera
            )
        # The sum of nothing: zero, with a gradient of zeros for every parameter.
        every = [out for out in (output.answer, output.log_scale, output.depth_m) if out is not None]
        depth = torch.stack([out[:0].sum() for out in every]).sum() if every else None
        deblur = None if output.aif is None else output.aif[:0].sum()
        return LossTerms(depth, deblur, {})

    def _measure_balance(self, terms: LossTerms) -> None:
        balance = self._state.balance
        if terms.depth is not None and terms.deblur is not None and balance.measuring:
            # A surprise passes through 0: what is evened out is the size of the error.
            size = terms.parts["l1"] if "laplace" in terms.parts else terms.depth
            both = self._world.sum(torch.stack([size.detach(), terms.deblur.detach()]))
            balance.observe(*both.tolist())

    def _collect(self, shares: dict[str, Tensor], stop: bool) -> Gradients:
        state = self._state
        state.scaler.unscale_(state.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in state.net.parameters() if p.grad is not None])
        own = torch.stack(list(shares.values()))
        asked = torch.tensor([float(stop)], device=own.device)
        summed = self._world.sum(torch.cat([own, asked]))
        # One transfer for everything that is looked at, since each one waits for the GPU.
        *sums, stops, length, finite = torch.cat([summed, torch.stack([norm, own.isfinite().all()])]).tolist()
        values = dict(zip(shares, sums, strict=True)) | {"grad_norm": length}
        return Gradients(values, norm, bool(finite), stops > 0)
