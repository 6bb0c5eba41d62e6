"""Activations and arithmetic per element.

Arithmetic per element: 1 for each addition, multiplication, division, comparison and elementary function
(exponential, logarithm, square root, error function) in the operation's usual formula.
"""

from __future__ import annotations

from typing import Any

import torch

from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import Mix
from convatlas.sizing.tensor import Traced

from .base import add_rule, broadcast, floated, laid, prod, result_type, rule, traced, wrap_dim

# name: operations per element
ACTIVATIONS = {
    "relu": 1, "relu6": 2, "hardtanh": 2, "leaky_relu": 2, "threshold": 1, "elu": 3, "selu": 4, "celu": 4,
    "sigmoid": 4, "tanh": 1, "silu": 5, "gelu": 5, "mish": 6, "softplus": 3, "softsign": 3, "hardswish": 4,
    "hardsigmoid": 3, "logsigmoid": 4, "tanhshrink": 2, "softshrink": 2, "hardshrink": 1, "rrelu": 2,
}  # fmt: skip
FUNCTIONS = {
    "exp": 1, "expm1": 2, "log": 1, "log1p": 2, "log2": 1, "log10": 1, "sqrt": 1, "rsqrt": 2,
    "square": 1, "abs": 1,
    "neg": 1, "reciprocal": 1, "sin": 1, "cos": 1, "tan": 1, "asin": 1, "acos": 1, "atan": 1, "sinh": 1,
    "cosh": 1,
    "erf": 1, "erfc": 1, "floor": 1, "ceil": 1, "round": 1, "trunc": 1, "sign": 1, "nan_to_num": 1, "frac": 1,
    "bitwise_not": 1, "__invert__": 1, "absolute": 1, "negative": 1, "__neg__": 1, "__abs__": 1, "__pos__": 0,
}  # fmt: skip
# Functions without integer results: of integers and truth values they make floating-point numbers.
FLOATING = frozenset(
    "sigmoid tanh softsign tanhshrink exp expm1 log log1p log2 log10 sqrt rsqrt reciprocal sin cos tan "
    "asin acos atan sinh cosh erf erfc atan2".split()
)
TESTS = ("logical_not", "isnan", "isinf", "isfinite")
ARITHMETIC = {
    "add": 1, "sub": 1, "subtract": 1, "rsub": 1, "mul": 1, "multiply": 1, "div": 1, "divide": 1,
    "true_divide": 1,
    "floor_divide": 1, "remainder": 1, "fmod": 1, "pow": 1, "float_power": 1, "maximum": 1, "minimum": 1,
    "fmax": 1,
    "fmin": 1, "atan2": 1, "bitwise_and": 1, "bitwise_or": 1, "bitwise_xor": 1, "hypot": 3, "logaddexp": 4,
}  # fmt: skip
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "greater",
"less",
               "isclose", "not_equal", "greater_equal", "less_equal")  # fmt: skip
DUNDERS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip


def _activation(name: str, cost: int, kind: str) -> None:
    def activation(t: Any, input: Any, *args: Any, inplace: bool = False, **kwargs: Any) -> Traced:
        x = input if type(input) is Traced else t.constant(input)
        if args and type(args[-1]) is bool:
            inplace = args[-1]
        shape, out, dtype = x.shape, x if inplace else None, x.dtype
        if not dtype.is_floating_point:
            dtype = _mapped(name, dtype)
        flops = cost * shape.numel()
        if x.slot or x.node is None:
            return t.emit(name, kind, (x,), shape, dtype, flops=flops, out=out)
        made = t.record(name, kind, (x.node,), (shape,), shape, dtype, 0, 0, 0, 0, flops, 0, None, out=out)
        return made if x.strides is None or inplace else laid(made, x)

    def in_place(t: Any, input: Any, *args: Any, **kwargs: Any) -> Traced:
        return activation(t, input, inplace=True)

    add_rule(name, activation)
    add_rule(name + "_", in_place)


def _mapped(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a function of complex numbers, integers or truth values."""
    if dtype.is_complex:
        return dtype.to_real() if name in ("abs", "absolute", "__abs__") else dtype
    if name == "square" and dtype is torch.bool:
        return torch.int64
    return floated(dtype) if name in FLOATING else dtype


def _operator(name: str, cost: int, boolean: bool) -> tuple[Any, Any]:
    kind = "elementwise"

    def operator(t: Any, input: Any, other: Any, *, alpha: Any = 1, rounding_mode: Any = None) -> Any:
        if type(input) is Traced and type(other) is Traced:
            tensors: tuple[Any, ...] = (input, other)
        else:
            tensors = tuple(x for x in (input, other) if isinstance(x, torch.Tensor))
        shape = tensors[0].shape
        if len(tensors) == 2 and shape != tensors[1].shape:
            shape = torch.Size(broadcast(name, shape, tensors[1].shape))
        dtype = torch.bool if boolean else result_type(t, (input, other))
        if name == "float_power":
            dtype = torch.complex128 if dtype.is_complex else torch.float64
        elif name in FLOATING or (name in ("div", "divide", "true_divide") and rounding_mode is None):
            dtype = floated(dtype)
        flops = cost * shape.numel() * (1 if type(alpha) is int and alpha == 1 else 2)
        made = t.emit(name, kind, tensors, shape, dtype, flops=flops)
        # The first of the full shape says how the result lies.
        return laid(made, next((x for x in tensors if x.shape == shape), None))

    def in_place(t: Any, input: Any, other: Any, *, alpha: Any = 1, rounding_mode: Any = None) -> Any:
        x = traced(t, input)
        if x.source is not None and not isinstance(other, torch.Tensor):
            # A counter among the buffers, such as the batches that a norm has seen.
            return x
        tensors = (x, other) if isinstance(other, torch.Tensor) else (x,)
        if len(tensors) == 2 and tuple(broadcast(name, x.shape, other.shape)) != tuple(x.shape):
            raise ShapeError(f"{name}: {tuple(other.shape)} does not fit in place of {tuple(x.shape)}")
        return t.emit(name, kind, tensors, x.shape, x.dtype, flops=cost * x.numel(), out=x)

    return operator, in_place


def _register() -> None:
    for name, cost in ACTIVATIONS.items():
        _activation(name, cost, "activation")
    for name, cost in FUNCTIONS.items():
        _activation(name, cost, "elementwise")
    for name, cost in ARITHMETIC.items():
        operator, in_place = _operator(name, cost, False)
        add_rule(name, operator)
        add_rule(name + "_", in_place)
        for dunder, target in DUNDERS.items():
            if target == name:
                add_rule(f"__{dunder}__", operator)
                add_rule(f"__r{dunder}__", operator)
                add_rule(f"__i{dunder}__", in_place)
    for name in COMPARISONS:
        operator, _ = _operator(name, 1, True)
        add_rule(name, operator)
        if len(name) == 2:
            add_rule(f"__{name}__", operator)


_register()


@rule(*TESTS)
def test(t: Any, input: Traced) -> Traced:
    """A truth value per element."""
    return t.emit("test", "elementwise", (input,), input.shape, torch.bool, flops=input.numel())


def clamped(t: Any, input: Any, min: Any, max: Any, inplace: bool = False) -> Traced:
    """Records a clamp; the limits are numbers or tensors, or None for no limit."""
    x = input if type(input) is Traced else t.constant(input)
    limits = [limit for limit in (min, max) if limit is not None]
    tensors = (x, *(limit for limit in limits if isinstance(limit, torch.Tensor)))
    shape: Any = x.shape
    for limit in tensors[1:]:
        shape = broadcast("clamp", shape, limit.shape)
    dtype = x.dtype if inplace else result_type(t, (x, *limits))
    flops = len(limits) * prod(shape)
    out = x if inplace else None
    return laid(t.emit("clamp", "activation", tensors, shape, dtype, flops=flops, out=out), x)


def _clamping(inplace: bool) -> tuple[Any, Any, Any]:
    def both(t: Any, input: Any, min: Any = None, max: Any = None) -> Traced:
        return clamped(t, input, min, max, inplace)

    def lower(t: Any, input: Any, min: Any) -> Traced:
        return clamped(t, input, min, None, inplace)

    def upper(t: Any, input: Any, max: Any) -> Traced:
        return clamped(t, input, None, max, inplace)

    return both, lower, upper


for _suffix in ("", "_"):
    _both, _lower, _upper = _clamping(_suffix == "_")
    add_rule("clamp" + _suffix, _both)
    add_rule("clip" + _suffix, _both)
    add_rule("clamp_min" + _suffix, _lower)
    add_rule("clamp_max" + _suffix, _upper)


@rule("softmax", "log_softmax", "softmin")
def softmax(
    t: Any, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None, **kwargs: Any
) -> Traced:
    """Exponential, sum and division along `dim`."""
    x = traced(t, input)
    n = len(x.shape)
    if dim is None:
        # As PyTorch chooses where it is not told.
        dim = 0 if n in (0, 1, 3) else 1
    mixed = Mix((wrap_dim(dim, n),)) if n else None
    dtype = (_stacklevel if isinstance(_stacklevel, torch.dtype) else dtype) or x.dtype
    return t.emit("softmax", "activation", (x,), x.shape, dtype, flops=5 * x.numel(), geometry=mixed)


@rule("prelu")
def prelu(t: Any, input: Any, weight: Any) -> Traced:
    """A learnt slope below zero."""
    return t.emit("prelu", "activation", (input, weight), input.shape, input.dtype, flops=2 * input.numel())


@rule("glu")
def glu(t: Any, input: Traced, dim: int = -1) -> Traced:
    """Half of the channels gate the other half."""
    shape = list(input.shape)
    if shape[dim] % 2:
        raise ShapeError(f"glu: dimension {dim} of {tuple(shape)} is odd")
    shape[dim] //= 2
    out = torch.Size(shape)
    return t.emit("glu", "activation", (input,), out, input.dtype, flops=5 * out.numel())


@rule("alpha_dropout", "feature_alpha_dropout")
def alpha_dropout(t: Any, input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Nothing, unless training is asked for."""
    return dropout(t, input, p, training, inplace)


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout")
def dropout(t: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Nothing in eval mode; a mask and a scale in training."""
    if not training or p == 0:
        return input
    x = traced(t, input)
    return t.emit(
        "dropout", "elementwise", (x,), x.shape, x.dtype, flops=2 * x.numel(), out=x if inplace else None
    )


@rule("where")
def where(t: Any, condition: Any, input: Any = None, other: Any = None) -> Any:
    """One of two, per element."""
    if input is None:
        return NotImplemented
    tensors = tuple(x for x in (condition, input, other) if isinstance(x, torch.Tensor))
    shape: Any = ()
    for x in tensors:
        shape = broadcast("where", shape, x.shape)
    dtype = result_type(t, (input, other))
    return t.emit("where", "elementwise", tensors, shape, dtype, flops=torch.Size(shape).numel())


@rule("lerp", "addcmul", "addcdiv")
def three(t: Any, input: Any, second: Any, third: Any, *, value: Any = 1) -> Traced:
    """A multiply and an addition of three."""
    tensors = tuple(x for x in (input, second, third) if isinstance(x, torch.Tensor))
    shape: Any = ()
    for x in tensors:
        shape = broadcast("lerp", shape, x.shape)
    return t.emit(
        "lerp", "elementwise", tensors, shape, result_type(t, tensors), flops=3 * torch.Size(shape).numel()
    )


@rule("lerp_", "addcmul_", "addcdiv_")
def three_(t: Any, input: Any, second: Any, third: Any, *, value: Any = 1) -> Traced:
    """A multiply and an addition of three, in place."""
    x = traced(t, input)
    tensors = (x, *(y for y in (second, third) if isinstance(y, torch.Tensor)))
    return t.emit("lerp", "elementwise", tensors, x.shape, x.dtype, flops=3 * x.numel(), out=x)


@rule("masked_fill")
def masked_fill(t: Any, input: Any, mask: Any, value: Any) -> Traced:
    """A constant where the mask is set."""
    shape = broadcast("masked_fill", input.shape, mask.shape)
    return t.emit("masked_fill", "elementwise", (input, mask), shape, traced(t, input).dtype)


@rule("masked_fill_")
def masked_fill_(t: Any, input: Any, mask: Any, value: Any) -> Traced:
    """A constant where the mask is set, in place."""
    return t.emit("masked_fill", "elementwise", (input, mask), input.shape, input.dtype, out=traced(t, input))


@rule("bernoulli_", "uniform_", "normal_", "fill_", "zero_", "exponential_", "trunc_normal_")
def overwrite(t: Any, input: Traced, *args: Any, **kwargs: Any) -> Traced:
    """New values in place."""
    return t.emit("fill", "create", (input,), input.shape, input.dtype, out=input)


@rule("copy_")
def copy_(t: Any, input: Any, other: Any, non_blocking: bool = False) -> Traced:
    """The values of another tensor, in place."""
    x = traced(t, input)
    return t.emit("copy", "copy", (x, other), x.shape, x.dtype, out=x)
