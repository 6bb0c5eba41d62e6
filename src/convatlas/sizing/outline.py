"""A network in few lines: which modules stand as stages, and how shapes, sizes and fields are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from .geometry import Window
from .operation import Operation
from .row import ReceptiveField
from .sizes import Sizes, Stage

MIB = 1024**2
# A container with more of the network than this is no stage; its children are.
_MOST = 0.9


def outline(sheet: Sizes) -> tuple[Stage, ...]:
    """Subtotals per stage, in order of first use.

    A stage is a child of the network. In place of a list of modules, or of a sequence that has nearly all of
    the multiply-adds, its children stand.
    """
    return sheet.group(_stages_of(sheet))


def _stages_of(sheet: Sizes) -> Callable[[str], str]:
    opened: set[str] = set()
    for name, child in sheet.request.net.named_children():
        inside = sum(row.macs for row in sheet.rows if row.path.split(".", 1)[0] == name)
        listed = isinstance(child, nn.ModuleList | nn.ModuleDict)
        if listed or (isinstance(child, nn.Sequential) and len(child) > 1 and inside > _MOST * sheet.macs):
            opened.add(name)

    def stage_of(path: str) -> str:
        parts = path.split(".")
        return ".".join(parts[: 2 if parts[0] in opened else 1])

    return stage_of


def title_of(sheet: Sizes) -> str:
    """Name of the network, else of its class."""
    net = sheet.request.net
    name = getattr(net, "name", "")
    return name if isinstance(name, str) and name else type(net).__name__


def inputs_of(sheet: Sizes) -> str:
    """The inputs, batch and dtype: "3x224x224, batch 1, float32"."""
    shapes = sheet.request.shapes
    given = " and ".join("x".join(map(str, shape[1:])) for shape in shapes)
    return f"{given}, batch {shapes[0][0]}, {dtype_name(sheet)}"


def dtype_name(sheet: Sizes) -> str:
    """Such as "float32"."""
    return str(sheet.dtype).removeprefix("torch.")


def shape_of(sheet: Sizes, shape: tuple[int, ...]) -> str:
    """A shape without its batch, "64x56x56"; whole, in brackets, where it does not begin with the batch."""
    if len(shape) > 1 and shape[0] == sheet.request.shapes[0][0]:
        return "x".join(map(str, shape[1:]))
    return f"({', '.join(map(str, shape))})"


def field_of(field: ReceptiveField | None) -> str:
    """A receptive field's size: "11", "11x7" or "global"; "-" where there is none."""
    if field is None:
        return "-"
    if field.size and all(size is None for size in field.size):
        return "global"
    sizes = ["all" if size is None else str(size) for size in field.size]
    return sizes[0] if len(set(sizes)) == 1 else "x".join(sizes)


def depth_of(sheet: Sizes, rows: Sequence[int]) -> str:
    """Weight layers on the longest path to the end of some operations, counted from the input."""
    return f"{max(sheet.depth.rows[row] for row in rows):,}"


def operation_of(row: Operation) -> str:
    """The operation with its window: "conv2d 3x3 /2 pad 1"."""
    window = row.geometry
    if not isinstance(window, Window) or row.kind not in ("conv", "pool"):
        return row.op
    words = [row.op, "x".join(map(str, window.kernel))]
    if set(window.stride) != {1}:
        words.append("/" + _short(window.stride))
    if set(window.padding) | set(window.end) != {0}:
        words.append("pad " + _short(window.padding))
    if set(window.dilation) != {1}:
        words.append("dilated " + _short(window.dilation))
    groups = _groups(row, window)
    return " ".join([*words, f"groups {groups}"] if groups > 1 else words)


def _groups(row: Operation, window: Window) -> int:
    if row.kind != "conv" or window.transposed or not row.macs:
        return 1
    kernel = 1
    for k in window.kernel:
        kernel *= k
    return row.input_shapes[0][-len(window.kernel) - 1] // (row.macs // row.output_elements // kernel)


def _short(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def macs_of(count: int, counted: bool) -> str:
    """Multiply-adds; with "+" where some are not counted, "?" where none are."""
    return f"{count:,}" if counted else f"{count:,}+" if count else "?"


def mib(count: int) -> str:
    """Bytes as MiB: two digits after the point, or four significant ones where small."""
    value = count / MIB
    return f"{value:,.2f}" if value >= 0.095 or not count else f"{value:.2g}"


def seconds(value: float) -> str:
    """Time in us, ms or s."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} us"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
