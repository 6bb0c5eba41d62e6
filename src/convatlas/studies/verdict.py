"""From measured numbers to a verdict on a claim: every clause decides, jointly, and only at a fair budget."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convatlas.studies.clauses import Clause
from convatlas.studies.statistics import LEVEL, Estimate, Interval, estimate, holm


class Verdict(enum.StrEnum):
    """What a study says about its claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "no evidence at this budget"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """A number that is computed, not sampled, beside what the claim or the source says it is.

    Attributes:
        name: what was computed.
        value: the result.
        claimed: what the source says.
        tolerance: largest difference, as a share of `claimed`, at which both are the same.
        unit: of both.
        note: why they differ, where they do.
        decides: it is a clause of the claim; False for what is only printed.
    """

    name: str
    value: float
    claimed: float
    tolerance: float = 0.0
    unit: str = ""
    note: str = ""
    decides: bool = True

    @property
    def verdict(self) -> Verdict:
        """Holds if the value lies within the tolerance."""
        near = abs(self.value - self.claimed) <= self.tolerance * abs(self.claimed)
        return Verdict.HOLDS if near else Verdict.FAILS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """What was measured for a clause, and what follows.

    Attributes:
        clause: what was claimed.
        values: the effect of each seed or fresh process.
        estimate: over all; None where there is none.
        p_holds: p-value of the clause, adjusted by Holm over the clauses that decide.
        p_fails: p-value of its contrary.
        verdict: on the clause alone.
    """

    clause: Clause
    values: tuple[float, ...]
    estimate: Estimate | None
    p_holds: float
    p_fails: float
    verdict: Verdict

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval, not adjusted."""
        return None if self.estimate is None else self.estimate.interval()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a claim, with its grounds.

    Attributes:
        verdict: on the claim as a whole.
        effects: each clause, measured.
        facts: what was computed.
        objections: why no verdict is given, a sentence each; empty where one is.
    """

    verdict: Verdict
    effects: tuple[Effect, ...]
    facts: tuple[Fact, ...]
    objections: tuple[str, ...]


def judge(
    clauses: Sequence[Clause],
    samples: Mapping[str, Sequence[float] | NDArray[Any]],
    facts: Iterable[Fact] = (),
    objections: Iterable[str] = (),
) -> Judgement:
    """Decides a claim: it holds only if every clause does, and does not hold if one is refuted.

    A directed clause is tested two-sided at 5 %, which is whether the 95 % interval lies beyond its bound. An
    equivalence is tested by two one-sided tests at 5 % (Schuirmann 1987). The clauses that decide share the
    5 % by
    Holm's method, those for "holds" among each other and those for "does not hold" among each other.

    Args:
        clauses: of the claim.
        samples: for each clause its values (S,), or (S, I) for seeds and test images.
        facts: what was computed; one that decides and is wrong refutes the claim.
        objections: what forbids a verdict, such as arms that have not learnt.

    Raises:
        ValueError: if a clause was not measured, or no clause and no fact decides.
    """
    facts = tuple(facts)
    missing = [clause.name for clause in clauses if clause.name not in samples]
    if missing:
        raise ValueError(f"the study measured nothing for its clauses {', '.join(missing)}")
    if not any(clause.decides for clause in clauses) and not any(fact.decides for fact in facts):
        raise ValueError("a study must have at least one clause or fact that decides")
    measured = [(clause, np.asarray(samples[clause.name], dtype=np.float64)) for clause in clauses]
    estimates = [estimate(values) for _, values in measured]
    told = (*objections, *_too_few(measured), *_no_spread(measured, estimates))
    effects = _effects(measured, estimates)
    verdicts = [effect.verdict for effect in effects if effect.clause.decides]
    verdicts += [fact.verdict for fact in facts if fact.decides]
    if told:
        verdict = Verdict.OPEN
    else:
        verdict = next((v for v in (Verdict.FAILS, Verdict.OPEN) if v in verdicts), Verdict.HOLDS)
    return Judgement(verdict=verdict, effects=effects, facts=facts, objections=told)


Measured = Sequence[tuple[Clause, NDArray[np.float64]]]


def _too_few(measured: Measured) -> list[str]:
    short = {
        (len(values), clause.needs)
        for clause, values in measured
        if clause.decides and len(values) < clause.needs
    }
    return [
        f"{have} independent value{'s' * (have != 1)}, at least {needs} needed"
        for have, needs in sorted(short)
    ]


def _no_spread(measured: Measured, estimates: Sequence[Estimate | None]) -> list[str]:
    return [
        f"{clause.measure}: all {len(values)} values are equal, so that they are no sample"
        for (clause, values), found in zip(measured, estimates, strict=True)
        if clause.decides and found is None and len(values) >= clause.needs
    ]


def _effects(measured: Measured, estimates: Sequence[Estimate | None]) -> tuple[Effect, ...]:
    raw = [
        (_p_holds(clause, found), _p_fails(clause, found)) if found else (1.0, 1.0)
        for (clause, _), found in zip(measured, estimates, strict=True)
    ]
    deciding = [i for i, (clause, _) in enumerate(measured) if clause.decides]
    adjusted = list(raw)
    for index, holds, fails in zip(
        deciding, holm([raw[i][0] for i in deciding]), holm([raw[i][1] for i in deciding]), strict=True
    ):
        adjusted[index] = (holds, fails)
    alpha = 1.0 - LEVEL
    return tuple(
        Effect(
            clause=clause,
            values=tuple(float(v) for v in (values.mean(axis=1) if values.ndim == 2 else values)),
            estimate=found,
            p_holds=holds,
            p_fails=fails,
            verdict=Verdict.HOLDS if holds < alpha else Verdict.FAILS if fails < alpha else Verdict.OPEN,
        )
        for (clause, values), found, (holds, fails) in zip(measured, estimates, adjusted, strict=True)
    )


def _p_holds(clause: Clause, found: Estimate) -> float:
    if clause.above is not None:
        return min(1.0, 2.0 * found.p_above(clause.above))
    if clause.below is not None:
        return min(1.0, 2.0 * found.p_below(clause.below))
    margin = clause.within or math.nan
    return max(found.p_above(-margin), found.p_below(margin))


def _p_fails(clause: Clause, found: Estimate) -> float:
    if clause.above is not None:
        return min(1.0, 2.0 * found.p_below(clause.above))
    if clause.below is not None:
        return min(1.0, 2.0 * found.p_above(clause.below))
    margin = clause.within or math.nan
    return min(1.0, 2.0 * min(found.p_above(margin), found.p_below(-margin)))
