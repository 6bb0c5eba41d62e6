"""Prisms of feature maps, on one scale for all networks, and the filters that lie on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import Canvas, Point, number

# An edge that runs back, as a share of the height, and how far in filters and their targets lie.
_BACK = (0.42, -0.30)
_FILTER, _UNIT = 0.62, (0.24, 0.34)
_VECTOR_WIDE, _VECTOR_BACK = 12.0, (5.0, -4.0)


@dataclass(frozen=True)
class Solid:
    """A feature map as a prism, or a vector as an upright bar.

    Attributes:
        slabs: (family, share of the width) from left to right; several for a concatenation.
        sizes: C, H and W, or units.
    """

    slabs: tuple[tuple[str, float], ...]
    sizes: tuple[int, ...]

    @property
    def is_vector(self) -> bool:
        """Whether it has no extent but its channels."""
        return len(self.sizes) < 2 or all(size == 1 for size in self.sizes[1:])

    @property
    def px(self) -> int:
        """Height of the map."""
        return self.sizes[-2:][0] if self.sizes else 1

    @property
    def high(self) -> float:
        """Of the front: 12 + 28 log2(px), or 8 + 13 log2(units)."""
        if self.is_vector:
            return 8 + 13 * math.log2(max(2, self.sizes[0]))
        return 12 + 28 * math.log2(max(1, self.px))

    @property
    def front(self) -> float:
        """Width of the front: 8 + 11 log2(channels)."""
        return _VECTOR_WIDE if self.is_vector else 8 + 11 * math.log2(max(1, self.sizes[0]))

    @property
    def back(self) -> Point:
        """From the front's corners to those behind."""
        return _VECTOR_BACK if self.is_vector else (_BACK[0] * self.high, _BACK[1] * self.high)

    @property
    def wide(self) -> float:
        """Of all of it."""
        return self.front + self.back[0]

    @property
    def tall(self) -> float:
        """Of all of it."""
        return self.high - self.back[1]


@dataclass(frozen=True)
class Placed:
    """A solid whose left edge lies at x and whose middle height at y."""

    solid: Solid
    x: float
    y: float

    @property
    def top(self) -> float:
        """Of the front."""
        return self.y - self.solid.tall / 2 - self.solid.back[1]

    def corner(self, right: bool, low: bool, behind: bool) -> Point:
        """A corner of the prism."""
        x = self.x + (self.solid.front if right else 0.0)
        y = self.top + (self.solid.high if low else 0.0)
        return (x + self.solid.back[0], y + self.solid.back[1]) if behind else (x, y)

    def on_face(self, across: float, down: float) -> Point:
        """A point of the map, which is the right face: shares of its depth and its height."""
        x, y = self.corner(True, False, False)
        return x + across * self.solid.back[0], y + across * self.solid.back[1] + down * self.solid.high

    @property
    def middle(self) -> float:
        """X of its middle."""
        return self.x + self.solid.wide / 2


def draw_solid(canvas: Canvas, placed: Placed) -> None:
    """Top, right and front of each slab."""
    solid = placed.solid
    bx, by = solid.back
    y = placed.top
    x = placed.x
    for place, (family, share) in enumerate(solid.slabs):
        canvas.families[family] = None
        wide = solid.front * share
        canvas.path(
            f"{family} top", _closed((x, y), (x + bx, y + by), (x + wide + bx, y + by), (x + wide, y))
        )
        if place == len(solid.slabs) - 1:
            right = x + wide
            low = y + solid.high
            canvas.path(
                family, _closed((right, y), (right + bx, y + by), (right + bx, low + by), (right, low))
            )
        canvas.rect(f"{family} front", x, y, wide, solid.high, 0)
        x += wide
    canvas.cover(placed.x, y + by, placed.x + solid.wide, y + solid.high)


def draw_rays(canvas: Canvas, source: Placed, target: Placed, kernel: Sequence[int]) -> None:
    """A filter at its true share of the map, and the unit of the next map that it makes."""
    px = source.solid.px
    wide_px = source.solid.sizes[-1]
    down, across = (min(1.0, kernel[0] / px), min(1.0, kernel[-1] / wide_px))
    u, v = min(_FILTER, 1 - across / 2), min(_FILTER, 1 - down / 2)
    corners = [
        source.on_face(u + dx * across / 2, v + dy * down / 2)
        for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    canvas.marks["filt"] = None
    canvas.path("filt", _closed(*corners))
    x, y = target.on_face(*_UNIT)
    rays = "".join(f"M{number(a)} {number(b)}L{number(x)} {number(y)}" for a, b in corners)
    canvas.path("ray", rays)
    canvas.rect("skiph", x - 2, y - 2, 4, 4, 0)


def draw_bridge(canvas: Canvas, source: Placed, target: Placed) -> None:
    """Dotted lines from a map or vector to a vector: each unit reads all of it."""
    top = source.corner(True, False, behind=True)
    low = source.corner(True, True, behind=False)
    to_top, to_low = target.corner(False, False, False), target.corner(False, True, False)
    d = "".join(
        f"M{number(a[0])} {number(a[1])}L{number(b[0])} {number(b[1])}"
        for a, b in ((top, to_top), (low, to_low))
    )
    canvas.path("hair2", d)


def _closed(*points: Point) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "Z"
