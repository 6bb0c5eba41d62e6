"""Views, joins, splits and moves: no arithmetic, but positions move."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from convatlas.sizing import strides
from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import EVERYTHING, RESHAPE, Cat, Permute, Select
from convatlas.sizing.tensor import Traced, strides_of

from .base import add_rule, dims_of, laid, prod, result_type, rule, traced, wrap_dim


def sizes_of(args: Any) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and not isinstance(args[0], int):
        args = args[0]
    return tuple(int(a) for a in args)


@rule("reshape")
def reshape(t: Any, input: Any, *args: Any, shape: Any = None) -> Traced:
    """The same elements under another shape: a view if they lie so that one can be, else a copy."""
    x = traced(t, input)
    return reshaped(t, "reshape", x, sizes_of(args) if shape is None else shape)


@rule("view")
def view(t: Any, input: Any, *args: Any, size: Any = None, dtype: Any = None) -> Any:
    """The same elements under another shape."""
    if dtype is not None or (args and isinstance(args[0], torch.dtype)):
        return NotImplemented
    return reshaped(t, "reshape", traced(t, input), sizes_of(args) if size is None else size)


def reshaped(t: Any, op: str, x: Traced, wanted: Any) -> Traced:
    """Records a reshape; one of the wanted sizes may be -1."""
    sizes = list(wanted)
    total = x.numel()
    if -1 in sizes:
        hole = sizes.index(-1)
        rest = -prod(sizes)
        if rest <= 0 or total % rest:
            raise ShapeError(f"reshape: {tuple(x.shape)} does not fit {tuple(sizes)}")
        sizes[hole] = total // rest
    if prod(sizes) != total:
        raise ShapeError(f"reshape: {tuple(x.shape)} has {total} elements, {tuple(sizes)} has {prod(sizes)}")
    shape = tuple(sizes)
    steps = strides.dense(shape) if x.strides is None else strides.viewed(x.shape, x.strides, shape)
    if steps is None:
        return t.emit(op, "copy", (x,), shape, x.dtype, geometry=RESHAPE)
    return t.view(op, x, shape, steps)


@rule("view_as", "reshape_as")
def view_as(t: Any, input: Any, other: Any) -> Traced:
    """The shape of another tensor."""
    return reshaped(t, "reshape", traced(t, input), other.shape)


@rule("flatten")
def flatten(t: Any, input: Any, start_dim: int = 0, end_dim: int = -1) -> Traced:
    """Neighbouring dimensions become one."""
    x = traced(t, input)
    shape = x.shape
    n = len(shape)
    if not n:
        return reshaped(t, "flatten", x, (1,))
    a, b = wrap_dim(start_dim, n), wrap_dim(end_dim, n)
    return reshaped(t, "flatten", x, (*shape[:a], prod(shape[a : b + 1]), *shape[b + 1 :]))


@rule("unflatten")
def unflatten(t: Any, input: Any, dim: int, sizes: Any) -> Traced:
    """One dimension becomes several."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    parts = _filled(x.shape[dim], list(sizes))
    return reshaped(t, "reshape", x, (*x.shape[:dim], *parts, *x.shape[dim + 1 :]))


def _filled(total: int, sizes: list[int]) -> list[int]:
    if -1 in sizes:
        sizes[sizes.index(-1)] = total // -prod(sizes)
    return sizes


@rule("permute")
def permute(t: Any, input: Any, *args: Any, dims: Any = None) -> Traced:
    """Dimensions in another order."""
    x = traced(t, input)
    n = len(x.shape)
    order = tuple(wrap_dim(d, n) for d in (sizes_of(args) if dims is None else dims))
    if sorted(order) != list(range(n)):
        raise ShapeError(f"permute: {order} is no order of the {n} dimensions of {tuple(x.shape)}")
    steps = strides_of(x)
    shape = [x.shape[d] for d in order]
    return t.view("permute", x, shape, tuple(steps[d] for d in order), Permute(order))


@rule("transpose", "swapaxes", "swapdims")
def transpose(t: Any, input: Any, dim0: int, dim1: int) -> Traced:
    """Two dimensions change places."""
    x = traced(t, input)
    order = list(range(len(x.shape)))
    a, b = wrap_dim(dim0, len(order)), wrap_dim(dim1, len(order))
    if order:
        order[a], order[b] = order[b], order[a]
    return permute(t, x, order)


@rule("t", "adjoint", "mT", "H", "mH")
def turn(t: Any, input: Any) -> Traced:
    """The last two dimensions change places."""
    x = traced(t, input)
    return transpose(t, x, -2, -1) if len(x.shape) > 1 else x


@rule("T")
def reverse(t: Any, input: Any) -> Traced:
    """All dimensions in reverse order."""
    x = traced(t, input)
    return permute(t, x, list(range(len(x.shape)))[::-1])


@rule("movedim", "moveaxis")
def movedim(t: Any, input: Any, source: Any, destination: Any) -> Traced:
    """Dimensions move to other places, the rest keep their order."""
    x = traced(t, input)
    n = len(x.shape)
    moved = dict(zip(dims_of(destination, n), dims_of(source, n), strict=True))
    rest = iter(d for d in range(n) if d not in moved.values())
    return permute(t, x, [moved[i] if i in moved else next(rest) for i in range(n)])


@rule("squeeze")
def squeeze(t: Any, input: Any, dim: Any = None) -> Traced:
    """Without dimensions of size 1."""
    x = traced(t, input)
    dims = () if dim is not None and not isinstance(dim, int) and not len(dim) else dims_of(dim, len(x.shape))
    kept = [i for i, size in enumerate(x.shape) if size != 1 or i not in dims]
    steps = strides_of(x)
    return t.view("squeeze", x, [x.shape[i] for i in kept], tuple(steps[i] for i in kept))


@rule("unsqueeze")
def unsqueeze(t: Any, input: Any, dim: int) -> Traced:
    """With one more dimension of size 1."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape) + 1)
    steps = strides_of(x)
    return t.view("unsqueeze", x, (*x.shape[:dim], 1, *x.shape[dim:]), (*steps[:dim], 1, *steps[dim:]))


def _on_itself(rule_of_view: Any) -> Any:
    def in_place(t: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        if type(input) is not Traced or input.node is None:
            return NotImplemented
        seen = rule_of_view(t, input, *args, **kwargs)
        input.shape, input.strides, input.node, input.slot = seen.shape, seen.strides, seen.node, seen.slot
        return input

    return in_place


for _name, _rule in {
    "squeeze": squeeze, "unsqueeze": unsqueeze, "t": turn, "transpose": transpose, "swapaxes": transpose,
    "swapdims": transpose,
}.items():  # fmt: skip
    add_rule(_name + "_", _on_itself(_rule))


@rule("resize_", "resize_as_")
def resize_(t: Any, input: Any, *args: Any, memory_format: Any = None) -> Any:
    """Another shape in place: what does not fit is given new memory."""
    if type(input) is not Traced or input.node is None:
        return NotImplemented
    shape = args[0].shape if isinstance(args[0], torch.Tensor) else sizes_of(args)
    out = t.emit("resize", "copy", (input,), shape, input.dtype, geometry=EVERYTHING, out=input)
    out.shape, out.strides = torch.Size(shape), None
    return out


@rule("expand", "broadcast_to")
def expand(t: Any, input: Any, *args: Any, size: Any = None, implicit: bool = False) -> Traced:
    """Dimensions of size 1 repeat, without a copy."""
    x = traced(t, input)
    wanted = list(sizes_of(args) if size is None else size)
    shape = (1,) * (len(wanted) - len(x.shape)) + tuple(x.shape)
    for i, (have, want) in enumerate(zip(shape, wanted, strict=True)):
        if want == -1:
            wanted[i] = have
        elif have not in (1, want):
            raise ShapeError(f"expand: {tuple(x.shape)} does not expand to {tuple(wanted)}")
    steps = (0,) * (len(wanted) - len(x.shape)) + strides_of(x)
    steps = tuple(step if a == b else 0 for step, a, b in zip(steps, shape, wanted, strict=True))
    return t.view("expand", x, wanted, steps, None)


@rule("expand_as")
def expand_as(t: Any, input: Any, other: Any) -> Traced:
    """Repeats to the shape of another tensor."""
    return expand(t, input, tuple(other.shape))


@rule("contiguous")
def contiguous(t: Any, input: Any, **kwargs: Any) -> Traced:
    """A copy in order where the elements do not lie so."""
    x = traced(t, input)
    if x.strides is None or kwargs:
        return x
    return t.emit("contiguous", "copy", (x,), x.shape, x.dtype)


@rule("detach", "detach_", "cpu", "cuda", "data", "positive", "requires_grad_", "pin_memory")
def same(t: Any, input: Traced, *args: Any, **kwargs: Any) -> Traced:
    """The tensor itself."""
    return input


@rule("clone")
def clone(t: Any, input: Any, **kwargs: Any) -> Traced:
    """A copy."""
    x = traced(t, input)
    return laid(t.emit("clone", "copy", (x,), x.shape, x.dtype), x)


@rule("to", "type_as")
def to(t: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Another dtype; devices and memory formats make no difference here."""
    x = traced(t, input)
    dtype = kwargs.get("dtype")
    for arg in (*args, kwargs.get("other")):
        if isinstance(arg, torch.dtype):
            dtype = arg
        elif isinstance(arg, torch.Tensor):
            dtype = traced(t, arg).dtype
    # The second of two truth values, after the dtype or the device, asks for a copy in any case.
    flags = [arg for arg in args if isinstance(arg, bool)]
    if kwargs.get("copy", len(flags) > 1 and flags[1]) and dtype in (None, x.dtype):
        return clone(t, x)
    return cast(t, x, dtype)


@rule("type")
def as_type(t: Any, input: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Another dtype, by itself or by the name of a tensor type; without one, the name of the type."""
    x = traced(t, input)
    if dtype is None:
        return torch.empty(0, dtype=x.dtype).type()
    return cast(t, x, dtype if isinstance(dtype, torch.dtype) else torch.empty(0).type(dtype).dtype)


def cast(t: Any, x: Traced, dtype: Any) -> Traced:
    """`x` in another dtype."""
    return x if dtype is None or dtype == x.dtype else t.emit("to", "copy", (x,), x.shape, dtype)


def _caster(dtype: torch.dtype) -> Any:
    def caster(t: Any, input: Any, memory_format: Any = None) -> Traced:
        return cast(t, traced(t, input), dtype)

    return caster


for _name in ("float", "half", "bfloat16", "double", "long", "int", "bool"):
    add_rule(_name, _caster(getattr(torch, _name)))


@rule("cat", "concat", "concatenate")
def cat(t: Any, tensors: Any, dim: int = 0, *, axis: Any = None) -> Any:
    """Joined along `dim`."""
    given = tuple(tensors)
    # An empty vector fits every shape.
    parts = [x for x in given if x.shape != (0,)]
    if not parts:
        return NotImplemented
    first = parts[0].shape
    dim = wrap_dim(dim if axis is None else axis, len(first))
    sizes = list(first)
    sizes[dim] = 0
    total = 0
    for x in parts:
        shape = x.shape
        rest = list(shape)
        if len(rest) == len(sizes):
            total += rest[dim]
            rest[dim] = 0
        if rest != sizes:
            raise ShapeError(f"cat: {tuple(shape)} and {tuple(first)} differ outside dimension {dim}")
    sizes[dim] = total
    return t.emit("cat", "copy", parts, sizes, result_type(t, given), geometry=Cat(dim))


@rule("stack")
def stack(t: Any, tensors: Any, dim: int = 0) -> Traced:
    """Joined along a new dimension."""
    parts = tuple(tensors)
    shape = tuple(parts[0].shape)
    if any(tuple(x.shape) != shape for x in parts):
        raise ShapeError(f"stack: shapes differ: {[tuple(x.shape) for x in parts]}")
    dim = wrap_dim(dim, len(shape) + 1)
    # A new dimension per part, then a join along it: positions of the parts do not move.
    lifted = tuple(unsqueeze(t, x, dim) for x in parts)
    shape = (*shape[:dim], len(parts), *shape[dim:])
    return t.emit("stack", "copy", lifted, shape, result_type(t, parts), geometry=Cat(dim))


def pieces(
    t: Any, op: str, x: Traced, sizes: list[int], dim: int, starts: list[int] | None = None
) -> tuple[Traced, ...]:
    """Views of parts along `dim`, one row each: of consecutive ones, unless it is said where they start."""
    out: list[Traced] = []
    picks = tuple((i, 1) for i in range(len(x.shape)))
    firsts = itertools.accumulate(sizes, initial=0) if starts is None else starts
    for start, size in zip(firsts, sizes):  # noqa: B905
        offsets = [0] * len(x.shape)
        offsets[dim] = start
        shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
        out.append(t.view(op, x, shape, strides_of(x), Select(picks, tuple(offsets))))
    return tuple(out)


@rule("chunk", "unsafe_chunk")
def chunk(t: Any, input: Any, chunks: int, dim: int = 0) -> Any:
    """Parts of equal size but for the last."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    if not x.shape[dim]:
        return NotImplemented
    return split(t, x, -(-x.shape[dim] // chunks), dim)


@rule("tensor_split")
def tensor_split(
    t: Any, input: Any, indices_or_sections: Any = None, dim: int = 0, *, indices: Any = None,
    sections: Any = None, tensor_indices_or_sections: Any = None,
) -> Any:  # fmt: skip
    """Parts whose sizes differ by one at most, or parts between given places."""
    x = traced(t, input)
    given = (indices_or_sections, indices, sections, tensor_indices_or_sections)
    where: Any = next(v for v in given if v is not None)
    if isinstance(where, torch.Tensor):
        # Places that the network holds are known; others depend on data, as `tolist` says.
        where = where.tolist()
    dim = wrap_dim(dim, len(x.shape))
    total = x.shape[dim]
    if isinstance(where, int):
        least, more = divmod(total, where)
        return pieces(t, "tensor_split", x, [least + (i < more) for i in range(where)], dim)
    ends = [min(max(end + total if end < 0 else end, 0), total) for end in (*where, total)]
    starts = [0, *ends[:-1]]
    sizes = [max(end - start, 0) for start, end in zip(starts, ends, strict=True)]
    return pieces(t, "tensor_split", x, sizes, dim, starts)


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def split(
    t: Any, input: Any, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None,
    split_sizes: Any = None,
) -> tuple[Traced, ...]:  # fmt: skip
    """Parts of given sizes."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    size = next(v for v in (split_size_or_sections, split_size, split_sizes) if v is not None)
    total = x.shape[dim]
    if isinstance(size, int):
        sizes = [min(size, total - a) for a in range(0, total, size)] or [0]
    else:
        sizes = [int(s) for s in size]
        if sum(sizes) != total:
            raise ShapeError(f"split: sizes {sizes} do not add up to {total} of {tuple(x.shape)}")
    return pieces(t, "split", x, sizes, dim)


@rule("flip")
def flip(t: Any, input: Any, *dims: Any, **kwargs: Any) -> Traced:
    """Positions in reverse order along dimensions."""
    x = traced(t, input)
    n = len(x.shape)
    turned = dims_of(kwargs["dims"] if "dims" in kwargs else sizes_of(dims), n) if n else ()
    picks = tuple((i, -1 if i in turned else 1) for i in range(n))
    offsets = tuple(max(x.shape[i] - 1, 0) if i in turned else 0 for i in range(n))
    return t.emit("flip", "copy", (x,), x.shape, x.dtype, geometry=Select(picks, offsets))


@rule("fliplr")
def fliplr(t: Any, input: Any) -> Traced:
    """The second dimension in reverse order."""
    return flip(t, input, 1)


@rule("flipud")
def flipud(t: Any, input: Any) -> Traced:
    """The first dimension in reverse order."""
    return flip(t, input, 0)


@rule("unbind")
def unbind(t: Any, input: Any, dim: int = 0) -> tuple[Traced, ...]:
    """One view per position along `dim`."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    return tuple(select(t, x, dim, i) for i in range(x.shape[dim]))


@rule("select")
def select(t: Any, input: Any, dim: int, index: int) -> Traced:
    """One position along `dim`."""
    x = traced(t, input)
    n = len(x.shape)
    dim = wrap_dim(dim, n)
    if not -x.shape[dim] <= index < x.shape[dim]:
        raise ShapeError(f"select: index {index} of dimension {dim} of {tuple(x.shape)}")
    offsets = [0] * n
    offsets[dim] = index % x.shape[dim]
    picks = tuple((i, 1) for i in range(n) if i != dim)
    steps = strides_of(x)
    return t.view(
        "select", x, (*x.shape[:dim], *x.shape[dim + 1 :]), (*steps[:dim], *steps[dim + 1 :]),
        Select(picks, tuple(offsets)),
    )  # fmt: skip


@rule("narrow")
def narrow(t: Any, input: Any, dim: int, start: int, length: int) -> Traced:
    """A range along `dim`."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    offsets = [0] * len(x.shape)
    offsets[dim] = start % x.shape[dim] if start < 0 else start
    picks = tuple((i, 1) for i in range(len(x.shape)))
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    return t.view("narrow", x, shape, strides_of(x), Select(picks, tuple(offsets)))
