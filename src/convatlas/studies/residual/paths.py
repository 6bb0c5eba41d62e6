"""A network for CIFAR taken apart: lesions, other orders, and the paths that a gradient takes.

Veit, Wilber and Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.preact import PreActBasicBlock
from convatlas.blocks.residual import BasicBlock, PlainBlock

ResidualBlock = BasicBlock | PreActBasicBlock


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer or block between stem and head.

    Attributes:
        module: what it computes.
        instead: what remains of it when it is removed.
        keeps_shape: whether its input and output have one shape.
    """

    module: nn.Module
    instead: nn.Module
    keeps_shape: bool


def parts_of(net: nn.Module) -> list[Part]:
    """The blocks of a residual network for CIFAR, or the single layers of a plain one.

    A block that strides leaves its shortcut behind when it is removed; a plain layer that strides cannot be
    removed, and stays.

    Raises:
        ValueError: if the network is neither.
    """
    found: list[Part] = []
    stages = dict(net.named_children()).get("stages", nn.Sequential())
    for block in (block for stage in stages.children() for block in stage.children()):
        if isinstance(block, PreActBasicBlock):
            left = nn.Sequential(block.preact1, block.shortcut) if block.shared else block.shortcut
            found.append(Part(block, left, block.conv1.in_channels == block.conv1.out_channels))
        elif isinstance(block, BasicBlock):
            found.append(Part(block, block.shortcut, isinstance(block.shortcut, nn.Identity)))
        elif isinstance(block, PlainBlock):
            for layer in (block.conv1, block.conv2):
                conv = layer.conv
                same = conv.in_channels == conv.out_channels and conv.stride == (1, 1)
                found.append(Part(layer, nn.Identity() if same else layer, same))
        else:
            found = []
            break
    if not found:
        raise ValueError(
            f"expected a network for CIFAR of blocks with two 3x3 convolutions, such as "
            f"preact_resnet110_cifar, "
            f"resnet32_cifar or plain20_cifar; received a {type(net).__name__} that has none"
        )
    return found


def chain(net: nn.Module, modules: Sequence[nn.Module]) -> nn.Sequential:
    """Stem and head of a network, with these modules between them."""
    return nn.Sequential(net.get_submodule("stem"), *modules, *tail_of(net))


def tail_of(net: nn.Module) -> list[nn.Module]:
    """The classifier, and before it the last activation of a pre-activation network."""
    children = dict(net.named_children())
    return [children[name] for name in ("norm", "head") if name in children]


def branch_of(block: ResidualBlock, x: Tensor) -> Tensor:
    """What a block adds to its shortcut."""
    if isinstance(block, BasicBlock):
        return block.conv2(block.conv1(x))
    return block.conv2(block.preact2(block.conv1(block.preact1(x))))


def shortcut_of(block: ResidualBlock, x: Tensor) -> Tensor:
    """What passes a block by its shortcut."""
    if isinstance(block, BasicBlock):
        return block.shortcut(x)
    return block.shortcut(block.preact1(x) if block.shared else x)


def without(net: nn.Module, parts: Sequence[Part], removed: Sequence[int]) -> nn.Sequential:
    """The network without some of its parts."""
    gone = set(removed)
    return chain(net, [part.instead if i in gone else part.module for i, part in enumerate(parts)])


def swap(parts: Sequence[Part], swaps: int, draw: np.random.Generator) -> list[int]:
    """An order of the parts after random swaps of two that keep the same shape: those of one stage."""
    order = list(range(len(parts)))
    starts = [i for i, part in enumerate(parts) if not part.keeps_shape]
    stages = [
        list(range(begin, end))
        for begin, end in zip([0, *(i + 1 for i in starts)], [*starts, len(parts)], strict=True)
    ]
    pairs = [(a, b) for stage in stages for a in stage for b in stage if a < b]
    for index in draw.integers(len(pairs), size=swaps) if pairs else ():
        a, b = pairs[index]
        order[a], order[b] = order[b], order[a]
    return order


def disorder(order: Sequence[int]) -> float:
    """Share of all pairs that stand the wrong way round: 0 for the trained order, (1 - Kendall's tau) / 2."""
    pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    return sum(a > b for a, b in pairs) / max(1, len(pairs))


def path_gradient(
    net: nn.Module, blocks: Sequence[ResidualBlock], x: Tensor, labels: Tensor
) -> Callable[..., float]:
    """Makes what measures the gradient that passes chosen blocks by their branch, others by their shortcut.

    Going forward, all values are those of the whole network.

    Args:
        net: in evaluation mode.
        blocks: of the network, in order.
        x: images (B, C, H, W), normalised.
        labels: (B,).

    Returns:
        A function of the chosen blocks' places: the mean over the images of the length of the loss's gradient
        with respect to the stem's maps.

    Source: Section 5.2 of the paper.
    """
    with torch.no_grad():
        first = net.get_submodule("stem")(x)

    def measure(chosen: Sequence[int]) -> float:
        start = y = first.clone().requires_grad_()
        for i, block in enumerate(blocks):
            branch, shortcut = branch_of(block, y), shortcut_of(block, y)
            y = branch + shortcut.detach() if i in chosen else branch.detach() + shortcut
            y = block.act(y) if isinstance(block, BasicBlock) else y
        loss = F.cross_entropy(nn.Sequential(*tail_of(net))(y), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, start)
        return float(slope.flatten(1).norm(dim=1).mean())

    return measure


def path_shares(blocks: int) -> list[float]:
    """Share of the paths through n blocks that pass k of them, for k from 0 to n: binomial."""
    return [math.comb(blocks, k) / 2**blocks for k in range(blocks + 1)]


def gradient_shares(gradient: Sequence[float]) -> list[float]:
    """Share of the whole gradient that the paths of k blocks carry, all paths of a length counted."""
    weighted = [size * share for size, share in zip(gradient, path_shares(len(gradient) - 1), strict=True)]
    return [value / sum(weighted) for value in weighted]


def mean_length(shares: Sequence[float]) -> float:
    """Mean number of blocks on a path, each length weighted with its share."""
    return sum(k * share for k, share in enumerate(shares))
