"""Samples of a shard store as torch tensors, one by one or as prefetched batches with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from defocus_sim.lens import Lens
from defocus_sim.shards.layout import ARRAYS
from defocus_sim.shards.store import open_store
from dfd_train.data.buffers import BufferPool, Wanted
from dfd_train.errors import ConfigError
from dfd_train.optics.camera import camera_of

LAYOUTS = ("hwc", "chw")
LENS_NUMBERS = ("focus_distance_m", "aperture_mm", "sensor_distance_px", "sigma_per_coc", "max_coc_px")
FIELDS = ("defocused", "aif", "depth_m")
_TORCH_TYPES = {"uint8": torch.uint8, "float32": torch.float32}


class Batch(NamedTuple):
    """Samples as stored, on the CPU.

    `indices` (B,) int64 within the split; `defocused` (six channels where two pictures make a sample), `aif`
    (B, H, W, 3) uint8 sRGB; `depth_m` (B, H, W) float32
    metres, 0 = hole.
    """

    indices: NDArray[np.int64]
    defocused: Tensor
    aif: Tensor
    depth_m: Tensor


class Reader(Protocol):
    """Whatever reads samples by their indices."""

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """The samples `indices` (B,) in that order."""
        ...


class ShardDataset(Dataset[Any]):
    """One split of a shard store as a torch dataset, for this package's loop or anyone's.

    `store`: path or URL of the store; `split`: for example "train"; `samples`: only these of the split, by their indices
    in it, in this order. Items are dicts of "defocused" and "aif" (H, W, 3) uint8, "depth_m" (H, W) float32 metres with
    0 = hole, "name", "focus_distance_m" and "lens", a dict of the numbers that decide the blur (`focus_distance_m`,
    `aperture_mm`, `sensor_distance_px`, `sigma_per_coc`, `max_coc_px`, in pixels of the stored frame; NaN of an unknown
    lens); torch's own collate function takes them.
    `lens`: of the samples of which the store does not say theirs.
    `layout`: "chw" gives (3, H, W) pictures and (1, H, W) depth. `transform`: a function of an item, what it returns is
    the item (it must pickle for worker processes). Workers of a `DataLoader`, started either way, reopen the store by its
    path. Raises `ShardMissingError` or `ShardError` of `defocus_sim` where the store or the split is not
    there. `pictures`: how many defocused pictures make a sample. `pinned`: whether `read` decodes into page-locked
    memory, from which a GPU copies by itself.
    """

    pictures = 1
    pinned = False

    def __init__(
        self,
        store: str | Path,
        split: str = "train",
        *,
        samples: Sequence[int] | NDArray[np.int64] | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        layout: str = "hwc",
        lens: Lens | None = None,
    ) -> None:
        if layout not in LAYOUTS:
            raise ConfigError(f"layout={layout!r} must be one of {', '.join(LAYOUTS)}")
        self.transform, self.layout = transform, layout
        self._buffers = BufferPool()
        self._shapes: dict[tuple[int, tuple[str, ...]], tuple[Wanted, ...]] = {}
        # Not a Path, which would make `s3:/bucket` of a URL.
        self.path = str(store)
        self.split_name = split
        self.store = open_store(self.path)
        self._lens = lens
        if lens is not None:
            self.store = self.store.seen_through(lens)
        self.split = self.store.split(split)
        self._samples = None if samples is None else np.asarray(samples, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "store": self.path,
            "split": self.split_name,
            "samples": self._samples,
            "transform": self.transform,
            "layout": self.layout,
            "lens": self._lens,
            "identity": self.store.identity.checksum,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        identity = state["identity"]
        self.__init__(**{name: value for name, value in state.items() if name != "identity"})  # type: ignore[misc]
        if self.store.identity.checksum != identity:
            raise self.store.identity.replaced()

    @property
    def names(self) -> tuple[str, ...]:
        """The samples' names in the order of their indices."""
        names = self.split.names
        return names if self._samples is None else tuple(names[index] for index in self._samples.tolist())

    @property
    def focus_distance_m(self) -> NDArray[np.float64]:
        """(N,) focus distance of every sample's lens in metres."""
        focus_m = self.split.focus_distance_m
        return focus_m if self._samples is None else focus_m[self._samples]

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Height and width of every frame in pixels."""
        return self.split.height, self.split.width

    @property
    def samples_per_shard(self) -> int:
        """How many samples to read together: those of a shard file, or as many of them as are taken on average."""
        per_shard = self.store.manifest.samples_per_shard
        if self._samples is None:
            return per_shard
        return max(per_shard * len(self._samples) // len(self.split), 1)

    def stored_index(self, index: int) -> int:
        """The index in the stored split of what is sample `index` here."""
        return index if self._samples is None else int(self._samples[index])

    def lens(self, index: int) -> Lens:
        """The lens that sample `index` was rendered with, in pixels of the stored frame (see `Lens.resized`)."""
        return self.split.lens(self.stored_index(index))

    @property
    def measured(self) -> bool:
        """Whether these may be photographs, which may be without depth and without a known lens."""
        return self.store.manifest.rendering.get("mode", "measured") == "measured"

    def has_lens(self, index: int) -> bool:
        """Whether the lens of sample `index` is known: that of a photograph need not be."""
        return self.split.has_lens(self.stored_index(index))

    def has_pixels(self, index: int) -> bool:
        """Whether the lens of sample `index` is known in pixels, which older stores may not say."""
        return self.split.has_pixels(self.stored_index(index))

    def cameras(self, indices: NDArray[np.int64], size: tuple[int, int] | None = None) -> Tensor:
        """The lenses of the samples `indices` as cameras (B, 10) for stored frames resized to `size` (None = as stored).

        Raises `ShardError` of `defocus_sim` as `ShardSplit.lens` does.
        """
        stored, frame_hw = [self.stored_index(index) for index in indices.tolist()], size or self.frame_hw
        split = self.split
        return torch.stack([camera_of(split.blurred_lens(k), split.blurred_hw(k), frame_hw) for k in stored])

    def aspects(self, indices: NDArray[np.int64], size: tuple[int, int] | None = None) -> Tensor:
        """(B,): how many times as wide along y as along x a round blur is, in stored frames resized to `size`.

        1 but where a resize after the blur changed a frame's shape. Raises `ShardError` as `ShardSplit.blurred_hw` does.
        """
        height, width = size or self.frame_hw
        blurred = [self.split.blurred_hw(self.stored_index(index)) for index in indices.tolist()]
        return torch.tensor([height / tall / (width / wide) for tall, wide in blurred])

    def __len__(self) -> int:
        return len(self.split) if self._samples is None else len(self._samples)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        batch = self.read(np.asarray(indices, dtype=np.int64))
        names = self.names
        items = []
        for row, index in enumerate(indices):
            lens = self._lens_numbers(index)
            item: dict[str, Any] = {
                "defocused": self._laid_out(batch.defocused[row]),
                "aif": self._laid_out(batch.aif[row]),
                "depth_m": batch.depth_m[row][None] if self.layout == "chw" else batch.depth_m[row],
                "name": names[index],
                "lens": lens,
                "focus_distance_m": lens["focus_distance_m"],
            }
            items.append(item if self.transform is None else self.transform(item))
        return items

    def _laid_out(self, picture: Tensor) -> Tensor:
        return picture.permute(2, 0, 1).contiguous() if self.layout == "chw" else picture

    def _lens_numbers(self, index: int) -> dict[str, float]:
        """What decides the blur of a sample, the same numbers whatever described the lens, for any collate function."""
        if not self.has_pixels(index):
            return dict.fromkeys(LENS_NUMBERS, float("nan"))
        lens = self.lens(index)
        return {
            "focus_distance_m": lens.focus_distance_m,
            "aperture_mm": lens.aperture_diameter_m * 1e3,
            "sensor_distance_px": lens.sensor_distance_px(self.frame_hw[1]),
            "sigma_per_coc": lens.sigma_per_coc,
            "max_coc_px": float("inf") if lens.max_coc_px is None else lens.max_coc_px,
        }

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """The samples `indices` (B,) in that order; raises `ShardCorruptError` for damaged bytes."""
        return Batch(indices, *self.read_fields(indices, FIELDS))

    def read_depth_m(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, H, W) float32 depth of the samples `indices` in metres, 0 = hole; raises as `read` does."""
        (depth_m,) = self.read_fields(indices, ("depth_m",))
        return np.asarray(depth_m.numpy(), np.float32)

    def read_fields(self, indices: NDArray[np.int64], fields: Sequence[str]) -> list[Tensor]:
        """The arrays `fields` of the samples `indices`, each (B, ...) as stored; raises as `read` does."""
        wanted = self._wanted(len(indices), tuple(fields))
        if self.pinned:
            # torch keeps page-locked memory, too, and knows which of it a copy still reads.
            tensors = [torch.empty(shape, dtype=_TORCH_TYPES[dtype.name], pin_memory=True) for shape, dtype in wanted]
            arrays = [tensor.numpy() for tensor in tensors]
        else:
            arrays = self._buffers.take(wanted)
            tensors = [torch.from_numpy(array) for array in arrays]
        stored = indices if self._samples is None else self._samples[indices]
        self.split.fill(stored, dict(zip(fields, arrays, strict=True)))
        return tensors

    def _wanted(self, count: int, fields: tuple[str, ...]) -> tuple[Wanted, ...]:
        key = count, fields
        if key not in self._shapes:
            shapes = self.split.sample_shapes
            self._shapes[key] = tuple(((count, *shapes[field]), ARRAYS[field].dtype) for field in fields)
        return self._shapes[key]


def stream_batches(
    dataset: Reader,
    batches: Sequence[NDArray[np.int64]],
    *,
    start: int = 0,
    prefetch: int = 2,
    pin: bool = False,
    threads: int = 1,
) -> Generator[Batch, None, None]:
    """Batches in order, some of them read ahead.

    At most `prefetch + 1` batches are in memory. An error of the reader surfaces at the batch it belongs to. The
    threads end when the iterator is exhausted or closed.

    Parameters
    ----------
    dataset
        Gives `dataset.read(batch)`.
    batches
        Indices of each batch.
    start
        The first of `batches` to read.
    prefetch
        How many are read ahead; 0 reads in the caller's thread.
    pin
        Put what is not on a GPU already into page-locked memory for an asynchronous copy to it.
    threads
        How many read; more than one ask for a reader that can be shared between them.

    Yields
    ------
    Generator[Batch, None, None
        What `dataset.read` gives for `batches[start:]`.
    """
    if prefetch < 0 or start < 0 or threads < 1:
        raise ValueError(f"prefetch={prefetch} and start={start} must not be negative, threads={threads} not below 1")

    def fetch(indices: NDArray[np.int64]) -> Batch:
        batch = dataset.read(indices)
        if not pin or batch.depth_m.is_cuda:
            return batch
        return Batch(batch.indices, *(t if t.is_pinned() else t.pin_memory() for t in batch[1:]))

    if prefetch == 0:
        yield from (fetch(indices) for indices in batches[start:])
        return
    waiting: deque[Future[Batch]] = deque()
    remaining = iter(batches[start:])
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="shard-reader") as pool:
        try:
            for indices in remaining:
                waiting.append(pool.submit(fetch, indices))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
