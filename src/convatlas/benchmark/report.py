"""Measurements as tables for people and machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from convatlas.benchmark.measurement import Measurement
from convatlas.catalog.index import short_amount
from convatlas.tables import Grid

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


def bench_grid(measured: Sequence[Measurement]) -> Grid:
    """A table, and under each row why an engine was dropped.

    Args:
        measured: one row each.
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
    return Grid(COLUMNS, 2, rows, (), notes, lesser=("error", "MACs", "params", "p95 ms", "MiB"))


def bench_records(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Exact numbers in s, bytes and per cent; None where nothing is known."""
    return [dataclasses.asdict(row) for row in measured]


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(value * factor, form)
