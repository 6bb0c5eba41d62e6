"""How rules are registered, and the few computations that they share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from convatlas.sizing import strides
from convatlas.sizing.errors import ShapeError
from convatlas.sizing.tensor import RULES, Traced

_SPACES: tuple[Any, ...] = (
    torch.Tensor,
    torch,
    functional,
    vars(torch._C)["_nn"],
    torch.special,
    torch.linalg,
    vars(torch._C)["_VariableFunctions"],
)


def functions_named(name: str) -> Iterator[Any]:
    """Every function of PyTorch with this name: method, function, functional."""
    for space in _SPACES:
        found = getattr(space, name, None)
        if callable(found):
            yield found
        elif found is not None and hasattr(found, "__get__"):
            yield found.__get__


def rule(*names: str) -> Callable[[Any], Any]:
    """Registers a rule for every function of PyTorch with one of these names."""

    def register(function: Any) -> Any:
        for name in names:
            add_rule(name, function)
        return function

    return register


def add_rule(name: str, function: Any) -> None:
    """Registers one rule under one name."""
    for target in functions_named(name):
        RULES[target] = function


def prod(sizes: Any) -> int:
    """Product of sizes."""
    n = 1
    for size in sizes:
        n *= size
    return n


def broadcast(op: str, left: Any, right: Any) -> Any:
    """Shape of two broadcast together."""
    if left == right:
        return left
    short, long = (left, right) if len(left) < len(right) else (right, left)
    out = list(long)
    shift = len(long) - len(short)
    for i, size in enumerate(short):
        other = out[shift + i]
        if size != other and size != 1:
            if other != 1:
                raise ShapeError(f"{op}: shapes {tuple(left)} and {tuple(right)} do not broadcast")
            out[shift + i] = size
    return tuple(out)


def dims_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """Non-negative dimensions from None (all), an int or a sequence."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, int):
        dim = (dim,)
    elif not len(dim):
        return tuple(range(ndim))
    return tuple(wrap_dim(d, ndim) for d in dim)


def wrap_dim(dim: int, ndim: int) -> int:
    """A non-negative dimension."""
    span = max(ndim, 1)
    if not -span <= dim < span:
        raise ShapeError(f"dimension {dim} of a tensor with {ndim} dimensions")
    return dim % span


def tupled(value: Any, n: int) -> tuple[int, ...]:
    """`value` once per axis."""
    if isinstance(value, int):
        return (value,) * n
    value = tuple(value)
    return value * n if len(value) == 1 else value


def result_type(t: Any, inputs: tuple[Any, ...]) -> torch.dtype:
    """The dtype of arithmetic on these tensors and numbers."""
    first = inputs[0]
    if type(first) is Traced and first.shape:
        if len(inputs) == 2 and type(inputs[1]) is Traced and inputs[1].dtype is first.dtype:
            return first.dtype
        if first.dtype.is_floating_point and all(type(x) in (int, float) for x in inputs[1:]):
            return first.dtype
    return _promoted(tuple(_kind(t, x) for x in inputs if x is not None), torch.get_default_dtype())


def _kind(t: Any, x: Any) -> Any:
    """What promotion looks at: dtype and whether it has dimensions; of a number only its type."""
    return (t.dtype_of(x), bool(x.shape)) if isinstance(x, torch.Tensor) else type(x)


_NUMBERS: tuple[tuple[type, Any], ...] = ((bool, True), (int, 1), (float, 1.0), (complex, 1j))


@functools.lru_cache(maxsize=4096)
def _promoted(kinds: tuple[Any, ...], default: torch.dtype) -> torch.dtype:
    """PyTorch's answer, on empty tensors of these kinds; the default dtype is part of the key."""
    groups: list[Any] = []
    for whole in (True, False):
        dtypes = [kind[0] for kind in kinds if isinstance(kind, tuple) and kind[1] is whole]
        if dtypes:
            dtype = functools.reduce(torch.promote_types, dtypes)
            groups.append(torch.empty((1,) if whole else (), dtype=dtype, device="meta"))
    numbers = [
        next(i for i, (known, _) in enumerate(_NUMBERS) if issubclass(kind, known))
        for kind in kinds
        if isinstance(kind, type)
    ]
    if numbers:
        groups.append(_NUMBERS[max(numbers)][1])
    result = groups[0]
    for other in groups[1:]:
        dtype = torch.result_type(result, other)
        result = torch.empty(getattr(result, "shape", ()), dtype=dtype, device="meta")
    return torch.result_type(result, result)


def floated(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a function that has no integer results."""
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def traced(tracer: Any, x: Any) -> Traced:
    """`x` itself, or the traced stand-in of a tensor from outside."""
    return x if type(x) is Traced else tracer.constant(x)


def laid(out: Traced, x: Any) -> Traced:
    """`out`, whose elements lie in the order of those of `x`, from which arithmetic made it."""
    if type(x) is Traced and x.strides is not None and out.shape == x.shape:
        out.strides = strides.like(x.shape, x.strides)
    return out
