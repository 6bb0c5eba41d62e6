"""The spine of a `blocks` figure: stages in frames, blocks as cards on the common scale, skips as arcs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .canvas import Canvas, fitted
from .graph import Node
from .pen import Pen, Style
from .stages import stacks_of
from .tree import Lanes, residual_of
from .units import Stage, Unit

_FRAME_GAP = 12.0
_NAME_ROOM = 30.0
_LEVEL = 12.0
_STYLE = Style(False, 0, 0, 20, 20, 0, 16, 7, 9, "", "t12b")


@dataclass
class Card:
    """One stack of equal blocks, or a layer.

    Attributes:
        units: the stack.
        letter: of the inset that explains it.
        caption: written below.
        x: left edge of the front sheet.
    """

    units: tuple[Unit, ...]
    letter: str = ""
    caption: str = ""
    x: float = 0.0

    @property
    def unit(self) -> Unit:
        """Any of its units: they are equal."""
        return self.units[0]

    @property
    def times(self) -> int:
        """How often the block comes."""
        return len(self.units) * self.unit.repeats

    @property
    def sheets(self) -> int:
        """At most three stand for all."""
        return min(3, self.times)

    @property
    def skips(self) -> str:
        """`skip`, `skipd` or nothing."""
        if self.unit.kind not in ("residual", "chain", "dense") or not _ends_in_skip(self.unit):
            return ""
        return "skipd" if self.unit.has_projection else "skip"

    @property
    def high(self) -> float:
        """Of the front sheet."""
        return card_height(self.unit.shape)

    @property
    def wide(self) -> float:
        """Of the front sheet."""
        need = fitted([("t12b", self.letter)], 6) if self.letter else 0.0
        return max(card_width(self.unit.shape), need)

    @property
    def family(self) -> str:
        """The colour: of most of the multiply-adds."""
        return main_family(self.unit)

    @property
    def lead(self) -> float:
        """Before its front sheet, for the point where a skip leaves."""
        return 20.0

    @property
    def tail(self) -> float:
        """Behind its front sheet: other sheets, and the sum of a skip."""
        sheets = 4.0 * (self.sheets - 1)
        if self.skips:
            return sheets + (9 if sheets else 5) + 2 * _STYLE.radius
        return sheets


def _ends_in_skip(unit: Unit) -> bool:
    last = unit.series[-1]
    return isinstance(last, Lanes) and residual_of(last) is not None


def card_height(shape: tuple[int, ...]) -> float:
    """14 + 15 log2(px); for a vector 8 + 4.9 log2(units)."""
    if len(shape) < 2 or all(s == 1 for s in shape[1:]):
        return max(24.0, 8 + 4.9 * math.log2(max(2, shape[0] if shape else 1)))
    return 14 + 15 * math.log2(max(1, shape[-2] if len(shape) > 2 else shape[-1]))


def card_width(shape: tuple[int, ...]) -> float:
    """6 + 3.2 log2(channels); 14 for a vector."""
    if len(shape) < 2 or all(s == 1 for s in shape[1:]):
        return 14.0
    return 6 + 3.2 * math.log2(max(2, shape[0]))


def main_family(unit: Unit) -> str:
    """The family of most of a block's multiply-adds; a block of depthwise convolutions takes theirs."""
    if not unit.is_block:
        node = unit.last
        return "io" if node.is_join else node.family
    macs: dict[str, int] = {}
    for node in unit.nodes:
        macs[node.family] = macs.get(node.family, 0) + node.macs
    depthwise = any(node.family == "dw" for node in unit.nodes)
    if depthwise:
        return "dw"
    if any(node.family == "conv" for node in unit.nodes):
        return "conv"
    return max(macs, key=lambda name: macs[name], default="conv")


@dataclass
class Spine:
    """A laid out spine.

    Attributes:
        cards: per stage.
        lefts: left edges of frames.
        rights: right edges of frames.
        middle: y of the flow.
        top: of frames.
        bottom: of frames.
    """

    stages: Sequence[Stage]
    cards: list[list[Card]]
    widths: list[float]
    lefts: list[float] = field(default_factory=list)
    rights: list[float] = field(default_factory=list)
    middle: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    @property
    def centres(self) -> list[float]:
        """Middles of frames."""
        return [(a + b) / 2 for a, b in zip(self.lefts, self.rights, strict=True)]


def cards_of(stage: Stage, letters: dict[int, str], captions: bool) -> list[Card]:
    """A stage's cards; `letters` by the first node of a block."""
    cards: list[Card] = []
    for stack in stacks_of(stage.units):
        card = Card(stack, letters.get(stack[0].nodes[0].index, ""))
        if card.times > 1:
            card.caption = f"×{card.times}"
            if card.unit.growth:
                card.caption += f", +{card.unit.growth}"
        elif captions and not card.unit.is_block:
            card.caption = short_word(card.unit.last)
        cards.append(card)
    return cards


def short_word(node: Node) -> str:
    """A layer in a word or a window, for below its card."""
    if node.is_join:
        return node.kind
    if node.kind == "linear":
        return "fc"
    if node.kind == "pool":
        return node.label.split()[0]
    return node.label.split(",")[0]


def _spread(cards: Sequence[Card]) -> float:
    """Width of a stage's content, and places of its cards from its left edge."""
    x = 0.0
    for k, card in enumerate(cards):
        caption = fitted([("t11", card.caption)], 4) if card.caption else 0.0
        over = max(0.0, (caption - card.wide - card.lead - 4 * (card.sheets - 1)) / 2)
        x += (card.lead if k or card.skips else 14.0) + over
        card.x = x
        x += card.wide + card.tail + over
    return x + (9.0 if cards and cards[-1].skips else 14.0)


def lay_out(stages: Sequence[Stage], cards: list[list[Card]], columns: Sequence[float], x: float, top: float,
            long: Sequence[tuple[int, int]], first_height: float) -> Spine:  # fmt: skip
    """Places frames and cards.

    Args:
        stages: the stages.
        cards: their cards.
        columns: the least width of each frame.
        x: left edge of the first frame.
        top: upper edge of all frames.
        long: pairs of cards that a long connection joins.
        first_height: of the input's box.
    """
    spine = Spine(stages, cards, [])
    for group, column in zip(cards, columns, strict=True):
        content = _spread(group)
        wide = max(content, column)
        shift = x + (wide - content) / 2
        for card in group:
            card.x += shift
        spine.lefts.append(x)
        spine.rights.append(x + wide)
        x += wide + _FRAME_GAP
    everything = [card for group in cards for card in group]
    up = max([first_height / 2, *(card.high / 2 + _above(card) for card in everything)])
    levels = max((level for _, _, level in leveled(long)), default=-1) + 1
    up += _LEVEL * levels + (10 if levels else 0)
    down = max([first_height / 2 + 26, *(c.high / 2 + (26 if c.caption else 10) for c in everything)])
    spine.top = top
    spine.middle = top + _NAME_ROOM + up
    spine.bottom = spine.middle + down + 8
    return spine


def _above(card: Card) -> float:
    return 4.0 * (card.sheets - 1) + (16 if card.skips else 4)


def leveled(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Long connections with their levels: those that overlap lie on different ones."""
    placed: list[tuple[int, int, int]] = []
    for a, b in sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair)):
        taken = {level for c, d, level in placed if a < d and c < b}
        placed.append((a, b, next(k for k in range(len(placed) + 1) if k not in taken)))
    return placed


def draw_spine(canvas: Canvas, spine: Spine, at: float, long: Sequence[tuple[int, int]]) -> None:
    """Draws frames, the flow from `at`, cards and their skips."""
    pen = Pen(canvas, _STYLE, 0, spine.middle)
    for stage, left, right in zip(spine.stages, spine.lefts, spine.rights, strict=True):
        canvas.rect("frame", left, spine.top, right - left, spine.bottom - spine.top, 8)
        canvas.text("t12b", (left + right) / 2, spine.top + 16, stage.name)
    placed = [card for group in spine.cards for card in group]
    for card in placed:
        at = _draw_card(pen, card, at)
    if long:
        _draw_long(pen, placed, long)


def _draw_card(pen: Pen, card: Card, at: float) -> float:
    """Draws a card behind the flow from `at`; returns where the flow goes on."""
    canvas, y = pen.canvas, pen.y
    pen.arrow((at, 0), (card.x, 0))
    family = card.family
    canvas.families[family] = None
    paths = dict.fromkeys(unit.path for unit in card.units)
    names = list(paths)
    title = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    with canvas.group(names[0], title):
        for sheet in reversed(range(card.sheets)):
            place = (card.x + 4 * sheet, 4.0 * sheet)
            pen.box(family, *place, card.wide, card.high, cut=card.unit.strided)
        if card.letter:
            canvas.text("t12b", card.x + card.wide / 2, y, card.letter)
    right = card.x + card.wide
    back = right + 4 * (card.sheets - 1)
    if card.caption:
        style = "t12b" if card.caption.startswith("×") else "t11"
        canvas.text(style, (card.x + back) / 2, y + card.high / 2 + 13, card.caption)
    if not card.skips:
        return back
    radius = _STYLE.radius
    middle = right + card.tail - radius
    fork = card.x - 11
    level = card.high / 2 + _above(card) - 2
    canvas.marks[card.skips] = None
    pen.dot((fork, 0))
    pen.rounded(card.skips, [(fork, 0), (fork, level), (middle, level), (middle, radius + 6)], 7)
    pen.head("skiph", (middle, radius), 0, -1)
    pen.line("flow", (back, 0), (middle - radius / 2, 0))
    if card.unit.last.kind == "concat":
        pen.box("join", middle - radius / 2, 0, radius, 2 * radius)
        pen.line("joinl", (middle - radius / 2, 0), (middle + radius / 2, 0))
        return middle + radius / 2
    pen.joint((middle, 0), card.unit.last.label)
    return middle + radius


def _draw_long(pen: Pen, cards: Sequence[Card], pairs: Sequence[tuple[int, int]]) -> None:
    """Connections that pass whole cards, over everything else."""
    pen.canvas.marks["long"] = None
    base = max(card.high / 2 + _above(card) for card in cards) + 8
    for a, b, level in leveled(pairs):
        start, card = cards[a], cards[b]
        fork = start.x + start.wide + start.tail + 5
        tip = card.high / 2 + 4.0 * (card.sheets - 1)
        into = card.x + min(8.0, card.wide / 2) + 4.0 * (card.sheets - 1)
        height = base + _LEVEL * level
        if a < 0:
            continue
        pen.dot((fork, 0))
        pen.rounded("skip", [(fork, 0), (fork, height), (into, height), (into, tip + 6)], 7)
        pen.head("skiph", (into, tip), 0, -1)
