"""Latency by measurement: what the time model proposes is built, run by an engine, and timed."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from convatlas.engines.optimize import optimize
from convatlas.engines.timing import measure_undisturbed
from convatlas.models.registry import create_model
from convatlas.scaling.budget import Budget, say_amount
from convatlas.scaling.cost import Candidate
from convatlas.scaling.latency import AUTO, LatencyModel
from convatlas.scaling.question import Question
from convatlas.scaling.search import Curve, Found, Value, choose, say_candidate, search

if TYPE_CHECKING:
    from convatlas.engines.engine import Engine

TIME_LIMIT = 54.0
"""Seconds for an answer; no measurement begins that would probably end later."""
AIM, ENOUGH = 0.975, 0.95
"""Share of the latency that is aimed at, and that is good enough."""
ONE_ENGINE = 0.7
"""Time that a measurement with one engine takes, beside one that tries all."""
FEWEST, MOST, LONG_ENOUGH = 9, 200, 0.6
"""Calls that a latency is the median of, and seconds that they take together at least."""


def measured_search(
    curve: Curve, value: Value, question: Question, timed: LatencyModel, tell: Callable[[str], None] | None
) -> tuple[Found, float | None]:
    """The candidate that uses a latency best, and its measured seconds.

    Returns:
        The candidate, and its seconds; None for these where none of those that were measured keeps the
        budget, so that the candidate is what the time model, with all measurements, expects to.

    Raises:
        ValueError: the family does not reach the budget, two budgets contradict each other, or the engine
            that was asked for does not run the network.
    """
    begin, expected = time.monotonic(), 0.0
    tried: tuple[Candidate, ...] = ()
    limit = question.budget.latency or 0.0
    timed.settle_engine()
    known = _measured_best(curve, value, question, timed)
    if known is not None and known[1] >= ENOUGH * limit:
        return known
    while True:
        aimed = dataclasses.replace(question.budget, latency=limit * AIM)
        found = _propose(curve, value, aimed, question, timed)
        seconds = timed.measured.get(found.candidate)
        if seconds is None:
            left = TIME_LIMIT - (time.monotonic() - begin)
            if expected > left:
                break
            started, searched = time.monotonic(), timed.engine == AUTO
            seconds = time_candidate(found.candidate, timed, left)
            took = time.monotonic() - started
            # The first measurement tries all engines, the next ones only the fastest of them.
            expected = took * (ONE_ENGINE if searched else 1.1)
            if tell is not None:
                said = say_candidate(question.base, found.candidate)
                tell(f"{said}: {say_amount('latency', seconds)} by {timed.engine}")
        if ENOUGH * limit <= seconds <= limit:
            return found, seconds
        tried = (*tried, found.candidate)
        if len(set(tried)) < len(tried):
            break  # Nothing nearer to the budget is proposed.
        if time.monotonic() - begin > TIME_LIMIT:
            break
    return _best(curve, value, question, timed, found)


def _propose(curve: Curve, value: Value, aimed: Budget, question: Question, timed: LatencyModel) -> Found:
    """What the time model holds to use the budget best; of a space, its best."""
    if question.space is not None:
        best = choose(list(question.space), curve.distance, value, aimed)
        if best is None:
            raise ValueError(f"{question.budget}: none of the networks of the space keeps it")
        return Found(best, curve.phi_of(best))
    fine = timed.model.repeats is not None
    try:
        return search(curve, value, aimed, fine=fine)
    except ValueError:  # Said again with the budget that was asked for, unless that one is met.
        return search(curve, value, question.budget, fine=fine)


def _best(
    curve: Curve, value: Value, question: Question, timed: LatencyModel, last: Found
) -> tuple[Found, float | None]:
    """Of the measured, the one that uses the budget best; else what was proposed last, unmeasured."""
    known = _measured_best(curve, value, question, timed)
    limit = question.budget.latency or 0.0
    fresh = last.candidate not in timed.measured and value("latency", last.candidate) <= limit
    if known is None or (known[1] < ENOUGH * limit and fresh):
        return last, timed.measured.get(last.candidate)
    return known


def _measured_best(
    curve: Curve, value: Value, question: Question, timed: LatencyModel
) -> tuple[Found, float] | None:
    """Of the measured networks that keep the budgets and belong to the rule, the one that uses most."""
    space = None if question.space is None else set(question.space)
    names = [
        candidate
        for candidate in timed.measured
        if question.sizes[0] <= candidate.input_size <= question.sizes[1]
        and (space is None or candidate in space)
        and _is_of_rule(curve, candidate)
    ]
    best = choose(names, curve.distance, value, question.budget)
    return None if best is None else (Found(best, curve.phi_of(best)), timed.measured[best])


def _is_of_rule(curve: Curve, candidate: Candidate) -> bool:
    """Whether a candidate turns only knobs of the rule, or is as near to the curve as those proposed are."""
    return curve.distance(candidate) <= 0.35


def time_candidate(candidate: Candidate, timed: LatencyModel, time_limit: float) -> float:
    """Builds a candidate, finds its engine, measures it, and tells the time model.

    Args:
        candidate: the network.
        timed: the time model; says the engine.
        time_limit: seconds for building.

    Raises:
        ValueError: the engine that was asked for does not run the network.
    """
    base, engine = timed.base, timed.engine
    with torch.random.fork_rng(devices=[]):
        options: dict[str, Any] = {**base.overrides, **timed.model.knobs(candidate)}
        net = create_model(base.network, features_only=False, **options).eval()
    found = optimize(
        net,
        candidate.input_size,
        timed.batch_size,
        engines=None if engine == AUTO else (engine,),
        threads=timed.threads,
        time_limit=max(5.0, time_limit * (0.35 if engine == AUTO else 0.6)),
    )
    if engine not in (AUTO, found.name):
        notes = [result.note for result in found.report.results if result.engine == engine and result.note]
        raise ValueError(
            f"`--engine {engine}` does not run {base.network} with {say_candidate(base, candidate)}: "
            f"{notes[0] if notes else 'it could not be built'}; expected auto or another engine"
        )
    seconds = time_engine(found)
    timed.add(candidate, seconds, found.name)
    return seconds


def time_engine(engine: Engine) -> float:
    """Median seconds of a batch, measured where the host of this machine takes no processor away."""
    images = torch.randn(*engine.shape, generator=torch.Generator().manual_seed(0))
    engine(images)
    return measure_undisturbed(lambda: _median(engine, images))


def _median(engine: Engine, images: torch.Tensor) -> float:
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < MOST and sum(times) < LONG_ENOUGH):
        started = time.perf_counter()
        engine(images)
        times.append(time.perf_counter() - started)
    return statistics.median(times)
