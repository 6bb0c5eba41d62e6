"""The numbers of a network before it runs: rows, totals and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from . import memory, receptive, tracing
from .depth import Depth, depth_of
from .memory import TrainingMemory
from .operation import VIEW
from .request import Request
from .row import ReceptiveField, Row, make_row
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Stage:
    """The rows below one module, added up.

    Attributes:
        path: of the module; "" for operations of the network's own forward.
        rows: indices of its rows.
        output_shape: of its last operation.
        params: parameters of the module and those below it, each counted at its first owner.
        macs: multiply-adds.
        macs_counted: whether these are all.
        flops: arithmetic operations, biases included.
        activation_bytes: bytes that its operations write.
    """

    path: str
    rows: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int
    macs_counted: bool
    flops: int
    activation_bytes: int


class Sizes:
    """The sizes of one network for one input.

    Attributes:
        trace: the recorded forward.
        request: what was asked.
        output: the network's output, each tensor as its shape, in the nesting that the forward returned.
        dtype: of activations.
    """

    def __init__(self, trace: Trace, request: Request) -> None:
        self.trace = trace
        self.request = request
        self.output: Any = trace.output
        self.dtype: torch.dtype = request.dtype

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One per operation, in execution order."""
        return tuple(map(make_row, self.trace.rows, self.traffic, self.receptive_fields))

    @cached_property
    def params(self) -> int:
        """Elements of the parameters that the forward uses; a shared one counts once."""
        return self.trace.params - self.side_params

    @cached_property
    def side_params(self) -> int:
        """Elements of parameters that this forward does not use, such as those of side classifiers."""
        return sum(self.trace.unclaimed[key] for key in self._unused)

    @cached_property
    def side_modules(self) -> tuple[str, ...]:
        """Paths of the outermost modules of which this forward uses no parameter."""
        unused = self._unused
        found: list[str] = []
        for path, module in self.request.net.named_modules():
            if any(path.startswith(f"{outer}.") for outer in found):
                continue
            params = [id(p) for p in module.parameters()]
            if params and unused.issuperset(params):
                found.append(path)
        return tuple(found)

    @cached_property
    def _unused(self) -> set[int]:
        return tracing.unused_parameters(self.request, self.trace)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of convolutions, linear layers and matrix products: the papers' convention."""
        return sum([row.macs for row in self.trace.rows])

    @cached_property
    def flops(self) -> int:
        """Every arithmetic operation that has a rule: 2 per multiply-add, biases, norms, activations, ..."""
        return sum([row.flops + row.bias_flops for row in self.trace.rows])

    @property
    def flops_by_kind(self) -> Mapping[str, int]:
        """The parts of `flops`: by kind of row, biases apart, largest first."""
        kinds: dict[str, int] = {}
        for row in self.trace.rows:
            if row.flops:
                kinds[row.kind] = kinds.get(row.kind, 0) + row.flops
            if row.bias_flops:
                kinds["bias"] = kinds.get("bias", 0) + row.bias_flops
        return dict(sorted(kinds.items(), key=lambda item: -item[1]))

    @property
    def buffers(self) -> int:
        """Elements of the network's buffers, such as running statistics; they are not parameters."""
        return sum(b.numel() for b in self.request.net.buffers())

    @property
    def activations(self) -> int:
        """Elements that the operations write, views and in-place operations apart."""
        return sum(row.output_elements for row in self.trace.rows if row.kind != VIEW and not row.inplace)

    @property
    def activation_bytes(self) -> int:
        """Bytes of `activations`."""
        return sum(row.bytes_written for row in self.rows if not row.inplace)

    @property
    def not_counted(self) -> tuple[Row, ...]:
        """Operations without a rule: shapes are exact, arithmetic is missing."""
        return tuple(row for row in self.rows if not row.counted)

    @property
    def macs_counted(self) -> bool:
        """Whether `macs` is exact; else it is a lower bound, and rows say what is missing."""
        return all(row.macs_counted for row in self.trace.rows)

    def stages(self, depth: int = 1) -> tuple[Stage, ...]:
        """Subtotals per module down to `depth` names, in order of first use."""
        if depth < 1:
            raise ValueError(f"`depth`={depth}; expected at least 1")
        return self.group(lambda path: ".".join(path.split(".")[:depth]))

    def group(self, stage_of: Callable[[str], str]) -> tuple[Stage, ...]:
        """Subtotals per stage, in order of first use.

        Args:
            stage_of: the stage that a module path belongs to.
        """
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(stage_of(row.path), []).append(row)
        params: dict[str, int] = {}
        for name, p in self.request.net.named_parameters():
            if id(p) in self._unused:
                continue
            path = _home(stage_of(name.rpartition(".")[0]), groups)
            params[path] = params.get(path, 0) + p.numel()
        return tuple(
            Stage(
                path,
                tuple(row.index for row in rows),
                rows[-1].output_shape,
                params.get(path, 0),
                sum(row.macs for row in rows),
                all(row.macs_counted for row in rows),
                sum(row.flops + row.bias_flops for row in rows),
                sum(row.bytes_written for row in rows if not row.inplace),
            )
            for path, rows in groups.items()
        )

    @cached_property
    def traffic(self) -> tuple[tuple[int, int], ...]:
        """Per row: bytes read, parameters and buffers included, and bytes written."""
        return memory.traffic(self.trace, self.request)

    @cached_property
    def receptive_fields(self) -> tuple[ReceptiveField | None, ...]:
        """Per row: the extent of the first spatial input that an output position depends on."""
        return receptive.receptive_fields(self.trace, self.request.shapes)

    @cached_property
    def depth(self) -> Depth:
        """Weight layers on the longest path from an input to an output, and in all."""
        return depth_of(self.trace, self.request.net)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """Of the network's (first) output."""
        node = self.trace.outputs[0] if self.trace.outputs else -1
        return self.receptive_fields[node] if node >= 0 else None

    @cached_property
    def min_input_size(self) -> int | None:
        """The smallest height and width, in px, that works; None if nothing up to this sheet's does."""
        return tracing.min_input_size(self.request)

    @cached_property
    def peak_inference_bytes(self) -> int:
        """Most bytes alive at once in a forward without gradients: parameters, buffers and activations."""
        # How long storages live is watched in a trace of its own: the rows do not need it.
        watched = tracing.trace(self.request, lives=True)
        return memory.weight_bytes(self.request) + memory.peak_activation_bytes(watched, self.request)

    def training_memory(self, optimizer: str | None = None) -> TrainingMemory:
        """Bytes that a training step holds at the end of its forward.

        Args:
            optimizer: sgd, momentum, rmsprop, adam or adamw; default: what `size` was given.

        Raises:
            ValueError: for an unknown optimizer.
        """
        return memory.training_memory(self._training, self.request, optimizer or self.request.optimizer)

    @property
    def training_bytes(self) -> int:
        """Parameters, buffers, gradients, optimizer state and what autograd keeps, in bytes."""
        return self.training_memory().total

    @cached_property
    def _training(self) -> Trace:
        return self.trace if self.request.train else tracing.trace(self.request, train=True)


def _home(path: str, stages: Mapping[str, Any]) -> str:
    """The stage that counts the parameters of a module: its own, else the nearest above it that runs."""
    while path and path not in stages:
        path = path.rpartition(".")[0]
    return path if path in stages else next(iter(stages), path)
