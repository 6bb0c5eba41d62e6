"""Sums, means, extremes and running sums."""

from __future__ import annotations

from typing import Any

import torch

from convatlas.sizing.geometry import Mix
from convatlas.sizing.tensor import Traced

from .base import add_rule, broadcast, dims_of, floated, result_type, rule, traced, wrap_dim

# name: operations per element
COSTS = {
    "sum": 1, "mean": 1, "nansum": 1, "nanmean": 1, "prod": 1, "amax": 1, "amin": 1,
    "logsumexp": 3,
    "all": 1, "any": 1, "count_nonzero": 1,
}  # fmt: skip


def reduced(t: Any, op: str, x: Traced, dim: Any, keepdim: bool, dtype: torch.dtype, flops: int) -> Traced:
    """Records a reduction over `dim` (None: all)."""
    n = len(x.shape)
    dims = dims_of(dim, n)
    if keepdim:
        shape = [1 if i in dims else size for i, size in enumerate(x.shape)]
    else:
        shape = [size for i, size in enumerate(x.shape) if i not in dims]
    return t.emit(op, "reduce", (x,), shape, dtype, flops=flops, geometry=Mix(dims, drop=not keepdim))


def _reduction(name: str, cost: int) -> Any:
    def reduction(
        t: Any, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None,
        keepdims: bool = False,
    ) -> Traced:  # fmt: skip
        x = traced(t, input)
        if isinstance(dim, torch.dtype):
            dim, dtype = None, dtype or dim
        dim = axis if dim is None else dim
        return reduced(
            t, name, x, dim, keepdim or keepdims, dtype or _result(name, x.dtype), cost * x.numel()
        )

    return reduction


def _result(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a reduction that was not told one."""
    if name in ("all", "any"):
        return dtype if dtype is torch.uint8 else torch.bool
    if name == "count_nonzero":
        return torch.int64
    if name == "logsumexp":
        return floated(dtype)
    whole = not dtype.is_floating_point and not dtype.is_complex
    return torch.int64 if whole and name in ("sum", "nansum", "prod") else dtype


for _name, _cost in COSTS.items():
    add_rule(_name, _reduction(_name, _cost))


@rule("std", "var")
def spread(
    t: Any, input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
    correction: Any = None, axis: Any = None, keepdims: bool = False,
) -> Traced:  # fmt: skip
    """Deviation from the mean; a truth value in place of the dimension says whether it is unbiased."""
    x = traced(t, input)
    dim = None if isinstance(dim, bool) else axis if dim is None else dim
    dtype = x.dtype.to_real() if x.dtype.is_complex else x.dtype
    return reduced(t, "std", x, dim, keepdim or keepdims, dtype, 4 * x.numel())


@rule("norm", "vector_norm")
def norm(
    t: Any,
    input: Any,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    ord: Any = None,
    dtype: Any = None,
) -> Traced:
    """Root of a sum of powers."""
    x = traced(t, input)
    real = x.dtype.to_real() if x.dtype.is_complex else x.dtype
    return reduced(t, "norm", x, dim, keepdim, dtype or real, 2 * x.numel())


def _extreme(name: str, pair: Any) -> Any:
    def extreme(t: Any, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        x = traced(t, input)
        if isinstance(dim, torch.Tensor):
            shape = broadcast(name, x.shape, dim.shape)
            size = torch.Size(shape).numel()
            return t.emit("maximum", "elementwise", (x, dim), shape, result_type(t, (x, dim)), flops=size)
        if dim is None:
            return reduced(t, name, x, None, False, x.dtype, x.numel())
        values = reduced(t, name, x, dim, keepdim, x.dtype, x.numel())
        return pair((values, t.more(values, values.shape, torch.int64)))

    return extreme


# The largest or smallest of all, or per dimension with its index, or of two tensors.
add_rule("max", _extreme("max", torch.return_types.max))
add_rule("min", _extreme("min", torch.return_types.min))


@rule("argmax", "argmin")
def argmax(t: Any, input: Any, dim: Any = None, keepdim: bool = False) -> Traced:
    """The index of an extreme."""
    x = traced(t, input)
    return reduced(t, "argmax", x, dim, keepdim, torch.int64, x.numel())


@rule("var_mean", "std_mean")
def var_mean(t: Any, input: Any, dim: Any = None, *args: Any, keepdim: bool = False, **kwargs: Any) -> Any:
    """Variance and mean."""
    x = traced(t, input)
    if isinstance(dim, bool):
        dim = None
    if len(args) > 1:
        keepdim = args[1]
    first = reduced(t, "var_mean", x, dim, keepdim, x.dtype, 4 * x.numel())
    return first, t.more(first, first.shape, x.dtype)


@rule("cumsum", "cumprod", "logcumsumexp")
def cumsum(t: Any, input: Any, dim: int, *, dtype: Any = None) -> Traced:
    """Running sums along `dim`."""
    x = traced(t, input)
    if dtype is None:
        dtype = torch.int64 if not x.dtype.is_floating_point else x.dtype
    mixed = Mix((wrap_dim(dim, len(x.shape)),)) if x.shape else None
    return t.emit("cumsum", "reduce", (x,), x.shape, dtype, flops=x.numel(), geometry=mixed)
