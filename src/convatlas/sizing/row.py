"""An operation with all that follows from the rest of the network."""

from __future__ import annotations

from typing import NamedTuple

from . import formula
from .operation import Operation


class ReceptiveField(NamedTuple):
    """The part of the input that one output position depends on, per axis, in px.

    Padding is ignored: the extent is that of a position far from the border, and may exceed the input.

    Attributes:
        size: extent; None where it is global (every position may depend on the whole axis). Where positions
            see extents of several sizes, as after a transposed convolution, the largest.
        stride: how far the extent moves from one output position to the next; None where it does not move
            evenly.
        start: first px that output position 0 depends on; negative inside padding; None where global.
    """

    size: tuple[int | None, ...]
    stride: tuple[float | None, ...]
    start: tuple[int | None, ...]

    @property
    def is_global(self) -> bool:
        """Whether a position depends on the whole input, on some axis."""
        return None in self.size

    def __str__(self) -> str:
        return " x ".join("global" if s is None else str(s) for s in self.size)


class Row(Operation):
    """An operation, with its bytes and its receptive field.

    Attributes:
        bytes_read: bytes of the inputs and of the parameters and buffers it reads; 0 for a view.
        bytes_written: bytes of the outputs; 0 for a view.
        receptive_field: extent of the input that an output position depends on; None if it depends on none.
    """

    bytes_read: int
    bytes_written: int
    receptive_field: ReceptiveField | None

    @property
    def formulas(self) -> tuple[str, ...]:
        """How output size, parameters and multiply-adds are computed by hand, numbers put in; else empty."""
        return formula.formulas(self)

    @property
    def unread(self) -> tuple[int, ...]:
        """Rows or columns of the input, per axis, that a strided window never reads; else empty."""
        return formula.unread(self)


def make_row(operation: Operation, traffic: tuple[int, int], field: ReceptiveField | None) -> Row:
    """A row of an operation, the bytes that it reads and writes, and its receptive field."""
    row: Row = tuple.__new__(Row, operation)
    row.bytes_read, row.bytes_written = traffic
    row.receptive_field = field
    return row
