"""How numbers are written on the pages. Needs no torch."""

from __future__ import annotations

MIB = 1024**2


def short(value: float) -> str:
    """Three digits with their unit: 25.6 M, 4.09 G."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    return f"{value:.0f}"


def mib(count: float) -> str:
    """Bytes as MiB."""
    value = count / MIB
    return f"{value:,.2f}" if value >= 0.095 or not count else f"{value:.2g}"


def ratio(value: float | None) -> str:
    """A ratio to two digits after the point; three significant ones where small."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"
