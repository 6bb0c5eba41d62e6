"""Search algorithms: each says what to try next, from what was tried and what is known of it.

An algorithm is a function of its arguments alone: no state is kept from one proposal to the next. So the
same results give the same proposals, whatever the number of workers, and a search that was stopped goes on
as if it had not been.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from convatlas.errors import unknown
from convatlas.search.architecture import Architecture, Choices, Space

TRIES = 50
"""Tries to find an architecture that is new and within the limits, before chance takes over."""


class Exhausted(Exception):
    """No architecture that is new and within the limits was found."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is searched.

    Attributes:
        space: the space.
        allowed: whether an architecture is within all limits.
    """

    space: Space
    allowed: Callable[[Architecture], bool] = lambda _: True


@dataclasses.dataclass(frozen=True)
class History:
    """What is known when a proposal is made.

    Attributes:
        proposed: all architectures that were proposed so far, in order.
        values: of the first of them, larger is better; NaN where the evaluation failed. Proposals that
            come later than these have no value yet.
        keys: the keys of `proposed`.
    """

    proposed: Sequence[Architecture]
    values: Sequence[float]
    keys: frozenset[str] | set[str]

    def ranked(self) -> list[tuple[float, int]]:
        """Pairs of (value, number) of what did not fail, best first; of equals, the earlier one first."""
        known = [(value, i) for i, value in enumerate(self.values) if value == value]
        return sorted(known, key=lambda pair: (-pair[0], pair[1]))


class Algorithm(Protocol):
    """Says what to try next."""

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """The next architecture: new, and within the limits.

        Args:
            problem: the space and the limits.
            history: what is known.
            rng: random numbers of this proposal alone.

        Raises:
            Exhausted: there is none.
        """
        ...


def is_new(problem: Problem, history: History, choices: Choices) -> Architecture | None:
    """The architecture, if it was not proposed before and is within the limits."""
    found = Architecture(problem.space, choices)
    return found if found.key not in history.keys and problem.allowed(found) else None


def at_random(problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
    """An architecture by chance.

    Raises:
        Exhausted: none was found among many; small spaces are looked through whole.
    """
    for _ in range(40 * TRIES):
        found = is_new(problem, history, problem.space.sample(rng))
        if found is not None:
            return found
    if problem.space.count <= 200_000:
        everything = list(itertools.product(*map(range, problem.space.sizes)))
        for i in rng.permutation(len(everything)).tolist():
            found = is_new(problem, history, everything[i])
            if found is not None:
                return found
    raise Exhausted


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Architectures by chance, none of them twice."""

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """As `Algorithm`."""
        return at_random(problem, history, rng)


@dataclasses.dataclass(frozen=True)
class BruteForce:
    """Every distinct architecture of the space, in the order of their encodings."""

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """As `Algorithm`."""
        last = history.proposed[-1].choices if history.proposed else None
        for choices in _from(problem.space.sizes, last):
            found = is_new(problem, history, choices)
            if found is not None:
                return found
        raise Exhausted


def _from(sizes: Sequence[int], last: Choices | None) -> Iterator[Choices]:
    """Encodings behind `last`, in order; the last variable changes fastest."""
    current = [0] * len(sizes) if last is None else list(last)
    if last is None:
        yield tuple(current)
    while True:
        for i in reversed(range(len(sizes))):
            current[i] += 1
            if current[i] < sizes[i]:
                break
            current[i] = 0
        else:
            return
        yield tuple(current)


@dataclasses.dataclass(frozen=True)
class LocalSearch:
    """All architectures that differ in one choice from a centre; then those around the best of them.

    Where no neighbour is better than the centre, it begins anew by chance.

    Args:
        initial: architectures by chance, at the beginning; the best of them is the first centre.
        first_improvement: move as soon as anything better is known; a neighbourhood is not looked through
            to its end first. Better at few evaluations.

    Source: White, Nolen and Savani 2020, "Exploring the Loss Landscape in Neural Architecture Search",
    Algorithm 1.
    """

    initial: int = 10
    first_improvement: bool = False

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """As `Algorithm`."""
        if len(history.proposed) < self.initial or not history.ranked():
            return at_random(problem, history, rng)
        centres = self._by_value(history) if self.first_improvement else self._walk(problem, history)
        for centre in centres:
            around = problem.space.neighbours(history.proposed[centre].choices)
            for j in rng.permutation(len(around)).tolist():
                found = is_new(problem, history, around[j])
                if found is not None:
                    return found
        return at_random(problem, history, rng)

    def _by_value(self, history: History) -> Iterator[int]:
        return (i for _, i in history.ranked()[:TRIES])

    def _walk(self, problem: Problem, history: History) -> Iterator[int]:
        """The centres so far, told again from the history; whoever asks for one more has looked around it."""
        numbers = {found.key: i for i, found in enumerate(history.proposed)}
        begun = history.ranked() if len(history.values) < self.initial else _best_first(history, self.initial)
        if not begun:
            return
        centre, seen = begun[0][1], {found.key for found in history.proposed[: self.initial]}
        while True:
            yield centre
            choices = problem.space.neighbours(history.proposed[centre].choices)
            keys = [Architecture(problem.space, choice).key for choice in choices]
            seen.update(keys, [history.proposed[centre].key])
            around = {numbers[key] for key in keys if key in numbers}
            known = [(value, -i) for value, i in history.ranked() if i in around]
            value = history.values[centre] if centre < len(history.values) else math.nan
            if known and max(known)[0] > value:
                centre = -max(known)[1]
                continue
            anew = [i for i, found in enumerate(history.proposed) if found.key not in seen]
            if not anew:
                return
            centre = anew[0]


def _best_first(history: History, count: int) -> list[tuple[float, int]]:
    return [(value, i) for value, i in history.ranked() if i < count]


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Regularised evolution: the best of some of the population has a child with one change; the oldest dies.

    Args:
        population: P, architectures that live.
        sample: S, how many of them the parent is the best of.
        aging: the oldest dies; without it, the worst does.

    Source: Real, Aggarwal, Huang and Le 2019, "Regularized Evolution for Image Classifier Architecture
    Search", Algorithm 1. There P = 100 and S = 25 for 20,000 evaluations; here less, for hundreds.
    """

    population: int = 20
    sample: int = 5
    aging: bool = True

    def __post_init__(self) -> None:
        """Checks the counts.

        Raises:
            ValueError: one is out of its range.
        """
        if not 1 <= self.sample <= self.population:
            raise ValueError(
                f"`sample`={self.sample} of `population`={self.population}; expected 1 to the population"
            )

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """As `Algorithm`."""
        alive = self._alive(history)
        if len(history.proposed) < self.population or not alive:
            return at_random(problem, history, rng)
        for attempt in range(TRIES):
            chosen = rng.choice(len(alive), size=min(self.sample, len(alive)), replace=False)
            parent = -max((history.values[alive[i]], -alive[i]) for i in chosen.tolist())[1]
            choices = history.proposed[parent].choices
            for _ in range(1 + attempt // 10):  # Where all around is known, further away.
                choices = problem.space.mutate(choices, rng)
            found = is_new(problem, history, choices)
            if found is not None:
                return found
        return at_random(problem, history, rng)

    def _alive(self, history: History) -> list[int]:
        if not self.aging:
            return [i for _, i in history.ranked()[: self.population]]
        known = [i for i, value in enumerate(history.values) if value == value]
        return known[-self.population :]


def find_algorithm(algorithm: str | Algorithm, options: Mapping[str, Any] | None = None) -> Algorithm:
    """The algorithm that is meant.

    Args:
        algorithm: "random", "local", "evolve", "model", "brute", "optuna:SAMPLER", or an `Algorithm`.
        options: its fields, for example `{"aging": False}`; for names alone.

    Raises:
        UnknownNameError: there is none of that name, or it has no such option; names the nearest.
    """
    if not isinstance(algorithm, str):
        if not callable(getattr(algorithm, "propose", None)):
            raise ValueError(
                f"`algorithm`={algorithm!r} has no `propose`; expected a name ({', '.join(ALGORITHMS)}) "
                "or an object with `propose(problem, history, rng)`"
            )
        return algorithm
    if algorithm.startswith("optuna:"):
        from convatlas.search.optuna_sampler import OptunaSearch

        return OptunaSearch(algorithm.partition(":")[2], **dict(options or {}))
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, [*ALGORITHMS, "optuna:SAMPLER"])
    kind = ALGORITHMS[algorithm]()
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in options or {}:
        if name not in fields:
            raise unknown(f"option of {algorithm}", name, fields)
    return kind(**dict(options or {}))


def _model() -> Any:
    from convatlas.search.surrogate import ModelSearch

    return ModelSearch


ALGORITHMS: Mapping[str, Callable[[], Any]] = {
    "model": _model,
    "evolve": lambda: Evolution,
    "local": lambda: LocalSearch,
    "random": lambda: RandomSearch,
    "brute": lambda: BruteForce,
}
"""What gives the class of each algorithm."""
