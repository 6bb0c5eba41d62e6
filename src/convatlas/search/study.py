"""A search with trainings: it is kept in a folder, can be killed and gone on with, and ends in a report."""

from __future__ import annotations

import dataclasses
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convatlas.data.sets import Source
from convatlas.files import write_atomic
from convatlas.runs.lock import locked
from convatlas.search.algorithms import Problem, RandomSearch, find_algorithm
from convatlas.search.architecture import Architecture, Space, Task
from convatlas.search.driver import Arm, Progress, finished, run_arm, task_of
from convatlas.search.evaluators import FunctionEvaluator
from convatlas.search.latency import LatencyLimit
from convatlas.search.loop import Evaluate, check_whole
from convatlas.search.report import write_report
from convatlas.search.spec import SearchSpec, check_limits, largest, within
from convatlas.search.store import Job, Store, StoreError, open_store, read_spec
from convatlas.search.trainings import TrainingEvaluator, load_split
from convatlas.search.workers import Workers

BASELINE_SEED = 1_000_003
"""Added to the seed for the random baseline, so that it does not share the search's first proposals."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A search and its folder.

    Attributes:
        folder: with `search.db`, `report.md`, `report.html`, `front.png` and `genotype.toml`.
        spec: what was asked for.
        jobs: of the search, in logical order.
        best: the architecture that the search ends with; None where every evaluation failed.
    """

    folder: Path
    spec: SearchSpec
    jobs: tuple[Job, ...]
    best: Architecture | None

    @property
    def history(self) -> tuple[tuple[Architecture, float], ...]:
        """Pairs of (architecture, value on its highest rung) in the order of proposal."""
        return tuple(history_of(self.spec.find_space(), self.jobs))


def history_of(space: Space, jobs: Any) -> list[tuple[Architecture, float]]:
    """Pairs of (architecture, value on its highest rung) in the order of proposal; NaN where it failed."""
    values: dict[int, tuple[str, float]] = {}
    for job in jobs:
        value = math.nan if job.value is None else job.value
        values[job.child] = (
            job.text,
            value if not math.isnan(value) else values.get(job.child, ("", value))[1],
        )
    return [(Architecture(space, space.choices_of(text)), value) for text, value in values.values()]


def run(
    *,
    data: str | Source = "fashion-mnist",
    space: str = "tiny",
    algorithm: str = "model",
    evaluations: int = 100,
    out: str | Path | None = None,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_memory: float | None = None,
    max_latency: float | None = None,
    engine: str = "auto",
    budget: float | None = None,
    workers: int = 2,
    seed: int = 0,
    epochs: int = 3,
    rungs: tuple[int, ...] | None = None,
    space_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: str = "modern",
    settings: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    validation_share: float = 0.2,
    train_images: int | None = None,
    lag: int = 8,
    top: int = 3,
    repeats: int = 3,
    evaluate: Evaluate | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Searches for the network that suits a data set, with trainings as evaluations.

    The architectures that are tried depend on the arguments alone, not on the number of workers, on how often
    the search was killed, or on how long an evaluation takes; measured latencies are kept and used again.

    Args:
        data: a data set by name, as `convatlas.train` knows it, or a `Source`.
        space: "nasnet", "amoebanet", "tiny", "nasbench201" or "mobile".
        algorithm: "model", "evolve", "local", "random", "brute" or "optuna:SAMPLER".
        evaluations: architectures that are tried; the random baseline tries as many again.
        out: folder of the search; None for the next free of searches/SPACE-DATA-N.
        max_macs: most multiply-adds for one image.
        max_params: most parameters.
        max_memory: most bytes of parameters and activations in float32.
        max_latency: most seconds for one image on this machine.
        engine: what latency is measured with: "auto" for the fastest here, or an engine's name.
        budget: s after which nothing more is begun; None for no limit.
        workers: processes that train, each with one thread.
        seed: of proposals, trainings and the split.
        epochs: of each training, where `rungs` are not given.
        rungs: epochs of each rung of early stopping, for example (1, 3, 9).
        space_options: of the space, for example `{"cells": 2, "chans": 16}`.
        options: fields of the algorithm, for example `{"aging": False}`.
        recipe: how networks are trained.
        settings: fields of the recipe to change.
        data_dir: where small data sets lie or are downloaded to.
        validation_share: share of the training images that candidates are measured on.
        train_images: train candidates on at most so many images.
        lag: how many jobs back the newest result lies that a proposal knows; the most workers that can work.
        top: how many of the best are trained again with fresh seeds.
        repeats: fresh seeds of each; at least 3.
        evaluate: a function that evaluates in place of trainings; importable in another process.
        cluster: "ray" to evaluate on a Ray cluster; None for processes of this machine.
        progress: is told of each result.

    Returns:
        The finished study.

    Raises:
        UnknownNameError: an unknown space, algorithm, data set, recipe or option; names the nearest.
        ValueError: an argument is out of range, no architecture is within the limits, the folder holds
            another search, or too many evaluations failed.
    """
    spec = SearchSpec(
        space=space,
        space_options=dict(space_options or {}),
        algorithm=algorithm,
        options=dict(options or {}),
        evaluations=evaluations,
        seed=seed,
        lag=lag,
        rungs=tuple(rungs) if rungs else (epochs,),
        data=data if isinstance(data, str) else data.name,
        recipe=recipe,
        settings=dict(settings or {}),
        validation_share=validation_share,
        train_images=train_images,
        max_macs=max_macs,
        max_params=max_params,
        max_memory=max_memory,
        max_latency=max_latency,
        engine=engine,
    )
    check_whole("workers", workers, 1)
    check_whole("top", top, 1)
    check_whole("repeats", repeats, 3)
    if budget is not None and not budget > 0:
        raise ValueError(f"`budget`={budget!r}; expected seconds above 0")
    spec.find_space()
    find_algorithm(spec.algorithm, spec.options)
    folder = _make_folder(out, spec)
    extra = {
        "workers": workers,
        "top": top,
        "repeats": repeats,
        "budget": budget,
        "data_dir": None if data_dir is None else str(data_dir),
        "from_python": evaluate is not None or not isinstance(data, str),
        "cluster": cluster,
    }
    return _work(folder, spec, extra, data, evaluate, progress)


def resume(
    folder: str | Path,
    *,
    data: str | Source | None = None,
    evaluate: Evaluate | None = None,
    workers: int | None = None,
    budget: float | None = None,
    progress: Progress | None = None,
) -> Study:
    """Goes on with a search that was stopped or killed, as if it had not been.

    Args:
        folder: of the search.
        data: the data, where they came from Python or have moved.
        evaluate: the function, where the search had one.
        workers: processes; None for as many as before.
        budget: s after which nothing more is begun; None for no limit.
        progress: is told of each result.

    Raises:
        StoreError: the folder holds no search, or one of another version.
        LockedError: another process works on it.
        ValueError: as `run`.
    """
    folder = Path(folder)
    with open_store(folder) as store:
        spec, extra = read_spec(store), store.meta()
    if extra.get("from_python") and data is None and evaluate is None:
        raise StoreError(
            f"{folder}: was begun from Python; only `convatlas.search.resume(folder, ...)` with its data or "
            "function can go on with it"
        )
    kept = {name: extra[name] for name in extra if name not in ("spec", "version")}
    kept["budget"] = budget
    if workers is not None:
        check_whole("workers", workers, 1)
        kept["workers"] = workers
    return _work(folder, spec, kept, spec.data if data is None else data, evaluate, progress)


def _make_folder(out: str | Path | None, spec: SearchSpec) -> Path:
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    stem = f"{spec.space}-{spec.data.replace(':', '-').replace('/', '-')}"
    for number in range(1, 10_000):
        folder = Path("searches") / f"{stem}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise StoreError(f"searches/{stem}-*: all names are taken; name a folder by `--out`")


def _work(
    folder: Path,
    spec: SearchSpec,
    extra: dict[str, Any],
    data: str | Source,
    evaluate: Evaluate | None,
    progress: Progress | None,
) -> Study:
    space = spec.find_space()
    with locked(folder):
        try:
            store = Store(folder)
            store.begin(spec, extra)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{folder}: the store cannot be read or written ({error})") from None
        if evaluate is None:
            split = load_split(
                data, extra.get("data_dir"), spec.validation_share, spec.seed, spec.train_images
            )
            task = split.task
            function: Callable[[Any], Any] = TrainingEvaluator(
                space, split, str(folder / "runs"), spec.recipe, spec.settings
            )
            (folder / "runs").mkdir(exist_ok=True)
        else:
            task, function = Task(), FunctionEvaluator(space, evaluate)
        check_limits(spec, space, task)
        store.note("task", [*task.image_size, task.num_classes])
        workers = make_workers(function, extra)
        try:
            return _Running(folder, spec, extra, space, task, store, workers, progress or _silent).all()
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreError(f"{folder}: the store cannot be written ({error}); it can be resumed") from None
        finally:
            workers.close()
            store.close()


def make_workers(function: Callable[[Any], Any], extra: Mapping[str, Any]) -> Any:
    """Processes of this machine, or tasks of a Ray cluster."""
    cluster = extra.get("cluster")
    if cluster is None:
        return Workers(function, int(extra["workers"]))
    if cluster != "ray":
        raise ValueError(f"`cluster`={cluster!r}; expected 'ray', or nothing for processes of this machine")
    from convatlas.search.ray_workers import RayWorkers

    return RayWorkers(function, int(extra["workers"]))


def _silent(arm: str, jobs: list[Job]) -> None:
    return None


@dataclasses.dataclass
class _Running:
    """A study while it runs."""

    folder: Path
    spec: SearchSpec
    extra: dict[str, Any]
    space: Space
    task: Task
    store: Store
    workers: Any
    progress: Progress

    def all(self) -> Study:
        """Search, baselines, trainings with fresh seeds, report."""
        budget = self.extra.get("budget")
        deadline = math.inf if budget is None else time.monotonic() + float(budget)
        problem = Problem(self.space, self._allows)
        algorithm = find_algorithm(self.spec.algorithm, self.spec.options)
        spec, store, workers, progress = self.spec, self.store, self.workers, self.progress
        half = deadline if budget is None else time.monotonic() + 0.4 * float(budget)
        main = run_arm(Arm("search", algorithm, spec.seed), spec, problem, store, workers, half, progress)
        # The baseline gets as many evaluations as the search had, and no early stopping of its own.
        tried = len({job.child for job in main})
        plain = dataclasses.replace(spec, rungs=spec.rungs[-1:], evaluations=max(1, tried))
        chance = Arm("random", RandomSearch(), spec.seed + BASELINE_SEED)
        half = deadline if budget is None else time.monotonic() + 0.4 * float(budget)
        baseline = run_arm(chance, plain, problem, store, workers, half, progress)
        self._again(main, baseline)
        best = write_report(self.folder, store, spec, self.space, self.task)
        if best is not None:
            write_atomic(self.folder / "genotype.toml", genotype_toml(best, self.task))
        return Study(self.folder, spec, tuple(main), best)

    def _allows(self, found: Architecture) -> bool:
        if not within(self.spec, found.costs(self.task)):
            return False
        if self.spec.max_latency is None:
            return True
        return self._latency().allows(found)

    def _latency(self) -> LatencyLimit:
        assert self.spec.max_latency is not None
        pausable = self.workers if isinstance(self.workers, Workers) else None
        return LatencyLimit(self.spec.max_latency, self.spec.engine, self.task, self.store, pausable)

    def _again(self, main: list[Job], baseline: list[Job]) -> None:
        """Trains the best with fresh seeds: on the validation split to choose, then on all to report."""
        top, repeats = int(self.extra["top"]), int(self.extra["repeats"])
        groups = {"search": self._best(main, top), "random": self._best(baseline, top)}
        chosen = [(role, text) for role, texts in groups.items() for text in texts]
        confirmed = self._repeat("confirm", chosen, repeats)
        winner = best_mean(confirmed, "random")
        final = [("search", text) for text in groups["search"]]
        final += [] if winner is None else [("random", winner)]
        big = largest(self.space, self.task, self._allows, self.spec.seed)
        final += [] if big is None else [("size", big.text)]
        self._repeat("retrain", final, repeats)

    def _best(self, jobs: list[Job], count: int) -> list[str]:
        """The best architectures by value; with a limit on latency, those that keep it once more."""
        done = [(value, -i, found) for i, (found, value) in enumerate(history_of(self.space, jobs))]
        ranked = [found for value, _, found in sorted(done, key=_rank) if value == value]
        texts: list[str] = []
        for found in ranked:
            if len(texts) == count:
                break
            if self.spec.max_latency is not None and self._latency().measure(found) > self.spec.max_latency:
                continue
            texts.append(found.text)
        return texts

    def _repeat(self, arm: str, chosen: list[tuple[str, str]], repeats: int) -> list[Job]:
        known = {
            (job.detail.get("role"), job.text, job.detail.get("repeat")): job for job in self.store.jobs(arm)
        }
        wanted = [(role, text, repeat) for role, text in chosen for repeat in range(repeats)]
        rung = len(self.spec.rungs) - 1
        jobs: list[Job] = []
        for number, (role, text, repeat) in enumerate(wanted):
            before = known.get((role, text, repeat))
            job = Job(arm, number, number, text, rung, detail={"role": role, "repeat": repeat})
            if before is not None and before.state != "waiting":
                job = dataclasses.replace(before, number=number, child=number)
            jobs.append(job)
        todo = [job for job in jobs if job.state == "waiting"]
        while todo or self.workers.busy:
            while todo and self.workers.has_room:
                job = todo.pop(0)
                repeat = job.detail["repeat"] + (100 if arm == "retrain" else 0)
                self.workers.give({**task_of(self.spec, job), "repeat": repeat})
            for outcome in self.workers.collect(timeout=1.0):
                job = jobs[outcome.task["number"]]
                ended = finished(job, outcome.result, outcome.reason, outcome.seconds)
                jobs[job.number] = dataclasses.replace(ended, detail={**job.detail, **ended.detail})
                self.store.put(jobs[job.number])
                self.progress(arm, jobs)
        return jobs


def _rank(entry: tuple[float, int, Architecture]) -> tuple[float, int]:
    return (-entry[0], -entry[1]) if entry[0] == entry[0] else (math.inf, 0)


def best_mean(jobs: list[Job], role: str) -> str | None:
    """The architecture of a role with the largest mean value; None where none succeeded."""
    values: dict[str, list[float]] = {}
    for job in jobs:
        if job.detail.get("role") == role and job.value is not None:
            values.setdefault(job.text, []).append(job.value)
    return max(values, key=lambda text: sum(values[text]) / len(values[text]), default=None)


def genotype_toml(found: Architecture, task: Task) -> str:
    """The file that `create_model(..., genotype=PATH)` and `convatlas train --model genotype=PATH` take."""
    network, overrides = found.network()
    text = str(overrides["genotype"])
    quote = "'" if "'" not in text else '"'
    chans, height, width = task.image_size
    return (
        f"# Found for images of {chans}x{height}x{width} px and {task.num_classes} classes.\n"
        f'network = "{network}"\ngenotype = {quote}{text}{quote}\n'
    )


def status(folder: str | Path) -> dict[str, Any]:
    """How a search stands: counts by arm and state, the best value, and whether a process works on it.

    Raises:
        StoreError: the folder holds no search.
    """
    folder = Path(folder)
    with open_store(folder) as store:
        spec = read_spec(store)
        counts: dict[str, dict[str, int]] = {}
        seconds = 0.0
        for arm in ("search", "random", "confirm", "retrain"):
            for job in store.jobs(arm):
                states = counts.setdefault(arm, {})
                states[job.state] = states.get(job.state, 0) + 1
                seconds += job.seconds
        history = history_of(spec.find_space(), store.jobs("search"))
    known = [(value, found.text) for found, value in history if value == value]
    best = max(known, default=(math.nan, ""))
    return {
        "folder": str(folder),
        "space": spec.space,
        "algorithm": spec.algorithm,
        "evaluations": spec.evaluations,
        "tried": len(history),
        "counts": counts,
        "best_value": best[0],
        "best": best[1],
        "training_seconds": seconds,
        "finished": (folder / "report.md").is_file(),
    }


def best(folder: str | Path) -> tuple[Architecture, Task]:
    """The architecture that a search ends with (or, while it goes on, the best so far), and its task.

    Raises:
        StoreError: the folder holds no search, or nothing has been evaluated yet.
    """
    folder = Path(folder)
    with open_store(folder) as store:
        spec, meta = read_spec(store), store.meta()
        space = spec.find_space()
        text = best_mean(store.jobs("confirm"), "search")
        if text is None:
            known = [(v, -i, f) for i, (f, v) in enumerate(history_of(space, store.jobs("search"))) if v == v]
            if not known:
                raise StoreError(f"{folder}: nothing has been evaluated yet")
            text = min(known, key=_rank)[2].text
    *size, classes = meta.get("task", [3, 32, 32, 10])
    return Architecture(space, space.choices_of(text)), Task((size[0], size[1], size[2]), classes)


def report(folder: str | Path) -> Path:
    """Writes the report of a search anew, from its store.

    Raises:
        StoreError: the folder holds no search.
    """
    folder = Path(folder)
    with open_store(folder) as store:
        spec = read_spec(store)
        *size, classes = store.meta().get("task", [3, 32, 32, 10])
        write_report(folder, store, spec, spec.find_space(), Task((size[0], size[1], size[2]), classes))
    return folder / "report.md"
