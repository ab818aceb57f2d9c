"""Files as they are, and as they go wrong."""

from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat


def write_nyu(path, frames=5, *, seed=0, scenes=True):
    """A MATLAB v7.3 file with the variables, axes and types of nyu_depth_v2_labeled.mat; returns its path."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w", userblock_size=512) as file:
        image = rng.integers(0, 256, (frames, 3, 640, 480), dtype=np.uint8)
        depth = rng.uniform(0.8, 9, (frames, 640, 480)).astype(np.float32)
        raw = np.where(rng.random(depth.shape) < 0.2, np.float32(0), depth)
        for name, data in (("images", image), ("depths", depth), ("rawDepths", raw)):
            file.create_dataset(name, data=data, chunks=(1, *data.shape[1:-2], 80, 480), compression="gzip")
        if scenes:
            table = file.create_dataset("scenes", (1, frames), dtype=h5py.ref_dtype)
            for i in range(frames):
                text = np.frombuffer(f"kitchen_{i // 2:04d}".encode("utf-16-le"), np.uint16)[:, None]
                table[0, i] = file.require_group("#refs#").create_dataset(f"s{i}", data=text).ref
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def write_splits(path, train, test):
    """A MATLAB v5 split file with 1-based frame numbers; returns its path."""
    savemat(path, {"trainNdxs": np.array(train, np.uint16)[:, None], "testNdxs": np.array(test, np.uint16)[:, None]})
    return path


def truncate(path, keep):
    """Cut `path` to the share `keep` of its size."""
    with path.open("r+b") as stream:
        stream.truncate(int(path.stat().st_size * keep))


def flip_byte(path, offset):
    """Invert one byte of `path`; a negative offset counts from the end."""
    with path.open("r+b") as stream:
        stream.seek(offset, 0 if offset >= 0 else 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 0xFF]))


def tree_bytes(root):
    """Every file below `root` as {relative name: content}."""
    root = Path(root)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
