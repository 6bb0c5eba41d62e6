"""Indexing: slices are views with known positions, anything else is a gather."""

from __future__ import annotations

from typing import Any

import torch

from convatlas.sizing.errors import DataDependentError, ShapeError
from convatlas.sizing.geometry import EVERYTHING, Select
from convatlas.sizing.tensor import FOREIGN, Traced, strides_of, user_line

from .base import rule, traced, wrap_dim


def basic(x: Traced, index: tuple[Any, ...]) -> tuple[list[int], Select] | None:
    """Shape and positions of an index made of integers, slices, None and an ellipsis; else None."""
    taken = 0
    for item in index:
        if item is None or item is Ellipsis:
            continue
        if not isinstance(item, int | slice) or isinstance(item, bool):
            return None
        taken += 1
    shape: list[int] = []
    picks: list[tuple[int | None, int]] = []
    offsets = [0] * len(x.shape)
    dim = 0
    rest = len(x.shape) - taken
    if rest < 0:
        raise ShapeError(f"getitem: {taken} indices for the {len(x.shape)} dimensions of {tuple(x.shape)}")
    items: tuple[Any, ...] = index if Ellipsis in index else (*index, Ellipsis)
    for item in items:
        if item is None:
            shape.append(1)
            picks.append((None, 1))
        elif item is Ellipsis:
            for _ in range(rest):
                shape.append(x.shape[dim])
                picks.append((dim, 1))
                dim += 1
        elif isinstance(item, slice):
            start, stop, step = item.indices(x.shape[dim])
            shape.append(max(0, -(-(stop - start) // step)))
            picks.append((dim, step))
            offsets[dim] = start
            dim += 1
        else:
            if not -x.shape[dim] <= item < x.shape[dim]:
                raise IndexError(
                    f"index {item} is out of bounds for dimension {dim} with size {x.shape[dim]}"
                )
            offsets[dim] = item % x.shape[dim]
            dim += 1
    return shape, Select(tuple(picks), tuple(offsets))


@rule("__getitem__")
def getitem(t: Any, input: Any, index: Any) -> Any:
    """`x[...]`."""
    x = traced(t, input)
    key = index if isinstance(index, tuple) else (index,)
    found = basic(x, key) if not any(isinstance(i, torch.Tensor) for i in key) else None
    if found is not None:
        shape, select = found
        steps = strides_of(x)
        lies = tuple(0 if dim is None else steps[dim] * step for dim, step in select.picks)
        return t.view("getitem", x, shape, lies, select)
    key = tuple(_gatherable(i) for i in key)
    flat: list[Any] = []
    for item in key:
        flat.extend(item) if isinstance(item, tuple) else flat.append(item)
    shape = torch.empty(x.shape, device="meta")[tuple(_meta(i) for i in flat)].shape
    tensors = tuple(i for i in flat if isinstance(i, torch.Tensor))
    return t.emit("getitem", "copy", (x, *(i for i in tensors if type(i) is Traced)), shape, x.dtype,
                  geometry=EVERYTHING)  # fmt: skip


def _gatherable(item: Any) -> Any:
    """A mask as the positions that it selects."""
    if isinstance(item, list):
        item = torch.tensor(item)
    if isinstance(item, torch.Tensor) and item.dtype is torch.bool:
        real = item.source if type(item) is Traced else item
        if real is None or real.is_meta:
            raise DataDependentError(
                f"the forward selects by a mask at {user_line()}: how many elements remain depends on data"
            )
        return real.nonzero(as_tuple=True)
    return item


def _meta(item: Any) -> Any:
    return (
        torch.empty(item.shape, dtype=torch.int64, device="meta") if isinstance(item, torch.Tensor) else item
    )


@rule("__setitem__")
def setitem(t: Any, input: Any, index: Any, value: Any) -> None:
    """`x[...] = value`, in place."""
    x = traced(t, input)
    inputs = (x, value) if isinstance(value, torch.Tensor) else (x,)
    t.emit("setitem", "copy", inputs, x.shape, x.dtype, out=x, geometry=EVERYTHING)


@rule(
    "nonzero", "unique", "unique_consecutive", "masked_select", "argwhere", "bincount", "item", "equal",
    "allclose", "is_nonzero",
)  # fmt: skip
def by_data(t: Any, *args: Any, **kwargs: Any) -> Any:
    """The number of results depends on values."""
    raise DataDependentError(
        f"the forward asks at {user_line()} for a shape that depends on values; sizing has shapes only"
    )


FOREIGN["torchvision::nms"] = by_data


@rule("index_select")
def index_select(t: Any, input: Any, dim: int, index: Any) -> Traced:
    """Chosen positions along `dim`."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    shape = (*x.shape[:dim], index.numel(), *x.shape[dim + 1 :]) if x.shape else ()
    return t.emit("index_select", "copy", (x, index), shape, x.dtype, geometry=EVERYTHING)


@rule("gather")
def gather(t: Any, input: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Traced:
    """Chosen elements along `dim`."""
    x = traced(t, input)
    return t.emit("gather", "copy", (x, index), index.shape, x.dtype, geometry=EVERYTHING)


@rule("embedding")
def embedding(t: Any, input: Any, weight: Any, *args: Any, **kwargs: Any) -> Traced:
    """A row of the table per index."""
    shape = (*input.shape, weight.shape[-1])
    return t.emit("embedding", "copy", (input, weight), shape, t.dtype_of(weight))
