"""How numbers, shapes and titles are written in figures."""

from __future__ import annotations

import math
from collections.abc import Sequence


def count(value: int) -> str:
    """Three digits with their unit: 9.54 k, 216 k, 25.6 M, 3.86 G; as it is below 1,000."""
    if value < 1000:
        return str(value)
    units = iter("kMGTP")
    size, unit = value / 1000, next(units)
    while float(f"{size:.3g}") >= 1000:
        size, unit = size / 1000, next(units)
    digits = max(0, 2 - math.floor(math.log10(float(f"{size:.3g}"))))
    return f"{size:.{digits}f} {unit}"


def total(value: int) -> str:
    """A total: all digits with commas up to six, four digits with their unit above."""
    if value < 1_000_000:
        return f"{value:,}"
    size, unit = value / 1e6, "M"
    if size >= 1000:
        size, unit = size / 1000, "G"
    return f"{size:.2f} {unit}" if size < 1000 else f"{size:,.0f} {unit}"


def shape(sizes: Sequence[int]) -> str:
    """A shape without its batch, `64×56×56`."""
    return "×".join(map(str, sizes))


def plural(value: int, word: str) -> str:
    """`1 layer`, `3 layers`."""
    return f"{value:,} {word}" + ("" if value == 1 else "s")


def window(sizes: Sequence[int]) -> str:
    """A window, `3×3`; a window of one axis is a single number."""
    return "×".join(map(str, sizes))


def stride(sizes: Sequence[int]) -> str:
    """` /2`, ` /2×1`, or nothing where every stride is 1."""
    if all(s == 1 for s in sizes):
        return ""
    return " /" + (str(sizes[0]) if len(set(sizes)) == 1 else "×".join(map(str, sizes)))


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
