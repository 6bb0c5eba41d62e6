"""`draw`: a figure of any network, from its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from convatlas.errors import nearest
from convatlas.sizing import size

from .blocks import draw_blocks
from .columns import draw_columns
from .figure import DrawingError, Figure
from .palette import THEMES
from .subject import SHOWS, Subject
from .volumes import draw_volumes
from .wiring import draw_wiring

STYLES = ("blocks", "volumes", "graph")
LEVELS = ("stage", "block", "layer")


def draw(
    net: nn.Module | Sequence[nn.Module],
    input_size: int | Sequence[Any],
    *,
    style: str = "blocks",
    level: str = "block",
    show: Sequence[str] = ("shapes", "params", "macs"),
    theme: str = "light",
    title: str | Sequence[str] = "",
    note: str = "",
    module: str | Sequence[str] = "",
) -> Figure:
    """Draws a network from a trace of its forward, which reads no values: any device and mode will do.

    Args:
        net: any module; or several, which are drawn side by side, layer by layer, or under one another as
            `volumes`.
        input_size: as for `size`: height and width in px; or a shape without the batch, such as
            (3, 224, 224); or a list of such shapes for several inputs; or example tensors.
        style: `blocks`, stages and blocks on a spine; `volumes`, feature maps as prisms; `graph`, the wiring.
        level: what one box stands for: `stage`, `block` or `layer`.
        show: which numbers are written: any of `shapes`, `params`, `macs` and `rf`, the receptive field.
        theme: `light`, `dark` or `print`.
        title: written on top; default: the network's name, else its class. One for each of several networks.
        note: said first under the title.
        module: `graph`: the path of the module whose wiring is drawn, such as `layer1.0`. One for each of
            several networks.

    Returns:
        The figure: it shows itself in notebooks, and saves itself as SVG, PNG or PDF.

    Raises:
        TypeError: if `net` is no module.
        ValueError: if `style`, `level`, `show` or `theme` is unknown, or a network has too many layers for
            `level`.
        SizingError: if the network cannot be traced with this input.
    """
    _check("style", style, STYLES)
    _check("level", level, LEVELS)
    _check("theme", theme, THEMES)
    for name in show:
        _check("show", name, SHOWS)
    if isinstance(net, str):
        raise TypeError(f"`net`={net!r}; expected a torch.nn.Module, such as create_model({net!r})")
    nets = [net] if isinstance(net, nn.Module) else list(net)
    if not nets:
        raise DrawingError("`net` is an empty list; expected at least one network")
    titles = [title] if isinstance(title, str) else list(title)
    titles += [""] * (len(nets) - len(titles))
    subjects = [
        Subject(size(each, input_size), named or _name(each), note, tuple(show))
        for each, named in zip(nets, titles, strict=False)
    ]
    modules = [module] if isinstance(module, str) else list(module)
    modules += modules[-1:] * (len(nets) - len(modules))
    if any(modules) and style != "graph":
        raise DrawingError(f"`module`={module!r} is drawn by style='graph', not by style={style!r}")
    if style == "graph" and (any(modules) or (level != "layer" and len(nets) == 1)):
        return draw_wiring(subjects, modules[: len(nets)], theme, level)
    if style == "volumes":
        return draw_volumes(subjects, theme, level)
    if len(subjects) > 1 or level == "layer":
        return draw_columns(subjects, theme, numbers=style == "graph")
    return draw_blocks(subjects[0], theme, each_block=level != "stage")


def _name(net: nn.Module) -> str:
    name = getattr(net, "name", "")
    return name if isinstance(name, str) and name else type(net).__name__


def _check(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        close = nearest(str(value), allowed).split(",")[0]
        raise DrawingError(f"`{what}`={value!r}; expected one of {', '.join(allowed)}; nearest: {close}")
