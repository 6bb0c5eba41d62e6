"""Heat over an image: the image, the heat over it, and what the colours mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from convatlas.drawing import Figure
from convatlas.drawing.canvas import MARGIN, Canvas, number
from convatlas.drawing.figure import finish
from convatlas.drawing.frame import Captions, heading
from convatlas.drawing.palette import THEMES
from convatlas.errors import unknown
from convatlas.plots.pixels import coloured, contour, overlay, png_bytes

_GAP, _SCALE_WIDE, _SCALE_HIGH = 16.0, 160.0, 10.0


def draw_heat(
    pixels: Tensor, heat: Tensor, *, title: str, facts: Sequence[str], name: str, theme: str = "light"
) -> Figure:
    """Draws an image, and beside it heat over the image, with a line at half of the most.

    Args:
        pixels: of the image, (3, H, W) of uint8.
        heat: (H', W') in [0, 1]; where all of it is 0, no scale is drawn.
        title: on top.
        facts: below the title.
        name: of the figure, for readers that cannot see it.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    if theme not in THEMES:
        raise unknown("theme", theme, THEMES)
    image = pixels.permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    large = F.interpolate(heat[None, None], (height, width), mode="bicubic").clamp(0.0, 1.0)
    values = large[0, 0].double().numpy()
    canvas = Canvas()
    right = MARGIN + 2 * width + _GAP
    top = heading(canvas, Captions(title, tuple(facts)), right - MARGIN) - 8
    for i, shown in enumerate((image, overlay(image, values))):
        canvas.image(MARGIN + i * (width + _GAP), top, width, height, png_bytes(shown))
    if float(heat.max()) > 0.0:
        _line(canvas, MARGIN + width + _GAP, top, contour(values, 0.5))
        _scale(canvas, MARGIN + width + _GAP, top + height + 18)
    else:
        canvas.cover(0, 0, right, top + height + 8)
    canvas.text("t11 m", MARGIN, top + height + 18, "the part of the image that the network saw", "start")
    return finish(canvas, name, f"{name}. {'; '.join(facts)}.", theme)


def _line(canvas: Canvas, left: float, top: float, lines: list[list[tuple[float, float]]]) -> None:
    d = "".join(
        "M"
        + "L".join(f"{number(left + x)} {number(top + y)}" for x, y in line[:: max(len(line) // 160, 1)])
        + "Z"
        for line in lines
    )
    if d:
        canvas.path("under", d)
        canvas.path("over", d)


def _scale(canvas: Canvas, left: float, y: float) -> None:
    """The colours from nothing to the most, with the line's place on them."""
    shares = np.linspace(0.0, 1.0, 64)[None]
    ramp = coloured(0.3 + 0.6 * shares)
    canvas.text("t11 m", left, y, "0", "start")
    x = left + 14
    canvas.image(x, y - _SCALE_HIGH / 2, _SCALE_WIDE, _SCALE_HIGH, png_bytes(ramp))
    middle = x + _SCALE_WIDE / 2
    canvas.line("under", (middle, y - _SCALE_HIGH / 2), (middle, y + _SCALE_HIGH / 2))
    canvas.line("over", (middle, y - _SCALE_HIGH / 2), (middle, y + _SCALE_HIGH / 2))
    canvas.text("t11 m", x + _SCALE_WIDE + 8, y, "most; the line is half of it", "start")
