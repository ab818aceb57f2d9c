from __future__ import annotations

import dataclasses
import json
import random
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dfd_train.config.train import recipe_config
from dfd_train.errors import CheckpointError, CheckpointMissingError
from dfd_train.runs.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint


def checkpoint(step: int, numbers: int = 1000) -> Checkpoint:
    return Checkpoint(
        config=recipe_config("fast", shards="s", out="o", model="tiny"),
        store_checksum="abc",
        epoch=1,
        batch=2,
        step=step,
        weights={"w": torch.arange(float(numbers))},
        averaged=None,
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        rng={"torch": torch.get_rng_state()},
        progress={"sums": {"samples": 3.0}, "balance": {"steps": 1, "depth": 2.0, "deblur": 0.5}},
        scaler={},
    )


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: `write` then fails like on a full disk (EFBIG instead of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint(7)
    path = save_checkpoint(tmp_path, saved)
    for source in (path, tmp_path):
        loaded = load_checkpoint(source)
        assert loaded.config == saved.config
        assert torch.equal(loaded.weights["w"], saved.weights["w"])
        assert torch.equal(loaded.rng["torch"], saved.rng["torch"])
        assert dataclasses.replace(loaded, weights={}, rng={}) == dataclasses.replace(saved, weights={}, rng={})
    assert loaded.evaluated is loaded.weights


def test_only_the_newest_are_kept_and_latest_is_the_last(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path, checkpoint(step)) for step in (3, 20, 100)]
    assert latest_checkpoint(tmp_path) == paths[-1]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == [
        "step-000000020.json", "step-000000020.pt", "step-000000100.json", "step-000000100.pt",
    ]  # fmt: skip


def test_a_checkpoint_without_its_marker_does_not_count(tmp_path: Path) -> None:
    good, torn = (save_checkpoint(tmp_path, checkpoint(step)) for step in (1, 2))
    torn.with_suffix(".json").unlink()
    assert latest_checkpoint(tmp_path) == good


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_still_loads(tmp_path: Path) -> None:
    good, bad = (save_checkpoint(tmp_path, checkpoint(step)) for step in (1, 2))
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=rf"{bad} is truncated.*remove it to go on from the one before it"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(good).step == 1
    bad.unlink()
    assert load_checkpoint(tmp_path).step == 1


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 torn zip", b"\x80\x02}q\x00.", bytes(range(256))])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"foreign\.pt"):
        load_checkpoint(path)


def test_a_truncated_file_without_marker_is_named(tmp_path: Path) -> None:
    path = tmp_path / "copied.pt"
    path.write_bytes(save_checkpoint(tmp_path, checkpoint(1)).read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="truncated or no torch file"):
        load_checkpoint(path)


def test_another_projects_torch_file_and_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="none of dfd-train"):
        load_checkpoint(path)
    torch.save({"format": "dfd_train checkpoint", "format_version": 99}, path)
    with pytest.raises(CheckpointError, match="format version 99"):
        load_checkpoint(path)
    torch.save({"format": "dfd_train checkpoint", "format_version": 2, "epoch": 1}, path)
    with pytest.raises(CheckpointError, match="incomplete"):
        load_checkpoint(path)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    path = tmp_path / "bomb.pt"
    torch.save(Bomb(), path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_checkpoint_or_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissingError, match="nowhere not found"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointMissingError, match="no complete checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("room", [0, 3000])
def test_a_full_disk_is_an_error_that_leaves_the_last_good_checkpoint_and_no_litter(tmp_path: Path, room: int) -> None:
    good = save_checkpoint(tmp_path, checkpoint(1))
    before = sorted(good.parent.iterdir())
    with disk_full_after(room), pytest.raises(CheckpointError, match=rf"cannot save.*the last good one is {good}"):
        save_checkpoint(tmp_path, checkpoint(2, numbers=100_000))
    assert sorted(good.parent.iterdir()) == before
    assert load_checkpoint(tmp_path).step == 1


def test_a_broken_marker_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1))
    path.with_suffix(".json").write_text(json.dumps({"bytes": "many"}))
    with pytest.raises(CheckpointError, match="marker"):
        load_checkpoint(tmp_path)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    path = tmp_path / "copied.pt"
    path.write_bytes(save_checkpoint(tmp_path / "run", checkpoint(1)).read_bytes())
    return path


def test_without_a_marker_a_flipped_bit_is_an_error_or_of_no_consequence(copied: Path) -> None:
    sound, chance, refused = copied.read_bytes(), random.Random(4), 0
    wanted = load_checkpoint(copied)
    for _ in range(150):
        content = bytearray(sound)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        copied.write_bytes(content)
        try:
            found = load_checkpoint(copied)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert torch.equal(found.weights["w"], wanted.weights["w"])
            assert (found.step, found.progress, found.config) == (wanted.step, wanted.progress, wanted.config)
    # The weights are most of the file.
    assert refused > 75


def test_a_compressed_archive_is_refused_before_it_is_unpacked(copied: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(copied) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            with target.open(entry.filename, "w") as stream:
                stream.write(source.read(entry))
                if entry.filename.endswith("/data/0"):
                    for _ in range(300):
                        stream.write(bytes(2**20))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="compressed"):
        load_checkpoint(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100 * 1024
