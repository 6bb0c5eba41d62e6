"""Figures of style `blocks`: a spine of stages, a table under it, and an inset for each kind of block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import insets, words
from .canvas import MARGIN, Canvas, fitted
from .figure import Figure, finish
from .frame import Captions, heading, legend
from .spine import Card, Spine, card_height, card_width, cards_of, draw_spine, lay_out
from .subject import Subject
from .table import column_width, draw_table, label_width
from .units import Stage, Unit

_SCALE = "height: log px, width: log channels"


def draw_blocks(subject: Subject, theme: str, *, each_block: bool) -> Figure:
    """The figure of one network.

    Args:
        subject: the network.
        theme: light, dark or print.
        each_block: a card for each stack of blocks, with insets; else one for each stage.
    """
    canvas = Canvas()
    stages = subject.stages
    kinds = insets.find_kinds(stages) if each_block else []
    letters = insets.letters_of(kinds)
    captions = not kinds
    cards = [cards_of(stage, letters, captions or stage.name == "head") for stage in stages]
    if not each_block:
        cards = [[_stage_card(stage)] for stage in stages]
    long = _long(cards)
    columns = [column_width(stage) for stage in stages]
    first = subject.sheet.request.shapes[0][1:]
    room = max(fitted([("t11", words.shape(first))], 6), card_width(first) + 16)
    x_input = MARGIN + label_width(subject) + room / 2
    left = x_input + room / 2 + 8
    wide = left + sum(columns) + 12 * len(columns)
    facts = Captions(subject.title, subject.facts, _SCALE)
    top = heading(canvas, facts, max(wide - MARGIN, 760.0))
    spine = lay_out(stages, cards, columns, left, top, long, card_height(first))
    right = spine.rights[-1] if spine.rights else left
    edge = _draw_input(canvas, first, x_input, spine.middle)
    draw_spine(canvas, spine, edge, long)
    y = draw_table(canvas, subject, stages, spine.centres, x_input, spine.bottom + 30, right)
    y = _draw_insets(canvas, kinds, subject, y, max(right, 760.0))
    legend(canvas, facts, y + 30, canvas.right)
    return finish(canvas, subject.title, _description(subject, spine), theme)


def _draw_input(canvas: Canvas, shape: Sequence[int], x: float, middle: float) -> float:
    """The input's box; returns its right edge."""
    high, wide = card_height(tuple(shape)), card_width(tuple(shape))
    with canvas.group("", "input"):
        canvas.rect("io", x - wide / 2, middle - high / 2, wide, high)
    canvas.text("t11", x, middle + high / 2 + 15, "input")
    return x + wide / 2


def _draw_insets(
    canvas: Canvas, kinds: Sequence[insets.Kind], subject: Subject, y: float, right: float
) -> float:
    placed = [insets.lay_out(kind, kinds, subject) for kind in kinds[: insets.MOST]]
    shown = [inset for inset in placed if inset is not None]
    if shown:
        y = insets.draw_insets(
            canvas, shown, subject, y + 30, max(right, MARGIN + max(i.width for i in shown))
        )
    missing = len(kinds) - len(shown)
    if missing:
        y += 14 if shown else 30
        plural = words.plural(missing, "more kind")
        canvas.text("t11 m", MARGIN, y, f"{plural} of block: level layer shows each operation", "start")
    return y


def _stage_card(stage: Stage) -> Card:
    """A whole stage as one card: its most frequent block, as often as it has blocks."""
    blocks = [unit for unit in stage.units if unit.is_block]
    units = blocks or list(stage.units)
    if not blocks:
        best = max(units, key=lambda unit: (unit.macs, unit.params))
        return Card((replace(best, nodes=(*best.nodes[:-1], replace(best.last, shape=stage.shape))),))
    common = next((u for u in reversed(units) if not u.has_projection), units[-1])
    strided = any(unit.strided for unit in stage.units)
    shown = _with_stride(common) if strided and not common.strided else common
    times = sum(unit.repeats for unit in units)
    card = Card(tuple([shown] * len(units)))
    card.caption = f"×{times}" if times > 1 else ""
    return card


def _with_stride(unit: Unit) -> Unit:
    """The same block, drawn as one that makes maps smaller."""
    first = unit.nodes[0]
    return replace(unit, nodes=(replace(first, stride=" /2"), *unit.nodes[1:]))


def _long(cards: Sequence[Sequence[Card]]) -> list[tuple[int, int]]:
    """Pairs of cards, the second of which reads the first past others."""
    placed = [card for group in cards for card in group]
    owner = {node.index: k for k, card in enumerate(placed) for unit in card.units for node in unit.nodes}
    pairs: set[tuple[int, int]] = set()
    for k, card in enumerate(placed):
        for unit in card.units:
            for node in unit.nodes:
                pairs.update((owner[r], k) for r in node.inputs if r in owner and owner[r] < k - 1)
    return sorted(pairs)


def _description(subject: Subject, spine: Spine) -> str:
    parts = [
        f"{stage.name}: {words.plural(sum(u.repeats for u in stage.units), 'unit')}, "
        f"output {words.shape(stage.shape)}"
        for stage in spine.stages
    ]
    return f"{subject.title} for an input of {subject.input_shapes}, by stages. {'; '.join(parts)}."
