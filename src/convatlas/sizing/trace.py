"""A recorded forward pass, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .operation import Operation

Key = int | tuple[int, int]
"""A storage: the row that made it (and the place among its outputs, where not the first), or -1 - i for the
network's i-th input."""


class Checkpoint(NamedTuple):
    """A part of a forward that keeps its inputs only and runs again in the backward pass.

    Attributes:
        begin: its first row.
        end: the row after its last.
        inputs: rows that make its inputs; below 0 the network's own.
        keys: storages of these.
        reentrant: whether it learns only where one of its inputs does.
    """

    begin: int
    end: int
    inputs: tuple[int | None, ...]
    keys: tuple[Any, ...]
    reentrant: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded forward pass.

    Attributes:
        rows: operations, in execution order.
        aliases: rows whose first output lies in a storage that another made (views, in-place operations).
        slots: (row, position of an input) to the output that it reads, where that is not the first.
        slot_dtypes: (row, place) to the dtype of an output that is not the first.
        calls: first row, and row after the last, of each call of a childless module that made several.
        checkpoints: parts that run again in the backward pass.
        lives: per storage, the number of rows recorded when its last tensor died; empty unless watched.
        outputs: rows (or inputs, below 0) that make the network's outputs.
        output_keys: storages of these.
        output: what the forward returned, each tensor as its shape.
        params: elements of all parameters of the network, each once.
        unclaimed: elements of each parameter that no row reads itself, by id.
    """

    rows: tuple[Operation, ...]
    aliases: Mapping[int, Any]
    slots: Mapping[tuple[int, int], int]
    slot_dtypes: Mapping[tuple[int, int], torch.dtype]
    calls: tuple[tuple[int, int], ...]
    checkpoints: tuple[Checkpoint, ...]
    lives: Mapping[Any, int]
    outputs: tuple[int, ...]
    output_keys: tuple[Any, ...]
    output: Any
    params: int
    unclaimed: Mapping[int, int]
