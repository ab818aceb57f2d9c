from __future__ import annotations

import pickle
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from defocus_sim.errors import ShardCorruptError, ShardError, ShardMissingError
from dfd_train.data.buffers import BufferPool
from dfd_train.data.order import batched, epoch_order
from dfd_train.data.stream import Batch, ShardDataset, stream_batches
from dfd_train.errors import ConfigError


def reader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("shard-reader")]


def test_a_batch_holds_the_stored_arrays_in_the_order_asked_for(store: Path, stored: dict[str, np.ndarray]) -> None:
    batch = ShardDataset(store).read(np.array([7, 0, 7]))
    for field in ("defocused", "aif", "depth_m"):
        assert np.array_equal(getattr(batch, field).numpy(), stored[field][[7, 0, 7]])
    assert batch.defocused.dtype == torch.uint8
    assert batch.depth_m.dtype == torch.float32


@pytest.mark.parametrize("prefetch", [0, 1, 3, 50])
@pytest.mark.parametrize("start", [0, 2, 5])
def test_the_stream_is_the_same_whatever_is_read_ahead_and_can_start_anywhere(
    store: Path, prefetch: int, start: int
) -> None:
    dataset = ShardDataset(store)
    batches = batched(epoch_order(len(dataset), seed=4, epoch=1), 2)
    streamed = list(stream_batches(dataset, batches, start=start, prefetch=prefetch))
    assert [batch.indices.tolist() for batch in streamed] == [indices.tolist() for indices in batches[start:]]
    for batch in streamed:
        assert torch.equal(batch.aif, dataset.read(batch.indices).aif)
    assert not reader_threads()


def test_no_more_than_prefetch_batches_are_read_ahead_and_closing_stops_the_thread(store: Path) -> None:
    read: list[int] = []

    class Counting(ShardDataset):
        def read(self, indices: np.ndarray) -> Batch:
            read.append(int(indices[0]))
            return super().read(indices)

    dataset = Counting(store)
    stream = stream_batches(dataset, batched(np.arange(10), 1), prefetch=2)
    next(stream)
    deadline = time.monotonic() + 5
    while len(read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert read == [0, 1, 2]
    stream.close()
    assert not reader_threads()


def test_an_error_of_the_reader_arrives_at_its_batch(store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(store, damaged)
    path = damaged / "train" / "depth_m" / "c" / "1" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[10] ^= 255
    path.write_bytes(content)
    stream = stream_batches(ShardDataset(damaged), batched(np.arange(10), 2), prefetch=2)
    assert [next(stream).indices.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(ShardCorruptError, match="train-004"):
        next(stream)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_dataset_works_in_anyones_data_loader(store: Path, stored: dict[str, np.ndarray], workers: int) -> None:
    loader = DataLoader(
        ShardDataset(store), batch_size=4, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    seen = torch.cat([batch["depth_m"] for batch in loader])
    assert np.array_equal(seen.numpy(), stored["depth_m"])


def test_the_dataset_pickles_by_its_path_and_knows_its_samples(store: Path) -> None:
    dataset = pickle.loads(pickle.dumps(ShardDataset(store, "test")))
    assert (len(dataset), dataset.frame_hw, dataset.names[4]) == (5, (48, 64), "test-004")
    assert torch.equal(dataset[-1]["aif"], dataset[4]["aif"])
    with pytest.raises(IndexError):
        dataset[5]


def test_a_missing_store_or_split_is_a_named_error(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardMissingError, match="nowhere"):
        ShardDataset(tmp_path / "nowhere.zarr")
    with pytest.raises(ShardError, match="extra"):
        ShardDataset(store, "extra")


def test_memory_of_a_batch_is_used_again_only_when_nothing_refers_to_it() -> None:
    pool = BufferPool(most_free=1)
    wide, tall = (((size, np.dtype("float32")),) for size in ((2, 3), (3, 2)))
    first = torch.from_numpy(pool.take(wide)[0])
    first[:] = 1
    address, row = first.data_ptr(), first.numpy()[1]
    del first
    (other,) = pool.take(wide)
    other[:] = 2
    assert other.ctypes.data != address
    assert row.tolist() == [1, 1, 1]
    del row
    assert pool.take(tall)[0].ctypes.data == address


def test_arrays_of_one_batch_lie_apart_and_come_back_together() -> None:
    pool = BufferPool()
    for size in (5, 2**20):
        wanted = ((size, 3), np.dtype("uint8")), ((size,), np.dtype("float32")), ((2, 3), np.dtype("uint8"))
        arrays = pool.take(wanted)
        assert tuple((array.shape, array.dtype) for array in arrays) == wanted
        assert all(array.ctypes.data % 64 == 0 for array in arrays)
        for number, array in enumerate(arrays):
            array[:] = number + 1
        assert all((array == number + 1).all() for number, array in enumerate(arrays))
        kept, addresses = arrays[1], {array.ctypes.data for array in arrays}
        del arrays, array
        assert pool.take(wanted)[0].ctypes.data not in addresses
        assert (kept == 2).all()


def test_several_threads_read_the_same_batches_in_the_same_order(store: Path) -> None:
    data = ShardDataset(store)
    batches = [np.array([k % 10, (k * 7) % 10]) for k in range(40)]
    expected = list(stream_batches(data, batches, prefetch=0))
    for made, wanted in zip(stream_batches(data, batches, prefetch=5, threads=4), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(made[1:], wanted[1:], strict=True))


def halved(item: dict[str, object]) -> dict[str, object]:
    """A transform that worker processes can import."""
    item["half"] = item["defocused"].float() / 510  # type: ignore[attr-defined]
    return item


@pytest.mark.parametrize("workers", [0, 2])
def test_items_tell_name_lens_and_focus_and_collate_in_any_layout(store: Path, workers: int) -> None:
    dataset = ShardDataset(store, layout="chw", transform=halved)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context="fork" if workers else None)
    batches = list(loader)
    assert batches[0]["defocused"].shape == (4, 3, 48, 64)
    assert batches[0]["depth_m"].shape == (4, 1, 48, 64)
    assert torch.equal(batches[0]["half"], batches[0]["defocused"].float() / 510)
    assert [name for batch in batches for name in batch["name"]] == list(dataset.names)
    assert batches[0]["focus_distance_m"].tolist() == [2.0] * 4
    lens = dataset.lens(0)
    assert batches[0]["lens"]["aperture_mm"].tolist() == pytest.approx([200.0] * 4)
    assert batches[0]["lens"]["sensor_distance_px"][0].item() == pytest.approx(lens.sensor_distance_px(64))
    plain = ShardDataset(store)[0]
    assert torch.equal(batches[0]["aif"][0], plain["aif"].permute(2, 0, 1))
    with pytest.raises(ConfigError, match="layout='nchw'"):
        ShardDataset(store, layout="nchw")
