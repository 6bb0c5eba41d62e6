"""A network's operations as layers: what a module without children does is one of them."""

from __future__ import annotations

from dataclasses import dataclass

from .operation import VIEW
from .outline import operation_of
from .row import ReceptiveField, Row
from .sizes import Sizes


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation, or all of one call of a module without children.

    Attributes:
        rows: its operations.
        operation: PyTorch's name of the operation with its window; of several, the module's class.
    """

    rows: tuple[Row, ...]
    operation: str

    @property
    def path(self) -> str:
        """Dotted path of the module."""
        return self.rows[0].path

    @property
    def kind(self) -> str:
        """Family of the operation with the most arithmetic."""
        return max(self.rows, key=lambda row: row.flops).kind

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what it returns."""
        return self.rows[-1].output_shape

    @property
    def params(self) -> int:
        """Parameters that are used here for the first time."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(row.macs for row in self.rows)

    @property
    def flops(self) -> int:
        """Arithmetic operations, biases included."""
        return sum(row.flops + row.bias_flops for row in self.rows)

    @property
    def bytes_read(self) -> int:
        """Bytes that its operations read."""
        return sum(row.bytes_read for row in self.rows)

    @property
    def bytes_written(self) -> int:
        """Bytes that its operations write, views and in-place operations apart."""
        return sum(row.bytes_written for row in self.rows if not row.inplace)

    @property
    def counted(self) -> bool:
        """Whether all arithmetic is counted."""
        return all(row.counted for row in self.rows)

    @property
    def macs_counted(self) -> bool:
        """Whether all multiply-adds are counted."""
        return all(row.macs_counted for row in self.rows)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """Of what it returns."""
        return self.rows[-1].receptive_field


def layers_of(sheet: Sizes) -> tuple[Layer, ...]:
    """Layers in execution order."""
    classes = {path: type(module).__name__ for path, module in sheet.request.net.named_modules()}
    ends = dict(sheet.trace.calls)
    found: list[Layer] = []
    index = 0
    while index < len(sheet.rows):
        end = ends.get(index, index + 1)
        rows = sheet.rows[index:end]
        # Some, such as a convolution that pads by copying, move data around one operation.
        working = [row for row in rows if row.kind not in (VIEW, "copy")]
        named = rows[0] if len(rows) == 1 else working[0] if len(working) == 1 else None
        found.append(Layer(rows, classes.get(rows[0].path, "") if named is None else operation_of(named)))
        index = end
    return tuple(found)
