"""Views, joins, splits and moves: no arithmetic, but positions move."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ShapeError
from ..geometry import EVERYTHING, RESHAPE, Cat, Mix, Pad, Permute, Resize, Select
from ..tensor import Traced
from .base import add_rule, dims_of, prod, rule, traced, tupled, wrap_dim


def sizes_of(args: Any) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and not isinstance(args[0], int):
        args = args[0]
    return tuple(int(a) for a in args)


@rule("view", "reshape")
def reshape(t: Any, input: Any, *args: Any, shape: Any = None, dtype: Any = None) -> Traced:
    """The same elements under another shape."""
    x = traced(t, input)
    if args and isinstance(args[0], torch.dtype):
        return NotImplemented
    sizes = list(sizes_of(args) if shape is None else shape)
    total = x.numel()
    if -1 in sizes:
        hole = sizes.index(-1)
        rest = -prod(sizes)
        if rest <= 0 or total % rest:
            raise ShapeError(f"reshape: {tuple(x.shape)} does not fit {tuple(sizes)}")
        sizes[hole] = total // rest
    if prod(sizes) != total:
        raise ShapeError(f"reshape: {tuple(x.shape)} has {total} elements, {tuple(sizes)} has {prod(sizes)}")
    return t.view("reshape", x, sizes)


@rule("view_as", "reshape_as")
def view_as(t: Any, input: Any, other: Any) -> Traced:
    """The shape of another tensor."""
    return reshape(t, input, tuple(other.shape))


@rule("flatten")
def flatten(t: Any, input: Any, start_dim: int = 0, end_dim: int = -1) -> Traced:
    """Neighbouring dimensions become one."""
    x = traced(t, input)
    shape = x.shape
    n = len(shape)
    if not n:
        return t.view("flatten", x, (1,))
    a, b = wrap_dim(start_dim, n), wrap_dim(end_dim, n)
    return t.view("flatten", x, (*shape[:a], prod(shape[a : b + 1]), *shape[b + 1 :]))


@rule("unflatten")
def unflatten(t: Any, input: Any, dim: int, sizes: Any) -> Traced:
    """One dimension becomes several."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    return reshape(t, x, (*x.shape[:dim], *_filled(x.shape[dim], list(sizes)), *x.shape[dim + 1 :]))


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
    return t.view("permute", x, [x.shape[d] for d in order], Permute(order))


@rule("transpose", "swapaxes", "swapdims")
def transpose(t: Any, input: Any, dim0: int, dim1: int) -> Traced:
    """Two dimensions change places."""
    x = traced(t, input)
    order = list(range(len(x.shape)))
    a, b = wrap_dim(dim0, len(order)), wrap_dim(dim1, len(order))
    order[a], order[b] = order[b], order[a]
    return permute(t, x, order)


@rule("T", "t", "adjoint", "mT", "H", "mH")
def turn(t: Any, input: Any, *args: Any) -> Traced:
    """The last two dimensions change places."""
    x = traced(t, input)
    return transpose(t, x, -2, -1) if len(x.shape) > 1 else x


@rule("movedim", "moveaxis")
def movedim(t: Any, input: Any, source: Any, destination: Any) -> Traced:
    """Dimensions move to other places, the rest keep their order."""
    x = traced(t, input)
    n = len(x.shape)
    moved = dict(zip(dims_of(destination, n), dims_of(source, n), strict=True))
    rest = iter(d for d in range(n) if d not in moved.values())
    return permute(t, x, [moved[i] if i in moved else next(rest) for i in range(n)])


@rule("squeeze", "squeeze_")
def squeeze(t: Any, input: Any, dim: Any = None) -> Traced:
    """Without dimensions of size 1."""
    x = traced(t, input)
    dims = dims_of(dim, len(x.shape))
    return t.view("squeeze", x, [s for i, s in enumerate(x.shape) if s != 1 or i not in dims])


@rule("unsqueeze", "unsqueeze_")
def unsqueeze(t: Any, input: Any, dim: int) -> Traced:
    """With one more dimension of size 1."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape) + 1)
    return t.view("unsqueeze", x, (*x.shape[:dim], 1, *x.shape[dim:]))


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
    return t.emit("expand", "view", (x,), wanted, x.dtype, view=x)


@rule("expand_as")
def expand_as(t: Any, input: Any, other: Any) -> Traced:
    """Repeats to the shape of another tensor."""
    return expand(t, input, tuple(other.shape))


@rule("contiguous", "detach", "detach_", "cpu", "cuda", "data", "positive", "requires_grad_", "pin_memory")
def same(t: Any, input: Traced, *args: Any, **kwargs: Any) -> Traced:
    """The tensor itself."""
    return input


@rule("clone")
def clone(t: Any, input: Any, **kwargs: Any) -> Traced:
    """A copy."""
    return t.emit("clone", "copy", (input,), input.shape, traced(t, input).dtype)


@rule("to", "type", "type_as")
def to(t: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Another dtype; devices and memory formats make no difference here."""
    x = traced(t, input)
    dtype = kwargs.get("dtype")
    for arg in args:
        if isinstance(arg, torch.dtype):
            dtype = arg
        elif isinstance(arg, torch.Tensor):
            dtype = traced(t, arg).dtype
    return cast(t, x, dtype)


def cast(t: Any, x: Traced, dtype: Any) -> Traced:
    """`x` in another dtype."""
    return x if dtype is None or dtype == x.dtype else t.emit("to", "copy", (x,), x.shape, dtype)


def _caster(dtype: torch.dtype) -> Any:
    def caster(t: Any, input: Any, **kwargs: Any) -> Traced:
        return cast(t, traced(t, input), dtype)

    return caster


for _name in ("float", "half", "bfloat16", "double", "long", "int", "bool"):
    add_rule(_name, _caster(getattr(torch, _name)))


@rule("cat", "concat", "concatenate")
def cat(t: Any, tensors: Any, dim: int = 0, *, out: Any = None, axis: Any = None) -> Traced:
    """Joined along `dim`."""
    parts = [x for x in tensors if tuple(x.shape) != (0,)]
    first = parts[0].shape
    dim = wrap_dim(dim if axis is None else axis, len(first))
    total = 0
    for x in parts:
        shape = x.shape
        if len(shape) != len(first) or shape[:dim] != first[:dim] or shape[dim + 1 :] != first[dim + 1 :]:
            raise ShapeError(f"cat: {tuple(shape)} and {tuple(first)} differ outside dimension {dim}")
        total += shape[dim]
    dtype = next((x.dtype for x in parts if type(x) is Traced and x.source is None), None)
    shape = (*first[:dim], total, *first[dim + 1 :])
    return t.emit("cat", "copy", tuple(parts), shape, dtype or traced(t, parts[0]).dtype, geometry=Cat(dim))


@rule("stack")
def stack(t: Any, tensors: Any, dim: int = 0, *, out: Any = None) -> Traced:
    """Joined along a new dimension."""
    parts = tuple(tensors)
    shape = tuple(parts[0].shape)
    if any(tuple(x.shape) != shape for x in parts):
        raise ShapeError(f"stack: shapes differ: {[tuple(x.shape) for x in parts]}")
    dim = wrap_dim(dim, len(shape) + 1)
    # A new dimension per part, then a join along it: positions of the parts do not move.
    lifted = tuple(unsqueeze(t, x, dim) for x in parts)
    dtype = next((x.dtype for x in parts if type(x) is Traced and x.source is None), None)
    shape = (*shape[:dim], len(parts), *shape[dim:])
    return t.emit("stack", "copy", lifted, shape, dtype or lifted[0].dtype, geometry=Cat(dim))


def pieces(t: Any, op: str, x: Traced, sizes: list[int], dim: int) -> tuple[Traced, ...]:
    """Views of consecutive parts along `dim`, one row each."""
    out: list[Traced] = []
    start = 0
    picks = tuple((i, 1) for i in range(len(x.shape)))
    for size in sizes:
        offsets = [0] * len(x.shape)
        offsets[dim] = start
        shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
        out.append(t.view(op, x, shape, Select(picks, tuple(offsets))))
        start += size
    return tuple(out)


@rule("chunk", "tensor_split")
def chunk(t: Any, input: Any, chunks: Any, dim: int = 0) -> Any:
    """Parts of equal size but for the last."""
    if not isinstance(chunks, int):
        return NotImplemented
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    return split(t, x, -(-x.shape[dim] // chunks), dim)


@rule("split", "split_with_sizes", "unsafe_split")
def split(
    t: Any, input: Any, split_size_or_sections: Any = None, dim: int = 0, **kw: Any
) -> tuple[Traced, ...]:
    """Parts of given sizes."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    size = kw.get("split_size", split_size_or_sections)
    total = x.shape[dim]
    if isinstance(size, int):
        sizes = [min(size, total - a) for a in range(0, total, size)]
    else:
        sizes = [int(s) for s in size]
        if sum(sizes) != total:
            raise ShapeError(f"split: sizes {sizes} do not add up to {total} of {tuple(x.shape)}")
    return pieces(t, "split", x, sizes, dim)


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
    return t.view("select", x, (*x.shape[:dim], *x.shape[dim + 1 :]), Select(picks, tuple(offsets)))


@rule("narrow")
def narrow(t: Any, input: Any, dim: int, start: int, length: int) -> Traced:
    """A range along `dim`."""
    x = traced(t, input)
    dim = wrap_dim(dim, len(x.shape))
    offsets = [0] * len(x.shape)
    offsets[dim] = start % x.shape[dim] if start < 0 else start
    picks = tuple((i, 1) for i in range(len(x.shape)))
    return t.view("narrow", x, (*x.shape[:dim], length, *x.shape[dim + 1 :]), Select(picks, tuple(offsets)))


@rule("unfold")
def unfold(t: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    """`Tensor.unfold` has four sizes per call; the functional one takes a kernel."""
    return NotImplemented


@rule("pad", "constant_pad_nd")
def pad(t: Any, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Traced:
    """More (or, if negative, fewer) positions around the last dimensions."""
    x = traced(t, input)
    shape = list(x.shape)
    before = [0] * len(shape)
    for i in range(len(pad) // 2):
        dim = len(shape) - 1 - i
        before[dim] = pad[2 * i]
        shape[dim] += pad[2 * i] + pad[2 * i + 1]
        if shape[dim] < 0 or (mode == "reflect" and max(pad[2 * i : 2 * i + 2]) >= x.shape[dim]):
            raise ShapeError(f"pad: {tuple(pad)} ({mode}) does not fit {tuple(x.shape)}")
    geometry = Pad(tuple(before)) if mode == "constant" or not any(pad) else EVERYTHING
    return t.emit("pad", "copy", (x,), shape, x.dtype, geometry=geometry)


@rule("repeat", "tile")
def repeat(t: Any, input: Any, *args: Any, repeats: Any = None, dims: Any = None) -> Traced:
    """Copies side by side."""
    x = traced(t, input)
    times = sizes_of(args) if args else tuple(repeats or dims)
    n = max(len(times), len(x.shape))
    times = (1,) * (n - len(times)) + times
    old = (1,) * (n - len(x.shape)) + tuple(x.shape)
    moved = tuple(i for i, k in enumerate(times) if k > 1 and old[i] > 1)
    shape = [a * b for a, b in zip(old, times, strict=True)]
    return t.emit("repeat", "copy", (x,), shape, x.dtype, geometry=EVERYTHING if moved else None)


@rule("flip", "roll", "fliplr", "flipud", "rot90")
def roll(t: Any, input: Any, *args: Any, dims: Any = None, **kwargs: Any) -> Any:
    """Positions move along dimensions."""
    x = traced(t, input)
    if dims is None and args:
        dims = args[-1]
    return t.emit("roll", "copy", (x,), x.shape, x.dtype, geometry=Mix(dims_of(dims, len(x.shape))))


@rule("interpolate", "upsample")
def interpolate(
    t: Any,
    input: Traced,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *args: Any,
    **kwargs: Any,
) -> Traced:
    """Another number of positions over the last dimensions."""
    x = traced(t, input)
    n = len(x.shape) - 2
    old = x.shape[2:]
    if size is None:
        factors = (scale_factor,) * n if isinstance(scale_factor, int | float) else scale_factor
        new = tuple(int(s * f) for s, f in zip(old, factors, strict=True))
    else:
        new = tupled(size, n)
    reach = {"nearest": 0, "nearest-exact": 0, "area": 0, "bicubic": 2}.get(mode, 1)
    cost = {0: 0, 1: 3 * n, 2: 8 * n}[reach]
    scale = tuple(a / b for a, b in zip(old, new, strict=True))
    shape = (*x.shape[:2], *new)
    geometry = EVERYTHING if kwargs.get("antialias") else Resize(scale, reach)
    return t.emit("interpolate", "resize", (x,), shape, x.dtype, flops=cost * prod(shape), geometry=geometry)


@rule("pixel_shuffle")
def pixel_shuffle(t: Any, input: Traced, upscale_factor: int) -> Traced:
    """Channels become positions."""
    r = upscale_factor
    *batch, c, h, w = input.shape
    x = reshape(t, input, (*batch, c // (r * r), r, r, h, w))
    n = len(batch)
    x = permute(t, x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return t.emit(
        "pixel_shuffle", "copy", (x,), (*batch, c // (r * r), h * r, w * r), x.dtype, geometry=RESHAPE
    )


@rule("pixel_unshuffle")
def pixel_unshuffle(t: Any, input: Traced, downscale_factor: int) -> Traced:
    """Positions become channels."""
    r = downscale_factor
    *batch, c, h, w = input.shape
    x = reshape(t, input, (*batch, c, h // r, r, w // r, r))
    n = len(batch)
    x = permute(t, x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return t.emit(
        "pixel_unshuffle", "copy", (x,), (*batch, c * r * r, h // r, w // r), x.dtype, geometry=RESHAPE
    )


@rule("channel_shuffle")
def channel_shuffle(t: Any, input: Traced, groups: int) -> Traced:
    """Channels of the groups alternate."""
    return t.emit("channel_shuffle", "copy", (input,), input.shape, input.dtype, geometry=Mix((1,)))
