"""What is known of a network before it runs: rows, totals and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from . import memory, receptive
from .memory import TrainingMemory
from .receptive import ReceptiveField
from .row import VIEW, Row
from .tracer import Tracer


@dataclass(frozen=True, slots=True)
class Stage:
    """The rows below one module, added up.

    Attributes:
        path: of the module; "" for operations of the network's own forward.
        rows: indices of its rows.
        output_shape: of its last operation.
        params: parameters of the module and those below it, each counted at its first owner.
        macs: multiply-adds.
        flops: arithmetic operations, biases included.
        activation_bytes: bytes that its operations write.
    """

    path: str
    rows: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Request:
    """What was asked of `size`.

    Attributes:
        net: the network.
        shapes: of its inputs, batch included.
        dtypes: of its inputs.
        dtype: of parameters and activations.
        train: whether it ran in training mode.
        optimizer: for `training_bytes`.
    """

    net: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype
    train: bool
    optimizer: str


class Sheet:
    """The sizes of one network for one input; made by `size`.

    Attributes:
        rows: one per operation, in execution order.
        request: what it was made from.
        output: the network's output, each tensor as its shape, in the nesting that the forward returned.
    """

    def __init__(self, request: Request, tracer: Tracer, output: Any, outputs: tuple[int, ...]) -> None:
        self.request = request
        self.output = output
        self.dtype = request.dtype
        self.graph = tracer
        self.output_nodes = outputs
        self.rows: tuple[Row, ...] = tuple(tracer.rows)
        # Every parameter once, at its first owner, whether a row uses it or not.
        self.params = tracer.total_params

    def __repr__(self) -> str:
        return f"Sheet({len(self.rows)} rows, {self.params:,} parameters, {self.macs:,} MACs)"

    def _repr_html_(self) -> str:
        from .render import to_html

        return to_html(self)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of convolutions, linear layers and matrix products: the papers' convention."""
        return sum([row.macs for row in self.rows])

    @cached_property
    def flops(self) -> int:
        """Every arithmetic operation that has a rule: 2 per multiply-add, biases, norms, activations, ..."""
        return sum([row.flops + row.bias_flops for row in self.rows])

    @property
    def flops_by_kind(self) -> Mapping[str, int]:
        """The parts of `flops`: by kind of row, biases apart, largest first."""
        kinds: dict[str, int] = {}
        for row in self.rows:
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
        return sum(row.output_elements for row in self.rows if row.kind != VIEW and not row.inplace)

    @property
    def activation_bytes(self) -> int:
        """Bytes of `activations`."""
        return sum(row.bytes_written for row in self.rows if not row.inplace)

    @property
    def not_counted(self) -> tuple[Row, ...]:
        """Operations without a rule: shapes and multiply-adds are exact, other arithmetic is missing."""
        return tuple(row for row in self.rows if not row.counted)

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
            path = stage_of(name.rpartition(".")[0])
            params[path] = params.get(path, 0) + p.numel()
        return tuple(
            Stage(
                path,
                tuple(row.index for row in rows),
                rows[-1].output_shape,
                params.get(path, 0),
                sum(row.macs for row in rows),
                sum(row.flops + row.bias_flops for row in rows),
                sum(row.bytes_written for row in rows if not row.inplace),
            )
            for path, rows in groups.items()
        )

    @cached_property
    def traffic(self) -> tuple[tuple[int, int], ...]:
        """Per row: bytes read, parameters and buffers included, and bytes written."""
        return memory.traffic(self)

    @cached_property
    def receptive_fields(self) -> tuple[ReceptiveField | None, ...]:
        """Per row: the extent of the first spatial input that an output position depends on."""
        return receptive.receptive_fields(self)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """Of the network's (first) output."""
        node = self.output_nodes[0] if self.output_nodes else -1
        return self.receptive_fields[node] if node >= 0 else None

    @cached_property
    def min_input_size(self) -> int | None:
        """The smallest height and width, in px, that works; None if nothing up to this sheet's does."""
        from .run import min_input_size

        return min_input_size(self.request)

    @cached_property
    def peak_inference_bytes(self) -> int:
        """Most bytes alive at once in a forward without gradients: parameters, buffers and activations."""
        from .run import run

        # How long storages live is watched in a trace of its own: the rows do not need it.
        return memory.weight_bytes(self.request) + memory.peak_activation_bytes(run(self.request, lives=True))

    def training_memory(self, optimizer: str | None = None) -> TrainingMemory:
        """Bytes that a training step holds at the end of its forward.

        Args:
            optimizer: sgd, momentum, rmsprop, adam or adamw; default: what `size` was given.

        Raises:
            ValueError: for an unknown optimizer.
        """
        return memory.training_memory(self._in_training(), optimizer or self.request.optimizer)

    @property
    def training_bytes(self) -> int:
        """Parameters, buffers, gradients, optimizer state and what autograd keeps, in bytes."""
        return self.training_memory().total

    def _in_training(self) -> Sheet:
        if self.request.train:
            return self
        if self._training is None:
            from .run import run

            self._training = run(self.request, train=True)
        return self._training

    _training: Sheet | None = None
