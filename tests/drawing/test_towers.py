"""Towers: grouped convolutions of a chain as lanes."""

from __future__ import annotations

import re

import pytest
from torch import nn

import convatlas
from convatlas.drawing import draw
from convatlas.drawing.graph import Node, read_graph
from convatlas.drawing.towers import split_towers
from convatlas.sizing import size
from made_figures import faults, texts


def towers(net: nn.Module, px: int) -> tuple[tuple[Node, ...], int] | None:
    found = split_towers(read_graph(size(net, px)))
    return None if found is None else (found[0].nodes, found[1])


def chain(*groups: int, chans: int = 24) -> nn.Sequential:
    """Convolutions of so many groups, with a pooling after the second."""
    layers: list[nn.Module] = []
    for place, count in enumerate(groups):
        layers.append(nn.Conv2d(chans if place else 3, chans, 3, padding=1, groups=count))
        layers += [nn.ReLU(), nn.MaxPool2d(2)] if place == 1 else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(chans * 64, 10))


def test_alexnet_has_the_papers_two_towers() -> None:
    # Krizhevsky et al. 2012, Figure 2: 48, 128, 192, 192 and 128 kernels on each GPU; the third layer is
    # connected to all maps of the second.
    found = towers(convatlas.create_model("alexnet"), 227)
    assert found is not None
    nodes, count = found
    assert count == 2
    convs = [node for node in nodes if node.kind == "conv"]
    assert [node.chans for node in convs] == [48, 48, 128, 128, 192, 192, 192, 192, 128, 128]
    assert [len(node.inputs) for node in convs] == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1]
    assert [len(node.inputs) for node in nodes if node.kind == "linear"] == [2, 1, 1]
    assert sum(node.macs for node in nodes) == size(convatlas.create_model("alexnet"), 227).macs


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_the_figure_has_two_lanes(theme: str) -> None:
    figure = draw(convatlas.create_model("alexnet"), 227, style="graph", theme=theme)
    assert faults(figure) == []
    assert texts(figure).count("3×3, 192") == 4 and "2 towers" in figure.svg
    assert not re.search(r"g=2", figure.svg)
    assert figure.svg == draw(convatlas.create_model("alexnet"), 227, style="graph", theme=theme).svg


def test_other_chains_of_groups() -> None:
    found = towers(chain(1, 4, 4, 1), 16)
    assert found is not None and found[1] == 4
    nodes = found[0]
    # The first convolution is read apart, the last one reads all four.
    assert [node.chans for node in nodes if node.kind == "conv"] == [6] * 12 + [24]
    assert [len(node.inputs) for node in nodes if node.kind == "pool"] == [1] * 4
    assert faults(draw(chain(1, 4, 4, 1), 16, style="graph")) == []


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(lambda: chain(1, 2, 3, 1), id="unlike groups"),
        pytest.param(lambda: chain(1, 8, 8, 1), id="many groups"),
        pytest.param(lambda: chain(1, 24, 1, 1), id="depthwise"),
        pytest.param(lambda: chain(1, 1, 1, 1), id="none"),
        pytest.param(lambda: convatlas.create_model("resnet20_cifar"), id="no chain"),
    ],
)
def test_what_has_no_towers(net) -> None:
    assert towers(net(), 16) is None
