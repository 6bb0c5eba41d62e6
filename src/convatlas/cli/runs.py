"""`convatlas runs`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convatlas.escape import plain

if TYPE_CHECKING:
    from convatlas.runs.run import Run
    from convatlas.training.logging.compare_runs import Difference, Row

MOST_SHOWN = 64


def runs_command(
    folder: Path = Path("runs"),
    /,
    *,
    compare: tuple[str, str] | None = None,
    image: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Show the runs in a folder, or what differs between two of them.

    Args:
        folder: Folder that holds run folders.
        compare: Two runs, by the names of their folders or by paths: what differs, and their curves.
        image: File for the curves of --compare; A-and-B.png beside the first where not given.
        as_json: Print JSON, for machines.
    """
    from convatlas.runs.run import find_run
    from convatlas.training.logging.compare_runs import make_rows

    if compare is not None:
        return _compare(find_run(compare[0], folder), find_run(compare[1], folder), image, as_json)
    if image is not None:
        raise ValueError(f"`--image`={str(image)!r} is given without --compare; name two runs to compare")
    rows, damaged = make_rows(folder)
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    elif rows:
        _print_rows(rows)
    else:
        print(f"no runs in {folder}")
    for error in damaged:
        print(f"convatlas: {error}", file=sys.stderr)
    return 2 if damaged else 0


def _compare(first: Run, second: Run, image: Path | None, as_json: bool) -> int:
    from convatlas.files import write_atomic
    from convatlas.training.logging.compare_runs import compare, draw_runs, make_row

    rows, differences = [make_row(first), make_row(second)], compare(first, second)
    path = image or first.folder.parent / f"{first.folder.name}-and-{second.folder.name}.png"
    write_atomic(path, draw_runs([first, second]))
    if as_json:
        record = {
            "runs": [dataclasses.asdict(row) for row in rows],
            "differences": [dataclasses.asdict(difference) for difference in differences],
            "image": str(path),
        }
        print(json.dumps(record, indent=2))
        return 0
    _print_rows(rows)
    print()
    _print_differences(first.folder.name, second.folder.name, differences)
    print(f"\ncurves of both: {path}")
    return 0


def _print_rows(rows: list[Row]) -> None:
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
    _print_table(("run", "network", "data", "epochs", "state", "accuracy", "images/s", "time"), cells, 5)


def _print_differences(first: str, second: str, differences: list[Difference]) -> None:
    if not differences:
        print("their records are the same")
        return
    cells = [(pair.name, _shown(pair.first), _shown(pair.second)) for pair in differences]
    _print_table(("differs", first, second), cells, 3)


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]], right_from: int) -> None:
    """Columns as wide as what they hold; those from `right_from` on are right-aligned."""
    rows = [tuple(map(plain, row)) for row in rows]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if column >= right_from else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _shown(value: Any) -> str:
    """A value in a cell; long ones are cut, `--json` has them whole."""
    text = "-" if value is None else str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
