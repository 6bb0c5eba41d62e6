"""Positions along one axis that do not move evenly: after transposed convolutions, resampling and shuffles.

The part of the input that index o depends on repeats: that of o + period is the same, moved by `shift`.
Extents are exact for each phase, as a sum of fractions of a stride would not be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .geometry import Pad, Resize, Window

Extent = tuple[float, float] | None
"""First and last position; None where an index depends on nothing."""


class Axis(NamedTuple):
    """Extents of the indices of one period.

    Attributes:
        extents: of index 0 to period - 1.
        shift: how far the extent of the index one period on lies.
    """

    extents: tuple[Extent, ...]
    shift: float

    def at(self, index: int) -> Extent:
        """The extent of any index."""
        turns, phase = divmod(index, len(self.extents))
        found = self.extents[phase]
        return None if found is None else (found[0] + turns * self.shift, found[1] + turns * self.shift)


def even(low: float, high: float, step: float) -> Axis:
    """An axis along which each index lies `step` on from the last."""
    return Axis(((low, high),), step)


def hull(axis: Axis) -> tuple[float, float, float] | None:
    """First and last position of index 0 and step of the even axis that holds the extents of every phase."""
    step = axis.shift / len(axis.extents)
    found = [(e[0] - i * step, e[1] - i * step) for i, e in enumerate(axis.extents) if e is not None]
    return (min(e[0] for e in found), max(e[1] for e in found), step) if found else None


def mapped(axis: Axis, period: int, turn: int, reads: Callable[[int], Sequence[int]]) -> Axis:
    """The axis of an operation whose output o reads the inputs `reads(o)`.

    Args:
        axis: of the input.
        period: of the operation: output o + period reads inputs `turn` further than o does.
        turn: see `period`.
        reads: inputs of an output.
    """
    rounds = len(axis.extents) // math.gcd(len(axis.extents), turn) if turn else 1

    def extent(o: int) -> Extent:
        read = reads(o)
        if len(axis.extents) == 1 and len(read) > 2:
            read = (read[0], read[-1])
        return _union([axis.at(i) for i in read])

    extents = [extent(o) for o in range(period * rounds)]
    return _reduced(Axis(tuple(extents), axis.shift * (turn * rounds) / len(axis.extents)))


def _union(extents: Sequence[Extent]) -> Extent:
    found = [e for e in extents if e is not None]
    return (min(e[0] for e in found), max(e[1] for e in found)) if found else None


def _reduced(axis: Axis) -> Axis:
    """The same with the shortest period."""
    n = len(axis.extents)
    for period in range(1, n):
        if n % period:
            continue
        short = Axis(axis.extents[:period], axis.shift * period / n)
        if all(short.at(i) == axis.extents[i] for i in range(n)):
            return short
    return axis


def joined(axes: Sequence[Axis]) -> Axis | None:
    """The union of several; None where they do not move alike."""
    period = math.lcm(*(len(axis.extents) for axis in axes))
    shifts = {axis.shift * period / len(axis.extents) for axis in axes}
    if len(shifts) > 1:
        return None
    extents = tuple(_union([axis.at(i) for axis in axes]) for i in range(period))
    return _reduced(Axis(extents, shifts.pop()))


def window(axis: Axis, w: Window, i: int) -> Axis:
    """After a window over the i-th of its axes."""
    k, s, p, d = w.kernel[i], w.stride[i], w.padding[i], w.dilation[i]
    if w.transposed:
        # Output o is written by inputs i with o = i*s - p + j*d.
        taps = [j * d for j in range(k)]
        return mapped(axis, s, 1, lambda o: [(o + p - tap) // s for tap in taps if not (o + p - tap) % s])
    ends = [0, (k - 1) * d] if len(axis.extents) == 1 else [j * d for j in range(k)]
    return mapped(axis, 1, s, lambda o: [o * s - p + end for end in ends])


def resize(axis: Axis, r: Resize, i: int, old: int) -> Axis:
    """After interpolation along the i-th of its axes, from `old` positions."""
    if old == 1:
        return still(axis)
    return mapped(axis, r.steps[i].denominator, r.steps[i].numerator, lambda o: r.reads(i, o))


def shuffle(axis: Axis, factor: int) -> Axis:
    """After channels became positions."""
    return mapped(axis, factor, 1, lambda o: [o // factor])


def still(axis: Axis) -> Axis:
    """Where every output reads index 0."""
    return Axis((axis.at(0),), 0)


def select(axis: Axis, offset: int, step: int) -> Axis:
    """Every `step`-th index from `offset` on."""
    return mapped(axis, 1, step, lambda o: [o * step + offset])


def pad(axis: Axis, p: Pad, dim: int) -> Axis:
    """Shifted by what stands before; what a padding copies is as much outside as zeros are."""
    return mapped(axis, 1, 1, lambda o: [o - p.before[dim]])


def widest(axis: Axis) -> tuple[int, int]:
    """The largest extent of any phase in px, and the first px of index 0."""
    sizes = [math.floor(e[1]) - math.ceil(e[0]) + 1 for e in axis.extents if e is not None]
    first = next((axis.at(i) for i in range(len(axis.extents)) if axis.at(i) is not None), None)
    return max(sizes, default=0), 0 if first is None else math.ceil(first[0])
