"""Normalisations.

Arithmetic per element: 2 with stored statistics (scale and shift folded); 7 where mean and variance come
from the input (2 for the mean and its subtraction, 3 for the variance, 2 to scale and shift).
"""

from __future__ import annotations

from typing import Any

import torch

from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import Mix
from convatlas.sizing.tensor import RULES, Traced

from .base import dims_of, floated, laid, rule


@rule("batch_norm")
def batch_norm(
    t: Any, input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    """Per channel, over the batch."""
    x = input if type(input) is Traced else t.constant(input)
    shape = x.shape
    if len(shape) < 2:
        if not shape.numel():
            return NotImplemented
        raise ShapeError(f"batch_norm: expects at least 2 dimensions, got {tuple(shape)}")
    chans = shape[1]
    constants = 0
    plain = x.node is not None and not x.slot
    for given in (weight, bias, running_mean, running_var):
        if given is not None:
            if given.numel() != chans:
                raise ShapeError(
                    f"batch_norm: expects {given.numel()} channels, got {chans} in {tuple(shape)}"
                )
            constants += chans
            plain = plain and type(given) is not Traced
    elements = shape.numel()
    if training and elements == chans:
        raise ShapeError(
            f"batch_norm: expected more than 1 value per channel when training, got {tuple(shape)}"
        )
    flops = elements * (7 if training else 2)
    if not plain:
        inputs = (x, weight, bias, running_mean, running_var)
        return t.emit("batch_norm", "norm", inputs, shape, x.dtype, flops=flops)
    params = t.unclaimed.pop(id(weight), 0) + t.unclaimed.pop(id(bias), 0)
    first = weight if weight is not None else running_mean
    read = 0 if first is None else constants * (t.itemsize or first.dtype.itemsize)
    out = t.record(
        "batch_norm", "norm", (x.node,), (shape,), shape, x.dtype, params, constants, read, 0, flops, 0, None
    )
    return out if x.strides is None else laid(out, x)


@rule("layer_norm")
def layer_norm(
    t: Any,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Traced:
    """Over the last dimensions."""
    x = input if type(input) is Traced else t.constant(input)
    wanted = tuple(normalized_shape)
    if tuple(x.shape[-len(wanted) :]) != wanted:
        raise ShapeError(f"layer_norm: expects (..., {', '.join(map(str, wanted))}), got {tuple(x.shape)}")
    n = len(x.shape)
    dims = tuple(range(n - len(wanted), n))
    return t.emit(
        "layer_norm", "norm", (x, weight, bias), x.shape, x.dtype, flops=7 * x.numel(), geometry=Mix(dims)
    )


@rule("rms_norm")
def rms_norm(t: Any, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Traced:
    """Over the last dimensions, without centring."""
    x = input if type(input) is Traced else t.constant(input)
    n = len(x.shape)
    dims = tuple(range(n - len(tuple(normalized_shape)), n))
    return t.emit("rms_norm", "norm", (x, weight), x.shape, x.dtype, flops=4 * x.numel(), geometry=Mix(dims))


@rule("group_norm")
def group_norm(
    t: Any, input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> Traced:
    """Over the channels of a group and all positions."""
    x = input if type(input) is Traced else t.constant(input)
    if x.shape[1] % num_groups:
        raise ShapeError(f"group_norm: {x.shape[1]} channels do not split into {num_groups} groups")
    dims = tuple(range(1, len(x.shape)))
    return t.emit(
        "group_norm", "norm", (x, weight, bias), x.shape, x.dtype, flops=7 * x.numel(), geometry=Mix(dims)
    )


@rule("instance_norm")
def instance_norm(t: Any, input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
                  bias: Any = None, *rest: Any, **options: Any) -> Traced:  # fmt: skip
    """Over all positions of a channel."""
    x = input if type(input) is Traced else t.constant(input)
    dims = tuple(range(2, len(x.shape)))
    return t.emit(
        "instance_norm", "norm", (x, weight, bias), x.shape, x.dtype, flops=7 * x.numel(), geometry=Mix(dims)
    )


@rule("local_response_norm")
def local_response_norm(
    t: Any, input: Traced, size: int, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0
) -> Any:
    """Across `size` neighbouring channels: their squares' sum, a power and a division."""
    if not input.numel():
        return NotImplemented
    return t.emit(
        "local_response_norm",
        "norm",
        (input,),
        input.shape,
        floated(input.dtype),
        flops=(size + 5) * input.numel(),
    )


@rule("normalize")
def normalize(
    t: Any, input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> Traced:
    """Divides by the norm along `dim`."""
    x = input if type(input) is Traced else t.constant(input)
    mixed = Mix(dims_of(dim, len(x.shape))) if x.shape else None
    return t.emit("normalize", "norm", (x,), x.shape, x.dtype, flops=3 * x.numel(), geometry=mixed)


def torch_batch_norm(
    t: Any,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    *rest: Any,
) -> Traced:
    """`torch.batch_norm`, whose arguments come in another order than the functional's."""
    return batch_norm(t, input, running_mean, running_var, weight, bias, training)


RULES[torch.batch_norm] = torch_batch_norm
