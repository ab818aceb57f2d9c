from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import DenseNet121_Weights, densenet121

from dfd_train.config.model import ModelConfig, variant
from dfd_train.errors import CheckpointError, CheckpointMissingError
from dfd_train.model.encoder import Encoder
from dfd_train.model.pretrained import load_matching, pretrained_state, start_encoder


@pytest.fixture(scope="module")
def densenet() -> dict[str, torch.Tensor]:
    return densenet121(weights=None).state_dict()


def old_name(name: str) -> str:
    """As in the file that torchvision downloads: "denselayer1.norm.1" for "denselayer1.norm1"."""
    head, _, tail = name.partition("denselayer")
    return (
        head
        + "denselayer"
        + tail.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2")
        if tail
        else name
    )


@pytest.mark.parametrize("rename", [str, old_name])
def test_all_of_densenet_fits_but_the_3x3_stem(densenet: dict[str, torch.Tensor], rename: object) -> None:
    encoder = Encoder(ModelConfig())
    stem = encoder.conv0.weight.clone()
    matched = load_matching(encoder, {rename(name): value for name, value in densenet.items()})
    own = encoder.state_dict()
    assert matched.left == ("conv0.weight", *(name for name in own if name.startswith("down")))
    assert matched.matched == len(own) - 7
    assert torch.equal(encoder.conv0.weight, stem)
    assert torch.equal(
        own["denseblock3.denselayer7.conv2.weight"], densenet["features.denseblock3.denselayer7.conv2.weight"]
    )
    assert f"{matched.matched} of {matched.total}" in str(matched)


def test_the_imagenet_stem_takes_the_7x7_kernel_too(densenet: dict[str, torch.Tensor]) -> None:
    encoder = Encoder(ModelConfig(stem="imagenet"))
    load_matching(encoder, densenet)
    assert torch.equal(encoder.conv0.weight, densenet["features.conv0.weight"])


def test_weights_of_which_nothing_fits_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no tensor"):
        load_matching(Encoder(variant("tiny")), {"other": torch.zeros(3)})


def test_a_state_dict_file_is_read(tmp_path: Path, densenet: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save({name: value for name, value in densenet.items() if "norm5" in name}, path)
    assert load_matching(Encoder(ModelConfig()), pretrained_state(str(path))).matched == 5


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissingError, match=r"gone\.pth"):
        pretrained_state(str(tmp_path / "gone.pth"))
    foreign = tmp_path / "foreign.pth"
    foreign.write_text("not a torch file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        pretrained_state(str(foreign))


def test_without_network_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(DenseNet121_Weights, "get_state_dict", offline)
    with pytest.raises(CheckpointError, match=r"without network.*--pretrained FILE"):
        pretrained_state("imagenet")


def test_cached_weights_are_taken_where_they_are_and_only_where_they_fit(
    densenet: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    encoder = Encoder(ModelConfig())
    before = encoder.state_dict()["denseblock1.denselayer1.conv1.weight"].clone()
    assert "no ImageNet weights on this machine" in start_encoder(encoder, "cached")
    assert torch.equal(encoder.state_dict()["denseblock1.denselayer1.conv1.weight"], before)
    (tmp_path / "checkpoints").mkdir()
    torch.save(densenet, tmp_path / "checkpoints" / "densenet121-0.pth")
    assert "encoder tensors taken from pretrained weights" in start_encoder(encoder, "cached")
    own = encoder.state_dict()["denseblock1.denselayer1.conv1.weight"]
    assert torch.equal(own, densenet["features.denseblock1.denselayer1.conv1.weight"])
    assert start_encoder(Encoder(variant("tiny")), "cached") == ""
