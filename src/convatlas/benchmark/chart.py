"""Accuracy against measured latency and against MACs, the bubble's area for parameters."""

from __future__ import annotations

from collections.abc import Sequence

from convatlas.benchmark.measurement import Measurement
from convatlas.catalog.cards import find_card
from convatlas.catalog.families import family_of
from convatlas.drawing import Figure
from convatlas.plots.bubbles import Bubble, draw_bubbles


def draw_bench(measured: Sequence[Measurement], *, theme: str = "light") -> Figure:
    """Draws networks that have a published accuracy, each on its fastest engine.

    Args:
        measured: of several batch sizes, the smallest is drawn.
        theme: light, dark or print.

    Raises:
        ValueError: no network has both a published accuracy and a measured latency.
    """
    rows = _fastest(measured)
    if not rows:
        raise ValueError(
            "no image: none of the networks has a published ImageNet accuracy for its input size and a "
            "measured latency"
        )
    found = [
        Bubble(
            row.network,
            row.network,
            family_of(find_card(row.network)).colour,
            row.top1 or 0.0,
            row.params,
            (row.latency or 0.0, row.macs),
        )
        for row in rows
    ]
    first = rows[0]
    batch = f"{first.batch} images" if first.batch > 1 else "one image"
    threads = f"{first.threads} thread" + ("" if first.threads == 1 else "s")
    facts = (
        f"published top-1 accuracy on ImageNet, against the median latency of {batch} and the multiply-adds "
        "of one",
        f"{', '.join(dict.fromkeys(row.engine for row in rows))}; {first.device}, {threads}",
    )
    axes = ((f"measured latency of {batch}", "s"), ("multiply-adds of one image", ""))
    note = "latency: each network on its fastest engine, measured here; accuracies as published"
    return draw_bubbles("Accuracy and what it costs", facts, axes, found, note=note, theme=theme)


def _fastest(measured: Sequence[Measurement]) -> list[Measurement]:
    """Each network's fastest engine at the smallest batch, where all is known that is drawn."""
    known = [row for row in measured if row.latency is not None and row.top1 is not None]
    smallest = min((row.batch for row in known), default=0)
    best: dict[str, Measurement] = {}
    for row in sorted(known, key=lambda row: row.latency or 0.0):
        if row.batch == smallest:
            best.setdefault(row.network, row)
    return sorted(best.values(), key=lambda row: -(row.top1 or 0.0))
