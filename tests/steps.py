"""A training step on its own: by our own convolutions, by torch's, and in double precision."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from convatlas.training.cpu import replacement

Make = Callable[[], tuple[nn.Sequential, Tensor]]
Put = Callable[[nn.Module], None]
Change = Callable[[nn.Module, Tensor], tuple[nn.Module, Tensor]]
LAST = torch.channels_last


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


def assert_half_precision_learns(make: Make, put: Put) -> None:
    net, x = make()
    expected = in_double(net, x)
    put(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
        assert y.dtype == torch.bfloat16 and net[0].fits(x)
        found = learn(net, x)
    assert x.grad is not None and x.grad.dtype == torch.float32
    assert_near(found, expected, 0.01)


def assert_what_is_asked_for(make: Make, put: Put, error: float) -> None:
    """Without gradients of images, and without gradients of weights."""
    net, x = make()
    x = x.detach()
    expected = in_double(net, x)
    put(net)
    assert_near(learn(net, x), expected, error)
    frozen, x = make()
    frozen.requires_grad_(False)
    expected = in_double(frozen, x)
    put(frozen)
    assert_near(learn(frozen, x), expected, error)


def assert_torch_does(make: Make, put: Put, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, x = make()
    net = copy.deepcopy(plain)
    put(net)
    monkeypatch.setattr(replacement, "library", lambda: pytest.fail("C++ is called"))
    expected = learn(*change(plain, x.detach().clone(memory_format=torch.preserve_format).requires_grad_()))
    found = learn(*change(net, x))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


# What C++ does not take, of any kind of convolution.
UNFIT: dict[str, Change] = {
    "evaluation": lambda net, x: (net.eval(), x),
    "layout of images": lambda net, x: (net, x.detach().contiguous().requires_grad_()),
    "double": lambda net, x: (net.double(), x.detach().double().requires_grad_()),
    "weights that are computed": lambda net, x: (nn.utils.parametrizations.weight_norm(net[0]), x),  # type: ignore[index]
}


def cut(x: Tensor, height: int, width: int) -> Tensor:
    return x.detach()[:, :, :height, :width].contiguous(memory_format=LAST).requires_grad_()
