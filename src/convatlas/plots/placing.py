"""Where labels of a chart go: near their marks, over no other label, over little of other marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


CLEARLY = 1.5
"""How much nearer a label lies to its own mark than to any other, in px."""


class Box(NamedTuple):
    """A rectangle, in px or any other unit; y may run either way.

    Attributes:
        x0: its smaller x.
        y0: its smaller y.
        x1: its larger x.
        y1: its larger y.
    """

    x0: float
    y0: float
    x1: float
    y1: float


class Mark(NamedTuple):
    """A mark that wants a label.

    Attributes:
        x: of its middle.
        y: of its middle.
        radius: of what is drawn.
        wide: width of its label.
        high: height of its label.
    """

    x: float
    y: float
    radius: float
    wide: float
    high: float


def shared_area(one: Box, other: Box) -> float:
    """Area that two boxes share."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(wide, 0.0) * max(high, 0.0)


def place_labels(
    marks: Sequence[Mark],
    frame: Box,
    *,
    taken: Sequence[Box] = (),
    gap: float = 3.0,
    reaches: Sequence[float] = (0.0, 8.0, 18.0),
    covered: float = 0.35,
) -> list[Box | None]:
    """Finds a place for each label, in the order of the marks: those that matter most come first.

    Args:
        marks: with the sizes of their labels.
        frame: that no label leaves.
        taken: boxes that stay free of labels.
        gap: between a mark and its label.
        reaches: how much further away a label may lie, nearest first.
        covered: share of a label that may lie over other marks.

    Returns:
        For each mark its label's box; None where there is no room.
    """
    bubbles = [Box(m.x - m.radius, m.y - m.radius, m.x + m.radius, m.y + m.radius) for m in marks]
    used = list(taken)
    found: list[Box | None] = []
    for i, mark in enumerate(marks):
        others = bubbles[:i] + bubbles[i + 1 :]
        area = mark.wide * mark.high
        best: tuple[float, Box] | None = None
        for reach in reaches:
            for across, up in _SIDES:
                box = _beside(mark, across, up, gap + reach)
                if not _inside(box, frame) or any(shared_area(box, other) > 0 for other in used):
                    continue
                near = _gap(box, mark) + CLEARLY
                if any(_gap(box, other) < near for other in marks if other is not mark):
                    continue  # It could be read as the other's.
                over = sum(shared_area(box, other) for other in others) / area
                if over <= covered and (best is None or over + reach / 40 < best[0]):
                    best = over + reach / 40, box
        found.append(None if best is None else best[1])
        used += [] if best is None else [best[1]]
    return found


class Led(NamedTuple):
    """A label that a line leads to.

    Attributes:
        box: of the label.
        start: of the line, on the mark's edge.
        end: of the line, at the label.
    """

    box: Box
    start: tuple[float, float]
    end: tuple[float, float]


def lead_labels(
    marks: Sequence[Mark], placed: Sequence[Box | None], frame: Box, *, reaches: Sequence[float]
) -> list[Led | None]:
    """Finds places further away for labels that have none, with lines that cross no label and no other line.

    Args:
        marks: with the sizes of their labels, those that matter most first.
        placed: of `place_labels`, for each mark.
        frame: that no label leaves.
        reaches: lengths of lines, shortest first.

    Returns:
        For each mark its label's place; None where it has one already, or none is free.
    """
    labels = [box for box in placed if box is not None]
    lines: list[tuple[tuple[float, float], tuple[float, float]]] = []
    found: list[Led | None] = []
    for i, mark in enumerate(marks):
        best: Led | None = None
        if placed[i] is None:
            others = [*marks[:i], *marks[i + 1 :]]
            candidates = (_led(mark, turn, reach) for reach in reaches for turn in range(_TURNS))
            free = (each for each in candidates if _is_free(each, others, labels, lines, frame))
            best = next(free, None)
        if best is not None:
            labels.append(best.box)
            lines.append((best.start, best.end))
        found.append(best)
    return found


_TURNS = 16
"""Directions in which a line may lead."""


def _led(mark: Mark, turn: int, reach: float) -> Led:
    angle = 2 * math.pi * turn / _TURNS
    across, up = math.cos(angle), math.sin(angle)
    start = mark.x + mark.radius * across, mark.y + mark.radius * up
    end = mark.x + (mark.radius + reach) * across, mark.y + (mark.radius + reach) * up
    # A label beside the line's end, or centred over it where the line is steep.
    x0 = end[0] + 2 if across > 0.4 else end[0] - mark.wide - 2 if across < -0.4 else end[0] - mark.wide / 2
    y0 = end[1] - mark.high / 2
    if abs(across) <= 0.4:
        y0 = end[1] if up > 0 else end[1] - mark.high
    return Led(Box(x0, y0, x0 + mark.wide, y0 + mark.high), start, end)


def _is_free(
    each: Led,
    others: Sequence[Mark],
    labels: Sequence[Box],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    frame: Box,
) -> bool:
    if not _inside(each.box, frame) or any(_gap(each.box, other) < 3.0 for other in others):
        return False
    wider = Box(each.box.x0 - 2, each.box.y0 - 1, each.box.x1 + 2, each.box.y1 + 1)
    if any(shared_area(wider, label) > 0 for label in labels):
        return False
    line = each.start, each.end
    if any(_crosses(line, other) for other in lines) or any(_touches(other, wider) for other in lines):
        return False
    if any(_touches(line, label) for label in labels):
        return False
    # A line that passes over another mark would seem to lead to that.
    (ax, ay), (bx, by) = line
    points = [(ax + (bx - ax) * part / 8, ay + (by - ay) * part / 8) for part in range(9)]
    return not any(math.dist(point, (o.x, o.y)) < o.radius + 1 for o in others for point in points)


def _crosses(
    one: tuple[tuple[float, float], tuple[float, float]],
    other: tuple[tuple[float, float], tuple[float, float]],
) -> bool:
    """Whether two pieces of lines cross."""

    def side(p: tuple[float, float], q: tuple[float, float], r: tuple[float, float]) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    (a, b), (c, d) = one, other
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _touches(line: tuple[tuple[float, float], tuple[float, float]], box: Box) -> bool:
    """Whether a piece of a line enters a box."""
    corners = (box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)
    sides = [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    inside = any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in line)
    return inside or any(_crosses(line, side) for side in sides)


def _gap(box: Box, mark: Mark) -> float:
    """Distance of a label from a circle; below 0 where it lies over it."""
    dx = max(box.x0 - mark.x, 0.0, mark.x - box.x1)
    dy = max(box.y0 - mark.y, 0.0, mark.y - box.y1)
    return (dx * dx + dy * dy) ** 0.5 - mark.radius


def _beside(mark: Mark, across: int, up: int, away: float) -> Box:
    # On a diagonal the label's corner touches the circle.
    reach = (mark.radius + away) * (0.7071 if across and up else 1.0)
    x0 = mark.x + across * reach - mark.wide * (0.5 - 0.5 * across)
    y0 = mark.y + up * reach - mark.high * (0.5 - 0.5 * up)
    return Box(x0, y0, x0 + mark.wide, y0 + mark.high)


def _inside(box: Box, frame: Box) -> bool:
    return box.x0 >= frame.x0 and box.y0 >= frame.y0 and box.x1 <= frame.x1 and box.y1 <= frame.y1
