"""Measurements as tables for people and machines."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

from convatlas.benchmark.measurement import Measurement
from convatlas.catalog.index import short_amount
from convatlas.tables import WIDTH, Grid, grid_text

COLUMNS = (
    "network",
    "engine",
    "batch",
    "p50 ms",
    "p95 ms",
    "images/s",
    "MiB",
    "error",
    "params",
    "MACs",
    "top-1 %",
)


def bench_text(measured: Sequence[Measurement], *, width: int = WIDTH, color: bool = False) -> str:
    """A table for a terminal, and under it why engines were dropped.

    Args:
        measured: one row each.
        width: columns of the terminal.
        color: whether the terminal shows bold.
    """
    rows = [
        (
            row.network,
            row.engine if row.precision == "fp32" else f"{row.engine} {row.precision}",
            str(row.batch),
            _number(row.latency, ".2f", 1e3),
            _number(row.latency_p95, ".2f", 1e3),
            _number(row.images_per_second, ",.1f"),
            _number(row.peak_memory, ",.1f", 1 / 1024**2),
            _number(row.error, ".0e"),
            short_amount(row.params),
            short_amount(row.macs),
            _number(row.top1, ".1f"),
        )
        for row in measured
    ]
    notes = [(f"dropped: {row.note}",) if row.note else () for row in measured]
    return grid_text(Grid(COLUMNS, 2, rows, (), notes), width=width, color=color)


def bench_csv(measured: Sequence[Measurement]) -> str:
    """Exact numbers in s, bytes and per cent; nothing where nothing is known; the input as CxHxW."""
    out = io.StringIO()
    names = [field.name for field in dataclasses.fields(Measurement)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in measured:
        writer.writerow(dataclasses.asdict(row) | {"input_size": "x".join(map(str, row.input_size))})
    return out.getvalue()


def bench_json(measured: Sequence[Measurement]) -> str:
    """A list of objects, one for each measurement."""
    return json.dumps([dataclasses.asdict(row) for row in measured], indent=2, ensure_ascii=False) + "\n"


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(value * factor, form)
