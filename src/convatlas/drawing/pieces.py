"""Pieces of a wiring diagram: each knows how long and how broad it is before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from . import words
from .canvas import fitted
from .graph import Node
from .pen import Pen, Style
from .tree import Cell, Lanes, Leaf, Residual, Series, residual_of, series_nodes

_BAR = 26.0


class Piece(Protocol):
    """Something in a flow. It is entered at (u, w) and left at (u + length, w).

    Attributes:
        length: along the flow.
        up: how far it reaches on the side of shortcuts.
        down: how far it reaches on the other side.
        opens: whether the line that arrives goes on inside, so that it has no arrowhead yet.
    """

    length: float
    up: float
    down: float
    opens: bool

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """Draws it with its entrance at (u, w)."""
        ...


@dataclass
class Box:
    """One operation."""

    node: Node
    style: Style
    family: str | None = None
    opens: bool = False

    def __post_init__(self) -> None:
        self.length = self.style.length
        self.up = self.down = self.style.cross / 2

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """A box with its label."""
        pen.node(self.node, u, w, self.family)


@dataclass
class Row:
    """Pieces one after another, with the flow between them."""

    parts: Sequence[Piece]
    style: Style
    opens: bool = False

    def __post_init__(self) -> None:
        self.gaps = [self._gap(a, b) for a, b in zip(self.parts, self.parts[1:], strict=False)]
        self.length = sum(part.length for part in self.parts) + sum(self.gaps)
        self.up = max((part.up for part in self.parts), default=0.0)
        self.down = max((part.down for part in self.parts), default=0.0)
        self.opens = bool(self.parts) and self.parts[0].opens

    def _gap(self, before: Piece, after: Piece) -> float:
        if isinstance(before, Box) and isinstance(after, Box):
            return self.style.gap
        return max(self.style.gap, 8.0 if after.opens else 20.0)

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """Each piece, and what joins it to the one before."""
        for i, part in enumerate(self.parts):
            if i:
                pen.arrow((u, w), (u + self.gaps[i - 1], w), head=not part.opens)
                u += self.gaps[i - 1]
            part.draw(pen, u, w)
            u += part.length


@dataclass
class Fan:
    """Parallel lanes, from one point to a joint.

    Attributes:
        lanes: their drawings.
        series: what they consist of.
        join: where they meet.
        style: sizes.
        straight: whether the lanes begin at a bar as broad as all of them, rather than at one point.
        inner: the least length of the longest lane, so that panels can be aligned.
        scale: px for each channel of a concatenation; 0 for one that makes it as broad as the lanes.
    """

    lanes: Sequence[Piece]
    series: Sequence[Series]
    join: Node
    style: Style
    straight: bool = False
    inner: float = 0.0
    scale: float = 0.0
    opens: bool = True

    def __post_init__(self) -> None:
        style = self.style
        self.inner = max(self.inner, *(lane.length for lane in self.lanes))
        self.broad = sum(lane.up + lane.down for lane in self.lanes)
        self.broad += style.lane_gap * (len(self.lanes) - 1)
        self.bar = self.join.kind == "concat"
        self.segments = self._segments()
        numbers = [("t11", str(chans)) for _, _, chans in self.segments]
        self.thick = style.high if style.high <= 20 else _BAR
        if not style.vertical:
            self.thick = max(self.thick, fitted(numbers, 4))
        joint = self.thick if self.bar else 2 * style.radius
        self.length = style.fan + self.inner + style.fan + joint
        half = max(self.broad, sum(size for size, _, _ in self.segments) if self.bar else 0.0) / 2
        self.up = self.down = half

    def _segments(self) -> list[tuple[float, str, int]]:
        """Size across the flow, family and channels of each part of a concatenation."""
        ends = [_last_box(series) for series in self.series]
        chans = [series_nodes(series)[-1].chans for series in self.series]
        scale = self.scale or self.broad / max(1, sum(chans))
        sizes: list[float] = []
        for many in chans:
            room = fitted([("t11", str(many))], 5) if self.style.vertical else 17.0
            sizes.append(max(room, scale * many))
        return [(size, node.family, n) for size, node, n in zip(sizes, ends, chans, strict=True)]

    def _centres(self) -> list[float]:
        """Where each lane lies across the flow; the first is on top, or left."""
        places: list[float] = []
        sign = 1 if self.style.vertical else -1
        at = -sign * self.broad / 2 * 1.0
        for lane in self.lanes:
            before, after = (lane.down, lane.up) if self.style.vertical else (lane.up, lane.down)
            places.append(at + sign * before)
            at += sign * (before + after + self.style.lane_gap)
        return places

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """Lanes that part, and meet in a bar or a sum."""
        style = self.style
        start, end = u + style.fan, u + style.fan + self.inner
        tip = end + style.fan
        targets = self._bar_places(w) if self.bar else [w] * len(self.lanes)
        for lane, centre, target in zip(self.lanes, self._centres(), targets, strict=True):
            at = start + self.inner - lane.length
            self._enter(pen, (u, w), (at, w + centre), start, lane)
            lane.draw(pen, at, w + centre)
            pen.curve((end, w + centre), (tip, target))
        if self.bar:
            self._draw_bar(pen, tip, w)
        else:
            pen.joint((tip + style.radius, w), self.join.label)

    def _enter(
        self, pen: Pen, source: tuple[float, float], to: tuple[float, float], start: float, lane: Piece
    ) -> None:
        """A curve to where lanes begin, and on to the first box of a lane that is shorter."""
        if self.straight:
            pen.arrow((source[0], to[1]), to, head=not lane.opens)
            return
        if to[0] - start < 1:
            pen.curve(source, to, head=not lane.opens)
            return
        pen.curve(source, (start, to[1]), head=False)
        pen.arrow((start, to[1]), to, head=not lane.opens)

    def _bar_places(self, w: float) -> list[float]:
        sign = 1 if self.style.vertical else -1
        at = -sign * sum(size for size, _, _ in self.segments) / 2
        places: list[float] = []
        for size, _, _ in self.segments:
            places.append(w + at + sign * size / 2)
            at += sign * size
        return places

    def _draw_bar(self, pen: Pen, u: float, w: float) -> None:
        thick = self.thick
        with pen.canvas.group(self.join.path):
            for (size, family, chans), place in zip(self.segments, self._bar_places(w), strict=True):
                pen.canvas.families[family] = None
                pen.box(family, u, place, thick, size - 2)
                pen.text("t11", (u + thick / 2, place), str(chans))


def _last_box(series: Series) -> Node:
    """What gives a lane its colour: its last operation that is no joint."""
    nodes = series_nodes(series)
    return next((node for node in reversed(nodes) if not node.is_join), nodes[-1])


@dataclass
class Shortcut:
    """Lanes with a shortcut around them, into a sum or a concatenation."""

    body: Piece
    residual: Residual
    join: Node
    style: Style
    words: bool
    opens: bool = True

    def __post_init__(self) -> None:
        style = self.style
        self.tail = 10.0 if style.high > 20 else 4.0
        self.inset = 0.0 if self.body.opens else style.lead
        self.concat = self.join.kind == "concat"
        self.family = _last_box(self.residual.main[0]).family
        self.joint = style.radius if self.concat else 2 * style.radius
        self.start = 6.0 if style.high > 20 else 4.0
        self.length = self.start + max(self.inset, 10.0) + self.body.length + self.tail + self.joint
        self.down = self.body.down
        self.level = self.body.up + (12.0 if style.high <= 20 else 16.0)
        if self.residual.projection is not None:
            self.label = " + ".join(node.text for node in series_nodes(self.residual.projection))
        else:
            self.label = "identity" if self.words else ""
        self.up = self.level + 2 + self._label_room()

    def _label_room(self) -> float:
        if not self.label:
            return 0.0
        if self.style.vertical:
            return fitted([("t11", self.label)], 7)
        return 13.0 if self.residual.projection is not None else 14.0

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """The arc last, over the lines it leaves from."""
        lift = 9.0 if self.residual.projection is not None and not self.style.vertical else 0.0
        level = w + self.level + lift
        fork = u + self.start
        begin = fork + max(self.inset, 10.0)
        end = begin + self.body.length
        middle = end + self.tail + self.joint / 2
        pen.line("flow", (u, w), (fork, w))
        pen.arrow((fork, w), (begin, w), head=not self.body.opens)
        self.body.draw(pen, begin, w)
        pen.line("flow", (end, w), (middle - self.joint / 2, w))
        self._arc(pen, fork, middle, w, level)
        if self.concat:
            self._small_bar(pen, middle, w)
        else:
            with pen.canvas.group(self.join.path):
                pen.joint((middle, w), self.join.label)

    def _arc(self, pen: Pen, fork: float, middle: float, w: float, level: float) -> None:
        cls = "skip" if self.residual.projection is None else "skipd"
        pen.canvas.marks[cls] = None
        top = w + (self.style.radius if not self.concat else 1.5 * self.style.radius)
        pen.dot((fork, w))
        places = [(fork, w), (fork, level), (middle, level), (middle, top + 6)]
        pen.rounded(cls, places, 10 if self.style.high > 20 else 8)
        pen.head("skiph", (middle, top), 0, -1)
        self._label(pen, (fork + middle) / 2, level)

    def _label(self, pen: Pen, u: float, level: float) -> None:
        if not self.label:
            return
        if self.style.vertical:
            pen.text("t11 v", (u, level + 7), self.label, "start")
        elif self.residual.projection is None:
            pen.text("t11 v", (u, level + 9), self.label)
        else:
            self._projection(pen, u, level, self.residual.projection)

    def _projection(self, pen: Pen, u: float, level: float, projection: Series) -> None:
        nodes = series_nodes(projection)
        macs = words.count(sum(node.macs for node in nodes))
        first, second = fitted([("t12b", self.label)], 0), fitted([("t11", macs)], 0)
        wide = first + second + 40
        x, y = pen.at((u, level))
        with pen.canvas.group(nodes[-1].path):
            pen.canvas.rect("skipb", x - wide / 2, y - 13, wide, 26)
            pen.canvas.text("t12b", x - wide / 2 + 12 + first / 2, y, self.label)
            pen.canvas.text("t11 m", x + wide / 2 - 12 - second / 2, y, macs)

    def _small_bar(self, pen: Pen, middle: float, w: float) -> None:
        radius = self.style.radius
        with pen.canvas.group(self.join.path):
            for sign, family in ((1, "io"), (-1, self.family)):
                pen.canvas.families[family] = None
                pen.box(family, middle - radius / 2, w + sign * 0.75 * radius, radius, 1.5 * radius)


@dataclass
class Gate:
    """A flow that is multiplied by what a lane beside it computes from it."""

    lanes: Sequence[Piece]
    join: Node
    style: Style
    identity: bool
    opens: bool = True

    def __post_init__(self) -> None:
        style = self.style
        self.start = 8.0
        self.inner = max(lane.length for lane in self.lanes)
        self.bend = 22.0 if style.high > 20 else 14.0
        self.length = self.start + self.bend + self.inner + self.bend + 2 * style.radius
        self.up = style.radius + 2
        self.clear = 12.0 if style.high > 20 else 10.0
        self.down = self.clear + sum(lane.up + lane.down + self.clear for lane in self.lanes)

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """The flow straight on, the lanes on the other side than shortcuts."""
        fork = u + self.start
        middle = u + self.length - self.style.radius
        pen.arrow((u, w), (middle - self.style.radius, w))
        at = w - self.clear
        for lane in self.lanes:
            at -= lane.up
            begin = fork + self.bend
            end = begin + lane.length
            pen.rounded("flow", [(fork, w), (fork, at), (begin - 5, at)], 6)
            pen.head("flowh", (begin, at))
            lane.draw(pen, begin, at)
            pen.rounded("flow", [(end, at), (middle, at), (middle, w - self.style.radius - 6)], 6)
            pen.head("flowh", (middle, w - self.style.radius), 0, 1)
            at -= lane.down + self.clear
        with pen.canvas.group(self.join.path):
            pen.joint((middle, w), self.join.label)


def piece_of(series: Series, style: Style, *, names: bool = False, gate: bool = False) -> Piece:
    """The piece of a series.

    Args:
        series: what is drawn.
        style: its sizes.
        names: write what a shortcut is.
        gate: colour its operations as those of a gate.
    """
    parts: list[Piece] = []
    for element in series:
        if isinstance(element, Leaf):
            node = element.node
            family = "gate" if gate and node.kind in ("conv", "linear") else None
            parts.append(Joint(node, style) if node.is_join else Box(node, style, family))
        elif isinstance(element, Cell):
            from .cells import cell_piece

            parts.append(cell_piece(element, style))
        else:
            parts.append(_lanes_piece(element, style, names))
    return parts[0] if len(parts) == 1 else Row(parts, style)


@dataclass
class Joint:
    """A joint that stands alone in a series, as where both of its inputs come from outside."""

    node: Node
    style: Style
    opens: bool = False

    def __post_init__(self) -> None:
        self.length = 2 * self.style.radius
        self.up = self.down = self.style.radius + 1

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """A circle, or a bar for a concatenation."""
        radius = self.style.radius
        with pen.canvas.group(self.node.path):
            if self.node.kind == "concat":
                pen.box("join", u + radius / 2, w, radius, 2 * radius)
            else:
                pen.joint((u + radius, w), self.node.label)


def _lanes_piece(lanes: Lanes, style: Style, names: bool) -> Piece:
    if lanes.join.kind == "product":
        inner = [piece_of(lane, style, gate=True) for lane in lanes.lanes]
        if lanes.identity:
            return Gate(inner, lanes.join, style, True)
        return Fan(inner, lanes.lanes, lanes.join, style)
    residual = residual_of(lanes)
    if residual is None:
        return Fan([piece_of(lane, style) for lane in lanes.lanes], lanes.lanes, lanes.join, style)
    if len(residual.main) == 1:
        body = piece_of(residual.main[0], style)
    else:
        body = Fan([piece_of(lane, style) for lane in residual.main], residual.main, lanes.join, style)
    return Shortcut(body, residual, lanes.join, style, names)
