"""Accuracy against measured latency and against MACs, the bubble's area for parameters.

Source: the chart of A. Canziani, A. Paszke, E. Culurciello, "An Analysis of Deep Neural Network Models for
Practical Applications", 2016, Figure 2.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convatlas.benchmark.measurement import Measurement
from convatlas.catalog.cards import find_card
from convatlas.catalog.index import short_amount
from convatlas.plots.training import DPI, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREA = 900.0
"""Points squared of the largest bubble."""
FONT = 7.5
Box = tuple[float, float, float, float]


def draw_bench(measured: Sequence[Measurement]) -> bytes:
    """Draws networks that have a published accuracy, each on its fastest engine, as a PNG.

    Args:
        measured: of several batch sizes, the smallest is drawn.

    Raises:
        ValueError: no network has both a published accuracy and a measured latency.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = _fastest(measured)
    if not rows:
        raise ValueError(
            "no image: none of the networks has a published ImageNet accuracy for its input size and a "
            "measured latency"
        )
    figure = Figure(figsize=(13, 6.2), dpi=DPI)
    grid = {"left": 0.055, "right": 0.87, "bottom": 0.1, "top": 0.85, "wspace": 0.08}
    panels = figure.subplots(1, 2, sharey=True, gridspec_kw=grid)
    families = sorted({find_card(row.network).module for row in rows})
    colours = dict(zip(families, (colormaps["tab20"](i % 20) for i in range(len(families))), strict=True))
    largest = max(row.params for row in rows)
    batch = f" for {rows[0].batch} images" if rows[0].batch > 1 else ""
    labels = (f"measured latency{batch}, ms (p50)", "multiply-adds for one image, millions")
    for axes, label, values in zip(
        panels,
        labels,
        ([1e3 * (row.latency or 0.0) for row in rows], [row.macs / 1e6 for row in rows]),
        strict=True,
    ):
        axes.set(xscale="log", xlabel=label)
        axes.set_xlim(min(values) / 1.7, max(values) * 2.6)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        areas = [AREA * row.params / largest for row in rows]
        shades = [colours[find_card(row.network).module] for row in rows]
        tops = [row.top1 or 0.0 for row in rows]
        axes.scatter(values, tops, areas, shades, alpha=0.6, edgecolors="white", linewidths=0.8)
        low, high = min(tops), max(tops)
        room = max(0.12 * (high - low), 1.0)
        axes.set_ylim(low - room, high + room)
        _label(axes, [row.network for row in rows], list(zip(values, tops, strict=True)), areas)
    panels[0].set_ylabel("published top-1 on ImageNet, %")
    first = rows[0]
    engines = ", ".join(dict.fromkeys(row.engine for row in rows))
    plural = "" if first.threads == 1 else "s"
    caption = (
        f"{engines}; {first.device}, {first.threads} thread{plural}; area: parameters, the largest "
        f"{short_amount(largest)}; names where there is room"
    )
    figure.text(0.055, 0.945, "Accuracy and what it costs", fontsize=14, fontweight="bold", va="center")
    figure.text(0.055, 0.895, caption, fontsize=9.5, color=GREY, va="center")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, alpha=0.7, label=family)
        for family, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.88, 0.5), frameon=False, fontsize=8.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _fastest(measured: Sequence[Measurement]) -> list[Measurement]:
    """Each network's fastest engine at the smallest batch, where all is known that is drawn."""
    known = [row for row in measured if row.latency is not None and row.top1 is not None]
    smallest = min((row.batch for row in known), default=0)
    best: dict[str, Measurement] = {}
    for row in sorted(known, key=lambda row: row.latency or 0.0):
        if row.batch == smallest:
            best.setdefault(row.network, row)
    return sorted(best.values(), key=lambda row: -row.params)


def _label(axes: Axes, names: list[str], points: list[tuple[float, float]], areas: list[float]) -> None:
    """Writes names beside their bubbles; none over another, the best trade-offs first."""
    pixel = DPI / 72
    centres = [(float(x), float(y)) for x, y in axes.transData.transform(points)]
    radii = [(area / 3.1416) ** 0.5 * pixel for area in areas]
    bubbles = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    frame = axes.get_window_extent()
    taken: list[Box] = []

    def better(i: int) -> int:
        """How many networks are both cheaper and more accurate."""
        return sum(x < centres[i][0] and y > centres[i][1] for x, y in centres)

    for i in sorted(range(len(names)), key=better):
        (x, y), radius = centres[i], radii[i]
        wide, high = len(names[i]) * FONT * 0.62 * pixel, FONT * 1.25 * pixel
        places: list[tuple[float, Box]] = []
        for far in (2.0, 12.0, 24.0):
            away = radius + far
            for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
                left = x + across * away - wide * (0.5 - 0.5 * across)
                low = y + up * away - high * (0.5 - 0.5 * up)
                box = left, low, left + wide, low + high
                outside = left < frame.x0 or box[2] > frame.x1 or low < frame.y0 or box[3] > frame.y1
                if outside or any(_overlap(box, other) for other in taken):
                    continue
                covered = sum(_overlap(box, bubble) for bubble in bubbles)
                places.append((covered + far * 8, box))
        if not places or min(places)[0] > 0.6 * wide * high + 200.0:
            continue
        box = min(places)[1]
        taken.append(box)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        nearest = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
        if (nearest[0] - x) ** 2 + (nearest[1] - y) ** 2 > (radius + 10.0) ** 2:
            ends = axes.transData.inverted().transform([(x, y), nearest])
            axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.5, alpha=0.7)
        where = axes.transData.inverted().transform(middle)
        axes.text(where[0], where[1], names[i], fontsize=FONT, ha="center", va="center")


def _overlap(one: Box, other: Box) -> float:
    """Area that two boxes (left, low, right, high) share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
