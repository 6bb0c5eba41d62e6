"""The atlas's chart: accuracy against cost, a bubble for each network. The page colours its classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

from .atlas import ACROSS, AREAS, Network
from .numbers import short

WIDTH, HEIGHT = 980, 452
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 18, 28, 44
_LARGEST_AREA = 17.0**2
_LETTER = 6.7
_LINE = 13.0
# Labelled first, where there is room: what lectures name.
_KNOWN = (
    "alexnet", "vgg16", "vgg19", "googlenet", "inception_v3", "inception_v4", "resnet18", "resnet50_v1",
    "resnet152_v1", "densenet121", "densenet264", "resnext101_64x4d", "xception", "mobilenet_v1_100",
    "mobilenet_v2_100", "senet154", "nasnet_a_large", "nasnet_a_mobile", "efficientnet_b0",
    "efficientnet_b7", "zfnet", "vgg11",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Bubble:
    network: Network
    x: float
    y: float
    r: float


Box = tuple[float, float, float, float]


def chart(networks: Sequence[Network], x: str, area: str, at: str) -> str:
    """The chart.

    Args:
        networks: those with a published accuracy are drawn.
        x: what stands on the axis: macs, params, memory or year.
        area: what the bubbles' area is: params, macs, memory or none.
        at: name of the network that is pointed at.
    """
    shown = [network for network in networks if network.top1 is not None]
    if not shown:
        return ""
    axis = _Axis(x, [float(getattr(network, x)) for network in shown])
    tops = [network.top1 or 0.0 for network in shown]
    low, high = math.floor(min(tops) / 5) * 5, math.ceil((max(tops) + 0.5) / 5) * 5
    largest = max((_amount(network, area) for network in shown), default=1.0)
    bubbles = [
        _Bubble(
            network,
            axis.at(float(getattr(network, x))),
            _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - (network.top1 or 0.0)) / (high - low),
            max(2.2, math.sqrt(_LARGEST_AREA * _amount(network, area) / largest)) if area != "none" else 5.0,
        )
        for network in shown
    ]
    bubbles.sort(key=lambda bubble: -bubble.r)
    legend = _legend(area, largest)
    parts = [*_grid(axis, low, high), *(_drawn(bubble, bubble.network.name == at) for bubble in bubbles)]
    parts += _labels(bubbles, at, _legend_box(area))
    words = (
        f"Published top-1 accuracy against {ACROSS[x].lower()} of {len(shown)} networks; "
        "the table below has the numbers"
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(words)}">'
        f"{''.join(parts)}{legend}</svg>"
    )


def _amount(network: Network, area: str) -> float:
    return 1.0 if area == "none" else float(getattr(network, area))


class _Axis:
    """The horizontal axis, of logarithms but for years."""

    def __init__(self, name: str, values: Sequence[float]) -> None:
        self.name, self._is_log = name, name != "year"
        low, high = (self._of(each) for each in (min(values), max(values)))
        room = max(0.06 * (high - low), 0.04 if self._is_log else 0.6)
        self._low, self._high = low - room, high + room

    def _of(self, value: float) -> float:
        return math.log10(value) if self._is_log else value

    def at(self, value: float) -> float:
        """Its place in px."""
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (self._of(value) - self._low) / (self._high - self._low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts."""
        if not self._is_log:
            first, last = math.ceil(self._low), math.floor(self._high)
            return [(self.at(year), str(year)) for year in range(first, last + 1)]
        found: list[tuple[float, str]] = []
        for exponent in range(math.floor(self._low), math.ceil(self._high) + 1):
            for digit in (1, 2, 5):
                value = digit * 10.0**exponent
                if self._low <= math.log10(value) <= self._high:
                    found.append((self.at(value), _round(value)))
        return found


def _round(value: float) -> str:
    text = short(value).split(" ")
    return " ".join([f"{float(text[0]):g}", *text[1:]])


def _grid(axis: _Axis, low: int, high: int) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts: list[str] = []
    step = 5 if high - low > 10 else 2 if high - low > 4 else 1
    for value in range(low, high + 1, step):
        y = _TOP + (bottom - _TOP) * (high - value) / (high - low)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    last = -100.0
    for x, text in axis.ticks():
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        if x - last > 46:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
            last = x
    scale = (
        "" if axis.name == "year" else " for one image, log scale" if axis.name != "params" else ", log scale"
    )
    unit = ", bytes" if axis.name == "memory" else ""
    parts.append(
        f'<text x="{WIDTH - _RIGHT}" y="{bottom + 37}" text-anchor="end">'
        f"{ACROSS[axis.name]}{unit}{scale} →</text>"
    )
    parts.append(f'<text x="{_LEFT}" y="14">↑ Top-1, %, as published</text>')
    return parts


def _drawn(bubble: _Bubble, lit: bool) -> str:
    network = bubble.network
    said = (
        f"{network.title}, {network.year}: top-1 {network.top1:.1f} % ({network.place}), "
        f"{short(network.params)} parameters, {short(network.macs)} multiply-adds"
    )
    classes = f"f-{network.family}" + (" on" if lit else "")
    mark = "b" if network.own else "b rep"
    return (
        f'<a class="{classes}" href="/networks/{network.name}" data-at="{network.name}" '
        f'aria-label="{escape(said)}">'
        f'<circle class="{mark}" cx="{bubble.x:.1f}" cy="{bubble.y:.1f}" r="{bubble.r:.1f}"/></a>'
    )


def _legend_box(area: str) -> Box:
    return (WIDTH - 250, HEIGHT - _BOTTOM - 56, WIDTH, HEIGHT - _BOTTOM) if area != "none" else (0, 0, 0, 0)


def _legend(area: str, largest: float) -> str:
    """Three circles of round numbers, and what their area is."""
    if area == "none":
        return ""
    top = 10 ** math.floor(math.log10(largest))
    amounts = [top / 20, top / 4, top]
    x, y = WIDTH - 236.0, HEIGHT - _BOTTOM - 12.0
    parts: list[str] = []
    for amount in amounts:
        r = math.sqrt(_LARGEST_AREA * amount / largest)
        x += r
        parts.append(f'<circle class="key" cx="{x:.1f}" cy="{y - r:.1f}" r="{r:.1f}"/>')
        x += r + 8
    values = ", ".join(_round(amount) for amount in amounts)
    what = AREAS[area].lower() + (" in bytes" if area == "memory" else "")
    parts.append(f'<text x="{x + 2:.1f}" y="{y - 14:.1f}">{values}</text>')
    parts.append(f'<text x="{x + 2:.1f}" y="{y:.1f}">{what} (area)</text>')
    return f'<g aria-hidden="true">{"".join(parts)}</g>'


def _labels(bubbles: Sequence[_Bubble], at: str, legend: Box) -> list[str]:
    """Names where there is room: never over another name, nor nearer to another bubble than its own."""
    rank = {name: i for i, name in enumerate(_KNOWN)}
    wanted = sorted(
        (
            bubble
            for bubble in bubbles
            if bubble.network.name in rank or bubble.network.name == at or len(bubbles) <= 24
        ),
        key=lambda bubble: (bubble.network.name != at, rank.get(bubble.network.name, 99)),
    )
    taken: list[Box] = [legend]
    parts: list[str] = []
    for bubble in wanted:
        placed = _place(bubble, bubbles, taken)
        if placed is None:
            continue
        box, lead = placed
        taken.append(box)
        lit = ' class="on"' if bubble.network.name == at else ""
        line = (
            ""
            if lead is None
            else f'<path class="lead" d="M{lead[0]:.1f} {lead[1]:.1f}L{lead[2]:.1f} {lead[3]:.1f}"/>'
        )
        parts.append(
            f'<g aria-hidden="true"{lit}>{line}'
            f'<text class="lb halo" x="{box[0] + 2:.1f}" y="{box[3] - 3:.1f}">'
            f"{escape(bubble.network.title)}</text></g>"
        )
    return parts


def _place(
    bubble: _Bubble, bubbles: Sequence[_Bubble], taken: Sequence[Box]
) -> tuple[Box, Box | None] | None:
    wide = _LETTER * len(bubble.network.title) + 4
    x, y, r = bubble.x, bubble.y, bubble.r
    spots: list[tuple[float, float, bool]] = [
        (x + r + 3, y - _LINE / 2, False), (x - r - 3 - wide, y - _LINE / 2, False),
        (x - wide / 2, y - r - _LINE - 1, False), (x - wide / 2, y + r + 2, False),
    ]  # fmt: skip
    for far in (18, 32, 48, 66, 86):
        spots += [(x - wide / 2, y - r - _LINE - far, True), (x - wide / 2, y + r + far, True)]
        spots += [(x + r + far, y - _LINE / 2 - far, True), (x - r - far - wide, y - _LINE / 2 - far, True)]
        spots += [(x + r + far, y - _LINE / 2 + far, True), (x - r - far - wide, y - _LINE / 2 + far, True)]
    for left, top, moved in spots:
        box = (left, top, left + wide, top + _LINE)
        inside = box[0] > _LEFT and box[2] < WIDTH - 4 and box[1] > _TOP - 8 and box[3] < HEIGHT - _BOTTOM
        if inside and not any(_overlap(box, other) for other in taken) and _is_free(box, bubble, bubbles):
            return box, _lead(box, bubble) if moved else None
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _is_free(box: Box, own: _Bubble, bubbles: Sequence[_Bubble]) -> bool:
    mine = _distance(box, own)
    for other in bubbles:
        gap = _distance(box, other)
        if other is not own and (gap < 1.5 or (mine < 16 and gap < mine)):
            return False
    return True


def _distance(box: Box, bubble: _Bubble) -> float:
    dx = max(box[0] - bubble.x, 0.0, bubble.x - box[2])
    dy = max(box[1] - bubble.y, 0.0, bubble.y - box[3])
    return math.hypot(dx, dy) - bubble.r


def _lead(box: Box, bubble: _Bubble) -> Box:
    """From the edge of a bubble to the nearest point of its name."""
    x = min(max(bubble.x, box[0]), box[2])
    y = min(max(bubble.y, box[1]), box[3])
    long = math.hypot(x - bubble.x, y - bubble.y) or 1.0
    edge = bubble.r / long
    return (bubble.x + (x - bubble.x) * edge, bubble.y + (y - bubble.y) * edge, x, y)
