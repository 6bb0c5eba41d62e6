"""`convatlas search`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from convatlas.cli.table_format import TABLE, TableFormat, render
from convatlas.tables import Grid

if TYPE_CHECKING:
    from convatlas.search.store import Job
    from convatlas.search.study import Study

search_command = App(
    name="search", help="Find a network for your images and your machine.", help_format="plaintext"
)


@search_command.command(name="run")
def run_command(
    *,
    data: str = "fashion-mnist",
    data_dir: Path | None = None,
    space: str = "tiny",
    algorithm: str = "model",
    evaluations: int = 100,
    max_macs: str | None = None,
    max_params: str | None = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    engine: str = "auto",
    budget: str | None = None,
    workers: int = 2,
    seed: int = 0,
    epochs: int = 3,
    rungs: str | None = None,
    no_aging: Annotated[bool, Parameter(negative="")] = False,
    space_set: Annotated[tuple[str, ...], Parameter(name="--space-set", negative="")] = (),
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    recipe: str = "modern",
    validation_share: float = 0.2,
    train_images: int | None = None,
    top: int = 3,
    repeats: int = 3,
    cluster: str | None = None,
    out: Path | None = None,
) -> int:
    """Search, and end with a trained network and a report.

    Args:
        data: Data set, as `convatlas train` takes it.
        data_dir: Where small data sets lie, or are downloaded to.
        space: nasnet, amoebanet, tiny, nasbench201 or mobile.
        algorithm: model, evolve, local, random, brute or optuna:SAMPLER.
        evaluations: Architectures that are tried.
        max_macs: Most multiply-adds for one image, for example 20M.
        max_params: Most parameters, for example 200k.
        max_memory: Most bytes of parameters and activations, for example 10M.
        max_latency: Most time for one image on this machine, for example 2ms.
        engine: What latency is measured with; auto for the fastest here.
        budget: Time after which nothing more is begun, for example 2h.
        workers: Processes that train.
        seed: Seed of proposals, trainings and the split.
        epochs: Epochs of each training.
        rungs: Epochs of each rung of early stopping, for example 1,3,9.
        no_aging: With evolve: the worst dies, not the oldest.
        space_set: Change a setting of the space, for example --space-set cells=2 --space-set chans=16.
        set_: Change a field of the recipe, for example --set batch_size=256.
        recipe: How networks are trained.
        validation_share: Share of the training images that candidates are measured on.
        train_images: Train candidates on at most so many images.
        top: How many of the best are trained again with fresh seeds.
        repeats: Fresh seeds of each, at least 3.
        cluster: ray, to evaluate on a Ray cluster.
        out: Folder of the search.
    """
    from convatlas.catalog.index import parse_amount
    from convatlas.config import parse_settings
    from convatlas.search.spec import parse_seconds
    from convatlas.search.study import run

    amounts = {"max_macs": max_macs, "max_params": max_params, "max_memory": max_memory}
    limits: dict[str, Any] = {
        name: parse_amount(name, text) for name, text in amounts.items() if text is not None
    }
    study = run(
        data=data,
        data_dir=data_dir,
        space=space,
        algorithm=algorithm,
        evaluations=evaluations,
        max_latency=None if max_latency is None else parse_seconds("--max-latency", max_latency),
        engine=engine,
        budget=None if budget is None else parse_seconds("--budget", budget),
        workers=workers,
        seed=seed,
        epochs=epochs,
        rungs=None if rungs is None else _read_rungs(rungs),
        options={"aging": False} if no_aging else None,
        space_options=parse_settings(space_set),
        settings=parse_settings(set_),
        recipe=recipe,
        validation_share=validation_share,
        train_images=train_images,
        top=top,
        repeats=repeats,
        cluster=cluster,
        out=out,
        progress=_show,
        **limits,
    )
    return _end(study)


@search_command.command(name="resume")
def resume_command(folder: Path, /, *, workers: int | None = None, budget: str | None = None) -> int:
    """Go on with a search that was stopped or killed.

    Args:
        folder: Of the search.
        workers: Processes that train; as many as before where not given.
        budget: Time after which nothing more is begun.
    """
    from convatlas.search.spec import parse_seconds
    from convatlas.search.study import resume

    seconds = None if budget is None else parse_seconds("--budget", budget)
    return _end(resume(folder, workers=workers, budget=seconds, progress=_show))


@search_command.command(name="status")
def status_command(folder: Path, /, *, output: TableFormat = TABLE) -> int:
    """Show how a search stands.

    Args:
        folder: Of the search.
        output: Format of the table of counts; json also has the best architecture so far.
    """
    from convatlas.search.study import status

    form = output.chosen()
    now = status(folder)
    states = list(dict.fromkeys(state for counts in now["counts"].values() for state in counts))
    records = [
        {"search": arm, **{state: counts.get(state, 0) for state in states}}
        for arm, counts in now["counts"].items()
    ]
    rows = [tuple(map(str, record.values())) for record in records]
    best = now["best_value"] if now["best"] else None
    grid = Grid(("search", *states), 1, rows, (), [], ruled=False, lesser=())
    table = render(
        form, grid, records=records, everything=now | {"best_value": best}, title=str(now["folder"])
    )
    if form != "table":
        print(table, end="")
        return 0
    print(
        f"{now['folder']}: {now['algorithm']} in {now['space']}, {now['tried']} of {now['evaluations']} tried"
    )
    print(table if records else "", end="")
    if now["best"]:
        print(f"best so far {now['best_value']:.2%}: {now['best']}")
    print("finished" if now["finished"] else "not finished; `convatlas search resume` goes on with it")
    return 0


@search_command.command(name="report")
def report_command(folder: Path, /) -> int:
    """Write the report of a search anew, and print it.

    Args:
        folder: Of the search.
    """
    from convatlas.search.study import report

    print(report(folder).read_text(encoding="utf-8"), end="")
    return 0


@search_command.command(name="best")
def best_command(
    folder: Path, /, *, output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
) -> int:
    """Print the best genotype, or write it to a file that `convatlas train --model genotype=FILE` takes.

    Args:
        folder: Of the search.
        output: TOML file.
    """
    from convatlas.files import write_atomic
    from convatlas.search.study import best, genotype_toml

    found, task = best(folder)
    if output is None:
        print(found.text)
        return 0
    write_atomic(output, genotype_toml(found, task))
    name, _ = found.network()
    print(f"{output}: convatlas train {name} --model genotype={output}")
    return 0


def _read_rungs(text: str) -> tuple[int, ...]:
    if not all(word.strip().isdecimal() for word in text.split(",")):
        raise ValueError(f"`--rungs`={text!r}; expected rising numbers of epochs, such as 1,3,9")
    return tuple(map(int, text.split(",")))


def _show(arm: str, jobs: list[Job]) -> None:
    done = [job for job in jobs if job.state != "waiting"]
    values = [job.value for job in done if job.value is not None]
    best = f", best {max(values):.2%}" if values else ""
    failed = sum(job.state == "failed" for job in done)
    told = f"{arm}: {len(done)} evaluated{best}{f', {failed} failed' if failed else ''}"
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{told:<60}", file=sys.stderr, end=end, flush=True)


def _end(study: Study) -> int:
    print(f"everything is in {study.folder}: open report.html there")
    if study.best is not None:
        print(f"best: {study.best.text}")
        name, _ = study.best.network()
        print(f"  convatlas train {name} --model genotype={study.folder / 'genotype.toml'}")
    return 0
