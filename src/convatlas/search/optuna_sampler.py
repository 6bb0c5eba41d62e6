"""Samplers of Optuna as search algorithms."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from typing import Any

import numpy as np

from convatlas.errors import unknown
from convatlas.search.algorithms import TRIES, History, Problem, at_random, is_new
from convatlas.search.architecture import Architecture

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
}
"""Short names of the samplers; those of Optuna's classes work too."""


@dataclasses.dataclass(frozen=True)
class OptunaSearch:
    """A sampler of Optuna, told the whole history anew for each proposal.

    That makes a proposal a function of the history and its random numbers alone, and costs milliseconds.

    Args:
        sampler: a short name of `SAMPLERS`, or the name of a class of `optuna.samplers`.

    Raises:
        UnknownNameError: there is no such sampler; names the nearest.
        ValueError: Optuna is not installed.
    """

    sampler: str

    def __post_init__(self) -> None:
        """Finds the class."""
        self._class()

    def _class(self) -> Any:
        try:
            samplers = importlib.import_module("optuna.samplers")
        except ImportError:
            raise ValueError(
                f"algorithm 'optuna:{self.sampler}' needs Optuna: pip install optuna, "
                "or '.[search]' in a checkout"
            ) from None
        known = [*SAMPLERS, *(name for name in samplers.__all__ if name.endswith("Sampler"))]
        name = SAMPLERS.get(self.sampler.lower(), self.sampler)
        if name not in known or name in ("BaseSampler", "PartialFixedSampler", "GridSampler"):
            raise unknown("Optuna sampler", self.sampler, known)
        return getattr(samplers, name)

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """As `Algorithm`."""
        optuna: Any = importlib.import_module("optuna")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = problem.space
        distributions = {
            name: optuna.distributions.CategoricalDistribution(tuple(range(size)))
            for name, size in zip(space.variables, space.sizes, strict=True)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(
                direction="maximize", sampler=self._class()(seed=int(rng.integers(2**31)))
            )
            for found, value in zip(history.proposed, history.values, strict=False):
                if value == value:
                    params = dict(zip(space.variables, found.choices, strict=True))
                    trial = optuna.trial.create_trial(params=params, distributions=distributions, value=value)
                    study.add_trial(trial)
            for _ in range(TRIES):
                trial = study.ask(distributions)
                choices = tuple(int(trial.params[name]) for name in space.variables)
                found = is_new(problem, history, choices)
                if found is not None:
                    return found
        return at_random(problem, history, rng)
