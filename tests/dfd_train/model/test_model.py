from __future__ import annotations

import pytest
import torch
from torch import nn

from dfd_train.config.model import VARIANTS, ModelConfig, variant
from dfd_train.errors import ConfigError
from dfd_train.model.two_headed import TwoHeadedNet, pad_reflect, parameter_count


@pytest.fixture(scope="module")
def full() -> TwoHeadedNet:
    return TwoHeadedNet(generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def tiny() -> TwoHeadedNet:
    return TwoHeadedNet(variant("tiny"), generator=torch.Generator().manual_seed(0)).eval()


def test_every_part_has_the_number_of_parameters_that_the_paper_implies(full: TwoHeadedNet) -> None:
    parts = (full, full.encoder, full.depth_head, full.aif_head)
    assert [parameter_count(part) for part in parts] == [41_414_400, 7_011_840, 17_200_704, 17_201_856]


def test_the_imagenet_stem_adds_its_larger_kernel_only() -> None:
    assert parameter_count(TwoHeadedNet(ModelConfig(stem="imagenet"))) == 41_422_080


def test_depth_only_is_d3net_with_its_known_size() -> None:
    assert parameter_count(TwoHeadedNet(ModelConfig(heads=("depth",)))) == 24_212_544


def test_widths_shrink_the_same_code() -> None:
    sizes = {name: parameter_count(TwoHeadedNet(config)) for name, config in VARIANTS.items()}
    assert sizes["tiny"] < 500_000 < sizes["small"] < 5_000_000 < sizes["full"]


def test_table_i_sizes_at_256(full: TwoHeadedNet) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    watched = {"conv0": full.encoder.conv0, "downconv0": full.encoder.downconv0, "deep": full.encoder.relu5}
    for k in (1, 2, 3):
        transition = full.encoder.get_submodule(f"transition{k}")
        watched |= {f"transition{k}.conv": transition.conv, f"transition{k}.pool": transition.pool}
    for head in ("depth", "aif"):
        for block in ("b5", "b4", "b3", "b2", "b1", "last"):
            watched[f"{head}.{block}"] = full.get_submodule(f"{head}_head.{block}")
    hooks = []
    for name, module in watched.items():

        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor, name: str = name) -> None:
            seen[name] = tuple(output.shape[1:])

        hooks.append(module.register_forward_hook(keep))
    with torch.inference_mode():
        output = full(torch.rand(1, 3, 256, 256))
    for hook in hooks:
        hook.remove()
    decoder = {"b5": (512, 16), "b4": (256, 32), "b3": (128, 64), "b2": (64, 128), "b1": (64, 256)}
    expected = {
        "conv0": (64, 128),
        "downconv0": (64, 64),
        "transition1.conv": (128, 64),
        "transition1.pool": (128, 32),
        "transition2.conv": (256, 32),
        "transition2.pool": (256, 16),
        "transition3.conv": (512, 16),
        "transition3.pool": (512, 8),
        "deep": (1024, 8),
        **{f"{head}.{block}": shape for head in ("depth", "aif") for block, shape in decoder.items()},
        "depth.last": (1, 256),
        "aif.last": (3, 256),
    }
    assert seen == {name: (channels, side, side) for name, (channels, side) in expected.items()}
    assert output.depth_m.shape == (1, 1, 256, 256)
    assert output.aif.shape == (1, 3, 256, 256)


@pytest.mark.parametrize("hw", [(1, 1), (1, 40), (2, 3), (5, 31), (17, 33), (32, 32), (61, 97)])
def test_any_size_from_one_pixel_up_comes_back_as_it_was(tiny: TwoHeadedNet, hw: tuple[int, int]) -> None:
    with torch.inference_mode():
        output = tiny(torch.rand(2, 3, *hw))
    assert output.depth_m.shape == (2, 1, *hw)
    assert output.aif.shape == (2, 3, *hw)
    assert torch.isfinite(output.depth_m).all()
    assert torch.isfinite(output.aif).all()


@pytest.mark.parametrize("hw", [(20, 40), (33, 64), (64, 17)])
def test_padding_is_a_reflection_without_repeating_the_edge(hw: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *hw)
    extra = [-side % 32 for side in hw]
    expected = nn.functional.pad(image, (0, extra[1], 0, extra[0]), mode="reflect")
    assert torch.equal(pad_reflect(image), expected)


def test_padding_goes_to_and_fro_where_the_image_is_smaller_than_the_padding() -> None:
    padded = pad_reflect(torch.arange(3.0).reshape(1, 1, 1, 3), multiple=8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert torch.equal(padded[0, 0, 5], padded[0, 0, 0])


def test_output_does_not_depend_on_the_other_images_of_the_batch(tiny: TwoHeadedNet) -> None:
    images = torch.rand(3, 3, 48, 40)
    with torch.inference_mode():
        together, alone = tiny(images), tiny(images[1:2])
    torch.testing.assert_close(together.depth_m[1:2], alone.depth_m)
    torch.testing.assert_close(together.aif[1:2], alone.aif)


@pytest.mark.parametrize(("head", "other"), [("depth", "aif"), ("aif", "depth")])
def test_one_head_alone_gives_the_same_and_runs_nothing_of_the_other(tiny: TwoHeadedNet, head: str, other: str) -> None:
    image = torch.rand(1, 3, 64, 64)
    ran: list[str] = []
    hooks = [
        tiny.get_submodule(f"{name}_head").register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in (head, other)
    ]
    with torch.inference_mode():
        alone = tiny(image, heads=(head,))
        assert ran == [head]
        both = tiny(image)
    for hook in hooks:
        hook.remove()
    field = {"depth": "depth_m", "aif": "aif"}
    assert torch.equal(getattr(alone, field[head]), getattr(both, field[head]))
    assert getattr(alone, field[other]) is None


def test_a_network_built_with_one_head_has_no_weights_of_the_other() -> None:
    net = TwoHeadedNet(ModelConfig(**{**vars(variant("tiny")), "heads": ("aif",)}))
    assert not [name for name in net.state_dict() if name.startswith("depth_head")]
    assert net(torch.rand(2, 3, 64, 64)).depth_m is None
    with pytest.raises(ConfigError, match="this network has aif"):
        net(torch.rand(2, 3, 64, 64), heads=("depth",))


def test_zero_start_restores_the_input_exactly() -> None:
    net = TwoHeadedNet(ModelConfig(**{**vars(variant("tiny")), "zero_last_aif": True}))
    image = torch.rand(2, 3, 64, 96)
    assert torch.equal(net(image).aif, image)


def test_the_same_generator_gives_the_same_start_as_the_paper_describes() -> None:
    first, second = (TwoHeadedNet(variant("tiny"), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    convolutions = torch.cat([p.flatten() for p in first.parameters() if p.dim() == 4])
    scales = torch.cat([m.weight for m in first.modules() if isinstance(m, nn.BatchNorm2d)])
    biases = torch.cat([p for name, p in first.named_parameters() if name.endswith("bias")])
    assert abs(convolutions.std().item() - 0.02) < 2e-4
    assert abs(scales.mean().item() - 1) < 2e-3
    assert abs(scales.std().item() - 0.02) < 2e-3
    assert not biases.any()


def test_dropout_sits_in_the_two_deepest_blocks_only() -> None:
    net = TwoHeadedNet(ModelConfig(**{**vars(variant("tiny")), "dropout": 0.5}))
    where = {name.split(".")[1] for name, module in net.named_modules() if isinstance(module, nn.Dropout)}
    assert where == {"b5", "b4"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("blocks", (1, 2, 3)), ("decoder", (8, 8)), ("stem", "2x2"), ("heads", ()), ("heads", ("aif", "aif")),
     ("dropout", 1.0), ("growth", 0)],
)  # fmt: skip
def test_an_impossible_network_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        ModelConfig(**{field: value})
