"""A training step on its own, in ours and in double precision."""

import copy

import pytest
import torch
from torch import Tensor, nn


def learn(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What comes out, and the gradients."""
    y = net(x)
    torch.manual_seed(1)
    (y * torch.randn(y.shape).to(y.dtype)).sum().backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    return [y.detach(), *([] if x.grad is None else [x.grad]), *grads]


def in_double(net: nn.Module, x: Tensor) -> list[Tensor]:
    again = x.detach().clone(memory_format=torch.preserve_format).double()
    return learn(copy.deepcopy(net).double(), again.requires_grad_(x.requires_grad))


def assert_near(found: list[Tensor], expected: list[Tensor], error: float) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.double() - theirs).norm() <= error * theirs.norm()


def never() -> None:
    pytest.fail("C++ is called")
