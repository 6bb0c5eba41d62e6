"""Runs beside each other: a row for each, and what differs between two. Needs no torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from convatlas.plots.training import draw_comparison
from convatlas.runs.run import Line, Run, RunError, State, epoch_lines, find_runs, flat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A run in a table.

    Attributes:
        run: name of its folder.
        network: that was trained.
        data: that it was trained on.
        state: "running", "stopped" or "finished".
        epoch: epochs done.
        epochs: epochs in all.
        test_accuracy: of the last evaluation, in [0, 1]; None before the first.
        images_per_s: of training; None before the first line of metrics.
        seconds: how long the training took; None where it is not finished.
        started: when, as ISO 8601; None in a record that does not say.
    """

    run: str
    network: str
    data: str
    state: State
    epoch: int
    epochs: int
    test_accuracy: float | None
    images_per_s: float | None
    seconds: float | None
    started: str | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A value in which two runs differ.

    Attributes:
        name: dotted, as in `run.json`, for example "config.recipe.lr".
        first: its value in the first run; None where it has none.
        second: its value in the second run; None where it has none.
    """

    name: str
    first: Any
    second: Any


def make_row(run: Run) -> Row:
    """A run in figures.

    Raises:
        RunError: `metrics.jsonl` is damaged.
    """
    lines = run.metrics()
    try:
        return _row_of(run, lines)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{run.folder}: is damaged ({type(error).__name__}: {error})") from None


def _row_of(run: Run, lines: list[Line]) -> Row:
    measured = epoch_lines(lines)
    config, result = run.record["config"], run.record.get("result", {})
    seconds = result.get("seconds")
    return Row(
        run=run.folder.name,
        network=str(config["network"]),
        data=str(config["data"]),
        state=run.state,
        epoch=measured[-1]["epoch"] if measured else 0,
        epochs=config["recipe"]["epochs"],
        test_accuracy=measured[-1]["test_accuracy"] if measured else None,
        images_per_s=lines[-1].get("images_per_s") if lines else None,
        seconds=None if seconds is None else float(seconds),
        started=None if (started := run.record.get("started")) is None else str(started),
    )


def make_rows(root: Path) -> tuple[list[Row], list[RunError]]:
    """Every run directly below `root`, in order of their start, and why others cannot be read.

    Raises:
        RunError: there is no such folder.
    """
    runs, damaged = find_runs(root)
    rows: list[Row] = []
    for run in runs:
        try:
            rows.append(make_row(run))
        except RunError as error:
            damaged.append(error)
    return rows, damaged


def compare(first: Run, second: Run) -> list[Difference]:
    """What differs between the records of two runs: in their configs, seeds, data, machines and results.

    The settings of a run are left out, since its config has the recipe that they made.
    """
    left, right = (dict(flat(run.record | {"settings": {}})) for run in (first, second))
    names = [*left, *(name for name in right if name not in left)]
    pairs = [Difference(name, left.get(name), right.get(name)) for name in names]
    return [pair for pair in pairs if pair.first != pair.second]


def draw_runs(runs: list[Run], theme: str = "light") -> bytes:
    """Loss and test error of some runs in one image, as a PNG.

    Args:
        runs: with their metrics.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
        RunError: `metrics.jsonl` of one is damaged.
    """
    return draw_comparison([run.folder.name for run in runs], [run.metrics() for run in runs], theme=theme)
