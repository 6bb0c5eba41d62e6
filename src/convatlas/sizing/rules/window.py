"""Convolutions, poolings and linear layers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch

from convatlas.sizing.errors import ShapeError
from convatlas.sizing.geometry import EVERYTHING, Mix, Resize, Window
from convatlas.sizing.tensor import FOREIGN, Traced

from .base import add_rule, prod, rule, tupled


def windows(op: str, sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """Number of windows per axis: (n + 2p - d(k - 1) - 1) // s + 1."""
    out: list[int] = []
    for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation):  # noqa: B905
        count = (n + 2 * p - d * (k - 1) - 1) // s + 1
        if count < 1:
            raise ShapeError(
                f"{op}: a window of {d * (k - 1) + 1} does not fit {n} + 2*{p} = {n + 2 * p} (input sizes "
                f"{tuple(sizes)})"
            )
        out.append(count)
    return out


def conv(
    t: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Traced:
    """Convolution over the last dimensions; the batch may be missing."""
    wshape = weight.shape
    n = len(wshape) - 2
    op = _CONV_NAMES[n]
    xshape = x.shape
    if type(x) is not Traced:
        x = t.constant(x)
    if len(xshape) != n + 2:
        if len(xshape) != n + 1:
            raise ShapeError(
                f"{op}: expects {n + 2} dimensions (batch, channels, {n} axes), got {tuple(xshape)}"
            )
        batch: tuple[int, ...] = ()
        chans, sizes = xshape[0], xshape[1:]
    else:
        batch, chans, sizes = xshape[:1], xshape[1], xshape[2:]
    if chans != wshape[1] * groups:
        raise ShapeError(f"{op}: expects {wshape[1] * groups} channels, got {chans} in {tuple(xshape)}")
    kernel = wshape[2:]
    stride, dilation = tupled(stride, n), tupled(dilation, n)
    end = None
    if type(padding) is str:
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple(p // 2 for p in total)
        end = tuple(p - q for p, q in zip(total, padding, strict=True))
        sizes = tuple(n + b - a for n, a, b in zip(sizes, padding, end, strict=True))
    else:
        padding = tupled(padding, n)
    out = windows(op, sizes, kernel, stride, padding, dilation)
    chans = wshape[0]
    elements = chans * prod(out) * prod(batch)
    macs = elements * prod(kernel) * wshape[1]
    return t.emit(
        op, "conv", (x, weight, bias), (*batch, chans, *out), x.dtype,
        macs=macs, flops=2 * macs, bias=0 if bias is None else elements,
        geometry=Window(tuple(kernel), stride, padding, dilation, False, end),
    )  # fmt: skip


_CONV_NAMES = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
for _name in ("conv1d", "conv2d", "conv3d"):
    add_rule(_name, conv)


def conv2d(
    t: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Traced:
    """As `conv`, sooner, for a batch of images that meets real parameters; hands all else to it."""
    out_chans, fan, kh, kw = weight.shape
    shape = x.shape
    try:
        batch, chans, height, width = shape
        (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
        rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
        cols = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    except (TypeError, ValueError):
        return conv(t, x, weight, bias, stride, padding, dilation, groups)
    if chans != fan * groups or rows < 1 or cols < 1 or x.slot or x.node is None:
        return conv(t, x, weight, bias, stride, padding, dilation, groups)
    elements = batch * out_chans * rows * cols
    constants = out_chans * fan * kh * kw
    macs = elements * fan * kh * kw
    params = t.unclaimed.pop(id(weight), 0)
    added = 0
    if bias is not None:
        added = elements
        constants += out_chans
        params += t.unclaimed.pop(id(bias), 0)
    window = _new_tuple(Window, ((kh, kw), stride, padding, dilation, False, None, False))
    read = constants * (t.itemsize or weight.dtype.itemsize)
    return t.record(
        "conv2d", "conv", (x.node,), (shape,), torch.Size((batch, out_chans, rows, cols)), x.dtype,
        params, constants, read, macs, 2 * macs, added, window,
    )  # fmt: skip


_new_tuple = tuple.__new__


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    t: Any, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Traced:  # fmt: skip
    """Transposed convolution: each input position writes a window."""
    n = weight.dim() - 2
    op = f"conv_transpose{n}d"
    if x.dim() not in (n + 1, n + 2):
        raise ShapeError(f"{op}: expects {n + 1} or {n + 2} dimensions, got {tuple(x.shape)}")
    chans, sizes = x.shape[-n - 1], x.shape[-n:]
    if chans != weight.shape[0]:
        raise ShapeError(f"{op}: expects {weight.shape[0]} channels, got {chans} in {tuple(x.shape)}")
    kernel = tuple(weight.shape[2:])
    stride, padding, dilation = tupled(stride, n), tupled(padding, n), tupled(dilation, n)
    extra = tupled(output_padding, n)
    out = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(sizes, stride, padding, dilation, kernel, extra, strict=True)
    ]
    if min(out) < 1:
        raise ShapeError(f"{op}: nothing is left of {tuple(sizes)} after padding {padding}")
    shape = (*x.shape[: -n - 1], weight.shape[1] * groups, *out)
    macs = x.numel() * prod(weight.shape[1:])
    return t.emit(
        op, "conv", (x, weight, bias), shape, x.dtype, macs=macs, flops=2 * macs,
        bias=0 if bias is None else prod(shape),
        geometry=Window(kernel, stride, padding, dilation, transposed=True),
    )  # fmt: skip


def deform_conv2d(
    t: Any, input: Any, weight: Any, offset: Any, mask: Any, bias: Any, stride_h: int, stride_w: int,
    pad_h: int, pad_w: int, dilation_h: int, dilation_w: int, weight_groups: int, offset_groups: int,
    use_mask: bool,
) -> Traced:  # fmt: skip
    """Torchvision's deformable convolution: as a convolution, of values sampled at learnt places."""
    batch, chans, *sizes = input.shape
    if chans != weight.shape[1] * weight_groups:
        raise ShapeError(
            f"deform_conv2d: expects {weight.shape[1] * weight_groups} channels, got {chans} in "
            f"{tuple(input.shape)}"
        )
    kernel = tuple(weight.shape[2:])
    out = windows(
        "deform_conv2d", sizes, kernel, (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)
    )
    shape = (batch, weight.shape[0], *out)
    taps = 2 * offset_groups * prod(kernel)
    if tuple(offset.shape) != (batch, taps, *out):
        raise ShapeError(f"deform_conv2d: expects offsets {(batch, taps, *out)}, got {tuple(offset.shape)}")
    macs = prod(shape) * prod(kernel) * weight.shape[1]
    # Each sample lies between four positions.
    sampled = batch * chans * prod(out) * prod(kernel) * (7 if use_mask else 6)
    inputs = (input, weight, offset, mask if use_mask else None, bias)
    return t.emit(
        "deform_conv2d", "conv", inputs, shape, input.dtype,
        macs=macs, flops=2 * macs + sampled, bias=prod(shape) if bias is not None else 0, geometry=EVERYTHING,
    )  # fmt: skip


FOREIGN["torchvision::deform_conv2d"] = deform_conv2d


@rule("linear")
def linear(t: Any, input: Any, weight: Any, bias: Any = None) -> Traced:
    """A matrix times the last dimension, plus a bias."""
    x = input if type(input) is Traced else t.constant(input)
    shape = x.shape
    wshape = weight.shape
    if not shape or shape[-1] != wshape[-1]:
        raise ShapeError(
            f"linear: expects {wshape[-1]} features, got {shape[-1] if shape else 0} in {tuple(shape)}"
        )
    elements = prod(shape[:-1]) * prod(wshape[:-1])
    macs = elements * wshape[-1]
    return t.emit(
        "linear", "linear", (x, weight, bias), shape[:-1] + wshape[:-1], x.dtype,
        macs=macs, flops=2 * macs, bias=0 if bias is None else elements, geometry=Mix((len(shape) - 1,)),
    )  # fmt: skip


def pooled(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Positions of a pooling along one axis; with `ceil_mode` the last window must start inside."""
    reach = n + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return reach // s + 1
    out = -(-reach // s) + 1
    return out - 1 if (out - 1) * s >= n + p else out


def pool(
    t: Any, op: str, x: Traced, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, n: int
) -> tuple[Any, Window]:
    """Output shape and window of a pooling over the last `n` dimensions."""
    if len(x.shape) not in (n + 1, n + 2):
        raise ShapeError(f"{op}: expects {n + 1} or {n + 2} dimensions, got {tuple(x.shape)}")
    kernel = tupled(kernel, n)
    empty = stride is None or (not isinstance(stride, int) and not len(stride))
    stride = kernel if empty else tupled(stride, n)
    padding, dilation = tupled(padding, n), tupled(dilation, n)
    sizes: list[int] = []
    for size, k, s, p, d in zip(x.shape[-n:], kernel, stride, padding, dilation, strict=True):
        if 2 * p > k:
            raise ShapeError(f"{op}: padding {p} is more than half of the kernel {k}")
        out = pooled(size, k, s, p, d, ceil_mode)
        if out < 1:
            raise ShapeError(
                f"{op}: a window of {d * (k - 1) + 1} does not fit {size} + 2*{p} = {size + 2 * p} "
                f"(input {tuple(x.shape)})"
            )
        sizes.append(out)
    return (*x.shape[:-n], *sizes), Window(kernel, stride, padding, dilation, bool(ceil_mode))


def _max_pool(n: int) -> Any:
    op = f"max_pool{n}d"

    def max_pool(
        t: Any, input: Traced, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        shape, window = pool(t, op, input, kernel_size, stride, padding, dilation, ceil_mode, n)
        flops = prod(shape) * prod(window.kernel)
        out = t.emit(op, "pool", (input,), shape, input.dtype, flops=flops, geometry=window)
        return (out, t.more(out, shape, torch.int64)) if return_indices else out

    return max_pool


def _avg_pool(n: int) -> Any:
    op = f"avg_pool{n}d"

    def avg_pool(
        t: Any, input: Traced, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Traced:  # fmt: skip
        shape, window = pool(t, op, input, kernel_size, stride, padding, 1, ceil_mode, n)
        flops = prod(shape) * (prod(window.kernel) + 1)
        return t.emit(op, "pool", (input,), shape, input.dtype, flops=flops, geometry=window)

    return avg_pool


def _adaptive(op: str, n: int) -> Any:
    def adaptive(t: Any, input: Traced, output_size: Any, return_indices: bool = False) -> Any:
        x = input
        if len(x.shape) not in (n + 1, n + 2):
            raise ShapeError(f"{op}: expects {n + 1} or {n + 2} dimensions, got {tuple(x.shape)}")
        sizes = x.shape[-n:]
        wanted = (output_size,) * n if output_size is None or isinstance(output_size, int) else output_size
        out = tuple(size if o is None else o for size, o in zip(sizes, wanted, strict=True))
        shape = (*x.shape[:-n], *out)
        dims = tuple(range(len(shape) - n, len(shape)))
        geometry: Any = Mix(dims)
        if prod(out) > 1 and all(s % o == 0 for s, o in zip(sizes, out, strict=True)):
            step = tuple(s // o for s, o in zip(sizes, out, strict=True))
            geometry = Window(step, step, (0,) * n, (1,) * n)
        elif prod(out) > 1:
            geometry = Resize("area", out, tuple(map(Fraction, sizes, out)))
        result = t.emit(op, "pool", (x,), shape, x.dtype, flops=x.numel() + prod(shape), geometry=geometry)
        return (result, t.more(result, shape, torch.int64)) if return_indices else result

    return adaptive


for _n in (1, 2, 3):
    for _suffix in ("", "_with_indices"):
        add_rule(f"max_pool{_n}d{_suffix}", _max_pool(_n))
    add_rule(f"avg_pool{_n}d", _avg_pool(_n))
    for _kind in ("adaptive_avg_pool", "adaptive_max_pool"):
        add_rule(f"{_kind}{_n}d", _adaptive(f"{_kind}{_n}d", _n))
