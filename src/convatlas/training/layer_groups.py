"""How deep each part of a network lies: what is frozen, unfrozen and slowed down goes by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.models.network import Network


@dataclasses.dataclass(frozen=True, eq=False)
class LayerGroups:
    """The depth of each parameter and of each normalisation with statistics.

    Attributes:
        params: depth of each parameter, by its name; the first stage (with what comes before it) is 0.
        norms: normalisations that keep statistics, each with its depth.
        head: the depth of the classifier, which is the largest; so there are as many stages.
    """

    params: dict[str, int]
    norms: tuple[tuple[nn.Module, int], ...]
    head: int


def layer_groups(net: nn.Module) -> LayerGroups:
    """Sorts a network's layers by depth.

    Of a network of the atlas, the maps of `feature_info` are the borders: what comes up to the first map is
    stage 0, what comes up to the second is stage 1, and so on, the hidden layers of a classifier being the
    last; its last layer, and classifiers at the sides, are the head. Of another module, each child with
    parameters is a stage, and the last one the head, or what its `get_classifier()` returns.
    """
    heads = [head for head in _heads(net) if any(True for _ in head.parameters())]
    in_head = {id(module) for head in heads for module in head.modules()}
    order = [module for module in net.modules() if id(module) not in in_head]
    ends = _borders(net, order)
    depth_of: dict[int, int] = {}
    for place, module in enumerate(order):
        depth_of[id(module)] = min(sum(place > end for end in ends), len(ends) - 1)
    used = sorted({depth_of[id(m)] for m in order if any(True for _ in m.parameters(recurse=False))})
    rank = {depth: number for number, depth in enumerate(used)}
    head = max(1, len(used))
    params: dict[str, int] = {}
    norms: list[tuple[nn.Module, int]] = []
    for name, module in net.named_modules():
        inside = id(module) in in_head
        # A layer without parameters counts to the stage of those around it.
        depth = head if inside else max([rank[d] for d in used if d <= depth_of[id(module)]], default=0)
        for own, _ in module.named_parameters(recurse=False):
            params[f"{name}.{own}" if name else own] = depth
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            norms.append((module, depth))
    return LayerGroups(params, tuple(norms), head)


def _heads(net: nn.Module) -> Iterator[nn.Module]:
    if isinstance(net, Network):
        network = cast("Network[Any]", net)
        last = network.get_classifier()
        # LeNet-5's classifier of 1998 measures distances to fixed codes.
        yield last if any(True for _ in last.parameters()) else network.head
        aux = getattr(net, "aux_heads", None)
        if isinstance(aux, nn.Module):
            yield aux
        return
    found = getattr(net, "get_classifier", None)
    head = found() if callable(found) else None
    if not isinstance(head, nn.Module) or not any(True for _ in head.parameters()):
        children = [child for child in net.children() if any(True for _ in child.parameters())]
        head = children[-1] if len(children) > 1 else None
    if head is not None:
        yield head


def _borders(net: nn.Module, order: list[nn.Module]) -> list[int]:
    """The place in `order` of the last layer of each stage, rising."""
    place = {id(module): number for number, module in enumerate(order)}
    if isinstance(net, Network):
        ends = [net.get_submodule(feature.module) for feature in net.feature_info]
    else:
        ends = [child for child in net.children() if id(child) in place]
    last = [max(place[id(module)] for module in end.modules()) for end in ends]
    return [*sorted(set(last)), len(order)]
