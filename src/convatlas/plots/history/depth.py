"""The revolution of depth: a bar for each network, a slice for each of its weight layers, and its error."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from convatlas.drawing.canvas import MARGIN, Canvas, fitted, number
from convatlas.drawing.figure import Figure, finish
from convatlas.drawing.frame import Captions, heading, lines_of
from convatlas.plots.history.data import Milestone, milestones

_LEFT, _BAR, _TALL, _BETWEEN = 112.0, 64.0, 456.0, 28.0
_MOST_PER_LAYER, _LEAST_SLICE = 24.0, 2.0
_MOST_EMPTY = 3
"""Years without a network that are shown; more are left out, with a mark."""
_ERRORS = 84.0
_COUNT = "counted on the networks themselves, each use of a weight; shortcuts, gates and poolings left out"


def draw_depth(
    networks: Sequence[str] = (), *, years: tuple[int, int] | None = None, theme: str = "light"
) -> Figure:
    """Draws weight layers on the longest path against the year, and the top-5 error on ImageNet below.

    Args:
        networks: names; where none are given, those that published an error on the challenge's test set.
        years: first and last year.
        theme: light, dark or print.

    Raises:
        ValueError: none of the networks is of these years.
    """
    low, high = years or (0, 9999)
    found = [each for each in milestones(networks) if low <= each.year <= high]
    if not found:
        raise ValueError(f"`years`={low}..{high}: no network of these years")
    places, slot = _places(found)
    right = _LEFT + slot * len(_columns(found))
    canvas = Canvas()
    scale = min(_TALL / max(each.depth for each in found), _MOST_PER_LAYER)
    sliced = "one slice is one layer" if scale >= _LEAST_SLICE else ""
    what = "top-5 error on ImageNet as published"
    facts = (f"weight layers on the longest path, and {what}", *((sliced,) if sliced else ()))
    most = max(each.depth for each in found)
    base = heading(canvas, Captions("The revolution of depth", facts), right - MARGIN) + 52 + most * scale
    _axis(canvas, base, scale, most, right)
    for each, x in zip(found, places, strict=True):
        with canvas.group(each.network, f"{each.label}: {each.depth} weight layers on the longest path"):
            _bar(canvas, each, x, base, scale)
    for i, year in enumerate(_columns(found)):
        canvas.text("t12", _LEFT + slot * (i + 0.5), base + 18, "…" if year is None else str(year))
    bottom = _errors(canvas, found, places, base + 50, right)
    note = (
        "ensembles on the challenge's test set"
        if not networks
        else "of one network, by the paper's own protocol"
    )
    for i, line in enumerate(lines_of((f"errors: {note}; layers: {_COUNT}",), right - MARGIN, "t11")):
        canvas.text("t11 m", MARGIN, bottom + 28 + 16 * i, line, "start")
    return finish(canvas, "The revolution of depth", _description(found), theme)


def _places(found: Sequence[Milestone]) -> tuple[list[float], float]:
    """The middle of each bar, and the room of a year; networks of one year stand side by side."""
    groups: dict[int, list[Milestone]] = {}
    for each in found:
        groups.setdefault(each.year, []).append(each)
    offsets = {year: _offsets(group) for year, group in groups.items()}
    wide = {
        year: offsets[year][-1] - offsets[year][0] + _room(group[0]) / 2 + _room(group[-1]) / 2
        for year, group in groups.items()
    }
    slot = max(max(wide.values()) + _BETWEEN, 124.0)
    columns = _columns(found)
    places = [
        _LEFT + slot * (columns.index(year) + 0.5) + offset for year in groups for offset in offsets[year]
    ]
    return places, slot


def _room(each: Milestone) -> float:
    return max(_BAR, fitted([("t12b", each.label)], 4))


def _offsets(group: Sequence[Milestone]) -> list[float]:
    steps = [0.0]
    for one, other in pairwise(group):
        steps.append(steps[-1] + (_room(one) + _room(other)) / 2 + 8)
    return [step - steps[-1] / 2 for step in steps]


def _columns(found: Sequence[Milestone]) -> list[int | None]:
    """The years of the axis; None where a longer time without a network is left out."""
    years = sorted({each.year for each in found})
    columns: list[int | None] = [years[0]]
    for one, other in pairwise(years):
        empty = other - one - 1
        columns += list(range(one + 1, other)) if empty <= _MOST_EMPTY else [None]
        columns.append(other)
    return columns


def _axis(canvas: Canvas, base: float, scale: float, most: int, right: float) -> None:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if most / s < 5)
    for value in range(0, most + 1, step):
        y = base - value * scale
        canvas.line("hair", (_LEFT, y), (right, y))
        canvas.text("t11 m", _LEFT - 12, y, f"{value:,}", "end")
    canvas.text("t11 m", MARGIN, base - most * scale - 28, "layers", "start")


def _bar(canvas: Canvas, each: Milestone, x: float, base: float, scale: float) -> None:
    top = base - each.depth * scale
    left = number(x - _BAR / 2)
    if scale >= _LEAST_SLICE:
        thick = number(scale * 0.7)
        slices = (
            f"M{left} {number(base - (i + 0.85) * scale)}h{number(_BAR)}v{thick}h{number(-_BAR)}z"
            for i in range(each.depth)
        )
        canvas.path(f"n-{each.colour}", "".join(slices))
        canvas.cover(x - _BAR / 2, top, x + _BAR / 2, base)
    else:
        canvas.rect(f"n-{each.colour}", x - _BAR / 2, top, _BAR, base - top, 0)
    canvas.halo("t14b", x, top - 16, f"{each.depth:,}")
    canvas.halo("t12b", x, top - 36, each.label)


def _errors(
    canvas: Canvas, found: Sequence[Milestone], places: Sequence[float], top: float, right: float
) -> float:
    """The errors in a panel of their own; returns where it ends."""
    pairs = zip(found, places, strict=True)
    known = [(each, x, each.top5_error) for each, x in pairs if each.top5_error is not None]
    if not known:
        return top - 20
    most = 10 * (1 + int(max(error for _, _, error in known) // 10))
    base = top + _ERRORS
    for value in range(0, most + 1, 10):
        y = base - value * _ERRORS / most
        canvas.line("hair", (_LEFT, y), (right, y))
        canvas.text("t11 m", _LEFT - 12, y, f"{value} %", "end")
    canvas.text("t11 m", MARGIN, top - 16, "top-5 error", "start")
    at = [(x, base - error * _ERRORS / most) for _, x, error in known]
    canvas.line("flow", *at)
    for (each, _, error), (x, y) in zip(known, at, strict=True):
        canvas.circle(f"n-{each.colour} ring", x, y, 5)
        canvas.halo("t12b", x, y - 17, f"{error:.3g} %")
    return base


def _description(found: Sequence[Milestone]) -> str:
    parts = [
        f"{each.label} ({each.year}): {each.depth} layers"
        + ("" if each.top5_error is None else f", {each.top5_error:g} % error")
        for each in found
    ]
    return f"Weight layers on the longest path and top-5 error on ImageNet. {'; '.join(parts)}."
