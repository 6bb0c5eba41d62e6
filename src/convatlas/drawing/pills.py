"""Norms and activations as operations of their own, where their order is what a block is about."""

from __future__ import annotations

from dataclasses import replace

from .graph import Node
from .tree import Lanes, Leaf, Series, residual_of, series_nodes


def with_pills(series: Series) -> Series:
    """A series in which each pre-activation stands before its convolution; else the series itself.

    A block is pre-activated if its shortcut passes by a norm that its first convolution reads.
    """
    return tuple(
        _with_pills(element) if isinstance(element, Lanes) and _is_preactivated(element) else element
        for element in series
    )


def _is_preactivated(lanes: Lanes) -> bool:
    residual = residual_of(lanes)
    if residual is None or not residual.identity or lanes.join.kind != "sum":
        return False
    nodes = series_nodes(residual.main[0])
    inside = {node.index for node in nodes}
    around = [way for read, way in lanes.join.arriving if read not in inside]
    return bool(nodes) and "norm" in nodes[0].before and all(way != nodes[0].before for way in around)


def _with_pills(lanes: Lanes) -> Lanes:
    return replace(lanes, lanes=tuple(_lane(lane) for lane in lanes.lanes))


def _lane(lane: Series) -> Series:
    found: list[Leaf] = []
    for element in lane:
        if not isinstance(element, Leaf):
            return lane
        node = element.node
        if node.before:
            label = ", ".join(node.before)
            found.append(Leaf(Node(-2 - node.index, node.path, "other", "act", label, (), node.inputs)))
        found.append(element)
    return tuple(found)
