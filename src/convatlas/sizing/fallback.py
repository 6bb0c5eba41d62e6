"""Operations without a rule: their shape comes from PyTorch's meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from .geometry import EVERYTHING
from .tensor import Traced


def name_of(func: Any) -> str:
    """A readable name of a function, an operator or an attribute."""
    name = getattr(func, "__name__", None) or str(func)
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return name.removesuffix("_") if name.endswith("_") and not name.endswith("__") else name


def shapes_of(*trees: Any) -> str:
    """Shapes of the tensors among some arguments, for a message."""
    tensors = [x for x in tree_leaves(trees) if isinstance(x, torch.Tensor)]
    return " and ".join(str(tuple(x.shape)) for x in tensors) or "no tensor"


def call(tracer: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs `func` on meta tensors and records it as one row.

    Multiply-adds are counted by PyTorch's own counter; other arithmetic is unknown.
    """
    from torch.utils.flop_counter import FlopCounterMode

    twins: dict[int, torch.Tensor] = {}
    originals: dict[int, torch.Tensor] = {}

    def to_meta(x: Any) -> Any:
        if isinstance(x, torch.device):
            return torch.device("meta")
        if not isinstance(x, torch.Tensor):
            return x
        twin = twins.get(id(x))
        if twin is None:
            twin = torch.empty(x.shape, dtype=tracer.dtype_of(x), device="meta")
            twins[id(x)] = twin
            originals[id(twin)] = x
        return twin

    meta_args, meta_kwargs = tree_map(to_meta, (args, kwargs))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = func(*meta_args, **meta_kwargs)
    inputs = tuple(x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor))
    macs = counter.get_total_flops() // 2
    return _record(tracer, name_of(func), inputs, result, macs, originals)


def _record(
    tracer: Any, name: str, inputs: tuple[Any, ...], result: Any, macs: int, originals: dict[int, Any]
) -> Any:
    first: Traced | None = None

    def to_traced(x: Any) -> Any:
        nonlocal first
        if not isinstance(x, torch.Tensor):
            return x
        original = originals.get(id(x))
        inplace = original if type(original) is Traced else None
        if first is not None:
            return inplace if inplace is not None else tracer.more(first, x.shape, x.dtype)
        first = tracer.emit(
            name, "matmul" if macs else "other", inputs, x.shape, x.dtype,
            macs=macs, flops=2 * macs, geometry=EVERYTHING, counted=False, out=inplace,
        )  # fmt: skip
        return first

    return tree_map(to_traced, result)
