"""Where labels of a chart go: near their marks, over no other label, over little of other marks."""

from __future__ import annotations

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
