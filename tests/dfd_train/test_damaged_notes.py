"""What a run or an evaluation notes beside its checkpoints never blocks them, and is never believed when damaged."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfd_train.config.toml import configured
from dfd_train.config.train import TrainConfig, recipe_config
from dfd_train.errors import CheckpointError, ConfigError, EvaluationError
from dfd_train.evaluation.metrics import DepthSums, ImageScore, ImageSums
from dfd_train.evaluation.page.html import _cell
from dfd_train.evaluation.score_cache import ScoreJournal
from dfd_train.evaluation.scoring import Profile, SampleScore
from dfd_train.evaluation.tables import read_results
from dfd_train.files import _opened_alone, write_atomically
from dfd_train.prediction.images import find_pictures, read_picture
from dfd_train.prediction.photo.lens import parse_lens
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.runs.run_folder import METRICS_FILE, MetricsLog, RunLock, run_config
from dfd_train.training.train import train

SOUND = "epoch,step,total\n1,10,0.5\n2,20,0.4\n"


@pytest.mark.parametrize(
    "content",
    [
        SOUND.encode()[:-4] + bytes(100), bytes(300), b"\xff\xfe\x00epoch", b"", SOUND.encode() + b'"' * 300_000,
        SOUND.encode() + b"\xe9\xe9,1,2\n", b"epoch\n\n\n", SOUND.encode() + b"9" * 5000 + b",1,2\n", b"step,total\n1,2\n",
    ],
)  # fmt: skip
def test_a_damaged_metrics_file_does_not_block_a_resumed_run(content: bytes, tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_bytes(content)
    log = MetricsLog(tmp_path, before_epoch=3)
    log.append({"epoch": 3, "total": 0.25})
    rows = log.path.read_text().splitlines()
    assert rows[-1].startswith("3,")
    if content.startswith(SOUND.encode()):
        assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]
    assert content == b"" or (tmp_path / f"{METRICS_FILE}.damaged").read_bytes() == content


def test_a_sound_metrics_file_stays_without_a_copy(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.append({"epoch": 1, "total": 0.25})
    before = log.path.read_bytes()
    MetricsLog(tmp_path, before_epoch=2)
    assert log.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def score(position: int) -> SampleScore:
    def sums(kind: Any) -> Any:
        return kind(**dict.fromkeys(kind.__annotations__, position + 0.5))

    one = ImageScore(name=f"frame-{position}", depth=sums(DepthSums), image=sums(ImageSums))
    profile = Profile(*(np.arange(3.0) for _ in Profile._fields))
    return SampleScore(position, one, one, profile)


def test_no_damaged_score_is_believed_and_none_blocks_the_evaluation(tmp_path: Path) -> None:
    journal = ScoreJournal(str(tmp_path), {"a": 1})
    for position in range(4):
        journal.append(score(position))
    (path,) = tmp_path.iterdir()
    sound, chance = path.read_bytes(), random.Random(3)
    wanted = journal.read()
    assert sorted(wanted) == [0, 1, 2, 3]
    for _ in range(60):
        content = bytearray(sound)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content + chance.choice((b"", bytes(50), b"\xff[1, 2")))
        found = journal.read()
        assert len(found) >= 2
        assert all(one.predicted == wanted[position].predicted for position, one in found.items())


@pytest.mark.parametrize("value", [None, [], "x", {"a": 1}, True, 2**70, 1.5])
@pytest.mark.parametrize("key", ["epochs", "shards", "keep", "model", "geometry", "validate_limit", "timeout_s"])
def test_a_run_whose_settings_are_of_another_type_is_named(key: str, value: object, tmp_path: Path) -> None:
    config = recipe_config("fast", shards="s", out="o", model="tiny").to_dict()
    sound = json.loads(json.dumps(config))
    content = sound | {key: value}
    (tmp_path / "config.json").write_text(json.dumps({"config": content}))
    try:
        assert isinstance(run_config(tmp_path), TrainConfig)
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("field", ["epoch", "weights", "averaged", "rng", "progress", "config", "step", "optimizer"])
@pytest.mark.parametrize("value", [3.5, "x", [1], {"a": "b"}, -1, True])
def test_a_checkpoint_whose_fields_are_of_another_type_is_named(field: str, value: object, tmp_path: Path) -> None:
    config = recipe_config("fast", shards="s", out="o", model="tiny")
    payload: dict[str, Any] = {
        "format": "dfd_train checkpoint", "format_version": 2, "config": config.to_dict(), "store_checksum": "x",
        "epoch": 1, "batch": 0, "step": 1, "weights": {}, "averaged": None, "optimizer": {}, "rng": {}, "progress": {},
        "scaler": {},
    }  # fmt: skip
    torch.save(payload | {field: value}, tmp_path / "a.pt")
    if field in ("progress", "optimizer") and isinstance(value, dict):
        load_checkpoint(tmp_path / "a.pt")
        return
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [[], 3, "x", {"reports": []}, {"reports": {"a": 3}}, {"settings": {}, "rows": 1}])
def test_a_report_of_another_kind_is_named(content: object, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match="no report"):
        read_results(str(tmp_path))


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_of_a_report_begins_like_a_formula(name: str) -> None:
    assert _cell(name) == f"'{name}".replace("\t", r"\t")
    assert _cell("frame-1") == "frame-1"
    assert _cell("\x1b[31mred\x9b31m") == r"\x1b[31mred\x9b31m"


def test_names_that_cannot_be_looked_up_are_a_problem_each(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    files, problems = find_pictures([str(tmp_path / "a.png"), "b" * 5000, "c\0d"])
    assert files == [tmp_path / "a.png"]
    assert len(problems) == 2


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    from dfd_train.errors import PictureError

    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(PictureError, match="no file"):
            read_picture(path)


def test_of_two_commands_that_write_one_file_at_once_each_writes_a_whole_one(tmp_path: Path) -> None:
    # The second begins while the first is half-way, and ends before it.
    path, seen = tmp_path / "a.bin", []

    first = _opened_alone(tmp_path / ".a.bin.partial")
    assert first is not None
    first.write(b"1" * 1000)
    write_atomically(path, b"2" * 100)
    seen.append(path.read_bytes())
    first.close()
    write_atomically(path, b"3" * 10)
    seen.append(path.read_bytes())
    assert seen == [b"2" * 100, b"3" * 10]
    assert [one.name for one in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("text", ["lr = " + "9" * 5000, "a = " + "[" * 100_000, "a = " + "{b=" * 5000])
def test_a_config_of_any_content_is_a_named_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.toml cannot be read"):
        configured(tmp_path / "run.toml", shards="s", out="o")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"photograph":' * 50_000, "[]", '{"lens": {"focus_distance_m": 1' + "0" * 400 + "}}"]
)
def test_the_record_of_a_photograph_that_is_damaged_is_no_lens(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.json does not describe a lens"):
        parse_lens(str(tmp_path / "a.json"))


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        write_atomically(tmp_path / "pipe", b"content")
    assert (tmp_path / "pipe").is_fifo()
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_a_second_training_in_the_folder_of_one_at_work_is_refused(store: Any, tmp_path: Path) -> None:
    config = recipe_config("fast", shards=str(store), out=str(tmp_path), model="tiny", crop=(48, 48))
    (tmp_path / "run.toml").touch()
    with RunLock() as lock:
        lock.hold(tmp_path)
        for options in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(ConfigError, match="another dfd-train is at work"):
                train(config, **options)
        # A process that was forked from the first does not hold on when that has ended.
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(begins, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(begun, 1)
    with RunLock() as lock:
        lock.hold(tmp_path)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert [one.name for one in tmp_path.iterdir()] == ["run.toml"]
