"""Real processes, started by torchrun on this machine, talking gloo over the loopback."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dfd_train.distributed.world import join_world
from dfd_train.errors import CheckpointError, ConfigError
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.launch import start
from dfd_train.training.state import TrainState
from dfd_train.training.world_size import for_world

# float32 sums in another order. With frozen statistics the weights after six steps agree this well.
FROZEN_TOLERANCE = 2e-5
# Statistics over 16 values in the deepest layers amplify the rounding; weights move by 5e-3 in these steps.
SYNC_TOLERANCE = 2e-4
SMALL = ("--model", "tiny", "--size", "48x33", "--device", "cpu", "--no-tensorboard", "--recipe", "paper")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LAYERS = """
import gc, torch, torch.distributed as dist
from torch import nn
from dfd_train.distributed.sync_batch_norm import synchronise_batch_norm

def layers():
    torch.manual_seed(1)
    first = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
    return nn.Sequential(*first, nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))

def compare():
    rank = dist.get_rank()
    torch.manual_seed(0)
    x, w = torch.randn(5, 3, 5, 6) * 2 + 1, torch.randn(5, 4, 1, 2)
    whole, shared = layers(), layers()
    synchronise_batch_norm(shared, torch.device("cpu"))
    (whole(x).square() * w).sum().backward()
    # Three images here, two there.
    parallel = nn.parallel.DistributedDataParallel(shared)
    (parallel(x[rank::2]).square() * w[rank::2]).sum().mul(2).backward()
    for (name, p), q in zip(whole.named_parameters(), shared.parameters()):
        assert torch.allclose(p.grad, q.grad, rtol=1e-9, atol=1e-9), (name, (p.grad - q.grad).abs().max())
    for (name, p), q in zip(whole.named_buffers(), shared.buffers()):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-12), name

torch.set_default_dtype(torch.float64)
dist.init_process_group("gloo")
compare()
gc.collect()
dist.barrier()
dist.destroy_process_group()
"""


def command(processes: int, *program: object) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *torchrun, *map(str, program)]


def launch_script(processes: int, *program: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, *program), capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT
    )


def launch(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return launch_script(processes, "-m", "dfd_cli.train", *arguments)


def assert_close(first: Path, second: Path, tolerance: float) -> None:
    mine, other = load_checkpoint(first), load_checkpoint(second)
    assert (mine.epoch, mine.batch, mine.step) == (other.epoch, other.batch, other.step)
    for name, value in mine.weights.items():
        assert torch.allclose(value, other.weights[name], rtol=tolerance, atol=tolerance), name


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def alone(store: Path, out: Path, kind: str, epochs: int = 2, lr: float = 1e-2, **more: Any) -> Path:
    """The same by one process with batches of four: two epochs of 4, 4 and 2 samples."""
    start(
        shards=store, out=out, model="tiny", size="48x33", device="cpu", tensorboard=False, recipe="paper", lr=lr,
        epochs=epochs, batch_size=4, batch_norm=kind, **more,
    )  # fmt: skip
    return out


def assert_same_numbers(first: Path, second: Path) -> None:
    for mine, other in zip(rows(first), rows(second), strict=True):
        for name in ("total", "depth", "deblur", "grad_norm", "val_rmse", "val_psnr"):
            if other[name]:
                assert float(mine[name]) == pytest.approx(float(other[name]), rel=1e-4), name


def test_two_processes_with_batches_of_two_equal_one_with_batches_of_four(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "two"
    settings = ("--epochs", 2, "--batch-size", 2, "--batch-norm", "frozen", "--lr", "1e-2")
    done = launch(2, "--shards", store, "--out", run, *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 epochs, 6 steps") == 1
    whole = alone(store, tmp_path / "one", "frozen")
    assert_close(run, whole, FROZEN_TOLERANCE)
    assert_same_numbers(run, whole)


def test_two_processes_draw_the_lenses_that_one_draws(store: Path, tmp_path: Path) -> None:
    ranges = (
        "focus=0.5m..4m,near_depths=0.5,f_number=1..2,sensor_width=5mm,most_coc_px=2..6,psf=both,light=both,"
        "layered=0.5,noise=0..3,jpeg=60..100"
    )
    run = tmp_path / "two"
    settings = ("--epochs", 2, "--batch-size", 2, "--batch-norm", "frozen", "--lr", "1e-2", "--lens-range", ranges)
    done = launch(2, "--shards", store, "--out", run, *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    whole = alone(store, tmp_path / "one", "frozen", lens_range=ranges)
    assert_close(run, whole, FROZEN_TOLERANCE)
    assert_same_numbers(run, whole)
    # Other lenses are another training.
    others = alone(store, tmp_path / "others", "frozen", lens_range=ranges.replace("2..6", "2..7"))
    assert rows(others)[0]["total"] != rows(whole)[0]["total"]


@pytest.mark.slow
def test_synchronised_normalisation_makes_two_processes_equal_one(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "two"
    settings = ("--epochs", 2, "--batch-size", 2, "--batch-norm", "sync", "--lr", "1e-4")
    done = launch(2, "--shards", store, "--out", run, *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    assert_close(run, alone(store, tmp_path / "one", "sync", lr=1e-4), SYNC_TOLERANCE)


def test_synchronised_layers_have_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    script = tmp_path / "layers.py"
    script.write_text(LAYERS)
    done = launch_script(2, script)
    assert done.returncode == 0, done.stderr


def test_a_process_without_samples_in_the_last_step_neither_hangs_nor_counts(store: Path, tmp_path: Path) -> None:
    # Ten samples in steps of four by four processes: the last step leaves two of them with nothing.
    run = tmp_path / "four"
    settings = ("--epochs", 1, "--batch-size", 1, "--batch-norm", "frozen", "--lr", "1e-2")
    done = launch(4, "--shards", store, "--out", run, *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    assert_close(run, alone(store, tmp_path / "whole", "frozen", epochs=1), FROZEN_TOLERANCE)


def test_a_lost_process_ends_the_others_with_a_message_and_the_run_resumes_with_one(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = ("--shards", store, "--out", run, *SMALL, "--epochs", 2000, "--batch-size", 2, "--timeout-s", 20)
    with open(log, "w") as file:
        process = subprocess.Popen(
            command(2, "-m", "dfd_cli.train", *arguments), stdout=file, stderr=file, env=ENVIRONMENT
        )
        deadline = time.monotonic() + 60
        while not list(run.glob("checkpoints/*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        victim = next(pid for pid in children(process.pid) if environment(pid).get("RANK") == "1")
        os.kill(victim, signal.SIGKILL)
        assert process.wait(60) != 0
    said = log.read_text()
    assert re.search(r"Error: another process of this run ended or does not answer .* go on with --resume", said), said
    saved = load_checkpoint(run)
    with pytest.raises(ConfigError, match="with 3 processes: its steps take 4 samples"):
        for_world(saved.config, saved, 3)
    stop_at(monkeypatch, saved.step + 2)
    result = start(out=run, resume=True, device="cpu")
    last = load_checkpoint(run)
    assert result.interrupted
    assert last.step == saved.step + 2
    # The steps stay those of the two processes: two batches of two samples each.
    assert (last.config.batch_size, last.config.engine.accumulate, last.progress["world"]) == (2, 2, 1)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let this process receive a SIGTERM during the given step."""
    advance = TrainState.advance

    def and_signal(self: TrainState, lr: float) -> None:
        advance(self, lr)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainState, "advance", and_signal)


def test_a_world_of_one_needs_no_environment_and_decides_alone() -> None:
    with join_world("cpu") as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert world.gather("x") == ["x"]
        assert world.sum(torch.ones(2)).tolist() == [1, 1]

        def fail() -> None:
            raise CheckpointError("full")

        with pytest.raises(CheckpointError, match="full"):
            world.first_does(fail)


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
