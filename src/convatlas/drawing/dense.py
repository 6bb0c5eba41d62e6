"""A dense block with all of its edges: each layer reads the outputs of all before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Node
from .pen import Pen, Style
from .pieces import Piece, Row, piece_of
from .tree import Leaf
from .units import Unit

# Beyond this many layers the edges are no longer told apart.
MOST_DENSE = 6
_BAR, _LEVEL, _DROP = 44.0, 11.0, 7.0


@dataclass
class DensePiece:
    """Layers in a row, a bar before each, and an arc from each output to each bar behind the next one."""

    layers: Sequence[Piece]
    joins: Sequence[Node]
    style: Style
    opens: bool = True

    def __post_init__(self) -> None:
        self.gap = self.style.gap
        self.lead = 14.0
        inside = sum(layer.length for layer in self.layers)
        many = len(self.layers)
        self.length = self.lead + inside + many * (_BAR + 2 * self.gap + self.lead)
        self.down = self.style.cross / 2
        self.up = self.style.cross / 2 + 14 + _LEVEL * (many + 1)

    def draw(self, pen: Pen, u: float, w: float) -> None:
        """Layers and bars from left to right, then the arcs from short to long."""
        forks = [u + self.lead / 2]
        bars: list[float] = []
        at = u + self.lead
        pen.line("flow", (u, w), (at, w))
        for k, layer in enumerate(self.layers):
            pen.arrow((at - self.lead / 2, w), (at + self.gap, w))
            at += self.gap
            if k:
                self._bar(pen, at, w, self.joins[k - 1])
                bars.append(at + _BAR / 2)
                pen.arrow((at + _BAR, w), (at + _BAR + self.gap, w))
                at += _BAR + self.gap
            layer.draw(pen, at, w)
            at += layer.length
            pen.line("flow", (at, w), (at + self.lead, w))
            forks.append(at + self.lead / 2)
            at += self.lead
        pen.arrow((at - self.lead / 2, w), (at + self.gap, w))
        self._bar(pen, at + self.gap, w, self.joins[-1])
        bars.append(at + self.gap + _BAR / 2)
        pen.line("flow", (at + self.gap + _BAR, w), (u + self.length, w))
        self._arcs(pen, forks, bars, w)

    def _arcs(self, pen: Pen, forks: Sequence[float], bars: Sequence[float], w: float) -> None:
        """Each output as one line over everything behind it, with a drop to each bar that reads it."""
        pen.canvas.marks["skip"] = None
        many = len(self.layers)
        base = w + self.style.cross / 2 + 14
        # Bar k reads the outputs 0 to k + 1, the last of which flows into it.
        for source in range(many):
            level = base + _LEVEL * (many - 1 - source)
            readers = range(source, len(bars))
            for k in reversed(readers):
                at = bars[k] + (source - k / 2) * _DROP
                pen.rounded(
                    "skip", [(forks[source], w), (forks[source], level), (at, level), (at, w + 18)], 6
                )
            pen.dot((forks[source], w))
        for k, bar in enumerate(bars):
            for source in range(k + 1):
                pen.head("skiph", (bar + (source - k / 2) * _DROP, w + 12), 0, -1)

    def _bar(self, pen: Pen, u: float, w: float, join: Node) -> None:
        with pen.canvas.group(join.path):
            pen.box("join", u, w, _BAR, 24)
            pen.text("t11", (u + _BAR / 2, w), str(join.chans))


def dense_piece(unit: Unit, style: Style) -> DensePiece:
    """The drawing of a dense block whose layers read a concatenation each."""
    joins = [node for node in unit.nodes if node.kind == "concat"]
    layers: list[Piece] = []
    run: list[Node] = []
    for node in unit.nodes:
        if node.kind == "concat":
            layers.append(Row([piece_of((Leaf(n),), style) for n in run], style))
            run = []
        else:
            run.append(node)
    return DensePiece(layers, joins, style)
