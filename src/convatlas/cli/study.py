"""`convatlas study`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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
    """Show a study: its claim, clauses, source, protocol and presets.

    Args:
        name: Name of the study.
    """
    from convatlas.studies.report import describe
    from convatlas.studies.study import find_study

    print(describe(find_study(name)))


@study_command.command(name="run")
def run_study_command(
    name: str | None = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    preset: str = "quick",
    repeat: int = 0,
    pilot: Annotated[bool, Parameter(negative="")] = False,
    seeds: int | None = None,
    data: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    workers: int = 1,
    cluster: str | None = None,
    out: Path = Path("studies"),
) -> int:
    """Run a study: it trains or computes what it takes and gives a verdict.

    A study that was stopped goes on where it was; trainings that are finished are used again. A preset's
    protocol is frozen; turning anything makes a pilot, which has seeds of its own and stands in the ledger.

    Args:
        name: Name of the study.
        all_: Run all studies.
        preset: quick (minutes, for the classroom), standard (what the docs publish) or full (the paper's).
        repeat: Number of a repetition of the frozen protocol on other seeds.
        pilot: Use a pilot's seeds though nothing is turned.
        seeds: How many seeds; makes a pilot.
        data: Data set; makes a pilot.
        set_: Turn a knob, for example --set epochs=4; makes a pilot.
        workers: With --all: studies at a time, each in a process of its own.
        cluster: With --all: ray, to run them on a Ray cluster.
        out: Folder for the trainings and the reports.
    """
    from convatlas.training.recipes.find import parse_settings

    turned = {"seeds": seeds, "data": data}
    settings = parse_settings(set_) | {key: value for key, value in turned.items() if value is not None}
    if all_ or name is None:
        if not all_ or name is not None or settings or pilot:
            raise ValueError("`convatlas study run` takes the name of a study, or --all and no other knobs")
        return _run_all(preset, repeat, workers, cluster, out)
    if workers != 1 or cluster is not None:
        raise ValueError("`--workers` and `--cluster` need `--all`: a single study runs in one process")
    return _run_one(name, preset, repeat, pilot, settings, out)


def _run_all(preset: str, repeat: int, workers: int, cluster: str | None, out: Path) -> int:
    from convatlas.studies.run import ENDED, run_all

    found = run_all(preset=preset, repeat=repeat, workers=workers, cluster=cluster, out=out, log=print)
    return 2 if any(said.startswith(ENDED) for said in found.values()) else 0


def _run_one(name: str, preset: str, repeat: int, pilot: bool, settings: Mapping[str, Any], out: Path) -> int:
    from convatlas.cli.terminal import terminal
    from convatlas.studies.report import effect_grid
    from convatlas.studies.run import run_and_judge
    from convatlas.tables import grid_text
    from convatlas.training.signals import TRY_AGAIN, InterruptedWorkError, StoppedError, ending_at_once

    try:
        with ending_at_once(f"the study {name}"):
            folder, record, judgement = run_and_judge(
                name, preset=preset, repeat=repeat, pilot=pilot, out=out, log=print, settings=settings
            )
    except (StoppedError, InterruptedWorkError) as stopped:
        print(f"convatlas: {stopped}; the same command goes on from there", file=sys.stderr)
        return TRY_AGAIN
    width, color = terminal(to_file=False)
    print(f"\n{record['claim']}\n")
    if judgement.effects:
        print(grid_text(effect_grid(judgement.effects), width=width, color=color))
    print("\n".join(f"no verdict, because {reason}" for reason in judgement.objections))
    kind = " (a pilot, not the frozen protocol)" if record["kind"] == "pilot" else ""
    print(f"verdict: {record['verdict']}{kind}\nthe report: {folder / 'report.md'}")
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
    from convatlas.studies.page import write_html

    count = write_html(studies, out)
    print(f"{count} finished {'study' if count == 1 else 'studies'} in {out}")
