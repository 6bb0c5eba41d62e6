"""Folding batch normalisation into convolutions."""

import pytest
import torch
from torch import Tensor, nn

import convatlas
from convatlas.engines.fold import fold
from peers import randomise, relative


def folded(net: nn.Module, x: Tensor) -> torch.fx.GraphModule:
    with torch.no_grad():
        return fold(torch.export.export(net, (x,)))


def operations(net: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in net.graph.nodes if node.op == "call_function"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet18", 0), ("mobilenet_v2_035", 0), ("googlenet_tv", 0), ("densenet40_12_cifar", 39)],
)
def test_logits_stay_and_norms_after_convolutions_go(name: str, left: int) -> None:
    # In DenseNet-40, a norm precedes each of the 36 layers, the two transitions and the head, and each reads
    # what later layers read too.
    torch.manual_seed(0)
    net = randomise(convatlas.create_model(name))
    x = torch.randn(2, 3, 64, 64)
    light = folded(net, x)
    assert relative(light(x), net(x)) <= 1e-5
    assert sum("batch_norm" in operation for operation in operations(light)) == left


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("affine", [False, True], ids=["not affine", "affine"])
def test_with_and_without_bias_and_affine_values(bias: bool, affine: bool) -> None:
    norm = nn.BatchNorm2d(4, affine=affine)
    norm.running_mean.uniform_(-1.0, 1.0)
    norm.running_var.uniform_(0.5, 2.0)
    if affine:
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.uniform_(-1.0, 1.0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), norm).eval()
    x = torch.randn(2, 3, 9, 9)
    light = folded(net, x)
    assert relative(light(x), net(x)) <= 1e-5
    assert operations(light) == ["aten.conv2d.default"]


@torch.no_grad()
def test_same_padding_is_kept() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 9, 9)
    light = folded(net, x)
    assert light(x).shape == net(x).shape
    assert relative(light(x), net(x)) <= 1e-5


@torch.no_grad()
def test_a_convolution_that_others_read_is_left_alone() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y + self.norm(y)

    net = randomise(Forked())
    x = torch.randn(2, 3, 5, 5)
    light = folded(net, x)
    assert relative(light(x), net(x)) <= 1e-6
    assert "aten.batch_norm.default" in operations(light)


@torch.no_grad()
def test_a_shared_convolution_is_folded_once_for_each_norm() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.conv(self.first(self.conv(x))))

    net = randomise(Shared())
    x = torch.randn(2, 3, 5, 5)
    light = folded(net, x)
    assert relative(light(x), net(x)) <= 1e-5
    assert operations(light) == ["aten.conv2d.default"] * 2
