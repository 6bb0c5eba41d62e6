"""`convatlas study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from convatlas.cli.table_format import TABLE, TableFormat, render

study_command = App(name="study", help="Test the claims of the papers: list, show, run, report.")


@study_command.command(name="list")
def list_studies(*, output: TableFormat = TABLE) -> None:
    """List the studies with their claims.

    Args:
        output: Format of the table.
    """
    from convatlas.studies.index import CLAIMS
    from convatlas.tables import Grid

    records = [{"study": name, "claim": claim} for name, claim in CLAIMS.items()]
    grid = Grid(("study", "claim"), 2, list(CLAIMS.items()), (), [], ruled=False, lesser=())
    print(render(output.chosen(), grid, records=records, title="studies"), end="")


@study_command.command(name="show")
def show_study(name: str, /) -> None:
    """Show a study: its claim, source, protocol and presets.

    Args:
        name: Name of the study.
    """
    from convatlas.studies.report import describe
    from convatlas.studies.study import find_study

    print(describe(find_study(name)))


@study_command.command(name="run")
def run_study_command(
    name: str,
    /,
    *,
    preset: str = "quick",
    seeds: int | None = None,
    data: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    out: Path = Path("studies"),
) -> int:
    """Run a study: it trains or computes what it takes and gives a verdict.

    A study that was stopped goes on where it was; trainings that are finished are used again.

    Args:
        name: Name of the study.
        preset: quick (at most 10 minutes on 2 cores), standard (about an hour) or full.
        seeds: How many seeds.
        data: Data set.
        set_: Turn a knob, for example --set epochs=4.
        out: Folder for the trainings and the reports.
    """
    from convatlas.studies.context import run_study
    from convatlas.training.recipes.find import parse_settings
    from convatlas.training.signals import TRY_AGAIN, StoppedError

    turned = {"seeds": seeds, "data": data}
    settings = parse_settings(set_) | {key: value for key, value in turned.items() if value is not None}
    try:
        folder, record = run_study(name, preset=preset, out=out, log=print, **settings)
    except StoppedError as stopped:
        print(f"convatlas: {stopped}; the same command goes on from there", file=sys.stderr)
        return TRY_AGAIN
    print(f"\n{record['claim']}\nverdict: {record['verdict']}\nthe report: {folder / 'report.md'}")
    return 0


@study_command.command(name="report")
def report_studies(
    *,
    studies: Path = Path("studies"),
    out: Annotated[Path, Parameter(name=["-o", "--out"])] = Path("studies.html"),
) -> None:
    """Write all finished studies as one HTML file that opens from disk.

    Args:
        studies: Folder in which they were run.
        out: The file.
    """
    from convatlas.studies.report import write_html

    count = write_html(studies, out)
    print(f"{count} finished {'study' if count == 1 else 'studies'} in {out}")
