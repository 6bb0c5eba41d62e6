"""Copies to other positions: padding, repeating, rolling, resampling, shuffling and sliding patches."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch.nn import functional

from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import EVERYTHING, RESHAPE, Mix, Pad, Resize, Shuffle, Slide, Window
from convatlas.sizing.tensor import RULES, Traced, strides_of

from .base import dims_of, prod, rule, traced, tupled, wrap_dim
from .shape import permute, reshaped, sizes_of
from .window import windows


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
    return t.emit("pad", "copy", (x,), shape, x.dtype, geometry=Pad(tuple(before)))


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


@rule("roll")
def roll(t: Any, input: Any, shifts: Any, dims: Any = None) -> Any:
    """Positions move around along dimensions, or along all as if they were one."""
    x = traced(t, input)
    moved = Mix(dims_of(dims, len(x.shape))) if x.shape else None
    return t.emit("roll", "copy", (x,), x.shape, x.dtype, geometry=moved)


@rule("rot90")
def rot90(t: Any, input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """Two dimensions turn by 90 degrees, `k` times."""
    x = traced(t, input)
    a, b = (wrap_dim(d, len(x.shape)) for d in dims)
    shape = list(x.shape)
    if k % 2:
        shape[a], shape[b] = shape[b], shape[a]
    return t.emit("rot90", "copy", (x,), shape, x.dtype, geometry=EVERYTHING if k % 4 else None)


_MODES = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


@rule("interpolate", "upsample")
def interpolate(
    t: Any,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Another number of positions over the last dimensions."""
    x = traced(t, input)
    n = len(x.shape) - 2
    old = x.shape[2:]
    kind = _MODES.get(mode, mode)
    factors: tuple[Any, ...] = (None,) * n
    if size is None:
        given = tuple(scale_factor) if hasattr(scale_factor, "__len__") else (scale_factor,) * n
        factors = tuple(map(float, given))
        new = tuple(math.floor(float(s * f)) for s, f in zip(old, factors, strict=True))
    else:
        new = tupled(size, n)
    if kind not in ("nearest", "nearest-exact", "area", "linear", "cubic") or min(new) < 1:
        return NotImplemented
    if recompute_scale_factor or kind == "area":
        factors = (None,) * n
    steps = tuple(_step(*sizes, bool(align_corners)) for sizes in zip(old, new, factors, strict=True))
    geometry = Resize(kind, new, steps, bool(align_corners), antialias)
    cost = {0: 0, 1: 3 * n, 2: 8 * n}[geometry.reach]
    shape = (*x.shape[:2], *new)
    return t.emit("interpolate", "resize", (x,), shape, x.dtype, flops=cost * prod(shape), geometry=geometry)


def _step(old: int, new: int, factor: float | None, align_corners: bool) -> Fraction:
    """Input positions per output position, as PyTorch has them."""
    if align_corners:
        return Fraction(old - 1, new - 1) if new > 1 else Fraction(0)
    if factor is None or new == old * factor:
        return Fraction(old, new)
    return Fraction(1 / factor).limit_denominator(64)


@rule("pixel_shuffle")
def pixel_shuffle(t: Any, input: Any, upscale_factor: int) -> Any:
    """Channels become positions."""
    x, r = traced(t, input), upscale_factor
    *batch, c, h, w = x.shape
    if c % (r * r):
        raise ShapeError(f"pixel_shuffle: {c} channels do not split into {r}*{r}")
    shape = (*batch, c // (r * r), h * r, w * r)
    return t.emit("pixel_shuffle", "copy", (x,), shape, x.dtype, geometry=Shuffle(r))


@rule("pixel_unshuffle")
def pixel_unshuffle(t: Any, input: Traced, downscale_factor: int) -> Traced:
    """Positions become channels."""
    r = downscale_factor
    *batch, c, h, w = input.shape
    x = reshaped(t, "reshape", traced(t, input), (*batch, c, h // r, r, w // r, r))
    n = len(batch)
    x = permute(t, x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return t.emit(
        "pixel_unshuffle", "copy", (x,), (*batch, c * r * r, h // r, w // r), x.dtype, geometry=RESHAPE
    )


@rule("channel_shuffle")
def channel_shuffle(t: Any, input: Traced, groups: int) -> Traced:
    """Channels of the groups alternate."""
    return t.emit("channel_shuffle", "copy", (input,), input.shape, input.dtype, geometry=Mix((1,)))


@rule("repeat_interleave")
def repeat_interleave(t: Any, input: Any, repeats: Any = None, dim: Any = None, **kwargs: Any) -> Any:
    """Each element several times in a row; as many times each, unless the meta device can tell."""
    if not isinstance(repeats, int):
        return NotImplemented
    x = traced(t, input)
    if dim is None:
        x = reshaped(t, "flatten", x, (x.numel(),))
    dim = wrap_dim(dim or 0, len(x.shape))
    shape = (*x.shape[:dim], x.shape[dim] * repeats, *x.shape[dim + 1 :])
    steps = tuple(Fraction(1, repeats if i == dim and repeats else 1) for i in range(len(shape)))
    geometry = Resize("nearest", shape[2:], steps[2:]) if dim > 1 else EVERYTHING if dim == 0 else None
    return t.emit("repeat_interleave", "copy", (x,), shape, x.dtype, geometry=geometry or Mix((dim,)))


def patches(
    t: Any, input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """`functional.unfold`: the patch under each window becomes a column."""
    x = traced(t, input)
    if len(x.shape) != 4:
        return NotImplemented
    batch, chans, *sizes = x.shape
    kernel, stride = tupled(kernel_size, 2), tupled(stride, 2)
    padding, dilation = tupled(padding, 2), tupled(dilation, 2)
    out = windows("unfold", sizes, kernel, stride, padding, dilation)
    shape = (batch, chans * prod(kernel), *out)
    window = Window(kernel, stride, padding, dilation)
    y = t.emit("unfold", "copy", (x,), shape, x.dtype, geometry=window)
    return reshaped(t, "reshape", y, (*shape[:2], prod(out)))


def sums(
    t: Any, input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Any:  # fmt: skip
    """`functional.fold`: columns become patches again, which add up where they overlap."""
    x = traced(t, input)
    if len(x.shape) != 3:
        return NotImplemented
    height, width = tupled(output_size, 2)
    kernel = tupled(kernel_size, 2)
    shape = (x.shape[0], x.shape[1] // prod(kernel), height, width)
    return t.emit("fold", "copy", (x,), shape, x.dtype, flops=x.numel(), geometry=EVERYTHING)


def slide(t: Any, input: Any, dimension: int, size: int, step: int) -> Any:
    """`Tensor.unfold`: a view in which windows along one dimension overlap."""
    x = traced(t, input)
    if not x.shape:
        return NotImplemented
    dim = wrap_dim(dimension, len(x.shape))
    if size > x.shape[dim]:
        raise ShapeError(f"unfold: a window of {size} does not fit dimension {dim} of {tuple(x.shape)}")
    steps = strides_of(x)
    shape = (*x.shape[:dim], (x.shape[dim] - size) // step + 1, *x.shape[dim + 1 :], size)
    lies = (*steps[:dim], steps[dim] * step, *steps[dim + 1 :], steps[dim])
    return t.view("unfold", x, shape, lies, Slide(dim, step))


RULES[functional.unfold] = patches
RULES[functional.fold] = sums
RULES[torch.Tensor.unfold] = slide
