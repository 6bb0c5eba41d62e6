"""Runs the jobs of a search: proposed in logical order, with results in whatever order they come."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from convatlas.search.algorithms import Algorithm, Exhausted, Problem
from convatlas.search.architecture import Architecture
from convatlas.search.schedule import next_job
from convatlas.search.spec import SearchSpec
from convatlas.search.store import Job, Store
from convatlas.search.workers import Workers

MOST_FAILURES = 0.5
"""Share of evaluations that may fail before a search stops."""

LEAST_FAILURES = 5


class SearchFailedError(ValueError):
    """Too many evaluations failed; the message has the last reason."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One search of a study: that of the user, or the baseline.

    Attributes:
        name: "search" or "random".
        algorithm: that proposes.
        seed: of the proposals.
    """

    name: str
    algorithm: Algorithm
    seed: int


Progress = Callable[[str, list[Job]], None]
"""Is told the arm and its jobs after each result."""


def task_of(spec: SearchSpec, job: Job) -> dict[str, Any]:
    """A job as a worker is given it: what makes its result, and nothing else."""
    return {
        "text": job.text,
        "epochs": spec.rungs[job.rung],
        "number": job.number,
        "arm": job.arm,
        "seed": spec.seed,
    }


def run_arm(
    arm: Arm,
    spec: SearchSpec,
    problem: Problem,
    store: Store,
    workers: Workers,
    deadline: float,
    progress: Progress,
) -> list[Job]:
    """Runs an arm to its end, from where the store has it.

    Args:
        arm: the arm.
        spec: what is asked for.
        problem: the space and the limits.
        store: where jobs and results are kept.
        workers: that evaluate.
        deadline: `time.monotonic()` after which nothing is begun.
        progress: is told of each result.

    Raises:
        SearchFailedError: too many evaluations failed.
    """
    run = _ArmRun(arm, spec, problem, store.jobs(arm.name))
    waiting = [job.number for job in run.jobs if job.state == "waiting"]
    over = False
    while True:
        while waiting and workers.has_room:
            workers.give(task_of(spec, run.jobs[waiting.pop(0)]))
        while not over and workers.has_room and run.may_propose():
            made = None if time.monotonic() >= deadline else run.propose()
            if made is None:
                over = not run.is_waiting() or time.monotonic() >= deadline
                break
            store.put(made)
            workers.give(task_of(spec, made))
        if not workers.busy and not waiting:
            return run.jobs
        for outcome in workers.collect(timeout=1.0):
            job = finished(run.jobs[outcome.task["number"]], outcome.result, outcome.reason, outcome.seconds)
            run.jobs[job.number] = job
            store.put(job)
            _check_failures(run.jobs, spec.evaluations)
            progress(arm.name, run.jobs)


class _ArmRun:
    """The jobs of an arm, and what comes next."""

    def __init__(self, arm: Arm, spec: SearchSpec, problem: Problem, jobs: list[Job]) -> None:
        self.arm = arm
        self.spec = spec
        self.problem = problem
        self.jobs = jobs
        self.evaluations = spec.evaluations
        self.children: list[Architecture] = []
        for job in jobs:
            if job.child == len(self.children):
                self.children.append(Architecture(problem.space, problem.space.choices_of(job.text)))

    def is_waiting(self) -> bool:
        """Whether a result is not there yet."""
        return any(job.state == "waiting" for job in self.jobs)

    def may_propose(self) -> bool:
        """Whether all results are there that the next proposal has to know."""
        return all(job.state != "waiting" for job in self.jobs[: max(0, len(self.jobs) - self.spec.lag + 1)])

    def propose(self) -> Job | None:
        """The next job; None where there is none, or none before all results are there.

        Where the results that the lag shows lead to no job, all are waited for. That too depends on results
        alone, not on the time at which they come.
        """
        made = self._next(self.jobs[: max(0, len(self.jobs) - self.spec.lag + 1)])
        if made is None and not self.is_waiting():
            made = self._next(self.jobs)
        if made is None:
            return None
        job, found = made
        self.jobs.append(job)
        if found is not None:
            self.children.append(found)
        return job

    def _next(self, known: list[Job]) -> tuple[Job, Architecture | None] | None:
        for _ in range(2):
            try:
                return next_job(
                    self.arm.name,
                    self.jobs,
                    known,
                    self.children,
                    self.evaluations,
                    len(self.spec.rungs),
                    self.problem,
                    self.arm.algorithm,
                    self.arm.seed,
                )
            except Exhausted:
                self.evaluations = len(self.children)  # Those that there are may still reach higher rungs.
        return None


def finished(job: Job, result: Any, reason: str, seconds: float) -> Job:
    """A job with what came of it."""
    if reason:
        return dataclasses.replace(job, state="failed", detail={"reason": reason}, seconds=seconds)
    detail = dict(result)
    value = float(detail.pop("value"))
    if math.isnan(value):
        reason = "the value is NaN"
        return dataclasses.replace(job, state="failed", detail={"reason": reason}, seconds=seconds)
    return dataclasses.replace(job, state="done", value=value, detail=detail, seconds=seconds)


def _check_failures(jobs: list[Job], evaluations: int) -> None:
    failed = [job for job in jobs if job.state == "failed"]
    limit = max(LEAST_FAILURES, MOST_FAILURES * evaluations)
    done = sum(job.state == "done" for job in jobs)
    if len(failed) > limit or (len(failed) > LEAST_FAILURES and done == 0):
        raise SearchFailedError(
            f"{len(failed)} of {len(failed) + done} evaluations failed; the last one, of {failed[-1].text}: "
            f"{failed[-1].detail['reason']}"
        )
