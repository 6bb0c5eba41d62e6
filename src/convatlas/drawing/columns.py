"""Figures of single layers: a column for each network, rows aligned by the size of the output."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from . import words
from .canvas import MARGIN, Canvas, fitted
from .figure import DrawingError, Figure, finish
from .frame import Captions, heading, legend
from .outside import unit_piece
from .pen import Pen, Style, column_style, inset_style
from .pieces import Piece, Shortcut
from .stages import stacks_of
from .subject import Subject
from .units import Unit

# Beyond this a column is no figure any more; and beyond the second, equal blocks are drawn once.
MOST_BOXES, FOLD_ABOVE = 2000, 260
_PADDING = 11.0
_COLUMN_GAP = 100.0


@dataclass(frozen=True)
class Entry:
    """One unit in a column, or several equal ones.

    Attributes:
        piece: its drawing.
        band: the size of its output, in words.
        times: how often it comes.
        path: the module that runs it.
        is_block: whether it is more than a layer.
    """

    piece: Piece
    band: str
    times: int
    path: str
    is_block: bool


@dataclass(frozen=True)
class Column:
    """One network.

    Attributes:
        subject: the network.
        entries: its units.
        left: how far it reaches left of its flow.
        right: how far right.
        style: sizes of its boxes.
    """

    subject: Subject
    entries: tuple[Entry, ...]
    left: float
    right: float
    style: Style

    @property
    def bands(self) -> list[str]:
        """Sizes in order, each run once."""
        found: list[str] = []
        for entry in self.entries:
            if not found or found[-1] != entry.band:
                found.append(entry.band)
        return found


def draw_columns(
    subjects: Sequence[Subject], theme: str, title: str = "", *, numbers: bool = False
) -> Figure:
    """The figure of one network or several, layer by layer.

    Args:
        subjects: the networks.
        theme: light, dark or print.
        title: on top; default: the networks' titles.
        numbers: write the cost of each layer into its box.

    Raises:
        DrawingError: if a network has more layers than a figure can show.
    """
    columns = [_column(subject, numbers) for subject in subjects]
    bands: list[str] = []
    for column in columns:
        bands = _merged(bands, column.bands)
    canvas = Canvas()
    titles = [column.subject.title for column in columns]
    title = title or words.listed(titles)
    facts = Captions(title, _facts(columns))
    name_room = max(fitted([("t12b", band)], 0) for band in bands) + 40
    centres: list[float] = []
    x = MARGIN + name_room
    for column in columns:
        half = fitted([("t14b", column.subject.title)], 0) / 2 if len(columns) > 1 else 0.0
        centres.append(x + max(column.left, half))
        x = centres[-1] + max(column.right, half) + _COLUMN_GAP
    right = x - _COLUMN_GAP + 24
    y = heading(canvas, facts, max(right - MARGIN, 600.0))
    if len(columns) > 1:
        for centre, name in zip(centres, titles, strict=True):
            canvas.text("t14b", centre, y, name)
        y += 20
    y = _draw_bands(canvas, columns, centres, bands, y, right)
    if len(columns) > 1:
        y = _draw_totals(canvas, columns, centres, y + 16, right)
    legend(canvas, facts, y + 30, max(canvas.right, right))
    return finish(canvas, title, _description(columns), theme)


def _facts(columns: Sequence[Column]) -> tuple[str, ...]:
    folded = any(entry.times > 1 for column in columns for entry in column.entries)
    extra = ("equal blocks are drawn once, with their number",) if folded else ()
    if len(columns) == 1:
        return (*columns[0].subject.facts, *extra)
    inputs = dict.fromkeys(f"input {column.subject.input_shapes}" for column in columns)
    return (*inputs, "one box a layer, rows aligned by output size", "norms and activations left out", *extra)


def _description(columns: Sequence[Column]) -> str:
    parts = [
        f"{c.subject.title}: {words.plural(c.subject.sheet.depth.longest, 'weight layer')}, "
        f"{words.plural(len(c.entries), 'unit')}"
        for c in columns
    ]
    return f"Layers from top to bottom, in rows of equal output size. {'; '.join(parts)}."


def _merged(first: list[str], second: list[str]) -> list[str]:
    """Both sequences of sizes in one, each in its order."""
    if not first:
        return second
    merged: list[str] = []
    for tag, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            merged.extend(first[a:b])
        else:
            both = [*first[a:b], *second[c:d]]
            merged.extend(sorted(both, key=_pixels, reverse=True))
    return merged


def _pixels(band: str) -> int:
    return int(band.split("×")[0]) if "×" in band else 0


def _style(subject: Subject, numbers: bool) -> Style:
    nodes = subject.graph.nodes
    detail = next((row for row in ("macs", "params") if row in subject.show), "shape")
    return inset_style(nodes, vertical=True, detail=detail) if numbers else column_style(nodes)


def _column(subject: Subject, numbers: bool) -> Column:
    boxes = sum(1 for node in subject.graph.nodes if not node.is_join and node.kind != "input")
    if boxes > MOST_BOXES:
        raise DrawingError(
            f"{subject.title} has {boxes:,} layers and poolings, and level='layer' draws up to "
            f"{MOST_BOXES:,}; take level='block' or level='stage'"
        )
    style = _style(subject, numbers)
    units = [unit for unit in subject.units if unit.last.kind != "input"]
    fold = boxes > FOLD_ABOVE
    stacks = stacks_of(units) if fold else [(unit,) for unit in units]
    entries: list[Entry] = []
    before: Unit | None = next((u for u in reversed(subject.units) if u.last.kind == "input"), None)
    for stack in stacks:
        unit = stack[0]
        piece = unit_piece(unit, style, before, subject)
        times = len(stack) * unit.repeats
        entries.append(Entry(piece, _band(unit), times, unit.path, unit.is_block))
        before = stack[-1]
    extra = max((fitted([("t12b", f"×{e.times}")], 6) for e in entries if e.times > 1), default=0.0)
    left = max((entry.piece.down for entry in entries), default=0.0) + (extra + 8 if extra else 0)
    right = max((e.piece.up for e in entries), default=0.0)
    return Column(subject, tuple(entries), left, right, style)


def _band(unit: Unit) -> str:
    shape = unit.shape
    if len(shape) < 2 or all(size == 1 for size in shape[1:]):
        return "vector"
    return words.shape(shape[1:])


def _gap(before: Entry | None, after: Entry) -> float:
    if before is None:
        return 0.0
    if not before.is_block and not after.is_block:
        return 8.0
    if after.piece.opens:
        return 2.0 if isinstance(before.piece, Shortcut) or isinstance(after.piece, Shortcut) else 12.0
    # As far as with shortcuts, so that a plain network's blocks lie beside a residual network's.
    return 31.0 if before.is_block and after.is_block else 18.0


def _draw_bands(
    canvas: Canvas, columns: Sequence[Column], centres: Sequence[float], bands: Sequence[str], y: float,
    right: float,
) -> float:  # fmt: skip
    """Draws bands and what lies in them; returns the lower edge."""
    walkers = [_walk(column, bands) for column in columns]
    tops: list[float] = []
    for k in range(len(bands)):
        inside = [[column.entries[i] for i in walk[k]] for column, walk in zip(columns, walkers, strict=True)]
        height = max(map(_height, inside))
        tops.append(y)
        canvas.rect("frame", MARGIN, y, right - MARGIN, height + 2 * _PADDING, 6)
        canvas.text("t12b", MARGIN + 16, y + _PADDING + 9, bands[k], "start")
        y += height + 2 * _PADDING + 4
    for column, walk, x in zip(columns, walkers, centres, strict=True):
        _draw_column(canvas, column, walk, tops, x)
    return y


def _walk(column: Column, bands: Sequence[str]) -> list[list[int]]:
    """For each band the entries that lie in it."""
    found: list[list[int]] = [[] for _ in bands]
    place = 0
    for i, entry in enumerate(column.entries):
        while bands[place] != entry.band:
            place += 1
        found[place].append(i)
    return found


def _raised(column: Column, indices: Sequence[int]) -> float:
    """How far a block begins above the band that it opens, so that its first box lies in the first row."""
    first = column.entries[indices[0]].piece if indices else None
    return first.start + first.inset if isinstance(first, Shortcut) and not column.style.detail else 0.0


def _height(entries: Sequence[Entry]) -> float:
    gaps = sum(_gap(a, b) for a, b in itertools.pairwise(entries))
    return sum(entry.piece.length for entry in entries) + gaps


def _draw_column(
    canvas: Canvas, column: Column, walk: Sequence[Sequence[int]], tops: Sequence[float], x: float
) -> None:
    pen = Pen(canvas, column.style, x, 0)
    at: float | None = None
    before: Entry | None = None
    for indices, top in zip(walk, tops, strict=True):
        u = top + _PADDING - (_raised(column, indices) if at is not None else 0.0)
        for place, i in enumerate(indices):
            entry = column.entries[i]
            u += _gap(before, entry) if place else 0.0
            if at is not None:
                pen.arrow((at, 0), (u, 0), head=u - at > 10 and not entry.piece.opens)
            with canvas.group(entry.path):
                entry.piece.draw(pen, u, 0)
            if entry.times > 1:
                _draw_times(pen, entry, u)
            u += entry.piece.length
            at, before = u, entry


def _draw_times(pen: Pen, entry: Entry, u: float) -> None:
    """A bracket on the left, with the number of equal blocks."""
    w = -entry.piece.down - 8
    end = u + entry.piece.length
    pen.line("joinl", (u, w + 4), (u, w), (end, w), (end, w + 4))
    pen.text("t12b", ((u + end) / 2, w - 6), f"×{entry.times}", "end")


def _draw_totals(
    canvas: Canvas, columns: Sequence[Column], centres: Sequence[float], y: float, right: float
) -> float:
    canvas.line("hair", (MARGIN, y), (right, y))
    rows = (
        ("weight layers", [f"{c.subject.sheet.depth.longest:,}" for c in columns]),
        ("parameters", [words.count(c.subject.sheet.params) for c in columns]),
        ("MACs", [words.count(c.subject.sheet.macs) for c in columns]),
    )
    for name, values in rows:
        y += 20
        canvas.text("t11 m", MARGIN + 16, y, name, "start")
        for x, value in zip(centres, values, strict=True):
            canvas.text("t12b", x, y, value)
    return y
