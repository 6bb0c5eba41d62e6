"""Cells: wiring that is neither series nor parallel, laid out by layers and barycentres."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from .graph import Node
from .pen import Pen, Place, Style
from .tree import Cell

_SWEEPS = 12


@dataclass
class _Item:
    """A node of the layout: an operation, or a bend of an edge that passes a layer."""

    node: Node | None
    layer: int
    size: float
    before: list[int]
    after: list[int]
    w: float = 0.0


@dataclass
class CellPiece:
    """A cell, laid out; see `Piece`."""

    items: list[_Item]
    edges: list[tuple[int, ...]]
    layers: list[list[int]]
    style: Style
    entries: list[int]
    opens: bool = True

    def __post_init__(self) -> None:
        style = self.style
        found = [self.items[i].node for i in self.entries]
        self.entering = {node.index for node in found if node is not None}
        self.sizes = [
            max((_length(self.items[i], style) for i in layer), default=0.0) for layer in self.layers
        ]
        self.step = max(style.fan, 30.0)
        bent = abs(self.items[self._last()].w) > 0.05
        self.length = sum(self.sizes) + self.step * (len(self.layers) + bent)
        self.up = max((item.w + item.size / 2 for item in self.items), default=0.0)
        self.down = max((item.size / 2 - item.w for item in self.items), default=0.0)

    def starts(self, u: float) -> list[float]:
        """Where each layer begins."""
        places: list[float] = []
        for size in self.sizes:
            u += self.step
            places.append(u)
            u += size
        return places

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """Edges first, then nodes over their ends."""
        starts = self.starts(u)
        for entry in self.entries:
            item = self.items[entry]
            narrow = _length(item, self.style) < self.sizes[item.layer] - 1
            pen.curve((u, w), self._port(item, starts, w, entering=True), head=not narrow)
        for way in self.edges:
            self._edge(pen, way, starts, w)
        for item in self.items:
            if item.node is not None:
                self._draw_item(pen, item, starts[item.layer], w)
        last = self.items[self._last()]
        end = self._port(last, starts, w, entering=False)
        if abs(last.w) > 0.05 or end[0] < u + self.length - 0.05:
            pen.curve(end, (u + self.length, w), head=False)

    def _last(self) -> int:
        return max(i for i, item in enumerate(self.items) if item.node is not None)

    def _port(self, item: _Item, starts: list[float], w: float, *, entering: bool) -> Place:
        """Where edges reach the layer of an item: its own edge, or the layer's."""
        begin = starts[item.layer]
        return (begin if entering else begin + self.sizes[item.layer], w + item.w)

    def _edge(self, pen: Pen, way: tuple[int, ...], starts: list[float], w: float) -> None:
        place = self._port(self.items[way[0]], starts, w, entering=False)
        for step, index in enumerate(way[1:], 1):
            item = self.items[index]
            last = step == len(way) - 1
            into = self._port(item, starts, w, entering=True)
            narrow = last and _length(item, self.style) < self.sizes[item.layer] - 1
            pen.curve(place, into, head=last and not narrow)
            place = into
            if not last:
                through = (starts[item.layer] + self.sizes[item.layer], w + item.w)
                pen.line("flow", into, through)
                place = through

    def _draw_item(self, pen: Pen, item: _Item, u: float, w: float) -> None:
        node, style = item.node, self.style
        assert node is not None
        spare = self.sizes[item.layer] - _length(item, style)
        begin = u + spare / 2
        if spare > 1:
            if item.before or node.index in self.entering:
                pen.arrow((u, w + item.w), (begin, w + item.w))
            pen.line(
                "flow",
                (u + self.sizes[item.layer] - spare / 2, w + item.w),
                (u + self.sizes[item.layer], w + item.w),
            )
        if not node.is_join:
            pen.node(node, begin, w + item.w)
            return
        with pen.canvas.group(node.path):
            if node.kind == "concat":
                pen.box("join", begin, w + item.w, _length(item, style), item.size - 4)
            else:
                pen.joint((begin + style.radius, w + item.w), node.label)


def _length(item: _Item, style: Style) -> float:
    if item.node is None:
        return 0.0
    if item.node.kind == "concat":
        return style.radius
    return 2 * style.radius if item.node.is_join else style.length


def _size(node: Node, style: Style) -> float:
    """Across the flow, with the gap to what lies beside it."""
    gap = style.lane_gap
    if node.kind == "concat":
        return max(24.0, 6.0 * len(node.inputs) + 6) + gap
    return (2 * style.radius if node.is_join else style.cross) + gap


def cell_piece(cell: Cell, style: Style, outside: Mapping[int, Node] | None = None) -> CellPiece:
    """Lays out a cell: layers by longest path, order by barycentres, places by least squares.

    Args:
        cell: its nodes.
        style: their sizes.
        outside: boxes for what it reads from elsewhere than the flow, by the index that is read.
    """
    cell = Cell((*(outside or {}).values(), *cell.nodes))
    inside = {node.index: i for i, node in enumerate(cell.nodes)}
    items = [_Item(node, 0, _size(node, style), [], []) for node in cell.nodes]
    pairs: list[tuple[int, int]] = []
    for i, node in enumerate(cell.nodes):
        reads = [inside[r] for r in dict.fromkeys(node.inputs) if r in inside]
        items[i].layer = max((items[r].layer + 1 for r in reads), default=0)
        pairs.extend((r, i) for r in reads)
    _pull(items, pairs)
    ways = [_way(items, a, b, style) for a, b in pairs]
    for way in ways:
        for a, b in itertools.pairwise(way):
            items[a].after.append(b)
            items[b].before.append(a)
    layers = _ordered(items)
    _place(items, layers)
    entries = [i for i, node in enumerate(cell.nodes) if any(read not in inside for read in node.inputs)]
    return CellPiece(items, ways, layers, style, entries)


def _pull(items: list[_Item], pairs: list[tuple[int, int]]) -> None:
    """Moves what is read late towards its reader where nothing is read from it before."""
    readers: dict[int, list[int]] = {}
    for a, b in pairs:
        readers.setdefault(a, []).append(b)
    sources = {b for _, b in pairs}
    for i in reversed(range(len(items))):
        if i in readers and i not in sources:
            continue
        if i in readers:
            items[i].layer = max(items[i].layer, min(items[b].layer for b in readers[i]) - 1)


def _way(items: list[_Item], start: int, end: int, style: Style) -> tuple[int, ...]:
    """An edge with a bend in each layer that it passes."""
    way = [start]
    for layer in range(items[start].layer + 1, items[end].layer):
        items.append(_Item(None, layer, style.lane_gap, [], []))
        way.append(len(items) - 1)
    return (*way, end)


def _ordered(items: list[_Item]) -> list[list[int]]:
    layers: list[list[int]] = [[] for _ in range(max(item.layer for item in items) + 1)]
    for i, item in enumerate(items):
        layers[item.layer].append(i)
    best, fewest = [list(layer) for layer in layers], _crossings(items, layers)
    for sweep in range(_SWEEPS):
        rank = {i: k / max(1, len(layer) - 1) for layer in layers for k, i in enumerate(layer)}
        order = range(len(layers)) if sweep % 2 == 0 else reversed(range(len(layers)))
        for k in order:
            near = [items[i].before if sweep % 2 == 0 else items[i].after for i in layers[k]]
            weight = {
                i: (sum(rank[n] for n in ns) / len(ns) if ns else rank[i])
                for i, ns in zip(layers[k], near, strict=True)
            }
            layers[k].sort(key=lambda i: (weight[i], i))
            rank.update({i: p / max(1, len(layers[k]) - 1) for p, i in enumerate(layers[k])})
        crossings = _crossings(items, layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _crossings(items: list[_Item], layers: list[list[int]]) -> int:
    total = 0
    place = {i: k for layer in layers for k, i in enumerate(layer)}
    for layer in layers[:-1]:
        ends = [place[b] for a in layer for b in sorted(items[a].after, key=place.__getitem__)]
        if len(ends) > 400:
            return 0
        total += sum(1 for i, a in enumerate(ends) for b in ends[i + 1 :] if a > b)
    return total


def _place(items: list[_Item], layers: list[list[int]]) -> None:
    """Each layer as near as its order allows to the means of what it is joined to."""
    for layer in layers:
        at = -sum(items[i].size for i in layer) / 2
        for i in layer:
            items[i].w = at + items[i].size / 2
            at += items[i].size
    for sweep in range(2 * _SWEEPS):
        order = range(len(layers)) if sweep % 2 == 0 else reversed(range(len(layers)))
        for k in order:
            wanted: list[float] = []
            for i in layers[k]:
                near = (
                    items[i].before + items[i].after
                    if sweep > 3
                    else (items[i].before if sweep % 2 == 0 else items[i].after)
                )
                wanted.append(sum(items[n].w for n in near) / len(near) if near else items[i].w)
            for i, w in zip(layers[k], _spread(wanted, [items[i].size for i in layers[k]]), strict=True):
                items[i].w = w
    # Small differences between neighbours would show as kinks.
    top = max(item.w + item.size / 2 for item in items)
    bottom = min(item.w - item.size / 2 for item in items)
    middle = (top + bottom) / 2
    for item in items:
        item.w -= middle


def _spread(wanted: list[float], sizes: list[float]) -> list[float]:
    """The places nearest to the wanted ones, in order and without overlap: isotonic regression."""
    offsets: list[float] = []
    at = 0.0
    for k, size in enumerate(sizes):
        at += size / 2 + (sizes[k - 1] / 2 if k else 0.0)
        offsets.append(at)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append((want - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks[-1]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    means = [mean for mean, many in blocks for _ in range(many)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
