"""The arithmetic of a row as one writes it by hand, with the numbers put in."""

from __future__ import annotations

from .geometry import Window
from .operation import Operation


def formulas(row: Operation) -> tuple[str, ...]:
    """Output size per axis, then parameters, then multiply-adds; empty for other operations."""
    lines: list[str] = []
    window = row.geometry
    if isinstance(window, Window) and row.kind in ("conv", "pool"):
        lines += dict.fromkeys(_size_line(row, window, axis) for axis in range(len(window.kernel)))
        if row.kind == "conv":
            lines += _conv_lines(row, window)
    elif row.kind == "linear":
        features, out = row.input_shapes[0][-1], row.output_shape[-1]
        if row.params:
            lines.append(f"{features} * {out}{_bias(row, out)} = {row.params:,} parameters")
        lines.append(f"{row.output_elements:,} * {features} = {row.macs:,} MACs")
    return tuple(lines)


def _size_line(row: Operation, window: Window, axis: int) -> str:
    n = len(window.kernel)
    size, out = row.input_shapes[0][axis - n], row.output_shape[axis - n]
    k, s, p, d = window.kernel[axis], window.stride[axis], window.padding[axis], window.dilation[axis]
    reach = str(k) if d == 1 else f"({d}*({k} - 1) + 1)"
    if window.transposed:
        extra = out - ((size - 1) * s - 2 * p + d * (k - 1) + 1)
        return f"({size} - 1)*{s} - 2*{p} + {reach}" + (f" + {extra}" if extra else "") + f" = {out}"
    end = window.end[axis]
    pads = f"2*{p}" if end == p else f"{p} + {end}"
    line = f"({size} - {reach} + {pads})/{s} + 1"
    total = size - d * (k - 1) - 1 + p + end
    if total % s:
        line = f"{'ceil' if out > total // s + 1 else 'floor'}({line})"
    return f"{line} = {out}"


def _conv_lines(row: Operation, window: Window) -> list[str]:
    n = len(window.kernel)
    chans_in, chans_out = row.input_shapes[0][-n - 1], row.output_shape[-n - 1]
    positions = row.input_shapes[0] if window.transposed else row.output_shape
    kernel = 1
    for k in window.kernel:
        kernel *= k
    elements = 1
    for size in positions:
        elements *= size
    fan = row.macs // elements
    per = "*".join(map(str, (*window.kernel, fan // kernel)))
    lines: list[str] = []
    if row.params:
        many = chans_in if window.transposed else chans_out
        lines.append(f"{per} * {many}{_bias(row, chans_out)} = {row.params:,} parameters")
    lines.append(f"{elements:,} * {per} = {row.macs:,} MACs")
    return lines


def _bias(row: Operation, out: int) -> str:
    return f" + {out}" if row.bias_flops else ""


def unread(row: Operation) -> tuple[int, ...]:
    """Positions of the input, per axis, that no window of the row reads; empty if all are read."""
    window = row.geometry
    if not isinstance(window, Window) or window.transposed:
        return ()
    n = len(window.kernel)
    counts = tuple(_unread_along(row, window, axis) for axis in range(n))
    return counts if any(counts) else ()


def _unread_along(row: Operation, window: Window, axis: int) -> int:
    n = len(window.kernel)
    size, out = row.input_shapes[0][axis - n], row.output_shape[axis - n]
    k, s, p, d = window.kernel[axis], window.stride[axis], window.padding[axis], window.dilation[axis]
    return size - _read_along(size, out, k, s, p, d)


def _read_along(size: int, out: int, k: int, s: int, p: int, d: int) -> int:
    """How many of `size` positions lie in one of `out` windows at least: i * s + j * d - p for j < k.

    Positions of one remainder modulo s are read by one tap or more, each of them over a run of windows; the
    union of runs is counted, so that the time depends on k and not on the size of the input.
    """
    runs: dict[int, list[tuple[int, int]]] = {}
    for j in range(k):
        offset = j * d - p
        # Windows i for which 0 <= i * s + offset < size.
        first, last = max(0, -(offset // s)), min(out - 1, (size - 1 - offset) // s)
        if first <= last:
            shift, rest = divmod(offset, s)
            runs.setdefault(rest, []).append((first + shift, last + shift))
    return sum(_covered(found) for found in runs.values())


def _covered(runs: list[tuple[int, int]]) -> int:
    """Length of the union of closed intervals."""
    total, end = 0, None
    for first, last in sorted(runs):
        if end is None or first > end:
            total += last - first + 1
            end = last
        elif last > end:
            total += last - end
            end = last
    return total
