"""Figures of a lesson, which need no network: padding, receptive fields, unrolled residual blocks."""

from __future__ import annotations

from .canvas import MARGIN, Canvas, fitted, number
from .figure import DrawingError, Figure, finish
from .frame import Captions, heading, legend
from .palette import THEMES
from .pen import Pen, inset_style

_CELL = 20.0
_MOST_CELLS, _MOST_LAYERS, _MOST_BLOCKS = 40, 8, 5


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise DrawingError(f"`{name}`={value}; expected {least} to {most}")


def _themed(theme: str) -> None:
    if theme not in THEMES:
        raise DrawingError(f"`theme`={theme!r}; expected one of {', '.join(THEMES)}")


def reads(size: int, kernel: int, pad: int, stride: int) -> list[int]:
    """How many windows along one axis read each px; the padding's px come first and last."""
    padded = size + 2 * pad
    counts = [0] * padded
    for start in range(0, padded - kernel + 1, stride):
        for k in range(kernel):
            counts[start + k] += 1
    return counts


def draw_padding(
    size: int = 28, kernel: int = 5, *, pad: int | None = None, stride: int = 1, theme: str = "light"
) -> Figure:
    """The effect of padding: how many windows read each px of a square map, without padding and with it.

    Args:
        size: height and width of the map in px, up to 40.
        kernel: of the convolution.
        pad: zeros on each side in the second image; default: what keeps the size, for an odd kernel.
        stride: of the convolution.
        theme: light, dark or print.

    Raises:
        ValueError: if a number is out of range, or the kernel larger than the map.
    """
    _themed(theme)
    _within("size", size, 2, _MOST_CELLS)
    _within("kernel", kernel, 1, size)
    _within("stride", stride, 1, size)
    pad = (kernel - 1) // 2 if pad is None else pad
    _within("pad", pad, 0, kernel - 1)
    canvas = Canvas()
    pads = [0, pad] if pad else [0]
    facts = (
        f"{size}×{size} px, window {kernel}×{kernel}, stride {stride}",
        "each number: how many windows read that px",
    )
    captions = Captions("Padding", facts, scale="the first window is outlined")
    y = heading(canvas, captions, 760) + 22
    x = float(MARGIN)
    bottom = y
    for p in pads:
        wide = (size + 2 * p) * _CELL
        out = (size + 2 * p - kernel) // stride + 1
        title = f"pad {p}: ({size} − {kernel} + 2·{p})/{stride} + 1 = {out}, output {out}×{out}"
        canvas.text("t14b", x, y - 18, title, "start")
        _draw_grid(canvas, x, y, size, kernel, p, stride)
        x += max(wide, fitted([("t14b", title)], 0)) + 48
        bottom = max(bottom, y + wide)
    legend(canvas, captions, bottom + 28, canvas.right)
    words = "; ".join(
        f"padding {p}: a corner px is read {reads(size, kernel, p, stride)[p] ** 2} times" for p in pads
    )
    return finish(canvas, "Padding", f"Grids of {size} by {size} px. {words}.", theme)


def _draw_grid(canvas: Canvas, x: float, y: float, size: int, kernel: int, pad: int, stride: int) -> None:
    counts = reads(size, kernel, pad, stride)
    most = max(counts) ** 2
    for row, down in enumerate(counts):
        for column, across in enumerate(counts):
            left, top = x + column * _CELL, y + row * _CELL
            inside = pad <= row < pad + size and pad <= column < pad + size
            value = down * across
            if not inside:
                canvas.rect("pad", left, top, _CELL, _CELL, 0)
                canvas.text("t11 m", left + _CELL / 2, top + _CELL / 2, "0")
                continue
            tint = f" s{min(4, 5 * value // (most + 1))}"
            canvas.rect(f"conv{tint} thin", left, top, _CELL, _CELL, 0)
            canvas.text("t11", left + _CELL / 2, top + _CELL / 2, str(value))
    canvas.rect("filt", x, y, kernel * _CELL, kernel * _CELL, 0)


def draw_receptive_field(kernel: int = 3, count: int = 3, *, theme: str = "light") -> Figure:
    """The receptive field of stacked convolutions of stride 1: which px one unit of the last layer reads.

    Args:
        kernel: of each convolution; odd.
        count: how many there are.
        theme: light, dark or print.

    Raises:
        ValueError: if a number is out of range.
    """
    _themed(theme)
    _within("count", count, 1, _MOST_LAYERS)
    _within("kernel", kernel, 2, 11)
    fields = [1 + k * (kernel - 1) for k in range(count + 1)]
    widest = fields[-1]
    one, many = widest**2, count * kernel**2
    canvas = Canvas()
    facts = (
        f"{count} convolutions {kernel}×{kernel} of stride 1 see as much as one of {widest}×{widest}",
        f"{many} C² weights instead of {one} C², for C channels",
    )
    captions = Captions("Receptive field", facts)
    y = heading(canvas, captions, 760) + 8
    names = ["input" if k == count else f"conv {count - k}" for k in range(count + 1)]
    left = MARGIN + fitted([("t12b", name) for name in names], 0) + 20
    cells = widest + 2
    middle = left + cells * _CELL / 2
    tops: list[float] = []
    for k, field in enumerate(fields):
        tops.append(y)
        _draw_layer(canvas, middle, y, cells, field, "io" if k == count else "conv")
        canvas.text("t12b", MARGIN, y + _CELL / 2, names[k], "start")
        shown = f"{field} × {field}" if field > 1 else "1 unit"
        canvas.text("t11 m", left + cells * _CELL + 12, y + _CELL / 2, shown, "start")
        y += _CELL + 44
    for k in range(count):
        _draw_cone(canvas, middle, tops[k] + _CELL, fields[k], tops[k + 1], fields[k + 1])
    right = left + cells * _CELL + 90
    _draw_nested(canvas, right + 20, tops[0], fields)
    bottom = max(y - 30, canvas.bottom)
    legend(canvas, captions, bottom + 24, canvas.right)
    text = ", ".join(f"{name} {field}" for name, field in zip(names, fields, strict=True))
    return finish(
        canvas, "Receptive field", f"From the last layer to the input, px read along one axis: {text}.", theme
    )


def _draw_layer(canvas: Canvas, middle: float, y: float, cells: int, field: int, family: str) -> None:
    first = middle - cells * _CELL / 2
    low = (cells - field) // 2
    canvas.families[family] = None
    for k in range(cells):
        seen = low <= k < low + field
        canvas.rect(f"{family if not seen else 'filt'} thin", first + k * _CELL, y, _CELL, _CELL, 0)


def _draw_cone(canvas: Canvas, middle: float, y: float, field: int, below: float, wider: int) -> None:
    a, b = field * _CELL / 2, wider * _CELL / 2
    n = number
    canvas.path(
        "ray",
        f"M{n(middle - a)} {n(y)}L{n(middle - b)} {n(below)}"
        f"M{n(middle + a)} {n(y)}L{n(middle + b)} {n(below)}",
    )


def _draw_nested(canvas: Canvas, x: float, y: float, fields: list[int]) -> None:
    """The same fields from above: squares in one another."""
    widest = fields[-1]
    for k in range(widest):
        for j in range(widest):
            canvas.rect("io thin", x + j * _CELL, y + k * _CELL, _CELL, _CELL, 0)
    canvas.families["io"] = None
    for field in reversed(fields):
        offset = (widest - field) / 2 * _CELL
        canvas.rect("filt", x + offset, y + offset, field * _CELL, field * _CELL, 0)
    half = widest * _CELL / 2
    canvas.text("t11 m", x + half, y + widest * _CELL + 16, "on the input, each layer's field")


def draw_unrolled(count: int = 3, *, theme: str = "light") -> Figure:
    """Residual blocks as they are built, and the same as the sum of 2^n paths (Veit et al., 2016).

    Args:
        count: how many blocks, up to 5.
        theme: light, dark or print.

    Raises:
        ValueError: if `count` is out of range.
    """
    _themed(theme)
    _within("count", count, 1, _MOST_BLOCKS)
    canvas = Canvas()
    paths = 2**count
    facts = (
        f"{count} blocks: {paths} paths from input to output, of 0 to {count} blocks",
        "Veit et al., 2016",
    )
    captions = Captions("Residual blocks, unrolled", facts)
    y = heading(canvas, captions, 760)
    style = inset_style((), detail="")
    canvas.text("t14b", MARGIN, y + 4, "as built", "start")
    y = _draw_built(canvas, style.wide, count, y + 74)
    canvas.text("t14b", MARGIN, y + 40, "unrolled", "start")
    y = _draw_paths(canvas, style.wide, count, y + 76)
    legend(canvas, captions, y + 30, canvas.right)
    text = f"{count} residual blocks in a row, and the {paths} paths that they are the sum of."
    return finish(canvas, "Residual blocks, unrolled", text, theme)


def _draw_built(canvas: Canvas, wide: float, count: int, y: float) -> float:
    pen = Pen(canvas, inset_style((), detail=""), MARGIN, y)
    canvas.families["conv"] = None
    canvas.marks["skip"] = None
    canvas.text("t12b", MARGIN + 8, y, "x", "middle")
    at = 22.0
    for k in range(1, count + 1):
        fork, begin = at + 14, at + 38
        pen.arrow((at, 0), (begin, 0))
        pen.box("conv", begin, 0, wide, 44)
        pen.text("t12b", (begin + wide / 2, 0), f"f{k}")
        joint = begin + wide + 26
        pen.line("flow", (begin + wide, 0), (joint - 8, 0))
        pen.dot((fork, 0))
        pen.rounded("skip", [(fork, 0), (fork, 42), (joint, 42), (joint, 14)], 10)
        pen.head("skiph", (joint, 8), 0, -1)
        pen.joint((joint, 0), "+")
        at = joint + 8
    pen.arrow((at, 0), (at + 36, 0))
    canvas.text("t12b", MARGIN + at + 46, y, "y", "middle")
    return y + 22


def _draw_paths(canvas: Canvas, wide: float, count: int, y: float) -> float:
    """A row for each subset of blocks, from all of them to none."""
    rows = sorted(range(2**count), key=lambda mask: (-bin(mask).count("1"), -mask))
    step = 36.0
    middle = y + step * (len(rows) - 1) / 2
    pen = Pen(canvas, inset_style((), detail=""), MARGIN, middle)
    canvas.text("t12b", MARGIN + 8, middle, "x", "middle")
    start = 86.0
    slot = wide + 24
    end = start + count * slot
    for place, mask in enumerate(rows):
        w = step * ((len(rows) - 1) / 2 - place)
        pen.curve((22, 0), (start, w), head=False)
        at = start
        for k in range(count):
            used = bool(mask >> (count - 1 - k) & 1)
            box = start + k * slot + 12
            if used:
                pen.arrow((at, w), (box, w))
                pen.box("conv", box, w, wide, 26)
                pen.text("t12b", (box + wide / 2, w), f"f{k + 1}")
                at = box + wide
            else:
                pen.line("skip", (at, w), (box + wide, w))
                at = box + wide
        pen.line("flow", (at, w), (end, w))
        pen.curve((end, w), (end + 70, 0))
    pen.joint((end + 78, 0), "+")
    pen.arrow((end + 86, 0), (end + 122, 0))
    canvas.text("t12b", MARGIN + end + 132, middle, "y", "middle")
    return y + step * (len(rows) - 1) + 13
