"""How an operation maps positions of its inputs to positions of its output.

The receptive field is computed from these records alone. An operation without one treats every
position alone (elementwise, with broadcasting).
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class Window(NamedTuple):
    """A sliding window over the last `len(kernel)` dimensions: a convolution or a pooling."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    padding_end: tuple[int, ...] | None = None
    transposed: bool = False

    @property
    def end(self) -> tuple[int, ...]:
        """Padding after the last position, per axis."""
        return self.padding if self.padding_end is None else self.padding_end


class Mix(NamedTuple):
    """Every output position along `dims` reads all of them; `drop` says that the dimensions vanish."""

    dims: tuple[int, ...]
    drop: bool = False


class Permute(NamedTuple):
    """Output dimension i is input dimension `order[i]`."""

    order: tuple[int, ...]


class Select(NamedTuple):
    """Basic indexing: per output dimension (input dimension or None, step); `offsets` per input dimension."""

    picks: tuple[tuple[int | None, int], ...]
    offsets: tuple[int, ...]


class Cat(NamedTuple):
    """Concatenation along `dim`."""

    dim: int


class Pad(NamedTuple):
    """Zeros or copies before and after, per dimension; what is copied counts as outside."""

    before: tuple[int, ...]


class Resize(NamedTuple):
    """Another number of positions over the last `len(new)` dimensions.

    Attributes:
        mode: "nearest", "nearest-exact", "area", "linear" or "cubic".
        new: positions after it, per axis.
        steps: input positions per output position, per axis.
        align_corners: whether the outermost positions of both meet.
        antialias: whether the filter widens where positions get fewer.
    """

    mode: str
    new: tuple[int, ...]
    steps: tuple[Fraction, ...]
    align_corners: bool = False
    antialias: bool = False

    @property
    def reach(self) -> int:
        """How far from its place an output reads at most, where positions get no fewer."""
        return {"linear": 1, "cubic": 2}.get(self.mode, 0)

    def reads(self, axis: int, o: int) -> Sequence[int]:
        """The input positions that an output far from the border depends on."""
        step = self.steps[axis]
        if self.mode == "nearest":
            return (math.floor(o * step),)
        if self.mode == "nearest-exact":
            return (math.floor((2 * o + 1) * step / 2),)
        if self.mode == "area":
            return range(math.floor(o * step), math.ceil((o + 1) * step))
        place = o * step if self.align_corners else (2 * o + 1) * step / 2 - Fraction(1, 2)
        reach = Fraction(self.reach)
        if self.antialias:
            reach *= max(step, 1)
        elif place.denominator == 1:
            return (int(place),)
        return range(math.floor(place - reach) + 1, math.ceil(place + reach))


class Shuffle(NamedTuple):
    """Channels become `factor` times as many positions along each of the last two dimensions."""

    factor: int


class Slide(NamedTuple):
    """Overlapping windows along `dim`, `step` apart; positions within a window become a last dimension."""

    dim: int
    step: int


class Attend(NamedTuple):
    """A product of two tensors over `(left, right)` dimensions; the rest of their dimensions stay."""

    left: tuple[int, ...]
    right: tuple[int, ...]


class Reshape(NamedTuple):
    """The same elements, in the same order, under another shape."""


class Everything(NamedTuple):
    """Every output position may read every input position."""


RESHAPE = Reshape()
EVERYTHING = Everything()

Geometry = (
    Window | Mix | Permute | Select | Cat | Pad | Resize | Shuffle | Slide | Attend | Reshape | Everything
)
