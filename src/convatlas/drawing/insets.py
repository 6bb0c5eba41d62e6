"""Insets: each kind of block once, with its operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import words
from .canvas import MARGIN, Canvas, fitted
from .outside import unit_piece
from .pen import Pen, inset_style
from .pieces import Piece
from .pills import with_pills
from .subject import Subject
from .tree import Lanes, series_nodes
from .units import Stage, Unit, kind_signature

MOST = 6
_LARGEST = 60
_GAP = 26.0


@dataclass(frozen=True)
class Kind:
    """Blocks that one inset explains.

    Attributes:
        letter: on the cards and at the inset.
        units: all of them, each with its stage and its place there.
    """

    letter: str
    units: tuple[tuple[Unit, str, int], ...]

    @property
    def example(self) -> tuple[Unit, str]:
        """The block that is drawn, and its stage: of the second stage that has one, else of the first."""
        stages = list(dict.fromkeys(stage for _, stage, _ in self.units))
        name = stages[min(1, len(stages) - 1)]
        return next((unit, stage) for unit, stage, _ in self.units if stage == name)


def find_kinds(stages: Sequence[Stage]) -> list[Kind]:
    """The kinds of blocks, in order of appearance, with letters."""
    found: dict[tuple[object, ...], list[tuple[Unit, str, int]]] = {}
    for stage in stages:
        blocks = [unit for unit in stage.units if unit.is_block]
        for place, unit in enumerate(blocks):
            found.setdefault(kind_signature(unit), []).append((unit, stage.name, place))
    return [Kind(_letter(i), tuple(units)) for i, units in enumerate(found.values())]


def _letter(index: int) -> str:
    return chr(65 + index) if index < 26 else f"{chr(64 + index // 26)}{chr(65 + index % 26)}"


def letters_of(kinds: Sequence[Kind]) -> dict[int, str]:
    """The letter of each block, by its first node."""
    return {unit.nodes[0].index: kind.letter for kind in kinds for unit, _, _ in kind.units}


@dataclass(frozen=True)
class Inset:
    """An inset, laid out.

    Attributes:
        kind: what it explains.
        title: in a few words.
        subtitle: more words.
        piece: the drawing.
        unit: the block that is drawn.
        width: of all of it.
        height: of all of it.
    """

    kind: Kind
    title: str
    subtitle: str
    piece: Piece
    unit: Unit
    width: float
    height: float


def lay_out(kind: Kind, kinds: Sequence[Kind], subject: Subject) -> Inset | None:
    """The inset of a kind; None if its block has too many operations to be read."""
    unit, stage = kind.example
    unit = replace(unit, series=with_pills(unit.series))
    nodes = series_nodes(unit.series)
    if len(nodes) > _LARGEST:
        return None
    style = inset_style(nodes, detail=_detail(subject))
    piece = unit_piece(unit, style, _before(unit, subject), subject, names=True)
    title, subtitle = _words(kind, kinds, stage)
    source = _source(unit, subject)
    ends = fitted([("t11", words.shape(source)), ("t11", words.shape(unit.shape))], 0)
    width = piece.length + 2 * max(60.0, ends + 4)
    width = max(width, 24 + fitted([("t12b", title), ("t11", subtitle)], 0))
    return Inset(kind, title, subtitle, piece, unit, width, 52 + piece.up + max(piece.down, 30) + 16)


def _before(unit: Unit, subject: Subject) -> Unit | None:
    """The unit whose output flows into this one."""
    before: Unit | None = None
    for other in subject.units:
        if other.nodes[0].index == unit.nodes[0].index:
            break
        before = other
    return before


def _detail(subject: Subject) -> str:
    return next((row for row in ("macs", "params") if row in subject.show), "shape")


def _source(unit: Unit, subject: Subject) -> tuple[int, ...]:
    """The shape of what a block reads."""
    nodes = unit.nodes if unit.kind != "dense" else series_nodes(unit.series)
    inside = {node.index for node in nodes}
    reads = [read for node in nodes for read in node.inputs if read not in inside]
    before = _before(unit, subject)
    if before is not None and before.last.index in reads:
        return before.shape
    return subject.graph.nodes[reads[0]].shape if reads else ()


def _words(kind: Kind, kinds: Sequence[Kind], stage: str) -> tuple[str, str]:
    unit, _ = kind.example
    here = f"here in {stage}" if len({s for _, s, _ in kind.units}) > 1 else f"in {stage}"
    firsts = all(place == 0 for _, _, place in kind.units)
    if unit.kind == "residual":
        rest = len(kinds) == 2 and not firsts
        title = "first block of a stage" if firsts and len(kinds) > 1 else "block"
        title = "every other block" if rest else title
        what = "projection on the shortcut" if unit.has_projection else "nothing on the shortcut"
        return title, f"{what}; {here}"
    if unit.kind == "dense":
        chans = unit.last.chans - unit.growth * unit.repeats
        formula = f"{chans} + {unit.repeats} × {unit.growth} = {unit.last.chans} channels"
        return "dense layer", f"reads all that is before it, adds {unit.growth}; {here}: {formula}"
    if unit.kind == "lanes":
        how = "concatenated" if unit.last.kind == "concat" else "added"
        return "module", f"{words.plural(_lanes(unit), 'lane')}, {how}; {here}"
    if unit.kind == "cell":
        return "cell", here
    if unit.kind == "gate":
        return "gated block", here
    title = "first block of a stage" if firsts and len(kinds) > 1 else "block"
    return title, f"no shortcut; {here}"


def _lanes(unit: Unit) -> int:
    return max((len(e.lanes) + e.identity for e in unit.series if isinstance(e, Lanes)), default=1)


def draw_insets(canvas: Canvas, insets: Sequence[Inset], subject: Subject, y: float, right: float) -> float:
    """Draws insets in rows, as many in each as fit; returns the lower edge."""
    rows: list[list[Inset]] = []
    for inset in insets:
        used = sum(i.width + _GAP for i in rows[-1]) if rows else 0.0
        if rows and MARGIN + used + inset.width <= right:
            rows[-1].append(inset)
        else:
            rows.append([inset])
    for row in rows:
        canvas.line("hair", (MARGIN, y), (right, y))
        up = max(inset.piece.up for inset in row)
        slot = (right - MARGIN + _GAP) / len(row)
        even = all(inset.width + _GAP <= slot for inset in row)
        x = float(MARGIN)
        for inset in row:
            _draw(canvas, inset, subject, x, y + 28, up)
            x += slot if even else inset.width + _GAP
        y += 28 + 40 + up + max(max(inset.piece.down, 26) for inset in row) + 22
    return y


def _draw(canvas: Canvas, inset: Inset, subject: Subject, x: float, y: float, up: float) -> None:
    canvas.text("t14b", x, y, inset.kind.letter, "start")
    offset = 8 + fitted([("t14b", inset.kind.letter)], 0)
    canvas.text("t12b", x + offset, y, inset.title, "start")
    canvas.text("t11 m", x + offset, y + 18, inset.subtitle, "start")
    middle = y + 40 + up
    style = inset_style(series_nodes(inset.unit.series), detail=_detail(subject))
    source = words.shape(_source(inset.unit, subject))
    nodes = inset.unit.nodes if inset.unit.kind != "dense" else series_nodes(inset.unit.series)
    after = words.shape(nodes[-1].shape)
    room = max(60.0, fitted([("t11", source), ("t11", after)], 0) + 4)
    pen = Pen(canvas, style, x, middle)
    begin, end = room, room + inset.piece.length
    pen.arrow((0, 0), (begin, 0), head=not inset.piece.opens)
    inset.piece.draw(pen, begin, 0)
    pen.arrow((end, 0), (end + room, 0))
    canvas.text("t11 m", x, middle + 18, source, "start")
    canvas.text("t11 m", x + end + room, middle + 18, after, "end")
