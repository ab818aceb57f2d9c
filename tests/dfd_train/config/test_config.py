from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_train.config.lens_range import LensRange
from dfd_train.config.model import VARIANTS
from dfd_train.config.optim import OptimConfig
from dfd_train.config.train import TrainConfig, changed_fields, recipe_config, with_options
from dfd_train.errors import ConfigError
from dfd_train.training.schedule import lr_at


def config(recipe: str = "paper", **options: Any) -> TrainConfig:
    return recipe_config(recipe, shards="s.zarr", out="run", **options)


def test_a_recipes_lens_range_gives_way_to_none() -> None:
    assert recipe_config("any-lens", shards="a.zarr", out="out").lenses is not None
    assert recipe_config("any-lens", shards="a.zarr", out="out", lens_range="none").lenses is None


def test_the_default_is_the_papers_run() -> None:
    run = config()
    assert (run.model.name, run.epochs, run.batch_size, run.geometry.size) == ("full", 500, 4, (256, 256))
    assert (run.optim.optimizer, run.optim.lr, run.optim.momentum) == ("sgd", 2e-4, 0.9)
    assert (run.geometry.flip, run.loss.deblur_weight, run.loss.balance) == (0.5, 0.01, "literal")
    assert not run.model.zero_last_aif


def test_the_papers_rate_falls_to_a_tenth_after_300_of_500_epochs() -> None:
    rates = [lr_at(OptimConfig(), step=199 * epoch, steps_per_epoch=199, epochs=500) for epoch in range(500)]
    assert rates == [pytest.approx(2e-4)] * 300 + [pytest.approx(2e-5)] * 200


@given(
    st.floats(1e-6, 1),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(1, 50),
    st.integers(1, 40),
    st.integers(0, 2000),
)
def test_cosine_rises_then_falls_within_its_bounds(
    lr: float, warmup: float, floor: float, steps: int, epochs: int, step: int
) -> None:
    optim = OptimConfig(optimizer="adamw", lr=lr, schedule="cosine", warmup=warmup, decay_factor=floor)
    total = steps * epochs
    rates = [lr_at(optim, step=k, steps_per_epoch=steps, epochs=epochs) for k in range(total)]
    peak = rates.index(max(rates))
    assert all(a <= b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))
    assert 0 < max(rates) <= lr
    assert peak <= warmup * total + 1
    assert rates[-1] >= min(floor * lr, rates[0])


@pytest.mark.parametrize("recipe", ["paper", "authors", "fast"])
def test_a_configuration_survives_json(recipe: str) -> None:
    run = config(recipe, model="tiny", crop="64x48", heads="depth", loss="l1+charb")
    assert TrainConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_flat_options_reach_the_nested_fields() -> None:
    run = config(
        "fast", model="small", heads="deblur", stem="imagenet", loss="l1+l1", deblur_weight=2.0, balance="literal",
        size="256x192", optimizer="sgd", lr=0.5, clip_norm=3.0, seed=7, epochs=2,
    )  # fmt: skip
    assert (run.model.name, run.model.heads, run.model.stem, run.model.zero_last_aif) == (
        "small",
        ("aif",),
        "imagenet",
        True,
    )
    assert (run.loss.depth, run.loss.image, run.loss.deblur_weight, run.loss.balance) == ("l1", "l1", 2.0, "literal")
    assert (run.optim.optimizer, run.optim.lr, run.optim.clip_norm) == ("sgd", 0.5, 3.0)
    assert (run.geometry.size, run.seed, run.epochs) == ((192, 256), 7, 2)
    assert with_options(run, epochs=None) == run
    assert config(size="native").geometry.size is None
    assert config(crop=64).geometry.crop == (64, 64)


def test_changed_fields_are_named_and_volatile_ones_ignored() -> None:
    before = config("fast", model="tiny")
    after = with_options(before, lr=1.0, epochs=3, heads="depth", device="cpu", shards="elsewhere", validate_every=1)
    assert changed_fields(before, after) == ["epochs", "model.heads", "optim.lr"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "slow"}, "recipe='slow' must be one of paper, authors, fast"),
        ({"model": "huge"}, "full, small, light, tiny"),
        ({"heads": "three"}, "both, depth, deblur"),
        ({"loss": "l2"}, r"l1\+charb"),
        ({"size": "64", "crop": "64"}, "exclude"),
        ({"size": "64x"}, "width x height"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"colour": "red"}, "unknown option colour"),
    ],
)
def test_an_impossible_option_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**options)


def test_a_foreign_dictionary_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="not a training configuration"):
        TrainConfig.from_dict({"model": {}})


def test_importing_the_package_or_its_commands_does_not_import_torch() -> None:
    code = "import sys, dfd_train, dfd_cli.train, dfd_cli.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there() -> None:
    import dfd_train

    assert all(getattr(dfd_train, name) is not None for name in dfd_train.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        dfd_train.nonsense  # noqa: B018


@pytest.mark.parametrize("recipe", ["paper", "authors", "fast"])
@pytest.mark.parametrize("model", VARIANTS)
def test_every_recipe_goes_with_every_model(recipe: str, model: str) -> None:
    assert config(recipe, model=model).model.name == model


@pytest.mark.parametrize(
    "text",
    ["sigma_per_coc=1e9..1e9", "focus_blur_px=1e6..1e6", "noise=1e30..1e30", "sharpen=1e308..1e308", "jpeg=nan..nan",
     "most_coc_px=1e-300..1e-300", "most_coc_px=1e300..1e300", "f_number=1e-300..1e300", "sensor_width=1e-12m..1e-12m",
     "focal_length=1e9m..1e9m", "focus=1e-9m..1m", "near_depths=nan", "softness_px=2..2",
     "tone=9..9", "denoise=1e6..1e6", "demosaic=nan"],
)  # fmt: skip
def test_lenses_that_no_camera_has_are_refused_before_training(text: str) -> None:
    with pytest.raises(ConfigError, match=f"lens_range {text.split('=')[0]}"):
        LensRange.parse(text)
