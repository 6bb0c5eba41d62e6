"""A sheet as text for a terminal, HTML, CSV, JSON, Markdown and LaTeX.

Tables hold stages, or every operation with `layers=True`. Units: MACs, bytes (1 MiB = 1,048,576 bytes), px.
"""

from __future__ import annotations

from typing import Any

from convatlas.escape import json_text, plain
from convatlas.tables import (
    WIDTH,
    Grid,
    grid_html,
    grid_latex,
    grid_markdown,
    grid_text,
    records_csv,
    wrapped,
)

from . import outline as o
from .byhand import values_by_hand
from .errors import SizingError
from .layers import Layer, layers_of
from .memory import TrainingMemory
from .row import Row
from .sizes import Sizes


def grid(sheet: Sizes, *, layers: bool = False, formulas: bool = False) -> Grid:
    """The table that all formats show.

    Args:
        sheet: what `size` returned.
        layers: a line per layer rather than per stage.
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
            o.macs_of(stage.macs, stage.macs_counted),
            f"{100 * stage.macs / whole:.1f}",
            o.mib(stage.activation_bytes),
            o.field_of(sheet.receptive_fields[stage.rows[-1]]),
            o.depth_of(sheet, stage.rows),
        )
        for stage in o.outline(sheet)
    ]
    columns = ("stage", "output CxHxW", "params", "MACs", "% MACs", "MiB out", "RF px", "depth")
    shown = "100.0" if sheet.macs else "0.0"
    macs = o.macs_of(sheet.macs, sheet.macs_counted)
    total = (
        "total",
        "",
        f"{sheet.params:,}",
        macs,
        shown,
        o.mib(sheet.activation_bytes),
        "",
        f"{sheet.depth.longest:,}",
    )
    return Grid(columns, 2, rows, total, [])


def _layer_grid(sheet: Sizes, formulas: bool) -> Grid:
    layers = layers_of(sheet)
    rows = [
        (
            layer.path or "(own forward)",
            layer.operation + ("" if layer.counted else " (not counted)"),
            o.shape_of(sheet, layer.output_shape),
            f"{layer.params:,}",
            o.macs_of(layer.macs, layer.macs_counted),
            o.mib(layer.bytes_written),
            o.field_of(layer.receptive_field),
            o.depth_of(sheet, [row.index for row in layer.rows]),
        )
        for layer in layers
    ]
    columns = ("layer", "operation", "output CxHxW", "params", "MACs", "MiB out", "RF px", "depth")
    macs = o.macs_of(sheet.macs, sheet.macs_counted)
    total = (
        "total",
        "",
        "",
        f"{sheet.params:,}",
        macs,
        o.mib(sheet.activation_bytes),
        "",
        f"{sheet.depth.longest:,}",
    )
    notes = [tuple(note for row in layer.rows for note in _notes(row)) for layer in layers]
    return Grid(columns, 3, rows, total, notes if formulas else [])


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
    macs = f"{'' if sheet.macs_counted else 'at least '}{sheet.macs:,}"
    flops = f"{'at least ' if sheet.not_counted else ''}{sheet.flops:,}"
    side = [("", _side(sheet))] if sheet.side_params else []
    lines = [
        ("parameters", f"{sheet.params:,}"),
        *side,
        ("depth", str(sheet.depth)),
        ("MACs", f"{macs} multiply-adds of convolutions, linear layers and matrix products"),
        ("FLOPs", f"{flops} arithmetic operations of every kind (2 a multiply-add)"),
        ("activations", f"{sheet.activations:,} values, {o.mib(sheet.activation_bytes)} MiB"),
        ("by hand", f"{values_by_hand(sheet):,} values: input and outputs of layers, the rest in place"),
        ("inference", f"{o.mib(sheet.peak_inference_bytes)} MiB at the peak"),
        ("training", _training(sheet)),
        ("receptive field", _field(sheet)),
        ("smallest input", "none up to this size" if smallest is None else f"{smallest} px"),
    ]
    if seconds is not None:
        lines.append(("time", f"{o.seconds(seconds)} for a forward on this machine (estimate)"))
    if unread:
        skip = "1 operation skips" if unread == 1 else f"{unread} operations skip"
        lines.append(("unread px", f"{skip} positions of the input (--formulas says which)"))
    if sheet.not_counted:
        lines.append(("not counted", _missing(sheet)))
    return lines


def _side(sheet: Sizes) -> str:
    """Parameters that the forward does not use."""
    names = sheet.side_modules
    if hasattr(sheet.request.net, "forward_aux") or any("aux" in name.lower() for name in names):
        return f"+ {sheet.side_params:,} in side classifiers, used in training only"
    where = f" ({', '.join(name or 'the network itself' for name in names)})" if names else ""
    return f"+ {sheet.side_params:,} that this forward does not use{where}"


def _missing(sheet: Sizes) -> str:
    """Operations without a count, and what of them is missing."""
    both = sorted({row.op for row in sheet.rows if not row.macs_counted})
    rest = sorted({row.op for row in sheet.not_counted} - set(both))
    parts = [f"MACs and FLOPs of {', '.join(both)}"] if both else []
    parts += [f"FLOPs of {', '.join(rest)} beyond 2 a multiply-add"] if rest else []
    return "; ".join(parts)


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


def _field(sheet: Sizes) -> str:
    field = sheet.receptive_field
    shown = o.field_of(field)
    if field is None or field.is_global:
        return {"-": "nothing spatial", "global": "the whole input"}.get(shown, f"{shown} px")
    steps = ["uneven" if step is None else f"{step:g}" for step in field.stride]
    step = steps[0] if len(set(steps)) == 1 else "x".join(steps)
    return f"{shown} px, stride {step}{'' if step == 'uneven' else ' px'}"


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
        layers: a line per layer rather than per stage.
        formulas: the arithmetic under each operation; implies `layers`.
        seconds: an estimate of the time to show; None for none.
        width: columns of the terminal.
        color: with escape codes.
    """
    head = plain(f"{o.title_of(sheet)} on {o.inputs_of(sheet)}")
    table = grid_text(grid(sheet, layers=layers, formulas=formulas), width=width, color=color)
    below = [_hanging(name, value, min(width, WIDTH)) for name, value in totals(sheet, seconds)]
    return "\n".join([head, "", table, *below]) + "\n"


def _hanging(name: str, value: str, width: int) -> str:
    first, *rest = wrapped(plain(value), max(width - 17, 23))
    return "\n".join([f" {name:<15} {first}".rstrip(), *(" " * 17 + line for line in rest)])


def to_csv(sheet: Sizes, *, layers: bool = False) -> str:
    """Exact numbers, a line per stage or layer; sizes in bytes and px."""
    records = [_layer_record(layer, sheet) for layer in layers_of(sheet)] if layers else _stage_records(sheet)
    return records_csv([{key: _csv_cell(value) for key, value in record.items()} for record in records])


def _csv_cell(value: Any) -> Any:
    """A cell: the receptive field of a global mean has no size."""
    is_global = isinstance(value, list) and value and all(item is None for item in value)
    return "global" if is_global else value


def to_json(sheet: Sizes, seconds: float | None = None) -> str:
    """Everything: totals, stages and operations."""
    return json_text(record(sheet, seconds), indent=2) + "\n"


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
        "side_params": sheet.side_params,
        "side_modules": list(sheet.side_modules),
        "depth": sheet.depth.longest,
        "weight_layers": sheet.depth.total,
        "macs": sheet.macs,
        "macs_counted": sheet.macs_counted,
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
        "layers": [_row_record(row, sheet.depth.rows[row.index]) for row in sheet.rows],
    }


def _stage_records(sheet: Sizes) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage.path,
            "output_shape": list(stage.output_shape),
            "params": stage.params,
            "macs": stage.macs,
            "macs_counted": stage.macs_counted,
            "flops": stage.flops,
            "activation_bytes": stage.activation_bytes,
            **_flat_field(sheet.receptive_fields[stage.rows[-1]]),
            "depth": max(sheet.depth.rows[row] for row in stage.rows),
        }
        for stage in o.outline(sheet)
    ]


def _layer_record(layer: Layer, sheet: Sizes) -> dict[str, Any]:
    first = layer.rows[0]
    return {
        "index": first.index,
        "layer": layer.path,
        "operation": layer.operation.split(" ")[0],
        "kind": layer.kind,
        "window": layer.operation.partition(" ")[2],
        "inputs": [list(shape) for shape in first.input_shapes],
        "output_shape": list(layer.output_shape),
        "params": layer.params,
        "macs": layer.macs if layer.macs_counted else None,
        "flops": layer.flops,
        "bytes_read": layer.bytes_read,
        "bytes_written": layer.bytes_written,
        **_flat_field(layer.receptive_field),
        "depth": max(sheet.depth.rows[row.index] for row in layer.rows),
        "unread": list(next((row.unread for row in layer.rows if row.unread), ())),
        "counted": layer.counted,
        "formulas": [line for row in layer.rows for line in row.formulas],
    }


def _row_record(row: Row, depth: int) -> dict[str, Any]:
    return {
        "index": row.index,
        "layer": row.path,
        "operation": row.op,
        "kind": row.kind,
        "window": o.operation_of(row).removeprefix(row.op).strip(),
        "inputs": [list(shape) for shape in row.input_shapes],
        "output_shape": list(row.output_shape),
        "params": row.params,
        "macs": row.macs if row.macs_counted else None,
        "flops": row.flops + row.bias_flops,
        "bytes_read": row.bytes_read,
        "bytes_written": row.bytes_written,
        **_flat_field(row.receptive_field),
        "depth": depth,
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
    title = plain(o.title_of(sheet), "markdown")
    return f"**{title}** on {o.inputs_of(sheet)}\n\n{grid_markdown(grid(sheet, layers=layers))}"


def to_latex(sheet: Sizes, *, layers: bool = False) -> str:
    """A `tabular` that needs the package booktabs."""
    return grid_latex(grid(sheet, layers=layers), f"{o.title_of(sheet)} on {o.inputs_of(sheet)}")


def to_html(sheet: Sizes) -> str:
    """A fragment without scripts: stages, totals, and every operation with its arithmetic behind a fold."""
    title = plain(f"{o.title_of(sheet)} on {o.inputs_of(sheet)}", "html")
    below = "".join(
        f"<tr><th style='text-align:left'>{plain(name, 'html')}</th>"
        f"<td style='text-align:left'>{plain(value, 'html')}</td></tr>"
        for name, value in totals(sheet)
    )
    layers = grid_html(grid(sheet, formulas=True))
    return (
        f"<div><p><strong>{title}</strong></p>{grid_html(grid(sheet))}<table>{below}</table>"
        f"<details><summary>{len(sheet.rows)} operations</summary>{layers}</details></div>"
    )
