"""The aligned table under a drawing: a column for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from . import words
from .canvas import MARGIN, Canvas, fitted, number
from .graph import Node
from .subject import Subject
from .tree import Element, Lanes, Leaf, nodes_of, residual_of, series_nodes
from .units import Stage, Unit

_LINE = 16.0
_MOST_LINES = 5
NAMES = {
    "shapes": "C×H×W",
    "blocks": "blocks",
    "params": "parameters",
    "macs": "MACs",
    "rf": "receptive field",
}


@dataclass(frozen=True)
class Lines:
    """What a block consists of, and how often it comes.

    Attributes:
        lines: one for each operation.
        times: the block's repeats; 0 writes the lines without a bracket.
    """

    lines: tuple[str, ...]
    times: int

    @property
    def width(self) -> float:
        """With bracket and factor, symmetric around the column's middle."""
        inner = fitted([("t11", line) for line in self.lines], 0)
        if not self.times:
            return inner
        return inner + 32 + 2 * fitted([("t12b", f"×{self.times}")], 0)


def lines_of_stage(stage: Stage) -> list[Lines]:
    """The operations of a stage, equal neighbours together."""
    groups: list[Lines] = []
    for unit in stage.units:
        lines = _lines_of(unit)
        times = unit.repeats
        if groups and groups[-1].lines == lines and groups[-1].times:
            groups[-1] = Lines(lines, groups[-1].times + times)
        else:
            groups.append(Lines(lines, times))
    return [Lines(g.lines, 0 if g.times == 1 and len(g.lines) == 1 else g.times) for g in groups]


def _lines_of(unit: Unit) -> tuple[str, ...]:
    if not unit.is_block:
        node = unit.last
        return (node.text if not node.is_join else f"{_join_word(node)}, {node.chans}",)
    if unit.kind == "cell":
        return (f"cell, {unit.last.chans}",)
    if unit.kind == "dense":
        return _shortened([node.label for node in series_nodes(unit.series) if not node.is_join])
    lines: list[str] = []
    for element in unit.series:
        if isinstance(element, Leaf):
            lines.append(element.node.label)
            continue
        lines.extend(_element_lines(element))
    return _shortened(lines)


def _element_lines(element: Element) -> list[str]:
    if not isinstance(element, Lanes):
        return ["cell"]
    if element.join.kind == "product":
        return [_gate_word(element)]
    residual = residual_of(element)
    if residual is None or len(residual.main) > 1:
        many = len(element.lanes)
        return [f"{words.plural(many, 'lane')}, {element.join.chans}"]
    lines: list[str] = []
    for inner in chain.from_iterable(residual.main):
        lines.extend([inner.node.label] if isinstance(inner, Leaf) else _element_lines(inner))
    return lines


def _gate_word(gate: Lanes) -> str:
    """A gate in two words: with the width of its narrowest layer."""
    widths = [n.chans for n in nodes_of(gate) if n.kind in ("conv", "linear")]
    return f"gate, {min(widths)}" if widths else "gate"


def _join_word(node: Node) -> str:
    return {"sum": "sum", "product": "product", "concat": "concat"}[node.kind]


def _shortened(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= _MOST_LINES:
        return tuple(lines)
    return (*lines[:2], f"… {len(lines) - 4} more", *lines[-2:])


def column_width(stage: Stage) -> float:
    """What the widest text of a stage's column needs."""
    texts: list[tuple[str, str]] = [("t11b", words.shape(stage.shape)), ("t11", words.count(stage.params))]
    lines = max((group.width for group in lines_of_stage(stage)), default=0.0)
    return max(72.0, fitted(texts, 0), lines) + 16


def label_width(subject: Subject) -> float:
    """Of the column of names."""
    rows = ["blocks", *subject.show]
    return fitted([("t11", NAMES[row]) for row in rows], 0) + 12


def draw_table(
    canvas: Canvas, subject: Subject, stages: Sequence[Stage], centres: Sequence[float], x_input: float,
    y: float, right: float,
) -> float:  # fmt: skip
    """Draws the table; returns its lower edge."""
    if "shapes" in subject.show:
        canvas.text("t11 m", MARGIN, y, NAMES["shapes"], "start")
        shapes = subject.sheet.request.shapes
        canvas.text("t11", x_input, y, words.shape(shapes[0][1:]))
        for stage, x in zip(stages, centres, strict=True):
            canvas.text("t11b", x, y, words.shape(stage.shape))
        y += 12
    canvas.line("hair", (MARGIN, y), (right, y))
    y = _draw_blocks(canvas, stages, centres, y)
    canvas.line("hair", (MARGIN, y), (right, y))
    y += 14
    for row in ("params", "macs", "rf"):
        if row in subject.show:
            canvas.text("t11 m", MARGIN, y, NAMES[row], "start")
            _draw_numbers(canvas, subject, stages, centres, y, row)
            y += 32 if row != "rf" else 20
    return y - 8


def _draw_blocks(canvas: Canvas, stages: Sequence[Stage], centres: Sequence[float], y: float) -> float:
    columns = [lines_of_stage(stage) for stage in stages]
    heights = [sum(_LINE * len(g.lines) + (12 if g.times else 0) for g in groups) for groups in columns]
    height = max([2 * _LINE, *heights]) + 12
    canvas.text("t11 m", MARGIN, y + 6 + _LINE / 2 + 2, NAMES["blocks"], "start")
    for groups, x, high in zip(columns, centres, heights, strict=True):
        at = y + (height - high) / 2
        for group in groups:
            at = _draw_lines(canvas, group, x, at)
    return y + height


def _draw_lines(canvas: Canvas, group: Lines, x: float, y: float) -> float:
    if not group.times:
        for line in group.lines:
            canvas.text("t11", x, y + _LINE / 2, line)
            y += _LINE
        return y
    y += 6
    factor = f"×{group.times}"
    half = fitted([("t11", line) for line in group.lines], 0) / 2 + 8
    high = _LINE * len(group.lines)
    for k, line in enumerate(group.lines):
        canvas.text("t11", x, y + _LINE * k + _LINE / 2, line)
    left, right, n = x - half, x + half, number
    top, bottom = n(y), n(y + high)
    canvas.path(
        "joinl",
        f"M{n(left + 4)} {top}H{n(left)}V{bottom}H{n(left + 4)}"
        f"M{n(right - 4)} {top}H{n(right)}V{bottom}H{n(right - 4)}",
    )
    if group.times > 1:
        canvas.text("t12b", right + 6, y + high / 2, factor, "start")
    return y + high + 6


def _draw_numbers(
    canvas: Canvas, subject: Subject, stages: Sequence[Stage], centres: Sequence[float], y: float, row: str
) -> None:
    values = [_value(stage, row) for stage in stages]
    whole = sum(values) or 1
    for stage, value, x in zip(stages, values, centres, strict=True):
        if row == "rf":
            rows = [stage.units[-1].last.row]
            canvas.text("t11", x, y, subject.receptive_field(rows))
            continue
        canvas.text("t11", x, y, words.count(value))
        canvas.rect("track", x - 36, y + 9, 72, 4, 2)
        length = 72 * value / whole
        if length >= 0.5:
            canvas.rect("bar", x - 36, y + 9, length, 4, min(2.0, length / 2))


def _value(stage: Stage, row: str) -> int:
    return stage.params if row == "params" else stage.macs
