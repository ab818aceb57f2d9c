from __future__ import annotations

import pytest
import torch

from dfd_train.model.baselines import ResidualNet, d3net, dncnn, ircnn
from dfd_train.model.two_headed import parameter_count


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_parameter_counts() -> None:
    assert parameter_count(dncnn()) == 3 * 64 * 9 + 15 * (64 * 64 * 9 + 2 * 64) + 64 * 3 * 9 == 558_336
    assert parameter_count(ircnn()) == (27 * 64 + 64) + 5 * (64 * 64 * 9 + 2 * 64) + (64 * 27 + 3) == 188_483
    with torch.device("meta"):
        assert parameter_count(d3net()) == 24_212_544


@pytest.mark.parametrize("make", [dncnn, ircnn])
def test_they_restore_images_of_any_size_and_predict_no_depth(make: object) -> None:
    net = make(seeded()).eval()
    with torch.inference_mode():
        output = net(torch.rand(2, 3, 19, 31))
    assert output.depth_m is None
    assert output.aif.shape == (2, 3, 19, 31)


@pytest.mark.parametrize(("make", "radius"), [(dncnn, 17), (ircnn, 16)])
def test_they_see_as_far_as_their_kernels_reach(make: object, radius: int) -> None:
    net = make(seeded()).double().eval()
    image = torch.rand(1, 3, 1, 81, dtype=torch.float64)
    with torch.inference_mode():
        before = net(image).aif
        image[..., 40] += 0.5
        changed = (net(image).aif != before).any(dim=1).flatten().nonzero().flatten()
    assert (int(changed.min()), int(changed.max())) == (40 - radius, 40 + radius)


def test_they_learn_to_take_away_what_was_added() -> None:
    net = ResidualNet((1, 2, 1), outer_bias=True, generator=seeded())
    generator = seeded()
    clean = torch.rand(4, 3, 24, 24, generator=generator)
    noisy = clean + 0.2
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(noisy).aif - clean).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2**2 / 2


def test_d3net_is_the_depth_half_of_the_full_network() -> None:
    with torch.device("meta"):
        assert d3net().config.heads == ("depth",)
        assert d3net().aif_head is None
