"""The figure beside the sheet: one small SVG for each line, which join to one drawing of the network.

Height is the logarithm of the map's side, width that of its channels. A cut corner stands for a stride.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from .outline import Line

WIDTH = 128
HEIGHT = 30
_MAIN = 78.0
_SKIP = 16.0
_LANES = (30.0, 118.0)


@dataclasses.dataclass
class _Open:
    """An open block while its operations are drawn."""

    skip: bool
    xs: dict[str, float]
    first: int
    join: int


def spine(lines: Sequence[Line]) -> list[str]:
    """An SVG for each line."""
    cells: list[str] = []
    inside: _Open | None = None
    for i, line in enumerate(lines):
        if line.kind == "block":
            inside = _opened(lines, i) if line.is_open else None
        elif line.kind == "stage":
            inside = None
        above, below = i > 0, i + 1 < len(lines)
        if line.kind == "operation" and inside is not None:
            parts = _operation(line, i, inside, below)
        else:
            parts = _closed(line, above, below, rows_alone=_has_no_blocks(lines))
        cells.append(
            f'<svg class="g" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
        )
    return cells


def _has_no_blocks(lines: Sequence[Line]) -> bool:
    return all(line.kind == "stage" for line in lines)


def _opened(lines: Sequence[Line], at: int) -> _Open:
    end = at + 1
    while end < len(lines) and lines[end].kind == "operation":
        end += 1
    joins = [i for i in range(at + 1, end) if lines[i].mark == "add" and lines[i].lane == "main"]
    names = sorted({lines[i].lane for i in range(at + 1, end) if lines[i].lane.isdecimal()}, key=int)
    left, right = _LANES
    step = (right - left) / max(1, len(names) - 1)
    xs = {name: left + k * step for k, name in enumerate(names)}
    return _Open(bool(lines[at].skip), xs, at + 1, joins[-1] if joins else end)


def _closed(line: Line, above: bool, below: bool, rows_alone: bool) -> list[str]:
    parts = [_down(_MAIN, 0 if above else HEIGHT / 2, HEIGHT if below else HEIGHT / 2)]
    if line.is_open or (line.kind == "stage" and not rows_alone):
        return parts if above else [_down(_MAIN, 0, HEIGHT)] if below else []
    wide, high = _extent(line)
    if line.skip:
        parts.append(_arc(wide, line.skip == "projection"))
    if line.mark in ("lanes", "cell"):
        return parts + _lanes(wide, high, max(2, line.branches))
    parts.append(_box(line, _MAIN, wide, high))
    if line.mark in ("block", "dense"):
        parts += _divided(wide, high, 5 if line.mark == "dense" else 2)
    return parts


def _operation(line: Line, i: int, inside: _Open, below: bool) -> list[str]:
    before_join, at_join = i < inside.join, i == inside.join
    split = bool(inside.xs) and before_join
    parts: list[str] = []
    if split:
        parts += [_down(x, 0, HEIGHT) for x in inside.xs.values()]
        if i == inside.first:
            parts.append(_across(min(inside.xs.values()), max(inside.xs.values()), 0.6))
    else:
        parts.append(_down(_MAIN, 0, HEIGHT if below else HEIGHT / 2))
    if at_join and inside.xs:
        parts.append(_across(min(inside.xs.values()), max(inside.xs.values()), 0.6))
    if inside.skip and before_join:
        start = f"M{_MAIN} .7H{_SKIP}V{HEIGHT}" if i == inside.first else f"M{_SKIP} 0V{HEIGHT}"
        parts.append(f'<path class="sk" d="{start}"/>')
    if at_join and inside.skip:
        parts.append(f'<path class="sk" d="M{_SKIP} 0V{HEIGHT / 2}H{_MAIN - 7}"/>')
    wide, high = _extent(line)
    if line.lane == "skip":
        return [*parts, _box(line, _SKIP, min(16.0, wide), min(14.0, high))]
    x = inside.xs.get(line.lane, _MAIN) if split else _MAIN
    most = (_LANES[1] - _LANES[0]) / max(1, len(inside.xs) - 1) - 4 if split else 100.0
    return [*parts, _box(line, x, min(wide, most), high)]


def _extent(line: Line) -> tuple[float, float]:
    chans = line.shape[0] if line.shape else 1
    side = line.shape[-1] if len(line.shape) > 1 else 1
    if line.mark in ("thin", "view"):
        return (20.0, 6.0) if line.kind == "operation" else (24.0, 8.0)
    wide = 16 + 5.2 * math.log2(max(1, chans))
    return min(96.0, max(14.0, wide)), min(25.0, 8 + 2.1 * math.log2(max(1, side)))


def _down(x: float, top: float, bottom: float) -> str:
    return f'<path class="sp" d="M{x:g} {top:g}V{bottom:g}"/>'


def _across(left: float, right: float, y: float) -> str:
    return f'<path class="sp" d="M{left:g} {y:g}H{right:g}"/>'


def _arc(wide: float, projection: bool) -> str:
    x = _MAIN - wide / 2 - 13
    path = f"M{_MAIN} 1.2H{x + 5:.1f}q-5 0 -5 5V{HEIGHT - 6.2}q0 5 5 5H{_MAIN}"
    box = f'<rect class="n" x="{x - 4:.1f}" y="10.5" width="8" height="9"/>' if projection else ""
    return f'<path class="sk" d="{path}"/>{box}'


def _box(line: Line, x: float, wide: float, high: float) -> str:
    left, top = x - wide / 2, (HEIGHT - high) / 2
    if line.mark == "add":
        return (
            f'<circle class="n" cx="{x:g}" cy="15" r="6.5"/>'
            f'<path class="plus" d="M{x - 3.5:g} 15h7M{x:g} 11.5v7"/>'
        )
    if line.mark == "view":
        return ""
    if line.mark == "pool":
        slope = min(7.0, wide / 4)
        return (
            f'<path class="n pool" d="M{left:.1f} {top:.1f}h{wide:.1f}l{-slope:.1f} {high:.1f}'
            f'h{2 * slope - wide:.1f}z"/>'
        )
    kind = {"linear": " lin", "thin": " thin"}.get(line.mark, "")
    if line.strided:
        cut = min(6.0, high / 2, wide / 3)
        return (
            f'<path class="n{kind}" d="M{left:.1f} {top:.1f}h{wide:.1f}v{high - cut:.1f}'
            f'l{-cut:.1f} {cut:.1f}h{cut - wide:.1f}z"/>'
        )
    round_ = f' rx="{high / 2:.1f}"' if line.mark == "thin" else ' rx="1"'
    return (
        f'<rect class="n{kind}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}"{round_}/>'
    )


def _divided(wide: float, high: float, count: int) -> list[str]:
    left, top = _MAIN - wide / 2, (HEIGHT - high) / 2
    step = wide / (count + 1)
    marks = "".join(f"M{left + step * (k + 1):.1f} {top + 1:.1f}v{high - 2:.1f}" for k in range(count))
    return [f'<path class="k" d="{marks}"/>']


def _lanes(wide: float, high: float, count: int) -> list[str]:
    count = min(count, 6)
    wide = max(wide, count * 9.0)
    each = (wide - 3 * (count - 1)) / count
    left, top = _MAIN - wide / 2, (HEIGHT - high) / 2
    return [
        f'<rect class="n" x="{left + k * (each + 3):.1f}" y="{top:.1f}" width="{each:.1f}" '
        f'height="{high:.1f}" rx="1"/>'
        for k in range(count)
    ]
