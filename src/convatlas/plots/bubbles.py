"""Charts of bubbles: networks by accuracy and by what they cost, areas for parameters, colours for families.

Source: the charts of A. Canziani, A. Paszke, E. Culurciello, "An Analysis of Deep Neural Network Models for
Practical Applications", 2016, Figures 2 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.catalog.families import FAMILIES
from convatlas.drawing import words
from convatlas.drawing.canvas import MARGIN, Canvas, fitted
from convatlas.drawing.figure import Figure, finish
from convatlas.drawing.frame import Captions, heading, lines_of
from convatlas.plots.placing import Box, Mark, lead_labels, place_labels

_WIDE, _TALL, _LEFT, _GUTTER = 500.0, 520.0, 76.0, 40.0
_LARGEST = 20.0
"""Radius of the largest bubble, in px."""
_NOTE = "vertical axis: logarithm of the error; names where there is room, the best trade-offs first"


@dataclass(frozen=True)
class Bubble:
    """A network on a chart.

    Attributes:
        network: its name.
        label: what the chart calls it.
        colour: name of its family's colour.
        top1: accuracy, %.
        params: parameters, which its area stands for.
        costs: its place on the horizontal axis of each panel, above 0.
    """

    network: str
    label: str
    colour: str
    top1: float
    params: int
    costs: tuple[float, ...]


@dataclass(frozen=True)
class _Panel:
    """One chart: its box in px, its range, and which of the costs it shows."""

    box: Box
    low: float
    high: float
    bottom: float
    top: float
    which: int

    def value(self, bubble: Bubble) -> float:
        return bubble.costs[self.which]

    def x(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.box.x0 + share * (self.box.x1 - self.box.x0)

    def y(self, top1: float) -> float:
        share = math.log((100 - self.bottom) / (100 - top1)) / math.log(
            (100 - self.bottom) / (100 - self.top)
        )
        return self.box.y1 - share * (self.box.y1 - self.box.y0)


def draw_bubbles(
    title: str,
    facts: Sequence[str],
    axes: Sequence[tuple[str, str]],
    found: Sequence[Bubble],
    *,
    note: str,
    theme: str = "light",
) -> Figure:
    """Draws accuracy against each cost, side by side, both on logarithmic axes.

    Args:
        title: on top.
        facts: below the title.
        axes: what each panel's cost is, and its unit, such as ("memory", "B").
        found: at least one network.
        note: below the charts.
        theme: light, dark or print.
    """
    canvas = Canvas()
    right = _LEFT + len(axes) * (_WIDE + _GUTTER) - _GUTTER
    most = max(found, key=lambda bubble: bubble.params)
    area = f"area: parameters, the largest {words.count(most.params)} ({most.label})"
    top = heading(canvas, Captions(title, (*facts, area)), right - MARGIN) + 18
    for i, (cost, unit) in enumerate(axes):
        x0 = _LEFT + i * (_WIDE + _GUTTER)
        panel = _panel(found, Box(x0, top, x0 + _WIDE, top + _TALL), i)
        _axes(canvas, panel, cost, unit, labelled=i == 0)
        _bubbles(canvas, panel, found, most.params)
    y = _legend(canvas, found, top + _TALL + 56, right)
    for i, line in enumerate(lines_of((f"{note}; {_NOTE}",), right - MARGIN, "t11")):
        canvas.text("t11 m", MARGIN, y + 26 + 16 * i, line, "start")
    said = "; ".join(f"{each.label} {each.top1:g} %" for each in found)
    return finish(canvas, title, f"Top-1 accuracy on ImageNet. {said}.", theme)


def _panel(found: Sequence[Bubble], box: Box, which: int) -> _Panel:
    values, tops = [point.costs[which] for point in found], [point.top1 for point in found]
    # The vertical axis is logarithmic in the error, so that the networks of today stand apart too.
    bottom = 100 - min((100 - min(tops)) * 1.08, 100.0)
    return _Panel(box, min(values) / 1.6, max(values) * 1.6, bottom, 100 - (100 - max(tops)) * 0.9, which)


def _axes(canvas: Canvas, panel: _Panel, title: str, unit: str, labelled: bool) -> None:
    box = panel.box
    for value in _percents(panel):
        y = panel.y(value)
        canvas.line("hair", (box.x0, y), (box.x1, y))
        if labelled:
            canvas.text("t11 m", box.x0 - 10, y, f"{value} %", "end")
    for value in _ticks(panel.low, panel.high):
        x = panel.x(value)
        canvas.line("hair", (x, box.y0), (x, box.y1))
        canvas.text("t11 m", x, box.y1 + 16, _short(value, unit))
    canvas.text("t12b", box.x0, box.y0 - 14, f"against {title}", "start")


def _percents(panel: _Panel) -> list[int]:
    """Accuracies for the axis, far enough apart; tens come first."""
    found: list[int] = []
    for step, least in ((10, 0), (5, 0), (2, 80)):
        for value in range(least, 100, step):
            inside = panel.bottom <= value <= panel.top
            if inside and all(abs(panel.y(value) - panel.y(other)) >= 22 for other in found):
                found.append(value)
    return sorted(found)


def _short(value: float, unit: str) -> str:
    """A round number with its unit, such as `300 MB` or `20 ms`."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3)):
        if value >= 0.999 * size:
            return f"{value / size:.3g} {prefix}{unit}".strip()
    return f"{value / 1e-6:.3g} µ{unit}"


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1000 else (1,)
    return [step * 10.0**d for d in decades for step in steps if low <= step * 10.0**d <= high]


def _bubbles(canvas: Canvas, panel: _Panel, found: Sequence[Bubble], most: int) -> None:
    def radius(point: Bubble) -> float:
        return max(_LARGEST * math.sqrt(point.params / most), 2.5)

    for point in sorted(found, key=lambda point: -point.params):
        x, y = panel.x(panel.value(point)), panel.y(point.top1)
        said = f"{point.label}: {point.top1:g} %, {words.count(point.params)} parameters"
        with canvas.group(point.network, said):
            canvas.circle(f"n-{point.colour} bubble", x, y, radius(point))

    def beaten(point: Bubble) -> int:
        """How many networks are both cheaper and more accurate."""
        return sum(panel.value(p) < panel.value(point) and p.top1 > point.top1 for p in found)

    ordered = sorted(found, key=beaten)
    marks = [
        Mark(panel.x(panel.value(p)), panel.y(p.top1), radius(p), fitted([("t11", p.label)], 0), 12.0)
        for p in ordered
    ]
    box = Box(panel.box.x0 + 2, panel.box.y0 + 2, panel.box.x1, panel.box.y1 - 2)
    near = place_labels(marks, box, gap=3.0)
    led = lead_labels(marks, near, box, reaches=(22.0, 34.0, 48.0, 64.0, 82.0))
    for way in led:
        if way is not None:
            canvas.line("lead", way.start, way.end)
    for point, place, way in zip(ordered, near, led, strict=True):
        where = place if way is None else way.box
        if where is not None:
            canvas.halo("t11", (where.x0 + where.x1) / 2, (where.y0 + where.y1) / 2, point.label)


def _legend(canvas: Canvas, found: Sequence[Bubble], y: float, right: float) -> float:
    """The families' colours below the charts; returns the middle of the last line."""
    colours = {point.colour for point in found}
    names: dict[str, list[str]] = {}
    for family in FAMILIES:
        if family.colour in colours:
            names.setdefault(family.colour, []).append(family.title)
    x = float(MARGIN)
    for colour, titles in names.items():
        text = ", ".join(titles) if colour != "other" else "others"
        wide = 18 + fitted([("t11", text)], 0)
        if x > MARGIN and x + wide > right:
            x, y = float(MARGIN), y + 20
        canvas.circle(f"n-{colour}", x + 5, y, 5)
        canvas.text("t11 m", x + 16, y, text, "start")
        x += wide + 20
    return y
