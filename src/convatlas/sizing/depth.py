"""Depth: weight layers on the longest path from the input to the output, and weight layers in all.

The rule of count. A weight layer is a convolution, a linear layer or a product with a learnt matrix; each use
of it counts, a depthwise and a pointwise convolution count as two. Normalisation, activation, pooling and
other layers count as none. The longest path is taken over all branches, so that a projection beside two
convolutions does not add to it. A gate, that is a factor computed from the very map that it multiplies
(squeeze and excitation), is left out of the path and counted in all.

This gives the depths that papers put into names, where these count the same: VGG-19, GoogLeNet's 22,
ResNet-152, DenseNet-121, MobileNet's 28.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .operation import VIEW, Operation
from .trace import Trace

RULE = (
    "convolutions and linear layers on the longest path from input to output, each use once; "
    "norms, activations, poolings and gates left out"
)
_PRODUCTS = ("mul", "mul_", "multiply", "multiply_")


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep a network is.

    Attributes:
        longest: weight layers on the longest path from an input to an output.
        total: weight layers in all.
        rows: for each operation, weight layers on the longest path to it, itself included.
        path: operations that are the weight layers of one longest path, in order.
    """

    longest: int
    total: int
    rows: tuple[int, ...]
    path: tuple[int, ...]

    def __str__(self) -> str:
        layers = "weight layer" if self.longest == 1 else "weight layers"
        return f"{self.longest:,} {layers} on the longest path, {self.total:,} in all"


def depth_of(trace: Trace, net: nn.Module) -> Depth:
    """Counts weight layers on a recorded forward.

    Args:
        trace: of the forward.
        net: the network that was traced, which says which modules have parameters of their own.
    """
    learns = {
        path for path, module in net.named_modules() if any(True for _ in module.parameters(recurse=False))
    }
    depths: list[int] = []
    before: list[int] = []
    total = 0
    for row in trace.rows:
        weighs = _is_weight_layer(row, learns)
        total += weighs
        last = max(_flow(row, trace.rows), key=lambda i: depths[i], default=-1)
        depths.append((depths[last] if last >= 0 else 0) + weighs)
        before.append(last)
    ends = [node for node in trace.outputs if node >= 0]
    end = max(ends, key=lambda i: depths[i], default=-1)
    longest = depths[end] if end >= 0 else 0
    path: list[int] = []
    while end >= 0:
        if depths[end] > (depths[before[end]] if before[end] >= 0 else 0):
            path.append(end)
        end = before[end]
    return Depth(longest, total, tuple(depths), tuple(reversed(path)))


def _is_weight_layer(row: Operation, learns: set[str]) -> bool:
    if row.kind in ("conv", "linear"):
        # A filter that is a buffer, such as one that blurs, is not learnt; one that is computed is an input.
        return row.params > 0 or row.path in learns or len(row.inputs) > 1
    return row.kind == "matmul" and row.params > 0


def _flow(row: Operation, rows: Sequence[Operation]) -> tuple[int, ...]:
    """The operations whose depth goes on through this one."""
    inputs = tuple(dict.fromkeys(node for node in row.inputs if node >= 0))
    if row.op not in _PRODUCTS or len(inputs) != 2:
        return inputs
    early, late = sorted(inputs, key=lambda node: _source(node, rows))
    return (early,) if _derives(late, _source(early, rows), rows) else inputs


def _source(node: int, rows: Sequence[Operation]) -> int:
    """What made the values that a chain of views shows."""
    while rows[node].kind == VIEW and len(rows[node].inputs) == 1 and rows[node].inputs[0] >= 0:
        node = rows[node].inputs[0]
    return node


def _derives(node: int, source: int, rows: Sequence[Operation]) -> bool:
    """Whether an operation depends on an earlier one."""
    waiting, seen = [node], {node}
    while waiting:
        node = waiting.pop()
        if node == source:
            return True
        new = [i for i in rows[node].inputs if i >= source and i not in seen]
        seen.update(new)
        waiting += new
    return False
