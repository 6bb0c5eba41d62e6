"""Boxes, joints and connections, along a flow that runs to the right or down.

Places are (u, w): u along the flow, w across it, positive on the side where shortcuts pass, which is above a
flow to the right and right of a flow that runs down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import words
from .canvas import Anchor, Canvas, fitted, number
from .graph import Node

Place = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """Sizes of a drawing, in px.

    Attributes:
        vertical: whether the flow runs down.
        wide: width of a box.
        high: height of a box.
        gap: between boxes of a series.
        lead: from the point where lanes part to their first boxes.
        fan: length of the curves in which lanes part and meet.
        lane_gap: between lanes.
        radius: of a sum.
        cut: corner of a box with a stride.
        detail: the second line of a box: `macs`, `params`, `shape` or nothing.
        text: class of a box's label.
    """

    vertical: bool
    wide: float
    high: float
    gap: float
    lead: float
    fan: float
    lane_gap: float
    radius: float
    cut: float
    detail: str
    text: str

    @property
    def length(self) -> float:
        """Of a box along the flow."""
        return self.high if self.vertical else self.wide

    @property
    def cross(self) -> float:
        """Of a box across the flow."""
        return self.wide if self.vertical else self.high


def detail_of(node: Node, detail: str) -> str:
    """The second line of a box."""
    if detail == "macs":
        return words.count(node.macs) if node.kind in ("conv", "linear", "pool") or node.macs else ""
    if detail == "params":
        return words.count(node.params)
    return words.shape(node.shape) if detail == "shape" else ""


def inset_style(nodes: Sequence[Node], vertical: bool = False, detail: str = "macs") -> Style:
    """Boxes of two lines, all as wide as the widest needs."""
    boxes = [node for node in nodes if not node.is_join]
    wide = max([96.0, *(fitted([("t12b", n.text), ("t11", detail_of(n, detail))]) for n in boxes)])
    high = 44.0 if detail else 32.0
    return Style(vertical, wide, high, 22, 24, 44, 16, 8, 9, detail, "t12b")


def column_style(nodes: Sequence[Node]) -> Style:
    """Boxes of one line for a column of many layers."""
    boxes = [node for node in nodes if not node.is_join]
    wide = max([128.0, *(fitted([("t11", n.text)]) for n in boxes)])
    return Style(True, wide, 17, 5, 12, 24, 12, 4.5, 6, "", "t11")


class Pen:
    """Draws on a canvas in the flow's own places, from an origin."""

    def __init__(self, canvas: Canvas, style: Style, x: float, y: float) -> None:
        self.canvas = canvas
        self.style = style
        self.x = x
        self.y = y

    def at(self, place: Place) -> Place:
        """A place as x and y."""
        u, w = place
        return (self.x + w, self.y + u) if self.style.vertical else (self.x + u, self.y - w)

    def box(self, cls: str, u: float, w: float, length: float, cross: float, *, cut: bool = False) -> None:
        """A box that begins at u, around w; `cut` corners on the leaving side stand for a stride."""
        x, y = self.at((u, w))
        radius = min(4.0, length / 4, cross / 4)
        if self.style.vertical:
            left, top, wide, high = x - cross / 2, y, cross, length
        else:
            left, top, wide, high = x, y - cross / 2, length, cross
        if cut:
            self.canvas.marks["stride"] = None
            self.canvas.cover(left, top, left + wide, top + high)
            c = min(self.style.cut, length / 2 - 1, cross / 2 - 2)
            self.canvas.path(cls, cut_box(left, top, wide, high, c, radius, self.style.vertical))
        else:
            self.canvas.rect(cls, left, top, wide, high, radius)

    def node(self, node: Node, u: float, w: float, family: str | None = None) -> None:
        """A box with its label, as the group of its module."""
        style = self.style
        family = family or node.family
        self.canvas.families[family] = None
        x, y = self.at((u + style.length / 2, w))
        detail = detail_of(node, style.detail)
        with self.canvas.group(node.path):
            if family == "act":
                self._pill(u, w)
            else:
                self.box(family, u, w, style.length, style.cross, cut=bool(node.stride))
                if family in ("conv", "dw") and node.groups > 1 and style.high > 20:
                    self._dividers(node, u, w)
            if detail and style.high >= 40:
                self.canvas.text(style.text, x, y - 8, node.text)
                self.canvas.text("t11", x, y + 9, detail)
            else:
                self.canvas.text(style.text, x, y, node.text)

    def _pill(self, u: float, w: float) -> None:
        x, y = self.at((u + self.style.length / 2, w))
        wide, high = self.style.wide, min(self.style.high, 32.0)
        self.canvas.rect("act", x - wide / 2, y - high / 2, wide, high, high / 2)

    def _dividers(self, node: Node, u: float, w: float) -> None:
        """Short strokes at both ends of a grouped convolution: its channels do not mix."""
        x, y = self.at((u + self.style.length / 2, w))
        wide, high = self.style.wide, self.style.high
        many = min(node.groups, 4)
        strokes: list[str] = []
        for i in range(1, many):
            at = y - high / 2 + high * i / many
            for end in (x - wide / 2, x + wide / 2 - 5):
                strokes.append(f"M{number(end)} {number(at)}h5")
        self.canvas.path(node.family, "".join(strokes))

    def line(self, cls: str, *places: Place) -> None:
        """Straight lines."""
        self.canvas.line(cls, *(self.at(place) for place in places))

    def arrow(self, start: Place, end: Place, head: bool = True) -> None:
        """A straight piece of the flow."""
        if not head or abs(end[0] - start[0]) < 9:
            self.line("flow", start, end)
            return
        self.line("flow", start, (end[0] - 5, end[1]))
        self.head("flowh", end)

    def head(self, cls: str, tip: Place, du: float = 1, dw: float = 0) -> None:
        """An arrowhead along (du, dw)."""
        dx, dy = (dw, du) if self.style.vertical else (du, -dw)
        self.canvas.head(cls, *self.at(tip), dx, dy)

    def curve(self, start: Place, end: Place, cls: str = "flow", head: bool = True) -> None:
        """A curve that leaves and arrives along the flow."""
        if abs(start[1] - end[1]) < 0.05 and cls == "flow":
            self.arrow(start, end, head)
            return
        tip = end[0] - 6 if head else end[0]
        middle = (start[0] + tip) / 2
        points = [self.at(p) for p in (start, (middle, start[1]), (middle, end[1]), (tip, end[1]))]
        for x, y in points:
            self.canvas.cover(x, y, x, y)
        (a, b), (c, d), (e, f), (g, h) = [(number(x), number(y)) for x, y in points]
        self.canvas.path(cls, f"M{a} {b}C{c} {d} {e} {f} {g} {h}")
        if head:
            self.head(cls + "h", end)

    def rounded(self, cls: str, places: Sequence[Place], radius: float = 8) -> None:
        """Straight lines whose corners are round."""
        points = [self.at(place) for place in places]
        for x, y in points:
            self.canvas.cover(x - 1, y - 1, x + 1, y + 1)
        d = f"M{number(points[0][0])} {number(points[0][1])}"
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            a, b = _toward(corner, before, radius), _toward(corner, after, radius)
            (ax, ay), (cx, cy), (bx, by) = (_written(p) for p in (a, corner, b))
            d += f"L{ax} {ay}Q{cx} {cy} {bx} {by}"
        d += f"L{number(points[-1][0])} {number(points[-1][1])}"
        self.canvas.path(cls, d)

    def dot(self, place: Place) -> None:
        """Where a shortcut leaves the flow."""
        self.canvas.circle("skiph", *self.at(place), 2.6)

    def joint(self, place: Place, sign: str) -> None:
        """A circle with +, × or a short word in it."""
        x, y = self.at(place)
        radius = self.style.radius
        self.canvas.circle("join", x, y, radius)
        half = radius / 2
        dx = half if sign in ("+", "−", "÷") else half * 0.75
        if sign == "×":
            d = f"M{number(x - dx)} {number(y - dx)}L{number(x + dx)} {number(y + dx)}"
            d += f"M{number(x - dx)} {number(y + dx)}L{number(x + dx)} {number(y - dx)}"
        else:
            d = f"M{number(x - half)} {number(y)}H{number(x + half)}"
            if sign == "+":
                d += f"M{number(x)} {number(y - half)}V{number(y + half)}"
        self.canvas.path("joinl", d)

    def text(self, style: str, place: Place, text: str, anchor: Anchor = "middle") -> None:
        """A line of text at a place."""
        x, y = self.at(place)
        self.canvas.text(style, x, y, text, anchor)


def _written(point: Place) -> tuple[str, str]:
    return number(point[0]), number(point[1])


def _toward(corner: Place, other: Place, radius: float) -> Place:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max(abs(dx), abs(dy), 1e-6)
    part = min(radius, length / 2) / length
    return corner[0] + dx * part, corner[1] + dy * part


def cut_box(x: float, y: float, w: float, h: float, cut: float, r: float, down: bool) -> str:
    """Path of a box whose corners on the leaving side, right or below, are cut."""
    n = number
    if down:
        return (
            f"M{n(x)} {n(y + r)}V{n(y + h - cut)}L{n(x + cut)} {n(y + h)}H{n(x + w - cut)}L{n(x + w)} "
            f"{n(y + h - cut)}V{n(y + r)}A{n(r)} {n(r)} 0 0 0 {n(x + w - r)} {n(y)}H{n(x + r)}"
            f"A{n(r)} {n(r)} 0 0 0 {n(x)} {n(y + r)}Z"
        )
    return (
        f"M{n(x + r)} {n(y)}H{n(x + w - cut)}L{n(x + w)} {n(y + cut)}V{n(y + h - cut)}L{n(x + w - cut)} "
        f"{n(y + h)}H{n(x + r)}A{n(r)} {n(r)} 0 0 1 {n(x)} {n(y + h - r)}V{n(y + r)}"
        f"A{n(r)} {n(r)} 0 0 1 {n(x + r)} {n(y)}Z"
    )
