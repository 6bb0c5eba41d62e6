"""A sheet as text for a terminal, HTML, CSV, JSON, Markdown and LaTeX.

Tables hold stages, or every operation with `layers=True`. Units: MACs, bytes (1 MiB = 1,048,576 bytes), px.
"""

from __future__ import annotations

import csv
import html
import io
import json
import textwrap
from typing import Any

from . import outline as o
from .byhand import values_by_hand
from .errors import SizingError
from .grids import WIDTH, Grid, grid_html, grid_latex, grid_markdown, grid_text
from .memory import TrainingMemory
from .row import Row
from .sizes import Sizes


def grid(sheet: Sizes, *, layers: bool = False, formulas: bool = False) -> Grid:
    """The table that all formats show.

    Args:
        sheet: what `size` returned.
        layers: a line per operation rather than per stage.
        formulas: the arithmetic under each operation; implies `layers`.
    """
    return _layer_grid(sheet, formulas) if layers or formulas else _stage_grid(sheet)


def _stage_grid(sheet: Sizes) -> Grid:
    whole = max(sheet.macs, 1)
    rows = [
        (
            stage.path or "(own forward)",
            o.shape_of(sheet, stage.output_shape),
            f"{stage.params:,}",
            f"{stage.macs:,}",
            f"{100 * stage.macs / whole:.1f}",
            o.mib(stage.activation_bytes),
            o.field_of(sheet.receptive_fields[stage.rows[-1]]),
        )
        for stage in o.outline(sheet)
    ]
    columns = ("stage", "output CxHxW", "params", "MACs", "% MACs", "MiB out", "sees px")
    shown = "100.0" if sheet.macs else "0.0"
    total = ("total", "", f"{sheet.params:,}", f"{sheet.macs:,}", shown, o.mib(sheet.activation_bytes), "")
    return Grid(columns, 2, rows, total, [])


def _layer_grid(sheet: Sizes, formulas: bool) -> Grid:
    rows = [
        (
            row.path or "(own forward)",
            o.operation_of(row) + ("" if row.counted else " (not counted)"),
            o.shape_of(sheet, row.output_shape),
            f"{row.params:,}",
            f"{row.macs:,}",
            o.mib(0 if row.inplace else row.bytes_written),
            o.field_of(row.receptive_field),
        )
        for row in sheet.rows
    ]
    columns = ("layer", "operation", "output CxHxW", "params", "MACs", "MiB out", "sees px")
    total = ("total", "", "", f"{sheet.params:,}", f"{sheet.macs:,}", o.mib(sheet.activation_bytes), "")
    return Grid(columns, 3, rows, total, [_notes(row) for row in sheet.rows] if formulas else [])


def _notes(row: Row) -> tuple[str, ...]:
    unread = row.unread
    if not unread:
        return row.formulas
    sizes = row.input_shapes[0][-len(unread) :]
    shown = " x ".join(f"{count} of {size}" for count, size in zip(unread, sizes, strict=True))
    return (*row.formulas, f"never reads {shown} positions of its input")


def totals(sheet: Sizes, seconds: float | None = None) -> list[tuple[str, str]]:
    """What stands under the table: (what, value with unit)."""
    smallest = sheet.min_input_size
    unread = sum(1 for row in sheet.rows if row.unread)
    missing = sorted({row.op for row in sheet.not_counted})
    lines = [
        ("parameters", f"{sheet.params:,}"),
        ("MACs", f"{sheet.macs:,} multiply-adds of convolutions, linear layers and matrix products"),
        ("FLOPs", f"{sheet.flops:,} arithmetic operations of every kind (2 a multiply-add)"),
        ("activations", f"{sheet.activations:,} values, {o.mib(sheet.activation_bytes)} MiB"),
        ("by hand", f"{values_by_hand(sheet):,} values: input and outputs of layers, the rest in place"),
        ("inference", f"{o.mib(sheet.peak_inference_bytes)} MiB at the peak"),
        ("training", _training(sheet)),
        ("sees", _sees(sheet)),
        ("smallest input", "none up to this size" if smallest is None else f"{smallest} px"),
    ]
    if seconds is not None:
        lines.append(("time", f"{o.seconds(seconds)} for a forward on this machine (estimate)"))
    if unread:
        skip = "1 operation skips" if unread == 1 else f"{unread} operations skip"
        lines.append(("unread px", f"{skip} positions of the input (--formulas says which)"))
    if missing:
        lines.append(("not counted", f"arithmetic of {', '.join(missing)} (shapes and MACs are exact)"))
    return lines


def _trained(sheet: Sizes) -> TrainingMemory | None:
    """Memory of a training step; None where the network cannot be trained on this input."""
    try:
        return sheet.training_memory()
    except SizingError:
        return None


def _training(sheet: Sizes) -> str:
    training = _trained(sheet)
    if training is None:
        # Such as the statistics of one value per channel.
        return "not possible with this input and batch"
    parts = (("parameters", training.params), ("gradients", training.gradients))
    parts += (("optimizer", training.optimizer), ("kept for backward", training.saved))
    shown = ", ".join(f"{o.mib(value)} {name}" for name, value in parts)
    return f"{o.mib(training.total)} MiB with {sheet.request.optimizer}: {shown}"


def _sees(sheet: Sizes) -> str:
    field = sheet.receptive_field
    shown = o.field_of(field)
    if field is None or field.is_global:
        return {"-": "nothing spatial", "global": "the whole input (receptive field)"}.get(
            shown, f"{shown} px"
        )
    steps = ["?" if step is None else f"{step:g}" for step in field.stride]
    step = steps[0] if len(set(steps)) == 1 else "x".join(steps)
    return f"{shown} px (receptive field), moving {step} px from one output to the next"


def to_text(
    sheet: Sizes,
    *,
    layers: bool = False,
    formulas: bool = False,
    seconds: float | None = None,
    width: int = WIDTH,
    color: bool = False,
) -> str:
    """For a terminal.

    Args:
        sheet: what `size` returned.
        layers: a line per operation rather than per stage.
        formulas: the arithmetic under each operation; implies `layers`.
        seconds: an estimate of the time to show; None for none.
        width: columns of the terminal.
        color: with escape codes.
    """
    head = f"{o.title_of(sheet)} on {o.inputs_of(sheet)}"
    table = grid_text(grid(sheet, layers=layers, formulas=formulas), width=width, color=color)
    below = [_hanging(name, value, width) for name, value in totals(sheet, seconds)]
    return "\n".join([head, "", table, *below]) + "\n"


def _hanging(name: str, value: str, width: int) -> str:
    indent = " " * 16
    return textwrap.fill(value, max(width, 40), initial_indent=f" {name:<14} ", subsequent_indent=indent)


def to_csv(sheet: Sizes, *, layers: bool = False) -> str:
    """Exact numbers, a line per stage or operation; sizes in bytes and px."""
    records = [_layer_record(row) for row in sheet.rows] if layers else _stage_records(sheet)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(records[0] if records else ())
    for record in records:
        writer.writerow([_cell(value) for value in record.values()])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        if value and all(item is None for item in value):
            return "global"
        separator = "; " if any(isinstance(item, str | list) for item in value) else "x"
        return separator.join(str(_cell(item)) for item in value)
    return "" if value is None else value


def to_json(sheet: Sizes, seconds: float | None = None) -> str:
    """Everything: totals, stages and operations."""
    return json.dumps(record(sheet, seconds), indent=2, ensure_ascii=False) + "\n"


def record(sheet: Sizes, seconds: float | None = None) -> dict[str, Any]:
    """The sheet as plain values; sizes in bytes, px and seconds."""
    training = _trained(sheet)
    parts = None if training is None else {name: getattr(training, name) for name in training.__slots__}
    return {
        "network": o.title_of(sheet),
        "input_shapes": [list(shape) for shape in sheet.request.shapes],
        "dtype": o.dtype_name(sheet),
        "optimizer": sheet.request.optimizer,
        "params": sheet.params,
        "macs": sheet.macs,
        "flops": sheet.flops,
        "flops_by_kind": dict(sheet.flops_by_kind),
        "activations": sheet.activations,
        "activation_bytes": sheet.activation_bytes,
        "values_by_hand": values_by_hand(sheet),
        "peak_inference_bytes": sheet.peak_inference_bytes,
        "training_bytes": None if training is None else training.total,
        "training_parts": parts,
        "receptive_field": _field_record(sheet.receptive_field),
        "min_input_size": sheet.min_input_size,
        "estimated_seconds": seconds,
        "not_counted": sorted({row.op for row in sheet.not_counted}),
        "stages": _stage_records(sheet),
        "layers": [_layer_record(row) for row in sheet.rows],
    }


def _stage_records(sheet: Sizes) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage.path,
            "output_shape": list(stage.output_shape),
            "params": stage.params,
            "macs": stage.macs,
            "flops": stage.flops,
            "activation_bytes": stage.activation_bytes,
            **_flat_field(sheet.receptive_fields[stage.rows[-1]]),
        }
        for stage in o.outline(sheet)
    ]


def _layer_record(row: Row) -> dict[str, Any]:
    return {
        "index": row.index,
        "layer": row.path,
        "operation": row.op,
        "kind": row.kind,
        "window": o.operation_of(row).removeprefix(row.op).strip(),
        "inputs": [list(shape) for shape in row.input_shapes],
        "output_shape": list(row.output_shape),
        "params": row.params,
        "macs": row.macs,
        "flops": row.flops + row.bias_flops,
        "bytes_read": row.bytes_read,
        "bytes_written": row.bytes_written,
        **_flat_field(row.receptive_field),
        "unread": list(row.unread),
        "counted": row.counted,
        "formulas": list(row.formulas),
    }


def _field_record(field: Any) -> dict[str, Any] | None:
    if field is None:
        return None
    return {"size": list(field.size), "stride": list(field.stride), "start": list(field.start)}


def _flat_field(field: Any) -> dict[str, Any]:
    known = _field_record(field) or dict.fromkeys(("size", "stride", "start"))
    return {f"receptive_field_{name}": value for name, value in known.items()}


def to_markdown(sheet: Sizes, *, layers: bool = False) -> str:
    """A pipe table under the network's name."""
    return f"**{o.title_of(sheet)}** on {o.inputs_of(sheet)}\n\n{grid_markdown(grid(sheet, layers=layers))}"


def to_latex(sheet: Sizes, *, layers: bool = False) -> str:
    """A `tabular` that needs the package booktabs."""
    return grid_latex(grid(sheet, layers=layers), f"{o.title_of(sheet)} on {o.inputs_of(sheet)}")


def to_html(sheet: Sizes) -> str:
    """A fragment without scripts: stages, totals, and every operation with its arithmetic behind a fold."""
    title = html.escape(f"{o.title_of(sheet)} on {o.inputs_of(sheet)}")
    below = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in totals(sheet)
    )
    layers = grid_html(grid(sheet, formulas=True))
    return (
        f"<div><p><strong>{title}</strong></p>{grid_html(grid(sheet))}<table>{below}</table>"
        f"<details><summary>{len(sheet.rows)} operations</summary>{layers}</details></div>"
    )
