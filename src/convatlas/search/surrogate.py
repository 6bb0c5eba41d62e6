"""Search by a model: a Bayesian linear model of choices and pairs of choices, asked by Thompson sampling.

The features of an architecture are one for each choice, one for each pair of choices. Weights are normal,
with one variance for the choices and one for the pairs. A function is drawn from
the posterior and its best architecture proposed (Thompson 1933; for networks: Kandasamy et al. 2018, Section
3): an architecture is tried about as often as it is likely to be the best.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convatlas.search.algorithms import History, Problem, at_random, is_new
from convatlas.search.architecture import Architecture, Choices, Space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALL_SPACE = 20_000
"""A space with at most as many encodings is a pool as a whole."""

POOL = 400
"""Candidates of one proposal in a larger space."""

PRIORS = tuple((np.array(shares), noise) for shares in ((0.7, 0.3), (0.4, 0.6)) for noise in (0.05, 0.2))
"""Shares of the prior variance of one choice and of two together, and the variance of noise."""

WORST = 1.5
"""The bad values lie at most as many times as far below the median as the best lies above it."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Where the weight of each feature of a space lies.

    Attributes:
        groups: the variables of each feature group: one, or two.
        offsets: for each group, where its weights begin.
        strides: for each group, what its variables' choices are multiplied by.
        order: of each group, 1 or 2.
        length: weights in all.
    """

    groups: tuple[tuple[int, ...], ...]
    offsets: Ints
    strides: tuple[tuple[int, ...], ...]
    order: Ints
    length: int

    def rows(self, choices: Ints) -> Ints:
        """The weights of each architecture: (N, V) -> (N, groups)."""
        columns = [
            offset + sum(choices[:, i] * stride for i, stride in zip(group, strides, strict=True))
            for group, strides, offset in zip(self.groups, self.strides, self.offsets, strict=True)
        ]
        return np.stack(columns, axis=1)


@lru_cache(maxsize=16)
def make_features(sizes: tuple[int, ...]) -> Features:
    """The features of a space whose variables have so many values."""
    groups = [group for order in (1, 2) for group in itertools.combinations(range(len(sizes)), order)]
    strides: list[tuple[int, ...]] = []
    lengths: list[int] = []
    for group in groups:
        length, steps = 1, list[int]()
        for i in reversed(group):
            steps.append(length)
            length *= sizes[i]
        strides.append(tuple(reversed(steps)))
        lengths.append(length)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    order = np.array([len(group) for group in groups])
    return Features(tuple(groups), offsets, tuple(strides), order, int(sum(lengths)))


def scores_of_all(features: Features, sizes: tuple[int, ...], weights: Floats) -> Floats:
    """The score of every encoding of a small space, in the order of their numbers: (prod(sizes),)."""
    scores = np.zeros(sizes)
    ends = np.append(features.offsets[1:], features.length)
    for group, start, end in zip(features.groups, features.offsets, ends, strict=True):
        shape = [size if i in group else 1 for i, size in enumerate(sizes)]
        scores += weights[start:end].reshape(shape)
    return scores.reshape(-1)


def standardise(values: Floats) -> Floats:
    """Values with mean 0 and deviation 1, in which the bad ones lie no further from the median than the best.

    Networks that do not train at all would otherwise be most of what the model learns.
    """
    middle, best = float(np.median(values)), float(values.max())
    scale = max(best - middle, 1e-12)
    low = np.maximum(values, middle - WORST * scale)
    centred = low - low.mean()
    deviation = float(centred.std())
    return centred / deviation if deviation > 0 else centred


@dataclasses.dataclass(frozen=True)
class ModelSearch:
    """A model of choices and pairs of choices with Thompson sampling.

    Args:
        initial: architectures by chance, at the beginning.
        refit: evaluations after which the variances of the model are chosen anew, by marginal likelihood.
    """

    initial: int = 10
    refit: int = 10

    def propose(self, problem: Problem, history: History, rng: np.random.Generator) -> Architecture:
        """As `Algorithm`."""
        known = [i for i, value in enumerate(history.values) if value == value]
        if len(history.proposed) < self.initial or len(known) < 3:
            return at_random(problem, history, rng)
        space = problem.space
        choices = np.array([history.proposed[i].choices for i in known], dtype=np.int64)
        values = np.array([history.values[i] for i in known])
        features = make_features(space.sizes)
        shares, noise = self._prior(choices, values)
        weights = draw_weights(features, choices, standardise(values), shares, noise, rng)
        pool, scores = _scored(space, history, weights, rng)
        count = min(len(scores), 2 * len(history.proposed) + POOL)
        best = np.argpartition(-scores, count - 1)[:count]
        for i in best[np.argsort(-scores[best], kind="stable")].tolist():
            choice = np.unravel_index(i, space.sizes) if pool is None else pool[i]
            found = is_new(problem, history, tuple(int(value) for value in choice))
            if found is not None:
                return found
        return at_random(problem, history, rng)

    def _prior(self, choices: Ints, values: Floats) -> tuple[Floats, float]:
        """The prior that the values make most likely; chosen anew every `refit` values."""
        count = min(len(values), max(self.refit, len(values) // self.refit * self.refit))
        found = _fit(choices[:count].tobytes(), choices.shape[1], values[:count].tobytes())
        return PRIORS[found]


@lru_cache(maxsize=64)
def _fit(choices: bytes, width: int, values: bytes) -> int:
    matrix = np.frombuffer(choices, dtype=np.int64).reshape(-1, width)
    target = standardise(np.frombuffer(values))
    kernels = kernels_of_orders(matrix)
    noise_of = np.eye(len(target))
    scores = [
        log_evidence(np.tensordot(shares, kernels, 1) + noise * noise_of, target) for shares, noise in PRIORS
    ]
    return int(np.argmax(scores))


def kernels_of_orders(choices: Ints) -> Floats:
    """The share of choices, and of pairs of them, that two architectures have in common: (2, N, N)."""
    width = choices.shape[1]
    same = (choices[:, None] == choices[None]).sum(axis=2).astype(float)
    return np.stack([same / width, same * (same - 1) / 2 / max(1, math.comb(width, 2))])


def log_evidence(covariance: Floats, target: Floats) -> float:
    """The logarithm of the density of `target` under a normal distribution, without its constant."""
    lower = np.linalg.cholesky(covariance)
    solved = np.linalg.solve(lower, target)
    return float(-0.5 * solved @ solved - np.log(np.diag(lower)).sum())


def draw_weights(
    features: Features, choices: Ints, target: Floats, shares: Floats, noise: float, rng: np.random.Generator
) -> Floats:
    """Weights from their posterior: a draw from the prior, corrected by what it misses (Matheron's rule)."""
    per_order = shares / np.maximum(1, [(features.order == k).sum() for k in (1, 2)])
    sizes = np.diff(np.append(features.offsets, features.length))
    variance = np.repeat(per_order[features.order - 1], sizes)
    weights = rng.standard_normal(features.length) * np.sqrt(variance)
    rows = features.rows(choices)
    covariance = np.tensordot(shares, kernels_of_orders(choices), 1)
    covariance += noise * np.eye(len(target))
    drawn = weights[rows].sum(axis=1) + np.sqrt(noise) * rng.standard_normal(len(target))
    missed = np.linalg.solve(covariance, target - drawn)
    weights += variance * np.bincount(
        rows.ravel(), np.repeat(missed, rows.shape[1]), minlength=features.length
    )
    return weights


def _scored(
    space: Space, history: History, weights: Floats, rng: np.random.Generator
) -> tuple[Ints | None, Floats]:
    """Candidates with their scores; None and all scores in a small space."""
    features = make_features(space.sizes)
    if space.count <= SMALL_SPACE:
        return None, scores_of_all(features, space.sizes, weights)
    best = [history.proposed[i].choices for _, i in history.ranked()[:10]]
    pool: list[Choices] = []
    for i in range(POOL):
        if i % 4 == 0:
            pool.append(space.sample(rng))
            continue
        choices = best[int(rng.integers(len(best)))]
        for _ in range(i % 4):
            choices = space.mutate(choices, rng)
        pool.append(choices)
    candidates = np.array(pool, dtype=np.int64)
    return candidates, weights[features.rows(candidates)].sum(axis=1)
