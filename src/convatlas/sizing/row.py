"""One operation of a traced network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import formula
from .geometry import Geometry

if TYPE_CHECKING:
    from .receptive import ReceptiveField

Shape = tuple[int, ...]

# Operations of this kind move no data: they give another view of the same storage.
VIEW = "view"


class Row(NamedTuple):
    """One operation: what came in, what goes out and what it costs.

    Attributes:
        index: position in execution order, from 0.
        path: dotted path of the module whose forward called it; "" for the network itself.
        op: PyTorch's name of the operation, such as `conv2d`.
        kind: family of the operation: conv, linear, matmul, attention, norm, activation, pool, elementwise,
            reduce, resize, copy, view, create or other.
        inputs: where each input comes from: the index of a row, or -1 - i for the network's i-th input.
        input_shapes: shapes of these inputs.
        output_shapes: shapes of what it returns.
        dtype: of the output.
        params: parameters that are used here for the first time (a shared one counts once).
        constants: elements of parameters, buffers and other tensors from outside the graph that it reads.
        macs: multiply-adds, for convolutions, linear layers and matrix products; 0 for all else.
        flops: arithmetic operations without the bias: 2 per multiply-add, see `docs` for the others.
        bias_flops: additions of a bias.
        counted: False if the operation has no rule, so that its arithmetic (not its shape) is unknown.
        inplace: True if it writes into its first input.
        geometry: how positions map, for the receptive field.
        trace: the trace it belongs to.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    path: str
    op: str
    kind: str
    inputs: tuple[int, ...]
    input_shapes: tuple[torch.Size, ...]
    output_shapes: tuple[torch.Size, ...]
    dtype: torch.dtype
    params: int
    constants: int
    macs: int
    flops: int
    bias_flops: int
    counted: bool
    inplace: bool
    geometry: Geometry | None
    trace: Any

    def __repr__(self) -> str:
        shapes = " + ".join(map(str, (tuple(s) for s in self.input_shapes)))
        out = ", ".join(map(str, (tuple(s) for s in self.output_shapes)))
        return f"Row({self.index}, {self.path!r}, {self.op}, {shapes} -> {out}, macs={self.macs:,})"

    @property
    def output_shape(self) -> Shape:
        """Shape of the (first) output."""
        return tuple(self.output_shapes[0])

    @property
    def output_elements(self) -> int:
        """Elements of all outputs."""
        return sum(shape.numel() for shape in self.output_shapes)

    @property
    def bytes_read(self) -> int:
        """Bytes of the inputs and of the parameters and buffers it reads; 0 for a view."""
        return self.trace.traffic[self.index][0]

    @property
    def bytes_written(self) -> int:
        """Bytes of the outputs; 0 for a view."""
        return self.trace.traffic[self.index][1]

    @property
    def formulas(self) -> tuple[str, ...]:
        """How output size, parameters and multiply-adds are computed by hand, numbers put in; else empty."""
        return formula.formulas(self)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """Extent of the input that an output position depends on; None if it depends on no input."""
        return self.trace.receptive_fields[self.index]

    @property
    def unread(self) -> tuple[int, ...]:
        """Rows or columns of the input, per axis, that a strided window never reads; else empty."""
        return formula.unread(self)
