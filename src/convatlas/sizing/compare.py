"""Networks side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from convatlas.escape import json_text
from convatlas.tables import Grid

from . import outline as o
from .byhand import values_by_hand
from .render import record
from .sizes import Sizes, Stage

# What is compared: title with unit, and its number.
_NUMBERS: tuple[tuple[str, Callable[[Sizes], int], Callable[[int], str]], ...] = (
    ("parameters", lambda sheet: sheet.params, "{:,}".format),
    ("depth", lambda sheet: sheet.depth.longest, "{:,}".format),
    ("weight layers", lambda sheet: sheet.depth.total, "{:,}".format),
    ("MACs", lambda sheet: sheet.macs, "{:,}".format),
    ("FLOPs", lambda sheet: sheet.flops, "{:,}".format),
    ("activations", lambda sheet: sheet.activations, "{:,}".format),
    ("values by hand", values_by_hand, "{:,}".format),
    ("inference peak MiB", lambda sheet: sheet.peak_inference_bytes, o.mib),
    ("training MiB", lambda sheet: sheet.training_bytes, o.mib),
    ("operations", lambda sheet: len(sheet.rows), "{:,}".format),
)


def compare(sheets: Sequence[Sizes]) -> Grid:
    """A column per network; ratios are of the last to the first.

    Args:
        sheets: two or more.

    Raises:
        ValueError: there are fewer.
    """
    if len(sheets) < 2:
        raise ValueError(f"`sheets` holds {len(sheets)}; expected at least 2 networks to compare")
    rows: list[tuple[str, ...]] = [("input", *map(o.inputs_of, sheets), "")]
    for title, number, shown in _NUMBERS:
        values = [number(sheet) for sheet in sheets]
        cells = list(map(shown, values))
        if title == "MACs":
            cells = [o.macs_of(sheet.macs, sheet.macs_counted) for sheet in sheets]
        rows.append((title, *cells, f"{values[-1] / values[0]:.2f}" if values[0] else ""))
    rows.append(("RF px", *(o.field_of(sheet.receptive_field) for sheet in sheets), ""))
    rows.append(("RF px before head", *map(_before_head, sheets), ""))
    outlines = itertools.zip_longest(*map(o.outline, sheets))
    for i, stages in enumerate(outlines, start=1):
        shown = (_stage(sheet, stage) for sheet, stage in zip(sheets, stages, strict=True))
        rows.append((f"stage {i}", *shown, ""))
    return Grid(("", *map(o.title_of, sheets), "ratio"), len(sheets) + 1, rows, (), [])


def _before_head(sheet: Sizes) -> str:
    """The widest receptive field that is not global."""
    fields = [field for field in sheet.receptive_fields if field is not None and not field.is_global]
    return o.field_of(max(fields, key=lambda field: field.size[0] or 0)) if fields else "-"


def _stage(sheet: Sizes, stage: Stage | None) -> str:
    if stage is None:
        return ""
    shape = o.shape_of(sheet, stage.output_shape)
    macs = o.macs_of(stage.macs, stage.macs_counted)
    return f"{stage.path or '(own forward)'}: {shape}, {macs} MACs"


def compare_json(sheets: Sequence[Sizes]) -> str:
    """The records of all, as a list."""
    return json_text([record(sheet) for sheet in sheets], indent=2) + "\n"
