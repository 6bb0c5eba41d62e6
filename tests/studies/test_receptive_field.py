"""Fields of layers whose gradient is known, the verdict on made-up fields, and the study on a few digits."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from convatlas.studies.networks.receptive_field import (
    effective,
    gradient_map,
    growth,
    reach,
    theoretical,
)


def ones(depth: int) -> nn.Sequential:
    """3x3 convolutions of one channel whose weights are all 1."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False).double() for _ in range(depth)))
    for layer in layers:
        nn.init.ones_(layer.get_parameter("weight"))
    return layers


def test_the_gradient_of_equal_weights_is_a_trinomial() -> None:
    # Two layers: (1 1 1) * (1 1 1) = 1 2 3 2 1 along each axis.
    gradient = gradient_map(ones(2), torch.zeros(1, 1, 9, 9, dtype=torch.float64))
    row = np.asarray([0, 0, 1, 2, 3, 2, 1, 0, 0], dtype=np.float64)
    assert gradient / gradient.max() == pytest.approx(np.outer(row, row) / 9.0)
    assert reach(gradient) == 5
    assert effective(gradient) == 5.0  # the corners have 1/9 of the largest


def test_the_width_of_equal_weights_grows_as_the_root() -> None:
    # Luo et al.: n layers of equal weights are n draws of -1, 0 and 1 along each axis, of variance 2/3 each.
    sides: list[float] = []
    for depth in (8, 32):
        x = torch.zeros(1, 1, 2 * depth + 3, 2 * depth + 3, dtype=torch.float64)
        row = gradient_map(ones(depth), x).sum(axis=0)
        places = np.arange(len(row)) - len(row) // 2
        sides.append(math.sqrt(float((row * places**2).sum() / row.sum())))
    assert sides == pytest.approx([math.sqrt(8 * 2 / 3), math.sqrt(32 * 2 / 3)], rel=1e-6)


def test_a_px_matters_above_a_share_of_the_largest() -> None:
    gradient = np.asarray([[1.0, 0.046, 0.045], [0.0, 0.5, 0.0]])
    assert effective(gradient) == math.sqrt(3)


@pytest.mark.parametrize(
    ("layers", "side"),
    [
        (nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))), 7),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 7, padding=3)), 9),
    ],
    ids=["three 3x3", "3x3 and 7x7"],
)
def test_theoretical(layers: nn.Module, side: int) -> None:
    assert theoretical(layers, 1, 15) == side


def test_layers_that_see_everything_have_no_field() -> None:
    with pytest.raises(ValueError, match="the layers see the whole image"):
        theoretical(nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1)), 1, 9)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_growth(power: float) -> None:
    assert growth((4, 8, 16), [3.0 * depth**power for depth in (4, 8, 16)]) == pytest.approx(power)


def square(side: int) -> NDArray[np.float64]:
    """A gradient that is 1 in a square."""
    gradient = np.zeros((21, 21))
    gradient[:side, :side] = 1.0
    return gradient
