"""Cells: wiring that is neither series nor parallel, such as those of NASNet and FractalNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .canvas import fitted
from .graph import Node
from .layered import Place, lay_out
from .pen import Pen, Style, detail_of
from .tree import Cell

_SLOT, _SEGMENT = 32.0, 22.0


@dataclass(frozen=True)
class Item:
    """What is laid out as one: a node, or two operations and their sum.

    Attributes:
        node: the node, or the sum.
        slots: of a pair: its two operations; None where an input is added as it is.
    """

    node: Node
    slots: tuple[Node | None, ...] = ()

    @property
    def is_entry(self) -> bool:
        """Whether it is the point where the flow enters the cell."""
        return self.node.index < 0


_ENTRY = Node(-1, "", "input", "io", "", ())


@dataclass
class CellPiece:
    """A cell, laid out; see `Piece`.

    Attributes:
        items: the nodes.
        places: where they lie; bends of edges follow.
        ways: for each edge the items that it passes, and the offset at which it arrives.
        far: nodes that stand for what is read from further back.
    """

    items: Sequence[Item]
    places: Sequence[Place]
    ways: Sequence[tuple[tuple[int, ...], float]]
    far: frozenset[int]
    style: Style
    opens: bool = True
    sizes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        depth = max(place.layer for place in self.places) + 1
        self.sizes = [0.0] * depth
        for item, place in zip(self.items, self.places, strict=False):
            self.sizes[place.layer] = max(self.sizes[place.layer], _length(item, self.style))
        self.step = max(self.style.fan, 30.0)
        bent = abs(self.places[len(self.items) - 1].w) > 0.05
        straight = self.items[0].is_entry and abs(self.places[0].w) <= 0.05
        self.lead = 6.0 if straight else self.step
        self.length = self.lead + sum(self.sizes) + self.step * (depth - 1 + bent)
        self.up = max(place.w + place.size / 2 for place in self.places)
        self.down = max(place.size / 2 - place.w for place in self.places)

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """Edges first, then nodes over their ends."""
        pen = Pen(pen.canvas, self.style, pen.x, pen.y)
        starts: list[float] = []
        at = u + self.lead
        for size in self.sizes:
            starts.append(at)
            at += self.step + size
        if self.items[0].is_entry and abs(self.places[0].w) > 0.05:
            pen.curve((u, w), (starts[0], w + self.places[0].w), head=False)
        elif self.items[0].is_entry:
            pen.line("flow", (u, w), (starts[0], w))
        for item, place in zip(self.items, self.places, strict=False):
            if item.slots:
                spare = self.sizes[place.layer] - _length(item, self.style)
                _draw_frame(pen, item, starts[place.layer] + spare / 2, w + place.w)
        for way, offset in self.ways:
            self._edge(pen, way, offset, starts, w)
        for item, place in zip(self.items, self.places, strict=False):
            self._draw_item(pen, item, place, starts[place.layer], w)
        last = len(self.items) - 1
        end = starts[self.places[last].layer] + self.sizes[self.places[last].layer]
        if abs(self.places[last].w) > 0.05:
            pen.curve((end, w + self.places[last].w), (u + self.length, w), head=False)

    def _arrive(
        self, pen: Pen, source: tuple[float, float], index: int, start: float, w: float, cls: str
    ) -> None:
        """The last piece of an edge: to the item's layer, and on to the item if that is narrower."""
        spare = (self.sizes[self.places[index].layer] - _length(self.items[index], self.style)) / 2
        if self.items[index].slots:
            spare += _PAD
        pen.curve(source, (start, w), cls, head=spare < 1)
        if spare >= 1:
            pen.line(cls, (start, w), (start + spare - 5, w))
            pen.head(f"{cls}h", (start + spare, w))

    def _edge(self, pen: Pen, way: Sequence[int], offset: float, starts: Sequence[float], w: float) -> None:
        """An edge through its bends; what comes from further back is drawn as a skip."""
        first = self.items[way[0]]
        cls = "skip" if first.node.index in self.far else "flow"
        if cls == "skip":
            pen.canvas.marks["long"] = None
        begin = self.places[way[0]]
        spare = (self.sizes[begin.layer] - _length(first, self.style)) / (1 if first.is_entry else 2)
        at = (starts[begin.layer] + self.sizes[begin.layer], w + begin.w)
        if spare > 0.5:
            pen.line(cls, (at[0] - spare, at[1]), at)
        for index in way[1:-1]:
            place = self.places[index]
            into = (starts[place.layer], w + place.w)
            pen.curve(at, into, cls, head=False)
            at = (starts[place.layer] + self.sizes[place.layer], w + place.w)
            pen.line(cls, into, at)
        place = self.places[way[-1]]
        self._arrive(pen, at, way[-1], starts[place.layer], w + place.w + offset, cls)

    def _draw_item(self, pen: Pen, item: Item, place: Place, u: float, w: float) -> None:
        style, node = self.style, item.node
        if item.is_entry:
            return
        begin = u + (self.sizes[place.layer] - _length(item, style)) / 2
        if item.slots:
            _draw_pair(pen, item, begin, w + place.w)
        elif not node.is_join:
            pen.node(node, begin, w + place.w)
        elif node.kind == "concat" and style.high > 20 and not style.vertical:
            self._draw_concat(pen, item, place, begin, w)
        else:
            with pen.canvas.group(node.path):
                if node.kind == "concat":
                    pen.box("join", begin, w + place.w, _length(item, style), place.size - style.lane_gap)
                else:
                    pen.joint((begin + style.radius, w + place.w), node.label)

    def _draw_concat(self, pen: Pen, item: Item, place: Place, u: float, w: float) -> None:
        """A part for each input, in the order of the drawing, with its channels and its turn."""
        owner = {self.items[i].node.index: i for i in range(len(self.items))}
        turns = {owner.get(read, 0): k for k, read in enumerate(item.node.inputs, 1)}
        known = sum(self.items[i].node.chans for i in turns if not self.items[i].is_entry)
        pen.canvas.families["io"] = None
        with pen.canvas.group(item.node.path):
            for i, offset in place.offsets.items():
                source = next((k for k in turns if k == i), None)
                middle = (u + _length(item, self.style) / 2, w + place.w + offset)
                pen.box("io", u, w + place.w + offset, _length(item, self.style), _SEGMENT - 2)
                if source is not None:
                    chans = self.items[source].node.chans
                    if self.items[source].is_entry:
                        chans = item.node.chans - known
                    text = f"{chans} #{turns[source]}"
                    pen.text("t11", middle, text)


_PAD, _JOIN_ROOM = 10.0, 70.0


def _length(item: Item, style: Style) -> float:
    node = item.node
    if item.is_entry:
        return 0.0
    if item.slots:
        return _PAD + style.wide + _JOIN_ROOM + 2 * style.radius + _PAD
    if node.kind == "concat":
        return _concat_width(node) if style.high > 20 and not style.vertical else style.radius
    return 2 * style.radius if node.is_join else style.length


def _concat_width(node: Node) -> float:
    return fitted([("t11", f"{node.chans} #{len(node.inputs)}")], 6)


def _size(item: Item, style: Style) -> float:
    """Across the flow, with the gap to what lies beside it."""
    gap, node = style.lane_gap, item.node
    if item.is_entry:
        return gap
    if item.slots:
        return 2 * _SLOT + 6 + 2 * 6 + 10
    if node.kind == "concat":
        many = len(set(node.inputs))
        if style.high > 20 and not style.vertical:
            return _SEGMENT * many + gap
        return max(24.0, 6.0 * many + 6) + gap
    return (2 * style.radius if node.is_join else style.cross) + gap


def _draw_frame(pen: Pen, item: Item, u: float, w: float) -> None:
    x, y = pen.at((u, w))
    pen.canvas.rect("frame", x, y - _SLOT - 9, _length(item, pen.style), 2 * _SLOT + 18, 8)


def _draw_pair(pen: Pen, item: Item, u: float, w: float) -> None:
    """Two operations, and their sum."""
    style = pen.style
    length = _length(item, style)
    end = u + _PAD + style.wide
    joint = u + length - _PAD - style.radius
    for sign, node in zip((1, -1), item.slots, strict=True):
        at = w + sign * (_SLOT / 2 + 3)
        _draw_slot(pen, node, u + _PAD, at)
        pen.curve((end, at), (joint - style.radius, w))
    with pen.canvas.group(item.node.path):
        pen.joint((joint, w), item.node.label)
    pen.line("flow", (joint + style.radius, w), (u + length, w))


def _draw_slot(pen: Pen, node: Node | None, u: float, w: float) -> None:
    style, canvas = pen.style, pen.canvas
    family = "act" if node is None else node.family
    canvas.families[family] = None
    x, y = pen.at((u, w))
    if node is None:
        canvas.rect("act", x, y - _SLOT / 2, style.wide, _SLOT, _SLOT / 2)
        canvas.text("t12b", x + style.wide / 2, y, "identity")
        return
    detail = detail_of(node, style.detail)
    with canvas.group(node.path):
        pen.box(family, u, w, style.wide, _SLOT, cut=bool(node.stride))
        if detail in ("", "0"):
            canvas.text("t12b", x + style.wide / 2, y, node.text)
        else:
            canvas.text("t12b", x + 10, y, node.text, "start")
            canvas.text("t11", x + style.wide - (12 if node.stride else 8), y, detail, "end")


def pair_width(nodes: Sequence[Node], detail: str) -> float:
    """The width of a box whose label and number stand on one line."""
    rooms = [fitted([("t12b", n.text)], 0) + fitted([("t11", detail_of(n, detail))], 0) + 34 for n in nodes]
    return max(rooms, default=96.0)


def cell_piece(cell: Cell, style: Style, outside: Mapping[int, Node] | None = None) -> CellPiece:
    """Lays out a cell: layers by longest path, order by barycentres, places by least squares.

    Args:
        cell: its nodes.
        style: their sizes.
        outside: boxes for what it reads from elsewhere than the flow, by the index that is read.
    """
    far = dict(outside or {})
    nodes = (*far.values(), *cell.nodes)
    items, owner = _items(nodes, style)
    slots = [slot for item in items for slot in item.slots if slot is not None]
    if slots:
        style = replace(style, wide=max(style.wide, pair_width(slots, style.detail)))
    places = [Place(_size(item, style)) for item in items]
    pairs: list[tuple[int, int]] = []
    offsets: list[float] = []
    for i, item in enumerate(items):
        for read, offset in _reads(item, style):
            pairs.append((owner.get(read, 0), i))
            offsets.append(offset)
    ways = lay_out(places, pairs, style.lane_gap)
    offsets = _sort_segments(items, places, ways, offsets, style)
    spread = list(zip(ways, offsets, strict=True))
    return CellPiece(items, places, spread, _all_far(far, nodes), style)


def _all_far(far: Mapping[int, Node], nodes: Sequence[Node]) -> frozenset[int]:
    """What is read from further back, and what is computed from that alone."""
    found = set(far)
    for node in nodes:
        if node.inputs and not node.is_join and all(read in found for read in node.inputs):
            found.add(node.index)
    return frozenset(found)


def _items(nodes: Sequence[Node], style: Style) -> tuple[list[Item], dict[int, int]]:
    """Nodes and pairs in topological order, and the item that gives each node's output."""
    pairs = _find_pairs(nodes) if style.high > 20 and not style.vertical else {}
    inner = {node.index for slots in pairs.values() for node in slots if node is not None}
    known = {node.index for node in nodes}
    enters = any(read not in known for node in nodes for read in node.inputs)
    items: list[Item] = [Item(_ENTRY)] if enters else []
    owner: dict[int, int] = {}
    for node in nodes:
        if node.index in inner:
            continue
        owner[node.index] = len(items)
        items.append(Item(node, pairs.get(node.index, ())))
    return items, owner


def _find_pairs(nodes: Sequence[Node]) -> dict[int, tuple[Node | None, ...]]:
    """Sums of two operations that nothing else reads; empty unless there are several."""
    by_index = {node.index: node for node in nodes}
    readers: dict[int, int] = {}
    for node in nodes:
        for read in node.inputs:
            readers[read] = readers.get(read, 0) + 1
    found: dict[int, tuple[Node | None, ...]] = {}
    for node in nodes:
        if node.kind != "sum" or len(node.inputs) != 2:
            continue
        slots: list[Node | None] = []
        for read in node.inputs:
            inner = by_index.get(read)
            alone = inner is not None and readers[read] == 1 and not inner.is_join and len(inner.inputs) == 1
            slots.append(inner if alone else None)
        if any(slot is not None for slot in slots):
            found[node.index] = tuple(slots)
    return found if len(found) > 2 else {}


def _reads(item: Item, style: Style) -> list[tuple[int, float]]:
    """What an item reads, and at which offset."""
    if not item.slots:
        return [(read, 0.0) for read in dict.fromkeys(item.node.inputs)]
    reads: list[tuple[int, float]] = []
    for sign, slot, read in zip((1, -1), item.slots, item.node.inputs, strict=True):
        reads.append((slot.inputs[0] if slot is not None else read, sign * (_SLOT / 2 + 3)))
    return reads


def _sort_segments(
    items: Sequence[Item], places: list[Place], ways: Sequence[tuple[int, ...]], offsets: Sequence[float],
    style: Style,
) -> list[float]:  # fmt: skip
    """Where edges arrive at a concatenation: in the order in which they come."""
    found = list(offsets)
    if style.high <= 20 or style.vertical:
        return found
    for i, item in enumerate(items):
        if item.node.kind != "concat":
            continue
        arriving = [k for k, way in enumerate(ways) if way[-1] == i]
        arriving.sort(key=lambda k: -places[ways[k][-2]].w)
        for turn, k in enumerate(arriving):
            offset = ((len(arriving) - 1) / 2 - turn) * _SEGMENT
            found[k] = offset
            places[i].offsets[ways[k][0]] = offset
    return found
