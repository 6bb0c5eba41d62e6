"""Squeeze-and-excitation, against the paper's equations."""

import pytest
import torch
from torch import nn

from convatlas.blocks.conv import silu
from convatlas.blocks.squeeze import SqueezeExcite


def test_weights_channels_by_the_paper_equations() -> None:
    torch.manual_seed(0)
    gate = SqueezeExcite(8, 2)
    x = torch.randn(3, 8, 5, 7)
    w1, w2 = gate.reduce.weight.flatten(1), gate.expand.weight.flatten(1)
    z = x.flatten(2).sum(dim=2) / 35
    s = torch.sigmoid(torch.relu(z @ w1.T + gate.reduce.bias) @ w2.T + gate.expand.bias)
    torch.testing.assert_close(gate(x), x * s[:, :, None, None])


def test_activation_gate_and_bias_are_chosen() -> None:
    torch.manual_seed(0)
    gate = SqueezeExcite(8, 3, act=silu, gate=nn.Hardsigmoid, bias=False)
    x = torch.randn(2, 8, 4, 4)
    w1, w2 = gate.reduce.weight.flatten(1), gate.expand.weight.flatten(1)
    y = x.mean(dim=(2, 3)) @ w1.T
    s = nn.functional.hardsigmoid((y * torch.sigmoid(y)) @ w2.T)
    torch.testing.assert_close(gate(x), x * s[:, :, None, None])


@pytest.mark.parametrize(("bias", "count"), [(True, 2 * 64 * 4 + 64 + 4), (False, 2 * 64 * 4)])
def test_parameters(bias: bool, count: int) -> None:
    gate = SqueezeExcite(64, 4, bias=bias)
    assert sum(p.numel() for p in gate.parameters()) == count
