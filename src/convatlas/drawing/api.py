"""`draw`: a figure of any network, from its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from convatlas.errors import nearest
from convatlas.sizing import size

from .blocks import draw_blocks
from .figure import DrawingError, Figure
from .palette import THEMES
from .subject import SHOWS, Subject
from .volumes import draw_volumes

STYLES = ("blocks", "volumes", "graph")
LEVELS = ("stage", "block", "layer")


def draw(
    net: nn.Module,
    input_size: int | Sequence[Any],
    *,
    style: str = "blocks",
    level: str = "block",
    show: Sequence[str] = ("shapes", "params", "macs"),
    theme: str = "light",
    title: str = "",
    note: str = "",
) -> Figure:
    """Draws a network from a trace of its forward."""
    _check("style", style, STYLES)
    _check("level", level, LEVELS)
    _check("theme", theme, THEMES)
    for name in show:
        _check("show", name, SHOWS)
    sheet = size(net, input_size)
    name = getattr(net, "name", "")
    named = name if isinstance(name, str) and name else type(net).__name__
    subject = Subject(sheet, title or named, note, tuple(show))
    if style == "volumes":
        return draw_volumes(subject, theme, level)
    return draw_blocks(subject, theme, each_block=level != "stage")


def _check(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        close = nearest(str(value), allowed).split(",")[0]
        raise DrawingError(f"`{what}`={value!r}; expected one of {', '.join(allowed)}; nearest: {close}")
