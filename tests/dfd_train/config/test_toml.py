from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dfd_train.config.toml import configured, toml_text
from dfd_train.config.train import RECIPES, recipe_config
from dfd_train.errors import ConfigError
from dfd_train.runs.checkpoint import load_checkpoint
from dfd_train.training.train import train


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("options", [{}, {"crop": "64x48", "heads": "depth", "pretrained": "w.pth", "cache": "none"}])
def test_a_resolved_file_gives_the_same_run_again(tmp_path: Path, recipe: str, options: dict[str, Any]) -> None:
    run = recipe_config(recipe, shards="s.zarr", out="run", model="tiny", **options)
    path = tmp_path / "run.toml"
    path.write_text(toml_text(run, {"store_checksum": "abc"}))
    assert configured(path) == run


def test_a_size_is_width_first_as_a_text_and_height_first_in_the_tables_of_resolved_files(tmp_path: Path) -> None:
    text, table = tmp_path / "text.toml", tmp_path / "table.toml"
    text.write_text('recipe = "fast"\nsize = "320x240"\n')
    table.write_text('recipe = "fast"\n[geometry]\nsize = [240, 320]\ncrop = "none"\n')
    for path in (text, table):
        assert configured(path, shards="s", out="o").geometry.size == (240, 320)


def test_options_beat_tables_beat_keys_beat_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'recipe = "fast"\nshards = "s"\nmodel = "tiny"\nlr = 1\nbatch-size = 8\nsize = 64\n'
        '[optim]\nlr = 0.5\nclip_norm = "none"\n'
    )
    run = configured(path, out="o", batch_size=2, seed=None)
    assert (run.recipe, run.shards, run.out, run.model.name) == ("fast", "s", "o", "tiny")
    assert (run.optim.lr, run.optim.clip_norm, run.batch_size) == (0.5, None, 2)
    assert (run.geometry.size, run.optim.optimizer) == ((64, 64), "adamw")
    assert configured(path, out="o", recipe="paper", lr=0.25).optim.lr == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize = 3", "unknown key batchsize, did you mean batch_size?"),
        ("[optim]\nmomentun = 0.5", "unknown key optim.momentun, did you mean momentum?"),
        ("[optimiser]\nlr = 1", r"unknown table \[optimiser\], did you mean optim?"),
        ('epochs = "ten"', "epochs = 'ten' is not of the type int"),
        ("epochs = true", "epochs = True is not of the type int"),
        ("[geometry]\nsize = [64.5, 64]", r"geometry.size = \[64.5, 64\] is not of the type tuple"),
        ("model = 3", "model = 3 is not a text"),
        ("lr = 0", "lr=0.0 must be positive"),
        ("lr = ", "cannot be read"),
        ('[engine]\nprecision = "fp8"', "precision='fp8' must be one of fp32, bf16, fp16"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        configured(path, shards="s", out="o")
    assert str(path) in str(caught.value)


def test_a_missing_file_store_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml not found"):
        configured(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="--shards STORE"):
        configured(None, out="o")
    with pytest.raises(ConfigError, match="--out RUN"):
        configured(None, shards="s")


def test_a_run_can_be_repeated_from_its_folder_alone(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    first = recipe_config(
        "authors", shards=store.name, out=tmp_path / "a", model="tiny", size="48x33", epochs=1, device="cpu",
        tensorboard=False,
    )  # fmt: skip
    train(first, console=Console(quiet=True))
    monkeypatch.chdir(tmp_path)
    again = configured(tmp_path / "a" / "run.toml", out=tmp_path / "b")
    train(again, console=Console(quiet=True))
    mine, other = (load_checkpoint(tmp_path / name).weights for name in ("a", "b"))
    assert all((value == other[name]).all() for name, value in mine.items())
    said = (tmp_path / "a" / "run.toml").read_text()
    assert "# store_checksum: " in said
    assert "# versions: " in said


def test_a_place_that_is_no_utf8_comes_back_from_the_file(tmp_path: Path) -> None:
    place = os.fsdecode(b"caf\xe9.zarr")
    config = recipe_config("fast", shards=place, out="run")
    (tmp_path / "run.toml").write_bytes(toml_text(config, {}).encode(errors="surrogateescape"))
    assert configured(tmp_path / "run.toml", out="run").shards == place
