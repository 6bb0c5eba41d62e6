"""Sums, means, extremes and running sums."""

from __future__ import annotations

from typing import Any

import torch

from convatlas.sizing.geometry import Mix
from convatlas.sizing.tensor import Traced

from .base import add_rule, broadcast, dims_of, result_type, rule, traced, wrap_dim

# name: operations per element
COSTS = {
    "sum": 1, "mean": 1, "nansum": 1, "nanmean": 1, "prod": 1, "amax": 1, "amin": 1, "std": 4, "var": 4,
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
        t: Any, input: Any, dim: Any = None, keepdim: Any = False, *args: Any, dtype: Any = None,
        axis: Any = None,
        keepdims: bool = False, **kwargs: Any,
    ) -> Traced:  # fmt: skip
        x = traced(t, input)
        keep = bool(keepdim) or keepdims
        if name in ("std", "var") and isinstance(dim, bool):
            dim, keep = None, False
        if dim is None:
            dim = axis
        out = dtype or (x.dtype if name not in ("all", "any") else torch.bool)
        if dtype is None and name in ("sum", "prod") and not out.is_floating_point and not out.is_complex:
            out = torch.int64
        return reduced(t, name, x, dim, keep, out, cost * x.numel())

    return reduction


for _name, _cost in COSTS.items():
    add_rule(_name, _reduction(_name, _cost))


@rule("norm", "vector_norm")
def norm(
    t: Any,
    input: Any,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *args: Any,
    ord: Any = None,
    **kwargs: Any,
) -> Traced:
    """Root of a sum of powers."""
    x = traced(t, input)
    return reduced(t, "norm", x, dim, keepdim, x.dtype, 2 * x.numel())


@rule("max", "min")
def extreme(t: Any, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest of all, or per `dim` with its index, or of two tensors."""
    x = traced(t, input)
    if isinstance(dim, torch.Tensor):
        shape = broadcast("max", x.shape, dim.shape)
        size = torch.Size(shape).numel()
        return t.emit("maximum", "elementwise", (x, dim), shape, result_type(t, (x, dim)), flops=size)
    if dim is None:
        return reduced(t, "max", x, None, False, x.dtype, x.numel())
    values = reduced(t, "max", x, dim, keepdim, x.dtype, x.numel())
    return torch.return_types.max((values, t.more(values, values.shape, torch.int64)))


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
    mixed = Mix((wrap_dim(dim, len(x.shape)),))
    return t.emit("cumsum", "reduce", (x,), x.shape, dtype, flops=x.numel(), geometry=mixed)
