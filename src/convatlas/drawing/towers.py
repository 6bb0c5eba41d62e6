"""Towers: a chain of layers whose convolutions read their own part of the maps alone, drawn as lanes.

AlexNet is two towers (Krizhevsky et al. 2012, Figure 2): its second, fourth and fifth convolutions read the
maps of their own GPU, its third and the linear layers read both.
"""

from __future__ import annotations

from dataclasses import replace

from .graph import Graph, Node

MOST_TOWERS = 4
"""More groups are drawn as one box with its number of groups."""


def split_towers(graph: Graph) -> tuple[Graph, int] | None:
    """A graph with a node for each tower of each layer that can be told apart, and the number of towers.

    Args:
        graph: of a whole network.

    Returns:
        None where the network is no chain, or its convolutions are not grouped alike into 2 to 4 groups.
    """
    groups = {node.groups for node in graph.nodes if node.kind == "conv" and node.groups > 1}
    chain = all(node.inputs == ((node.index - 1,) if node.index else ()) for node in graph.nodes)
    if not chain or len(groups) != 1 or not 2 <= (count := groups.pop()) <= MOST_TOWERS:
        return None
    split = _split(graph)
    if not any(split) or any(node.chans % count for node, is_split in zip(graph.nodes, split) if is_split):  # noqa: B905
        return None
    made: list[Node] = []
    places: list[tuple[int, ...]] = []  # Of each node's towers.
    for node, is_split in zip(graph.nodes, split, strict=True):
        read = places[-1] if places else ()
        begin = len(made)
        if not is_split:
            made.append(replace(node, index=begin, inputs=read))
        else:
            apart = len(read) == count and (node.kind != "conv" or node.groups == count)
            for lane in range(count):
                inputs = (read[lane],) if apart else read
                made.append(_tower(node, count, index=begin + lane, inputs=inputs))
        places.append(tuple(range(begin, len(made))))
    return Graph(tuple(made), tuple(place for output in graph.outputs for place in places[output])), count


def _split(graph: Graph) -> list[bool]:
    """For each node of a chain, whether its output falls into parts that are read apart."""
    nodes = graph.nodes
    split = [False] * len(nodes)
    for node in reversed(nodes[:-1]):
        reader = nodes[node.index + 1]
        wanted = (reader.kind == "conv" and reader.groups > 1) or (
            reader.kind == "pool" and split[reader.index]
        )
        split[node.index] = wanted and node.kind in ("conv", "pool")
    for node in nodes[1:]:
        # What a grouped convolution writes stays apart, through poolings, until a layer reads all of it.
        if node.kind == "conv" and node.groups > 1:
            split[node.index] = True
        elif node.kind == "pool" and split[node.index - 1]:
            split[node.index] = True
    return split


def _tower(node: Node, count: int, *, index: int, inputs: tuple[int, ...]) -> Node:
    chans = node.chans // count
    label = node.label.replace(f", {node.chans}", f", {chans}").replace(f", g={count}", "")
    return replace(
        node, index=index, inputs=inputs, label=label, shape=(chans, *node.shape[1:]), groups=1,
        params=node.params // count, macs=node.macs // count,
    )  # fmt: skip
