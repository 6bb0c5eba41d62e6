import math

import pytest
import torch
from torch import nn

from convatlas.blocks.init import (
    UninitialisedMode,
    gaussian_,
    he_normal_,
    init_layers,
    lecun_uniform_,
    linear_uniform_,
    truncated_normal_,
    xavier_uniform_,
)


@pytest.fixture
def weight() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.empty(200, 100, 3, 3)


def test_truncated_normal(weight: torch.Tensor) -> None:
    truncated_normal_(weight, std=0.1)
    assert weight.abs().max().item() <= 0.2
    # Deviation of a normal truncated at two deviations: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
    phi, inside = math.exp(-2.0) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert weight.std().item() == pytest.approx(0.1 * math.sqrt(1 - 4 * phi / inside), rel=0.01)
    assert (weight.abs() < 0.1).float().mean().item() == pytest.approx(
        math.erf(math.sqrt(0.5)) / inside, abs=0.005
    )


def test_deviations_and_bounds(weight: torch.Tensor) -> None:
    gaussian_(weight, std=0.03)
    assert weight.std().item() == pytest.approx(0.03, rel=0.01)
    he_normal_(weight)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 900), rel=0.01)
    he_normal_(weight, mode="fan_out")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 1800), rel=0.01)
    lecun_uniform_(weight)
    assert weight.abs().max().item() == pytest.approx(2.4 / 900, rel=0.01)
    xavier_uniform_(weight)
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 2700), rel=0.01)
    linear_uniform_(weight.flatten(1))
    assert weight.abs().max().item() == pytest.approx(1 / 30, rel=0.01)


def test_every_layer_is_reached_once() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 2)))
    for p in net.parameters():
        nn.init.constant_(p, 7.0)
    init_layers(net, conv=lambda w: nn.init.constant_(w, 1.0), linear=lambda w: nn.init.constant_(w, 2.0))
    assert [p.unique().tolist() for p in net.parameters()] == [[1.0], [0.0], [1.0], [0.0], [2.0], [0.0]]


def test_nothing_is_filled_in_the_mode() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with UninitialisedMode():
        layer = nn.Conv2d(3, 4, 3)
        assert layer.weight.shape == (4, 3, 3, 3)
        nn.BatchNorm2d(4)
        nn.Linear(3, 3)
    assert torch.equal(torch.rand(1), expected)  # no random number was drawn
    assert nn.Linear(3, 3).weight.abs().max() > 0
