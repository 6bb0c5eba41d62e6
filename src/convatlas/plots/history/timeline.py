"""The timeline of ideas: a card for each paper, time running down, arrows from what it takes up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.drawing.canvas import MARGIN, Canvas, fitted, number
from convatlas.drawing.figure import Figure, finish
from convatlas.drawing.frame import Captions, heading, lines_of
from convatlas.drawing.layered import Place, lay_out
from convatlas.plots.history.data import Idea, ideas

_CARD, _HIGH, _GAP, _STRIP = 184.0, 60.0, 24.0, 4.0
_ROW, _BETWEEN_YEARS = 100.0, 12.0
_AXIS = 64.0
_APART = 18.0
"""Least distance of two arrows at one card."""
_LANE = 28.0
"""Room of an arrow that passes a row of cards."""


@dataclass(frozen=True)
class _Placed:
    idea: Idea
    x: float
    y: float


def draw_timeline(*, years: tuple[int, int] | None = None, theme: str = "light") -> Figure:
    """Draws who introduced what, and on whose idea it builds.

    Args:
        years: first and last year.
        theme: light, dark or print.

    Raises:
        ValueError: no paper is of these years.
    """
    low, high = years or (0, 9999)
    found = [idea for idea in ideas() if low <= idea.year <= high]
    if not found:
        raise ValueError(f"`years`={low}..{high}: no paper of these years")
    rows = _rows(found)
    pairs = _pairs(found)
    places = [Place(max(_CARD, _wide(idea)) + _GAP, rows[idea.key]) for idea in found]
    ways = lay_out(places, pairs, _LANE, swaps=True)
    for way in ways:
        _straighten(places, way)
    left = min(place.w - place.size / 2 for place in places)
    shift = MARGIN + _AXIS - left
    right = max(place.w + place.size / 2 for place in places) + shift - _GAP / 2
    canvas = Canvas()
    facts = (
        "an arrow leads from an idea to a paper that takes it up or answers it",
        "year of first publication",
    )
    top = heading(canvas, Captions("Ideas of convolutional networks", facts), right - MARGIN) + 8
    tops = _tops(found, rows, top)
    _bands(canvas, found, rows, tops, right)
    leaving, arriving = _contacts(places, ways)
    for (a, _), way in zip(pairs, ways, strict=True):
        points = [(leaving[way] + shift, tops[places[a].layer] + _HIGH)]
        for node in way[1:-1]:
            x, y = places[node].w + shift, tops[places[node].layer]
            points += [(x, y), (x, y + _HIGH)]
        points.append((arriving[way] + shift, tops[places[way[-1]].layer]))
        _arrow(canvas, f"o-{found[a].colour}", f"n-{found[a].colour}", points)
    for idea, place in zip(found, places, strict=False):
        _card(canvas, _Placed(idea, place.w + shift, tops[place.layer]), place.size - _GAP)
    return finish(canvas, "Ideas of convolutional networks", _description(found), theme)


def _wide(idea: Idea) -> float:
    return fitted([("t12b", idea.label)], 12) + _STRIP


def _pairs(found: Sequence[Idea]) -> list[tuple[int, int]]:
    index = {idea.key: i for i, idea in enumerate(found)}
    return [
        (index[parent], i) for i, idea in enumerate(found) for parent in idea.builds_on if parent in index
    ]


def _rows(found: Sequence[Idea]) -> dict[str, int]:
    """The row of each card: years below each other, and within a year what builds on the same year's."""
    rows: dict[str, int] = {}
    begin = 0
    for year in sorted({idea.year for idea in found}):
        waiting = [idea for idea in found if idea.year == year]
        while waiting:
            held = {idea.key for idea in waiting}
            now = [idea for idea in waiting if not held & set(idea.builds_on)]
            rows |= {idea.key: begin for idea in now or waiting}
            waiting = [idea for idea in waiting if idea not in now] if now else []
            begin += 1
    return rows


def _tops(found: Sequence[Idea], rows: dict[str, int], top: float) -> list[float]:
    """Upper edge of each row."""
    years = {rows[idea.key]: idea.year for idea in found}
    tops = [top]
    for row in range(1, max(years) + 1):
        tops.append(tops[-1] + _ROW + (_BETWEEN_YEARS if years[row] != years[row - 1] else 0.0))
    return tops


def _bands(
    canvas: Canvas, found: Sequence[Idea], rows: dict[str, int], tops: Sequence[float], right: float
) -> None:
    firsts: dict[int, int] = {}
    for idea in found:
        firsts[idea.year] = min(firsts.get(idea.year, rows[idea.key]), rows[idea.key])
    for year, row in firsts.items():
        if row:
            y = tops[row] - (_ROW - _HIGH + _BETWEEN_YEARS) / 2
            canvas.line("hair", (MARGIN, y), (right, y))
        canvas.text("t14b", MARGIN, tops[row] + 12, str(year), "start")


def _straighten(places: Sequence[Place], way: tuple[int, ...]) -> None:
    """Moves the bends of an arrow onto one line, where no card and no other arrow is in its way."""
    bends = [places[node] for node in way[1:-1]]
    if len(bends) < 2:
        return
    mine = {id(bend) for bend in bends}
    ends = places[way[0]].w, places[way[-1]].w

    def free(x: float) -> bool:
        return all(
            abs(other.w - x) >= (other.size + bend.size) / 2 - 0.1
            for bend in bends
            for other in places
            if other.layer == bend.layer and id(other) not in mine
        )

    found = [bend.w for bend in bends if free(bend.w)]
    if found:
        best = min(found, key=lambda x: sum(abs(x - end) for end in ends))
        for bend in bends:
            bend.w = best


def _contacts(
    places: Sequence[Place], ways: Sequence[tuple[int, ...]]
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """Where each arrow leaves its first card and arrives at its last: straight below it where it can be."""
    leaving: dict[tuple[int, ...], float] = {}
    arriving: dict[tuple[int, ...], float] = {}
    for node in {end for way in ways for end in (way[0], way[-1])}:
        for found, mine, near in ((arriving, -1, -2), (leaving, 0, 1)):
            here = sorted((way for way in ways if way[mine] == node), key=lambda way: places[way[near]].w)
            wanted = [_facing(places, node, way[near]) for way in here]
            found |= dict(zip(here, _apart(wanted, *_reach(places[node])), strict=True))
    return leaving, arriving


def _reach(place: Place) -> tuple[float, float]:
    """The part of a card's edge that arrows touch."""
    half = (place.size - _GAP) / 2 - 16
    return place.w - half, place.w + half


def _facing(places: Sequence[Place], node: int, other: int) -> float:
    """Where a straight arrow to another card, or to a bend, would touch this one."""
    low, high = _reach(places[node])
    if places[other].size > _LANE:
        near_low, near_high = _reach(places[other])
        if max(low, near_low) <= min(high, near_high):
            return (max(low, near_low) + min(high, near_high)) / 2
    return min(max(places[other].w, low), high)


def _apart(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Places near the wanted ones, in order, some px apart and within a range."""
    step = min(_APART, (high - low) / max(len(wanted) - 1, 1))
    found: list[float] = []
    for i, want in enumerate(wanted):
        least = found[-1] + step if found else low
        found.append(min(max(want, least), high - step * (len(wanted) - 1 - i)))
    return found


def _arrow(canvas: Canvas, line: str, head: str, points: Sequence[tuple[float, float]]) -> None:
    x, y = points[0]
    d = f"M{number(x)} {number(y)}"
    end = points[-1][0], points[-1][1] - 6
    for tx, ty in [*points[1:-1], end]:
        if abs(tx - x) < 0.05:
            d += f"L{number(tx)} {number(ty)}"
        else:
            middle = (y + ty) / 2
            d += f"C{number(x)} {number(middle)} {number(tx)} {number(middle)} {number(tx)} {number(ty)}"
        x, y = tx, ty
    canvas.path(line, d)
    canvas.head(head, points[-1][0], points[-1][1], 0, 1)


def _card(canvas: Canvas, placed: _Placed, wide: float) -> None:
    idea, left, top = placed.idea, placed.x - wide / 2, placed.y
    with canvas.group(idea.key, f"{idea.title} ({idea.year})"):
        canvas.rect("frame", left, top, wide, _HIGH, 0)
        canvas.rect(f"n-{idea.colour}", left, top, _STRIP, _HIGH, 0)
        x = left + _STRIP + 8
        canvas.text("t12b", x, top + 16, idea.label, "start")
        for i, line in enumerate(lines_of((idea.idea,), wide - _STRIP - 14, "t11")):
            canvas.text("t11", x, top + 34 + 15 * i, line, "start")


def _description(found: Sequence[Idea]) -> str:
    names = {idea.key: idea.label for idea in found}
    parts: list[str] = []
    for idea in found:
        parents = [names[key] for key in idea.builds_on if key in names]
        after = f", after {' and '.join(parents)}" if parents else ""
        parts.append(f"{idea.year} {idea.label}: {idea.idea}{after}")
    return "; ".join(parts) + "."
