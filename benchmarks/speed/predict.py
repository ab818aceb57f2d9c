"""Prediction of one large picture: in one pass against in tiles of several sizes and overlaps.

The tilings run in turn, so that a busy machine slows all alike; CPU time of the whole process, median of the rounds and
spread (10th to 90th percentile), as a ratio to one pass. Differences from one pass: of the restored picture in levels of
255, of depth in millimetres. Peak resident memory of a process that does nothing else, once for each tiling.

    python benchmarks/speed/predict.py --checkpoint RUN [--size 1800x1400] [--rounds 5] [--json FILE]

Without a checkpoint an untrained `tiny` network shows times and memory; differences are those of a trained one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch

from dfd_train.config.model import variant
from dfd_train.model.build import Model, build_model
from dfd_train.model.load import load_network
from dfd_train.prediction.predict import predict
from dfd_train.prediction.tiling import Tiling
from dfd_train.runs.checkpoint import load_checkpoint

TILINGS = ((512, 0), (512, 128), (512, 256), (768, 384), (1024, 384), (1024, 512))


def picture(width: int, height: int) -> np.ndarray:
    """A picture with detail at several scales, blurred more to the right: (height, width, 3) uint8."""
    rng = np.random.default_rng(0)
    image = np.zeros((height, width, 3), np.float32)
    for cell, weight in ((96, 0.5), (24, 0.3), (4, 0.2)):
        coarse = rng.random((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        image += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    blurred = cv2.GaussianBlur(image, (0, 0), 4)
    share = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    return np.rint(((1 - share) * image + share * blurred).clip(0, 1) * 255).astype(np.uint8)


def network(checkpoint: str | None) -> Model:
    if checkpoint is not None:
        read = load_checkpoint(Path(checkpoint))
        return load_network(read.config.model, read.evaluated)
    net = build_model(variant("tiny"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(2, 3, 64, 64))
    return net.eval()


def whole(width: int, height: int) -> Tiling:
    """One tile that holds the picture."""
    return Tiling(tile=-(-max(width, height) // 32) * 32, overlap=0)


def peak_mib(arguments: argparse.Namespace, tiling: Tiling) -> float:
    """Peak resident memory of a process that predicts once, MiB."""
    command = [sys.executable, __file__, "--size", arguments.size, "--only", f"{tiling.tile},{tiling.overlap}"]
    command += ["--threads", str(arguments.threads)]
    command += [] if arguments.checkpoint is None else ["--checkpoint", arguments.checkpoint]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(arguments: argparse.Namespace, width: int, height: int) -> list[dict[str, float | str]]:
    image, net = picture(width, height), network(arguments.checkpoint)
    tilings = {"one pass": whole(width, height)}
    tilings |= {f"{tile}, {overlap}": Tiling(tile=tile, overlap=overlap) for tile, overlap in TILINGS}
    times: dict[str, list[float]] = {name: [] for name in tilings}
    found = {}
    for _ in range(arguments.rounds):
        for name, tiling in tilings.items():
            began = time.process_time()
            found[name] = predict(net, image, tiling=tiling)
            times[name].append(time.process_time() - began)
    reference, base, rows = found["one pass"], float(np.median(times["one pass"])), []
    for name, tiling in tilings.items():
        low, middle, high = np.percentile(times[name], (10, 50, 90))
        row: dict[str, float | str] = {
            "tiling": name, "cpu_s": round(float(middle), 2), "ratio": round(float(middle) / base, 2),
            "spread": round(float((high - low) / middle), 2), "peak_mib": round(peak_mib(arguments, tiling)),
        }  # fmt: skip
        if reference.aif is not None:
            row["levels"] = int(np.abs(found[name].aif.astype(int) - reference.aif).max())
        if reference.depth_m is not None:
            row["depth_mm"] = round(float(np.abs(found[name].depth_m - reference.depth_m).max()) * 1000, 3)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="a run's folder or a file")
    parser.add_argument("--size", default="1800x1400", help="width x height of the picture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    width, height = (int(side) for side in arguments.size.split("x"))
    if arguments.only:
        tile, overlap = (int(part) for part in arguments.only.split(","))
        predict(network(arguments.checkpoint), picture(width, height), tiling=Tiling(tile=tile, overlap=overlap))
        # Not getrusage's: a process inherits that from the one that started it.
        status = Path("/proc/self/status").read_text()
        print(float(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return
    rows = compare(arguments, width, height)
    model = network(arguments.checkpoint).config.name
    facts = {
        "size": arguments.size, "model": model, "checkpoint": arguments.checkpoint, "rounds": arguments.rounds,
        "threads": arguments.threads, "machine": platform.machine(), "python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    names = list(rows[0])
    print("  ".join(name.rjust(10) for name in names))
    for row in rows:
        print("  ".join(str(row[name]).rjust(10) for name in names))
    if arguments.json:
        arguments.json.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
