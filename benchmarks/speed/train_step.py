"""A training step: ours against the plain loop, and on a CUDA GPU how close to its limit and how long the paper takes.

    python benchmarks/speed/train_step.py [--model full] [--size 128] [--batch 4] [--rounds 7] [--threads 2] [--json FILE]
    python benchmarks/speed/train_step.py --device cuda [--shards nyu.zarr] [--json FILE]

On the CPU: the plain loop (eager float32, torch's own layers, a loss of L1 and Charbonnier + SSIM + gradient, SGD, and a
look at the loss each step) against `dfd_train`'s step of the same network and loss with its checks; they take turns,
median and spread of the time of a step, ratio.

On a GPU, at 256x256 for batches of 4, 16 and 64: samples/s of the step, eager float32 and bf16 channels-last, compiled and
as CUDA graphs too, share of the measured rate of bf16 matrix products (an 8192x8192 product), and with `--shards` samples/s
and the share of data wait of `dfd-train` itself while it streams, and from these the time of the paper's 500 x 795 samples.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from dfd_train.config.train import recipe_config
from dfd_train.data.transforms import Frames
from dfd_train.distributed.device import versions
from dfd_train.distributed.world import World
from dfd_train.losses.terms import compute_losses
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.training.schedule import lr_at
from dfd_train.training.state import TrainState
from dfd_train.training.train import train
from dfd_train.training.train_step import Engine

PAPER_SAMPLES = 500 * 795
# Multiplications and additions of the full network's forward pass at 256x256, and three times that for a step.
FLOP_A_SAMPLE = 3 * 50.9e9
WARM = 3


def batch_of(size, batch, device):
    """Random frames; a step costs the same whatever they show."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, size, size, generator=generator)
    depth = torch.rand(batch, 1, size, size, generator=generator) * 4 + 1
    return Frames(image.to(device), image.flip(-1).to(device), depth.to(device))


def plain_step(config, frames):
    """A function that does one step as a first program would."""
    net = TwoHeadedNet(config.model, generator=torch.Generator().manual_seed(0)).to(frames.aif.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=config.optim.lr, momentum=config.optim.momentum)

    def step():
        optimizer.zero_grad()
        output = net(frames.defocused)
        loss = compute_losses(output, frames.depth_m, frames.aif, config.loss).total(config.loss.deblur_weight)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(config, frames):
    """A function that does one step of `dfd-train`, without the data."""
    state = TrainState(config, World(device=frames.aif.device))
    engine = Engine(state)
    engine.train_mode()

    def step():
        found = engine.gradients([frames], [True])
        state.advance(lr_at(config.optim, step=0, steps_per_epoch=1, epochs=config.epochs))
        return found.values["total"]

    return step


def seconds_of(step, device, repeats=1):
    """Seconds of one call, the GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / repeats


def on_cpu(given):
    """Ours against the plain loop."""
    torch.set_num_threads(given.threads)
    device = torch.device("cpu")
    frames = batch_of(given.size, given.batch, device)
    base = recipe_config("paper", shards="none", out="none", model=given.model, device="cpu")
    steps = {
        "plain loop, float32": plain_step(base, frames),
        "ours, float32": our_step(base, frames),
        "ours, channels-last": our_step(replace(base, engine=replace(base.engine, channels_last=True)), frames),
    }
    times = {name: [] for name in steps}
    for number in range(given.rounds + 1):
        for name, step in steps.items():
            seconds = seconds_of(step, device)
            if number:
                times[name].append(seconds)
    first = times["plain loop, float32"]
    print(f"{given.model} network, batch {given.batch} at {given.size}x{given.size}, {given.threads} threads")
    rows = {}
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, first, strict=True))
        median = statistics.median(found)
        print(f"{name:<24} {median * 1e3:8.0f} ms ({min(found) * 1e3:.0f}..{max(found) * 1e3:.0f})  {ratio:.2f}")
        rows[name] = {"seconds": median, "lowest": min(found), "highest": max(found), "ratio": ratio}
    return rows


def matmul_rate(device):
    """FLOP/s of a bf16 product that is large enough to show the machine's limit."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = min(seconds_of(lambda: a @ b, device, 10) for _ in range(5))
    return 2 * 8192**3 / seconds


def on_gpu(given):
    """Samples/s, share of the limit, and the paper's schedule."""
    device = torch.device(given.device)
    limit = matmul_rate(device)
    print(f"bf16 matrix product: {limit / 1e12:.0f} TFLOP/s")
    kinds = {
        "float32": {},
        "bf16, channels-last": {"precision": "bf16", "channels_last": True},
        "bf16, channels-last, compiled": {"precision": "bf16", "channels_last": True, "compile": True},
        "bf16, channels-last, graphs": {"precision": "bf16", "channels_last": True, "graphs": True},
    }
    rows = {"matmul_flop_per_s": limit}
    for batch in (4, 16, 64):
        frames = batch_of(256, batch, device)
        for name, engine in kinds.items():
            config = recipe_config("paper", shards="none", out="none", device=given.device, **engine)
            step = our_step(config, frames)
            seconds_of(step, device, WARM)
            found = [seconds_of(step, device, 10) for _ in range(given.rounds)]
            seconds = statistics.median(found)
            share = FLOP_A_SAMPLE * batch / seconds / limit
            print(f"batch {batch:3}  {name:<30} {batch / seconds:8.0f} samples/s  {share:.1%} of the limit")
            rows[f"{name}, batch {batch}"] = {"samples_per_s": batch / seconds, "share": share, "seconds": found}
    if given.shards is not None:
        rows["streaming"] = streaming(given)
    return rows


def streaming(given):
    """`dfd-train` itself over a stretch of the paper's schedule: the last epochs, when all is warm."""
    rows = {}
    kinds = {
        "streamed, compiled": {"cache": "none", "compile": True},
        "streamed, graphs": {"cache": "none", "graphs": True},
        "cached on the device, graphs": {"cache": "device", "graphs": True},
    }
    for name, kind in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            config = recipe_config(
                "paper", shards=given.shards, out=Path(folder) / "run", device=given.device, epochs=given.epochs,
                precision="bf16", channels_last=True, validate_every=0, validate_limit=1, checkpoint_every=given.epochs,
                tensorboard=False, **kind,
            )  # fmt: skip
            train(config, console=Console(quiet=True))
            lines = (Path(folder) / "run" / "metrics.csv").read_text().splitlines()
        header = lines[0].split(",")
        last = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]][given.epochs // 2 :]
        rate = statistics.median(float(row["samples_per_s"]) for row in last)
        wait = statistics.median(float(row["wait_share"]) for row in last)
        minutes = PAPER_SAMPLES / rate / 60
        print(f"dfd-train, {name}: {rate:.0f} samples/s, data wait {wait:.1%}; the paper's schedule: {minutes:.1f} min")
        rows[name] = {"samples_per_s": rate, "wait_share": wait, "paper_minutes": minutes}
    return rows


def main():
    """The benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="full")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = torch.device(given.device)
    rows = on_cpu(given) if device.type == "cpu" else on_gpu(given)
    if given.json is not None:
        facts = {"versions": versions(device), "machine": platform.machine(), "arguments": {
            name: str(value) for name, value in vars(given).items()
        }}  # fmt: skip
        given.json.write_text(json.dumps({**facts, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
