"""How an operation maps positions of its inputs to positions of its output.

The receptive field is computed from these records alone. An operation without one treats every
position alone (elementwise, with broadcasting).
"""

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
    """Zeros or copies before and after, per dimension."""

    before: tuple[int, ...]


class Resize(NamedTuple):
    """Interpolation to another size over the last dimensions; `reach`: 0 nearest, 1 linear, 2 cubic."""

    scale: tuple[float, ...]
    reach: int


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

Geometry = Window | Mix | Permute | Select | Cat | Pad | Resize | Attend | Reshape | Everything
