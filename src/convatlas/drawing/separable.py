"""Separable convolutions as one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from . import words
from .graph import Graph, Node, common_path, renumbered


def with_separable(graph: Graph) -> Graph:
    """Depthwise and 1x1 convolutions without anything between them as one separable convolution.

    Two of the same, alone in one module, are one node too: a separable convolution that is applied twice.
    """
    graph = _fused(graph, _separable)
    paths = Counter(
        ".".join(names[:k])
        for node in graph.nodes
        for names in [node.path.split(".")]
        for k in range(1, len(names) + 1)
        if node.kind == "conv"
    )

    def twice(first: Node, second: Node) -> Node | None:
        path = common_path([first, second])
        same = first.label == second.label and first.label.startswith("sep ") and not second.stride
        same = same and first.params == second.params
        if not same or not path or paths[path] != 2 or first.layers != 2:
            return None
        return _joined(first, second, f"{first.label}, twice")

    return _fused(graph, twice)


def _separable(first: Node, second: Node) -> Node | None:
    depthwise = first.family == "dw" and first.kind == "conv"
    if not depthwise or second.family != "pw" or second.before or second.stride or second.groups > 1:
        return None
    return _joined(first, second, f"sep {words.window(first.kernel)}, {second.chans}")


def _joined(first: Node, second: Node, label: str) -> Node:
    path = common_path([first, second]) or second.path
    return replace(
        second, path=path, family="dw", label=label, stride=first.stride, inputs=first.inputs,
        params=first.params + second.params, macs=first.macs + second.macs, groups=1,
        kernel=first.kernel, before=first.before, layers=first.layers + second.layers,
    )  # fmt: skip


def _fused(graph: Graph, rule: Callable[[Node, Node], Node | None]) -> Graph:
    """Pairs of nodes, the second of which alone reads the first, as the one node that the rule makes."""
    readers = graph.consumers()
    nodes = list(graph.nodes)
    gone: set[int] = set()
    for node in graph.nodes:
        if len(node.inputs) != 1 or node.inputs[0] in gone or node.inputs[0] in graph.outputs:
            continue
        first = nodes[node.inputs[0]]
        made = rule(first, nodes[node.index]) if len(readers[first.index]) == 1 else None
        if made is not None:
            nodes[node.index] = made
            gone.add(first.index)
    if not gone:
        return graph
    return renumbered([node for node in nodes if node.index not in gone], graph.outputs)
