"""Depth against the numbers in the papers' names, and on modules whose depth is known by construction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import convatlas
from convatlas.catalog.cards import find_card
from convatlas.catalog.index import find_entry
from convatlas.sizing import size

# Depths that papers print or put into names, where they count weight layers as we do.
PRINTED = {
    "alexnet": 8,  # "eight layers with weights"
    "zfnet": 8,
    "vgg11": 11,
    "vgg16": 16,
    "vgg19": 19,
    "googlenet": 22,  # "22 layers deep when counting only layers with parameters"
    "resnet34": 34,
    "resnet50_v1": 50,
    "resnet152_v1": 152,
    "resnet110_cifar": 110,
    "preact_resnet1001_cifar": 1001,
    "densenet121": 121,
    "densenet_bc190_40_cifar": 190,
    "resnext101_32x8d": 101,
    "mobilenet_v1_100": 28,  # "28 layers", depthwise and pointwise as two
    "senet154": 154,
    "fractalnet20_cifar": 21,  # as DenseNet's Table 2 lists it
}


@pytest.mark.parametrize(("name", "depth"), PRINTED.items(), ids=list(PRINTED))
def test_depth_is_what_the_paper_counts(name: str, depth: int) -> None:
    assert find_entry(name).depth == depth


def test_projections_and_gates_count_in_all_only() -> None:
    # ResNet-50 has 49 convolutions on its path, one linear layer and 4 projections; SE adds 2 layers to each
    # of 16 blocks.
    assert (find_entry("resnet50_v1").depth, find_entry("resnet50_v1").weight_layers) == (50, 54)
    assert (find_entry("se_resnet50").depth, find_entry("se_resnet50").weight_layers) == (50, 54 + 2 * 16)


class Gated(nn.Module):
    """A convolution, its gate of two layers, and a convolution; as deep at 1x1 px as elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.last(x.view(x.shape) * torch.sigmoid(gate))


@pytest.mark.parametrize("side", [1, 8])
def test_a_gate_is_off_the_path(side: int) -> None:
    depth = size(Gated(), side).depth
    assert (depth.longest, depth.total) == (2, 4)
    assert str(depth) == "2 weight layers on the longest path, 4 in all"


class Product(nn.Module):
    """Two branches, of one and of two layers, that are multiplied: neither gates the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.c(self.b(x))


class Shared(nn.Module):
    """One convolution used three times, a filter that is a buffer, and a weight that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.ones(4, 4, 1, 1))
        self.blur = Blur()

    def forward(self, x: Tensor) -> Tensor:
        x = self.blur(self.conv(self.conv(self.conv(x))))
        return torch.conv2d(x, self.weight / self.weight.norm())


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(4, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.kernel, groups=4)


class Matrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.parametrize(
    ("net", "shape", "counts"),
    [
        pytest.param(Product(), (3, 8, 8), (2, 3), id="product of branches"),
        pytest.param(Shared(), (4, 8, 8), (4, 4), id="shared, computed and fixed weights"),
        pytest.param(Matrix(), (3, 8, 8), (1, 1), id="matrix"),
        pytest.param(nn.ReLU(), (3, 8, 8), (0, 0), id="no weights"),
        pytest.param(nn.TransformerEncoderLayer(8, 2, 16), (5, 8), (4, 4), id="attention"),
    ],
)
def test_what_counts_as_a_weight_layer(
    net: nn.Module, shape: tuple[int, ...], counts: tuple[int, int]
) -> None:
    depth = size(net.eval(), [shape]).depth
    assert (depth.longest, depth.total) == counts


def test_the_path_is_a_chain_of_weight_layers() -> None:
    card = find_card("googlenet")
    with torch.device("meta"):
        sheet = size(convatlas.create_model("googlenet").eval(), card.input_size)
    depth = sheet.depth
    assert [depth.rows[row] for row in depth.path] == list(range(1, 23))
    assert {sheet.rows[row].kind for row in depth.path} == {"conv", "linear"}
