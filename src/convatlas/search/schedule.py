"""Which job comes next: a function of the jobs before it and of the results that the lag lets it know."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from convatlas.search.algorithms import Algorithm, History, Problem
from convatlas.search.architecture import Architecture
from convatlas.search.loop import proposal_rng
from convatlas.search.store import Job

CALIBRATION = 8
"""Architectures that are trained on every rung, to see whether rungs agree."""

AGREE = 0.6
"""Rank correlation of a rung with the last one, below which rungs are not used."""

KEEP = 3
"""One of so many goes on to the next rung."""


@dataclasses.dataclass(frozen=True)
class Rungs:
    """What is known of the rungs.

    Attributes:
        correlations: of each rung but the last with the last, by rank; empty where not measured.
        used: whether the rungs agree so well that early stopping is used.
        shifts: mean value on each rung less that on the last.
    """

    correlations: tuple[float, ...] = ()
    used: bool = False
    shifts: tuple[float, ...] = (0.0,)


def known_values(jobs: Sequence[Job]) -> dict[tuple[int, int], float]:
    """Values by (child, rung); NaN where the evaluation failed."""
    return {
        (job.child, job.rung): math.nan if job.value is None else job.value
        for job in jobs
        if job.state != "waiting"
    }


def calibrate(values: dict[tuple[int, int], float], rungs: int, count: int = CALIBRATION) -> Rungs | None:
    """The agreement of the rungs; None while calibration goes on."""
    if rungs == 1:
        return Rungs()
    table = [[values.get((child, rung)) for rung in range(rungs)] for child in range(count)]
    if any(value is None for row in table for value in row):
        return None
    rows = np.array([row for row in table if not any(math.isnan(value or 0.0) for value in row)], dtype=float)
    if len(rows) < 3:
        return Rungs((0.0,) * (rungs - 1), False, (0.0,) * rungs)
    correlations: list[float] = []
    for rung in range(rungs - 1):
        if np.ptp(rows[:, rung]) == 0 or np.ptp(rows[:, -1]) == 0:
            correlations.append(0.0)
        else:
            correlations.append(
                float(np.corrcoef(stats.rankdata(rows[:, rung]), stats.rankdata(rows[:, -1]))[0, 1])
            )
    shifts = tuple(float(shift) for shift in (rows - rows[:, -1:]).mean(axis=0))
    return Rungs(tuple(correlations), min(correlations) >= AGREE, shifts)


def best_values(
    values: dict[tuple[int, int], float], children: int, rungs: int, shifts: Sequence[float]
) -> list[float]:
    """For each child, its value on the highest rung that it reached, brought to the last rung's level.

    The list ends before the first child without any value.
    """
    found: list[float] = []
    for child in range(children):
        reached = [rung for rung in range(rungs) if (child, rung) in values]
        if not reached:
            break
        found.append(values[child, reached[-1]] - (shifts[reached[-1]] if len(shifts) == rungs else 0.0))
    return found


def next_job(
    arm: str,
    jobs: Sequence[Job],
    known: Sequence[Job],
    children: Sequence[Architecture],
    evaluations: int,
    rungs: int,
    problem: Problem,
    algorithm: Algorithm,
    seed: int,
) -> tuple[Job, Architecture | None] | None:
    """The next job, with the architecture if it is a new one; None where nothing is left to do now.

    Args:
        arm: of the jobs.
        jobs: all jobs so far, in order.
        known: those of them whose results the lag lets it know.
        children: the architectures of the jobs, by child.
        evaluations: architectures in all.
        rungs: how many rungs there are.
        problem: the space and the limits.
        algorithm: proposes architectures.
        seed: of the study.

    Raises:
        Exhausted: the algorithm finds nothing new.
    """
    number, values = len(jobs), known_values(known)
    begun = {(job.child, job.rung) for job in jobs}
    warmup = min(CALIBRATION, evaluations)
    if rungs > 1 and len(children) == warmup:
        for rung, child in itertools.product(range(1, rungs), range(warmup)):
            if (child, rung) not in begun:
                return Job(arm, number, child, children[child].text, rung), None
        if calibrate(values, rungs, warmup) is None:
            return None
    state = calibrate(values, rungs, warmup) or Rungs((), False, (0.0,) * rungs)
    if state.used:
        promoted = _promotion(values, begun, rungs)
        if promoted is not None:
            child, rung = promoted
            return Job(arm, number, child, children[child].text, rung), None
    if len(children) >= evaluations:
        return None
    first = 0 if rungs > 1 and (state.used or len(children) < warmup) else rungs - 1
    history = History(
        children,
        best_values(values, len(children), rungs, state.shifts),
        {found.key for found in children},
    )
    found = algorithm.propose(problem, history, proposal_rng(seed, len(children)))
    return Job(arm, number, len(children), found.text, first), found


def _promotion(
    values: dict[tuple[int, int], float], begun: set[tuple[int, int]], rungs: int
) -> tuple[int, int] | None:
    """The best child among the top third of a rung that is not on the next one yet, highest rung first."""
    for rung in reversed(range(rungs - 1)):
        done = sorted((-value, child) for (child, r), value in values.items() if r == rung and value == value)
        for _, child in done[: len(done) // KEEP]:
            if (child, rung + 1) not in begun:
                return child, rung + 1
    return None
