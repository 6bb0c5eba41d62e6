"""Images of studies: one look for all."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def render(draw: Callable[[Figure], None], *, width: float = 9.0, height: float = 4.0) -> bytes:
    """Draws an image as PNG, without pyplot and its state.

    Args:
        draw: draws on the figure.
        width: in inches of 120 px.
        height: likewise.
    """
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained", dpi=120)
    draw(figure)
    for axes in figure.axes:
        soften(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def soften(axes: Axes) -> None:
    """Light grid, no frame at the top and the right, no frame around the legend."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.get_legend()
    if legend is not None:
        legend.set_frame_on(False)
