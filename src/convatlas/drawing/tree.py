"""Series, parallel lanes and cells: how a graph is composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Graph, Node


@dataclass(frozen=True)
class Leaf:
    """One node in a series."""

    node: Node


@dataclass(frozen=True)
class Lanes:
    """Lanes from one point of the flow to a node where they meet.

    Attributes:
        lanes: each a series; none is empty.
        identity: whether the join also reads the lanes' common input itself.
        join: where they meet.
    """

    lanes: tuple[Series, ...]
    identity: bool
    join: Node


@dataclass(frozen=True)
class Cell:
    """Nodes whose wiring is neither series nor parallel; the last is where they meet."""

    nodes: tuple[Node, ...]


Element = Leaf | Lanes | Cell
Series = tuple[Element, ...]


def decompose(graph: Graph) -> Series:
    """The whole graph as a series, from its first input to its last node."""
    if not graph.nodes:
        return ()
    return _series(graph, None, [node.index for node in graph.nodes])


def sub_series(graph: Graph, indices: Sequence[int], source: int | None) -> Series:
    """Some nodes as a series, from what `source` gives (None: anything outside) to the last of them."""
    return _series(graph, source, list(indices))


def _series(graph: Graph, source: int | None, indices: list[int]) -> Series:
    """`indices` in order; each lies on a way from the source to the last of them."""
    inside = {index: place for place, index in enumerate(indices)}
    reach = [place for place in range(len(indices))]
    first_read = 0
    for place, index in enumerate(indices):
        outside = False
        for read in graph.nodes[index].inputs:
            if read in inside:
                reach[inside[read]] = max(reach[inside[read]], place)
            else:
                outside = True
        if outside:
            first_read = place
    elements: list[Element] = []
    begin, far = 0, first_read
    for place in range(len(indices)):
        # All ways pass this node if nothing before it is read behind it.
        if far <= place:
            entry = source if begin == 0 else indices[begin - 1]
            elements.append(_segment(graph, entry, indices[begin : place + 1]))
            begin = place + 1
        far = max(far, reach[place])
    if begin < len(indices):
        elements.append(Cell(tuple(graph.nodes[i] for i in indices[begin:])))
    return tuple(elements)


def _segment(graph: Graph, source: int | None, indices: list[int]) -> Element:
    """Nodes between two points that all ways pass; the last of them is the second point."""
    join = graph.nodes[indices[-1]]
    if len(indices) == 1:
        return Leaf(join)
    inside = set(indices[:-1])
    parts = _components(graph, indices[:-1])
    identity = any(read not in inside for read in join.inputs)
    # What reads several inputs without being a joint is drawn as a box, which lanes do not end in.
    if not join.is_join or (len(parts) == 1 and not identity):
        return Cell(tuple(graph.nodes[i] for i in indices))
    if not all(_ends_once(graph, part, join) for part in parts):
        return Cell(tuple(graph.nodes[i] for i in indices))
    return Lanes(tuple(_series(graph, source, part) for part in parts), identity, join)


def _ends_once(graph: Graph, part: list[int], join: Node) -> bool:
    """Whether the join reads nothing of a part but its last node."""
    return [read for read in join.inputs if read in set(part)] == [part[-1]]


def _components(graph: Graph, indices: list[int]) -> list[list[int]]:
    """Connected parts, in the order of their first nodes."""
    parent = {index: index for index in indices}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index in indices:
        for read in graph.nodes[index].inputs:
            if read in parent:
                parent[root(index)] = root(read)
    parts: dict[int, list[int]] = {}
    for index in indices:
        parts.setdefault(root(index), []).append(index)
    return sorted(parts.values(), key=lambda part: part[0])


def nodes_of(element: Element) -> tuple[Node, ...]:
    """All nodes of an element, in execution order."""
    if isinstance(element, Leaf):
        return (element.node,)
    if isinstance(element, Cell):
        return element.nodes
    inner = [node for lane in element.lanes for part in lane for node in nodes_of(part)]
    return (*sorted(inner, key=lambda node: node.index), element.join)


def series_nodes(series: Series) -> tuple[Node, ...]:
    """All nodes of a series."""
    return tuple(node for element in series for node in nodes_of(element))


@dataclass(frozen=True)
class Residual:
    """Lanes that meet in a sum, as the figure tells them apart.

    Attributes:
        main: the lanes that are not the shortcut.
        projection: the shortcut's series, if it has operations.
        identity: whether the shortcut has none.
    """

    main: tuple[Series, ...]
    projection: Series | None
    identity: bool


def residual_of(lanes: Lanes) -> Residual | None:
    """How lanes that meet in a sum or a concatenation are drawn with a shortcut; None if there is none."""
    if lanes.join.kind == "product":
        return None
    if lanes.identity:
        return Residual(lanes.lanes, None, True)
    if lanes.join.kind != "sum" or len(lanes.lanes) != 2:
        return None
    ordered = sorted(lanes.lanes, key=lambda lane: len(series_nodes(lane)))
    short, long = (series_nodes(lane) for lane in ordered)
    flat = all(isinstance(element, Leaf) for element in ordered[0])
    weights = [node for node in short if node.kind in ("conv", "linear")]
    if flat and len(short) <= 2 and len(weights) <= 1 and len(short) < len(long):
        return Residual((ordered[1],), ordered[0], False)
    return None
