"""Accuracy, operations and memory: published top-1 against MACs and against bytes, areas for parameters."""

from __future__ import annotations

from convatlas.drawing.figure import Figure
from convatlas.plots.bubbles import Bubble, draw_bubbles
from convatlas.plots.history.data import points

_NOTE = (
    "accuracies as published, of one network, by each paper's own protocol (one crop where it was printed); "
    "memory: weights and all maps of one image in float32"
)


def draw_accuracy(*, years: tuple[int, int] | None = None, theme: str = "light") -> Figure:
    """Draws published top-1 accuracy against multiply-adds and against memory, both on logarithmic axes.

    Args:
        years: first and last year of the papers.
        theme: light, dark or print.

    Raises:
        ValueError: no network of these years has a published accuracy.
    """
    low, high = years or (0, 9999)
    found = [
        Bubble(p.network, p.label, p.colour, p.top1, p.params, (p.macs, p.memory))
        for p in points()
        if low <= p.year <= high
    ]
    if not found:
        raise ValueError(f"`years`={low}..{high}: no network of these years with a published accuracy")
    facts = ("top-1 accuracy on ImageNet as published, against multiply-adds and memory of one image",)
    axes = (("multiply-adds", ""), ("memory", "B"))
    return draw_bubbles("Accuracy and what it costs", facts, axes, found, note=_NOTE, theme=theme)
