"""Tensors made in a forward from the shape of a traced one."""

from __future__ import annotations

from typing import Any

import torch

from convatlas.sizing.tensor import Traced

from .base import result_type, rule, traced
from .shape import sizes_of


def made(t: Any, shape: Any, dtype: torch.dtype) -> Traced:
    """A new tensor that depends on no other."""
    return t.emit("create", "create", (), shape, dtype)


@rule("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like")
def like(t: Any, input: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Traced:
    """The shape of another tensor."""
    return made(t, input.shape, dtype or traced(t, input).dtype)


@rule("new_zeros", "new_ones", "new_empty")
def new(t: Any, input: Any, *args: Any, size: Any = None, dtype: Any = None, **kwargs: Any) -> Traced:
    """The dtype of another tensor."""
    return made(t, sizes_of(args) if size is None else size, dtype or traced(t, input).dtype)


@rule("new_full")
def new_full(t: Any, input: Any, size: Any, fill_value: Any, *, dtype: Any = None, **kwargs: Any) -> Traced:
    """The dtype of another tensor, filled."""
    return made(t, size, dtype or traced(t, input).dtype)


@rule("new_tensor")
def new_tensor(t: Any, input: Any, data: Any, *, dtype: Any = None, **kwargs: Any) -> torch.Tensor:
    """A real tensor: its values are known."""
    return torch.tensor(data, dtype=dtype or traced(t, input).dtype)


@rule("_assert", "is_tensor_like", "record_stream", "retain_grad")
def nothing(t: Any, *args: Any, **kwargs: Any) -> None:
    """No effect on shapes."""


@rule("result_type")
def dtypes(t: Any, left: Any, right: Any) -> torch.dtype:
    """Promotion."""
    return result_type(t, (left, right))


@rule("is_same_size")
def is_same_size(t: Any, left: Any, right: Any) -> bool:
    """Equal shapes."""
    return tuple(left.shape) == tuple(right.shape)
