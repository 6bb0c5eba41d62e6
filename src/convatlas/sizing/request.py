"""What was asked of `size`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn


class Input(NamedTuple):
    """The place of the `place`-th input tensor among the arguments of a forward."""

    place: int


@dataclass(frozen=True)
class Request:
    """What was asked of `size`.

    Attributes:
        net: the network.
        shapes: of its input tensors, batch included.
        dtypes: of its input tensors.
        dtype: of activations, and of parameters where they are cast.
        train: whether it ran in training mode.
        optimizer: for `training_bytes`.
        cast: whether parameters and buffers count in `dtype`; else each in its own.
        arguments: positional and keyword arguments of the forward, an `Input` in place of each tensor; None
            where the inputs are all there is, one after another.
    """

    net: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype
    train: bool
    optimizer: str
    cast: bool = False
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def bytes_of(self, tensor: torch.Tensor) -> int:
        """Bytes of a parameter or buffer."""
        cast = self.cast and tensor.is_floating_point()
        return tensor.numel() * (self.dtype if cast else tensor.dtype).itemsize
