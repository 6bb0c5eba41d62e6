"""Searching with any function as the evaluation, in one process and without files."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convatlas.search.algorithms import Algorithm, Exhausted, History, Problem, find_algorithm
from convatlas.search.architecture import Architecture, Space
from convatlas.search.spaces import find_space

Evaluate = Callable[[Architecture, int], float]
"""Evaluates an architecture with a seed of its own; larger is better."""

MODEL_UP_TO = 300
"""Evaluations up to which a model is the default algorithm."""


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        history: pairs of (architecture, value) in the order of proposal; the value is NaN where the
            evaluation failed.
        errors: why evaluations failed, by their number.
        seconds: that the search itself took, evaluations apart.
        exhausted: whether the search ended because nothing new is within the limits.
    """

    history: tuple[tuple[Architecture, float], ...]
    errors: Mapping[int, str]
    seconds: float
    exhausted: bool = False

    @property
    def best(self) -> Architecture:
        """The architecture with the largest value; of equals, the first.

        Raises:
            ValueError: every evaluation failed.
        """
        return self.history[self._best][0]

    @property
    def best_value(self) -> float:
        """The largest value: as measured in the search, and so too good on average (winner's curse)."""
        return self.history[self._best][1]

    @property
    def _best(self) -> int:
        known = [(value, -i) for i, (_, value) in enumerate(self.history) if not math.isnan(value)]
        if not known:
            reason = next(iter(self.errors.values()), "there was none")
            raise ValueError(f"no evaluation succeeded: {reason}")
        return -max(known)[1]


def evaluation_seed(seed: int, number: int) -> int:
    """The seed of an evaluation: of the study's seed and its number alone."""
    return int(np.random.SeedSequence([seed, number, 1]).generate_state(1)[0] >> 1)


def proposal_rng(seed: int, number: int) -> np.random.Generator:
    """The random numbers of a proposal: of the study's seed and its number alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, 0])))


def default_algorithm(evaluations: int) -> str:
    """The model up to 300 evaluations, evolution above."""
    return "model" if evaluations <= MODEL_UP_TO else "evolve"


def check_whole(name: str, value: object, least: int) -> None:
    """Refuses what is not a whole number of at least `least`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}`={value!r}; expected a whole number of at least {least}")


def run_search(
    space: str | Space | Mapping[str, Any],
    evaluate: Evaluate,
    algorithm: str | Algorithm = "model",
    evaluations: int = 100,
    seed: int = 0,
    *,
    lag: int = 1,
    allowed: Callable[[Architecture], bool] | None = None,
    options: Mapping[str, Any] | None = None,
    max_failures: int | None = None,
) -> SearchResult:
    """Searches a space for the architecture with the largest value.

    No architecture is evaluated twice. Proposal n is a function of the seed and of the values of the
    proposals up to n - lag.

    Args:
        space: "nasnet", "amoebanet", "tiny", "nasbench201" or "mobile"; a `Space`; or a mapping from each
            variable to its values.
        evaluate: gives the value of an architecture, larger is better; its second argument is a seed.
        algorithm: "model", "evolve", "local", "random", "brute" or "optuna:SAMPLER"; or an `Algorithm`.
        evaluations: how many.
        seed: of the search.
        lag: how many proposals back the newest value lies that a proposal knows; 1 for all.
        allowed: whether an architecture is within limits; asked before it is evaluated.
        options: fields of the algorithm, for example `{"aging": False}`.
        max_failures: evaluations that may raise an error before the search stops; None for half of them.

    Returns:
        The history and the best. There are fewer evaluations than asked for where the space, or what is
        allowed of it, has no more.

    Raises:
        UnknownNameError: the space or the algorithm is unknown; names the nearest.
        ValueError: an argument is out of range, nothing is allowed, or too many evaluations failed.
    """
    check_whole("evaluations", evaluations, 1)
    check_whole("seed", seed, 0)
    check_whole("lag", lag, 1)
    problem = Problem(find_space(space), allowed or (lambda _: True))
    finder = find_algorithm(algorithm, options)
    proposed: list[Architecture] = []
    values: list[float] = []
    keys: set[str] = set()
    errors: dict[int, str] = {}
    spent, exhausted = 0.0, False
    limit = max(1, evaluations // 2) if max_failures is None else max_failures
    for number in range(evaluations):
        start = time.perf_counter()
        known = values[: max(0, number - lag + 1)]
        try:
            found = finder.propose(problem, History(proposed, known, keys), proposal_rng(seed, number))
        except Exhausted:
            exhausted = True
            break
        spent += time.perf_counter() - start
        proposed.append(found)
        keys.add(found.key)
        try:
            values.append(float(evaluate(found, evaluation_seed(seed, number))))
        except Exception as error:
            values.append(math.nan)
            errors[number] = f"{type(error).__name__}: {error}"
            if len(errors) > limit:
                raise ValueError(
                    f"{len(errors)} of {number + 1} evaluations failed; the last one, of {found.text}: "
                    f"{errors[number]}"
                ) from error
    if not proposed:
        raise ValueError(f"space {problem.space.name}: no architecture is within the limits")
    history = tuple(zip(proposed, values, strict=True))
    return SearchResult(history, errors, spent, exhausted)
