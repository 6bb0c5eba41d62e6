"""Matrix products."""

from __future__ import annotations

from typing import Any

from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import EVERYTHING, Attend, Mix
from convatlas.sizing.tensor import Traced

from .base import broadcast, prod, result_type, rule


def product(
    t: Any, op: str, left: Any, right: Any, extra: tuple[Any, ...] = (), bias: bool = False
) -> Traced:
    """Records `left @ right`, batches broadcast."""
    a, b = left.shape, right.shape
    if not a or not b:
        raise ShapeError(f"{op}: both arguments need at least one dimension, got {tuple(a)} and {tuple(b)}")
    rows, cols = a[-2:-1], b[-1:] if len(b) > 1 else ()
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise ShapeError(f"{op}: {tuple(a)} times {tuple(b)}: {a[-1]} columns meet {inner} rows")
    batch = broadcast(op, a[:-2], b[:-2])
    shape = (*batch, *rows, *cols)
    macs = prod(shape) * inner
    if type(left) is Traced and type(right) is Traced and left.node is not None and right.node is not None:
        geometry: Any = Attend((len(a) - 1,), (max(len(b) - 2, 0),)) if len(a) == len(b) else EVERYTHING
    elif type(left) is Traced and left.node is not None:
        geometry = Mix((len(a) - 1,))
    else:
        geometry = EVERYTHING
    return t.emit(
        op, "matmul", (left, right, *extra), shape, result_type(t, (left, right)), macs=macs, flops=2 * macs,
        bias=prod(shape) if bias else 0, geometry=geometry,
    )  # fmt: skip


@rule("matmul", "__matmul__", "mm", "bmm", "mv", "dot", "vdot")
def matmul(t: Any, input: Any, other: Any) -> Traced:
    """A matrix product over the last two dimensions."""
    return product(t, "matmul", input, other)


@rule("__rmatmul__")
def rmatmul(t: Any, input: Any, other: Any) -> Traced:
    """The other tensor stands on the left."""
    return product(t, "matmul", other, input)


@rule("inner")
def inner(t: Any, input: Any, other: Any) -> Any:
    """Products over the last dimensions of both."""
    a, b = input.shape, other.shape
    if not a or not b or a[-1] != b[-1]:
        return NotImplemented
    shape = (*a[:-1], *b[:-1])
    macs = prod(shape) * a[-1]
    dtype = result_type(t, (input, other))
    return t.emit(
        "matmul", "matmul", (input, other), shape, dtype, macs=macs, flops=2 * macs, geometry=EVERYTHING
    )


@rule("addmm", "baddbmm", "addmv")
def addmm(t: Any, input: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Traced:
    """A matrix product plus a tensor."""
    return product(t, "addmm", left, right, (input,), bias=True)


@rule("addbmm")
def addbmm(t: Any, input: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """The sum of a batch of matrix products, plus a tensor."""
    a, b = left.shape, right.shape
    if len(a) != 3 or len(b) != 3 or a[0] != b[0] or a[2] != b[1]:
        return NotImplemented
    shape = (a[1], b[2])
    macs = prod(a) * b[2]
    dtype = result_type(t, (left, right))
    return t.emit(
        "addbmm", "matmul", (left, right, input), shape, dtype, macs=macs, flops=2 * macs, bias=prod(shape),
        geometry=EVERYTHING,
    )  # fmt: skip


@rule("bilinear")
def bilinear(t: Any, input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """x1^T W x2 for each output: a product with W, then one with x2."""
    outputs, first, second = weight.shape
    if input1.shape[-1] != first or input2.shape[-1] != second or input1.shape[:-1] != input2.shape[:-1]:
        raise ShapeError(
            f"bilinear: expects {first} and {second} features, got {tuple(input1.shape)} and "
            f"{tuple(input2.shape)}"
        )
    shape = (*input1.shape[:-1], outputs)
    macs = prod(shape) * (first + 1) * second
    return t.emit(
        "bilinear", "linear", (input1, input2, weight, bias), shape, result_type(t, (input1, input2)),
        macs=macs, flops=2 * macs, bias=0 if bias is None else prod(shape), geometry=EVERYTHING,
    )  # fmt: skip


@rule("einsum")
def einsum(t: Any, equation: Any, *operands: Any) -> Any:
    """A product over named dimensions, of one or two tensors; more are answered by the meta device."""
    if not isinstance(equation, str):
        return NotImplemented
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    text = equation.replace(" ", "")
    if "..." in text or len(tensors) != 2 or "->" not in text:
        return NotImplemented
    terms, out = text.split("->")
    names = terms.split(",")
    if any(len(set(term)) != len(term) for term in names):
        return NotImplemented
    sizes: dict[str, int] = {}
    for term, x in zip(names, tensors, strict=True):
        if len(term) != len(x.shape):
            raise ShapeError(f"einsum: {equation!r} names {len(term)} dimensions of {tuple(x.shape)}")
        for letter, size in zip(term, x.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                if 1 in (sizes[letter], size):
                    return NotImplemented
                raise ShapeError(f"einsum: {equation!r}: {letter} is {sizes[letter]} and {size}")
    both = set(names[0]) & set(names[1])
    contracted = [c for c in both if c not in out and sizes[c] != 1]
    # A dimension of one factor that the result does not have is summed before the product.
    kept = set(out) | both
    work = prod(size for letter, size in sizes.items() if letter in kept)
    macs = work if contracted else 0
    order = tuple((names[0].index(c) if c in names[0] else None) for c in out)
    shape = [sizes[c] for c in out]
    geometry = EVERYTHING if order != tuple(range(len(out))) or contracted else None
    kind = "matmul" if contracted else "elementwise"
    flops = 2 * macs or work
    dtype = result_type(t, tuple(tensors))
    return t.emit("einsum", kind, tuple(tensors), shape, dtype, macs=macs, flops=flops, geometry=geometry)


@rule("outer", "ger")
def outer(t: Any, input: Any, vec2: Any) -> Traced:
    """Each times each."""
    shape = (input.shape[0], vec2.shape[0])
    dtype = result_type(t, (input, vec2))
    return t.emit("outer", "elementwise", (input, vec2), shape, dtype, flops=prod(shape), geometry=EVERYTHING)
