"""What stands around a drawing: title, subtitle, legend and scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import MARGIN, Canvas, fitted, number, shown_width
from .palette import FAMILIES
from .pen import cut_box

DRAWING_TOP = 92.0
_ITEM_GAP, _ROW = 22.0, 22.0
_MARKS = {
    "stride": "stride over 1",
    "skip": "identity",
    "skipd": "projection",
    "long": "from further back",
    "filt": "what one unit of the next map sees",
}


@dataclass(frozen=True)
class Captions:
    """The words of a figure.

    Attributes:
        title: on top.
        facts: parts of the subtitle.
        scale: what sizes mean, at the bottom right.
        legend: words for families of operations that differ from the usual ones.
    """

    title: str
    facts: tuple[str, ...]
    scale: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def heading(canvas: Canvas, captions: Captions, widest: float) -> float:
    """Writes title and subtitle; returns where the drawing begins.

    Args:
        canvas: to draw on.
        captions: the words.
        widest: room for a line, in px; the subtitle is broken between its facts where it is wider.
    """
    titles = _wrapped(captions.title, "t20b", max(widest, 600.0))
    for place, line in enumerate(titles):
        canvas.text("t20b", MARGIN, 36 + 26 * place, line, "start")
    y = 60.0 + 26 * (len(titles) - 1)
    for line in lines_of(captions.facts, widest):
        canvas.text("t12 m", MARGIN, y, line, "start")
        y += 18
    return DRAWING_TOP + y - 78


def lines_of(facts: Sequence[str], widest: float, style: str = "t12") -> list[str]:
    """Facts in lines that are no wider than `widest` px, with dots between them.

    Args:
        facts: short texts; a longer one is broken at its spaces.
        widest: room for a line, in px.
        style: class of the text.
    """
    lines: list[str] = []
    for fact in [line for each in facts for line in _wrapped(each, style, widest)]:
        longer = f"{lines[-1]} · {fact}" if lines else fact
        if lines and fitted([(style, longer)], 0) > widest:
            lines.append(fact)
        elif lines:
            lines[-1] = longer
        else:
            lines.append(fact)
    return lines


def _wrapped(text: str, style: str, widest: float) -> list[str]:
    """A text in lines that are no wider, broken at spaces; a longer word stays whole."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and fitted([(style, longer)], 0) > widest:
            lines.append(word)
        elif lines:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def legend(canvas: Canvas, captions: Captions, y: float, right: float) -> None:
    """The families and marks that were drawn, and the scale, below a drawing.

    Args:
        canvas: to draw on.
        captions: its scale and words.
        y: middle of the first line.
        right: where the drawing ends.
    """
    names = FAMILIES | dict(captions.legend)
    items = [(name, names[name]) for name in names if name in canvas.families and name != "io"]
    items += [(name, text) for name, text in _MARKS.items() if name in canvas.marks]
    x = float(MARGIN)
    for name, text in items:
        wide = (20 if name in ("skip", "skipd", "long") else 18) + 8 + fitted([("t11", text)], 0)
        if x > MARGIN and x + wide > right:
            x, y = float(MARGIN), y + _ROW
        _sign(canvas, name, x, y)
        offset = 26 if name not in ("skip", "skipd", "long") else 28
        canvas.text("t11 m", x + offset, y, text, "start")
        x += offset + max(shown_width("t11", text), fitted([("t11", text)], 0)) + _ITEM_GAP
    if captions.scale:
        wide = fitted([("t11", captions.scale)], 0)
        if x > MARGIN and x + wide > right:
            y += _ROW
        canvas.text("t11 m", max(right, MARGIN + wide), y, captions.scale, "end")


def _sign(canvas: Canvas, name: str, x: float, y: float) -> None:
    if name in ("skip", "skipd", "long"):
        cls = "skip" if name == "long" else name
        canvas.path(cls, f"M{number(x)} {number(y)}h20")
    elif name == "stride":
        canvas.path("act", cut_box(x, y - 6, 18, 12, 4, 3, down=False))
    elif name == "filt":
        canvas.rect("filt", x, y - 6, 12, 12, 0)
    else:
        canvas.rect(name, x, y - 6, 18, 12, 6 if name == "act" else 3)
