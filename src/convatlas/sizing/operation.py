"""One operation of a traced network, as it is recorded."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .geometry import Geometry

Shape = tuple[int, ...]

# Operations of this kind move no data: they give another view of the same storage.
VIEW = "view"


class Operation(NamedTuple):
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
        constant_bytes: bytes of these.
        macs: multiply-adds, for convolutions, linear layers and matrix products; 0 for all else.
        flops: arithmetic operations without the bias: 2 per multiply-add, see `docs` for the others.
        bias_flops: additions of a bias.
        counted: False if `flops` may lack something, because the operation has no rule.
        macs_counted: False if even `macs` may lack something.
        inplace: True if it writes into its first input.
        geometry: how positions map, for the receptive field.
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
    constant_bytes: int
    macs: int
    flops: int
    bias_flops: int
    counted: bool
    macs_counted: bool
    inplace: bool
    geometry: Geometry | None

    def __repr__(self) -> str:
        shapes = " + ".join(map(str, (tuple(s) for s in self.input_shapes)))
        out = ", ".join(map(str, (tuple(s) for s in self.output_shapes)))
        what = f"{self.index}, {self.path!r}, {self.op}, {shapes} -> {out}, macs={self.macs:,}"
        return f"{type(self).__name__}({what})"

    @property
    def output_shape(self) -> Shape:
        """Shape of the (first) output."""
        return tuple(self.output_shapes[0])

    @property
    def output_elements(self) -> int:
        """Elements of all outputs."""
        return sum(shape.numel() for shape in self.output_shapes)
