"""`convatlas runs`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convatlas.cli.table_format import TABLE, Form, TableFormat, render
from convatlas.tables import Grid

if TYPE_CHECKING:
    from convatlas.runs.run import Run
    from convatlas.training.logging.compare_runs import Row

MOST_SHOWN = 64


def runs_command(
    folder: Path = Path("runs"),
    /,
    *,
    compare: tuple[str, str] | None = None,
    image: Path | None = None,
    theme: str = "light",
    output: TableFormat = TABLE,
) -> int:
    """Show the runs in a folder, or what differs between two of them.

    Args:
        folder: Folder that holds run folders.
        compare: Two runs, by the names of their folders or by paths: what differs, and their curves.
        image: File for the curves of --compare; A-and-B.png beside the first where not given.
        theme: Of the curves of --compare: light, dark or print.
        output: Format of the table; of --compare, of the table of differences.
    """
    from convatlas.runs.run import find_run
    from convatlas.training.logging.compare_runs import make_rows

    form = output.chosen()
    if compare is not None:
        return _compare(find_run(compare[0], folder), find_run(compare[1], folder), image, theme, form)
    if image is not None:
        raise ValueError(f"`--image`={str(image)!r} is given without --compare; name two runs to compare")
    rows, damaged = make_rows(folder)
    if rows or form != "table":
        _print_rows(rows, form)
    else:
        print(f"no runs in {folder}")
    for error in damaged:
        print(f"convatlas: {error}", file=sys.stderr)
    return 2 if damaged else 0


def _compare(first: Run, second: Run, image: Path | None, theme: str, form: Form) -> int:
    from convatlas.files import write_atomic
    from convatlas.training.logging.compare_runs import compare, draw_runs, make_row

    rows, differences = [make_row(first), make_row(second)], compare(first, second)
    path = image or first.folder.parent / f"{first.folder.name}-and-{second.folder.name}.png"
    write_atomic(path, draw_runs([first, second], theme))
    records = [dataclasses.asdict(difference) for difference in differences]
    everything = {
        "runs": [dataclasses.asdict(row) for row in rows],
        "differences": records,
        "image": str(path),
    }
    if form == "table":
        _print_rows(rows, form)
        print()
    if form == "table" and not differences:
        print("their records are the same")
    else:
        cells = [(pair.name, _shown(pair.first), _shown(pair.second)) for pair in differences]
        columns = ("differs", first.folder.name, second.folder.name)
        grid = Grid(columns, 3, cells, (), [], ruled=False, lesser=())
        title = " and ".join(columns[1:])
        print(render(form, grid, records=records, everything=everything, title=title), end="")
    if form == "table":
        print(f"\ncurves of both: {path}")
    return 0


def _print_rows(rows: list[Row], form: Form) -> None:
    from convatlas.training.logging.progress import duration

    cells = [
        (
            row.run,
            row.network,
            row.data,
            f"{row.epoch}/{row.epochs}",
            row.state,
            "-" if row.test_accuracy is None else f"{row.test_accuracy:.2%}",
            "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
            "-" if row.seconds is None else duration(row.seconds),
        )
        for row in rows
    ]
    columns = ("run", "network", "data", "epochs", "state", "accuracy", "images/s", "time")
    grid = Grid(
        columns, 5, cells, (), [], ruled=False, lesser=("images/s", "time", "epochs", "data", "network")
    )
    print(render(form, grid, records=[dataclasses.asdict(row) for row in rows], title="runs"), end="")


def _shown(value: Any) -> str:
    """A value in a cell; long ones are cut, `--json` has them whole."""
    text = "-" if value is None else str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
