"""Where to compute, and with which versions of what."""

from __future__ import annotations

import ctypes
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from dfd_train.errors import ConfigError


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA where there is a GPU, else the CPU.

    Raises `ConfigError` for a name that torch does not know and for a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} is not a device: give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r} is not supported: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def versions(device: torch.device) -> dict[str, str]:
    """Versions and hardware that a result depends on, for run folders and reports."""
    try:
        own = version("dfd-toolkit")
    except PackageNotFoundError:
        own = "not installed"
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"
    return {
        "dfd-toolkit": own,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": hardware,
    }


# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory(device: torch.device) -> None:
    """On the CPU, let the process use freed feature maps again; on a GPU, or without glibc, nothing happens.

    By default each map is taken from the system, zeroed page by page, and given back, for every image: half the time of
    a small network. Afterwards freed memory stays with the process; how much it needs at most does not change.
    """
    if device.type != "cpu":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
