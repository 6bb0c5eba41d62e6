"""Logistic regression on features, regularised as cross-validation says. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STRENGTHS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
"""Penalties on half the squared weights, beside the mean loss of features of unit length, strongest first."""
MOST_STEPS = 200
MANY_CLASSES = 200
"""So many classes make a fit slow enough to try fewer strengths."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier.

    Attributes:
        weight: (K, C).
        bias: (K,).
        strength: of the regularisation.
        losses: mean cross-validated loss for each strength that was tried; empty where one was given.
    """

    weight: Floats
    bias: Floats
    strength: float
    losses: dict[float, float]

    def logits(self, features: NDArray[Any]) -> Floats:
        """Logits (N, K) of features (N, C)."""
        return features @ self.weight.T + self.bias


@dataclasses.dataclass(frozen=True, eq=False)
class _Space:
    """Features of zero mean and a mean squared length of 1, in as few directions as there are samples."""

    values: Floats
    mean: Floats
    scale: float
    basis: Floats | None

    def weights(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Weight (K, C) and bias (K,) for the features as they came, from coefficients (K, R + 1)."""
        inner = coefficients[:, :-1] if self.basis is None else coefficients[:, :-1] @ self.basis
        weight = inner / self.scale
        return weight, coefficients[:, -1] - weight @ self.mean


def fit_probe(
    features: NDArray[Any],
    labels: Ints,
    num_classes: int,
    *,
    strength: float | None = None,
    seed: int = 0,
    groups: Ints | None = None,
    sample_weights: Floats | None = None,
) -> LinearProbe:
    """Fits multinomial logistic regression with an L2 penalty on the weights, not on the biases.

    Args:
        features: (N, C).
        labels: (N,), each in [0, K).
        num_classes: K; a class without samples gets the bias of the rarest one, and no weights.
        strength: of the penalty; None for the one with the lowest cross-validated loss.
        seed: of the folds.
        groups: samples of one group stay in one fold, (N,); None for each its own.
        sample_weights: of each sample's loss, (N,), with a mean of 1; None for 1.

    Raises:
        ValueError: there is no sample, or the lengths differ.
    """
    if not len(features) or len(features) != len(labels):
        raise ValueError(
            f"{len(features)} rows of features and {len(labels)} labels; expected as many, and some"
        )
    space = _reduce(np.asarray(features, dtype=np.float64))
    losses: dict[float, float] = {}
    if strength is None:
        losses = _cross_validate(space.values, labels, num_classes, seed, groups, sample_weights)
        strength = min(losses, key=lambda each: (losses[each], -each))
    coefficients = _fit(space.values, labels, num_classes, strength, None, sample_weights)
    weight, bias = space.weights(coefficients)
    present = np.bincount(labels, minlength=num_classes) > 0
    weight[~present], bias[~present] = 0.0, bias[present].min()
    return LinearProbe(weight, bias, strength, losses)


def cross_predict(
    features: NDArray[Any],
    labels: Ints,
    num_classes: int,
    folds: Sequence[Ints],
    strength: float,
) -> Floats:
    """Logits (N, K) of each sample, by a probe that was fitted without its fold.

    Args:
        features: (N, C).
        labels: (N,).
        num_classes: K.
        folds: rows of each fold; what is in none gets zeros.
        strength: of the penalty.
    """
    found = np.zeros((len(labels), num_classes))
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        found[rows] = fit_probe(features[rest], labels[rest], num_classes, strength=strength).logits(
            features[rows]
        )
    return found


def make_folds(labels: Ints, count: int, *, seed: int = 0, groups: Ints | None = None) -> list[Ints]:
    """Rows of each of `count` folds: every class, as far as it goes, in each; groups whole.

    Args:
        labels: (N,).
        count: at least 2.
        seed: of what is in which.
        groups: (N,); None for each sample its own.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    names = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_groups = int(names.max(initial=-1)) + 1
    if not 2 <= count <= num_groups:
        raise ValueError(
            f"`folds`={count}; expected 2 to {num_groups}, the number of images that may be parted"
        )
    num_classes = int(labels.max()) + 1
    table = np.zeros((num_groups, num_classes))
    np.add.at(table, (names, labels), 1)
    # Large groups first; each goes where its classes are rarest, and of equals where images are fewest.
    order = np.random.default_rng(seed).permutation(num_groups)
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    filled, fold_of = np.zeros((count, num_classes)), np.zeros(num_groups, dtype=np.int64)
    totals = np.maximum(table.sum(axis=0), 1.0)
    for group in order.tolist():
        share = (filled / totals) @ table[group]
        fold_of[group] = int(np.lexsort((filled.sum(axis=1), share))[0])
        filled[fold_of[group]] += table[group]
    return [np.flatnonzero(fold_of[names] == fold) for fold in range(count)]


def _reduce(features: Floats) -> _Space:
    mean = features.mean(axis=0)
    centred = features - mean
    count, width = centred.shape
    basis = None
    if count < width:
        # A penalised solution lies in the span of the samples, where the same penalty is the same number.
        _, _, basis = np.linalg.svd(centred, full_matrices=False)
        centred = centred @ basis.T
    scale = float(np.sqrt((centred**2).sum() / max(1, count))) or 1.0
    return _Space(centred / scale, mean, scale, basis)


def _cross_validate(
    values: Floats, labels: Ints, num_classes: int, seed: int, groups: Ints | None, weights: Floats | None
) -> dict[float, float]:
    count, strengths = len(values), STRENGTHS if num_classes < MANY_CLASSES else STRENGTHS[3:7:2]
    parted = count if groups is None else len(np.unique(groups))
    if parted < 4:
        return {1e-2: 0.0}
    wanted = 5 if count * num_classes <= 20_000 else 3
    folds = make_folds(labels, min(wanted, parted), seed=seed, groups=groups)
    if count * num_classes > 100_000:
        folds = folds[:1]
    sums, tested = dict.fromkeys(strengths, 0.0), sum(map(len, folds))
    for rows in folds:
        rest = np.setdiff1d(np.arange(count), rows)
        inner = None if weights is None else weights[rest]
        start: Floats | None = None
        for strength in strengths:
            start = _fit(values[rest], labels[rest], num_classes, strength, start, inner)
            logits = values[rows] @ start[:, :-1].T + start[:, -1]
            sums[strength] += float(log_losses(logits, labels[rows]).sum()) / tested
    return sums


def log_losses(logits: Floats, labels: Ints) -> Floats:
    """Cross-entropy of each sample, (N,), from logits (N, K)."""
    most = logits.max(axis=1)
    total = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
    return total - logits[np.arange(len(labels)), labels]


def _fit(
    values: Floats,
    labels: Ints,
    num_classes: int,
    strength: float,
    start: Floats | None,
    sample_weights: Floats | None,
) -> Floats:
    """Coefficients (K, C + 1), the biases last."""
    from scipy.optimize import minimize

    count = len(values)
    padded = np.concatenate([values, np.ones((count, 1))], axis=1).astype(np.float32)
    shares = np.full(count, 1.0 / count) if sample_weights is None else sample_weights / count
    rows = np.arange(count)
    width = padded.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        matrix = flat.reshape(num_classes, width)
        logits = (padded @ matrix.T.astype(np.float32)).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        totals = powers.sum(axis=1)
        value = float((shares * (np.log(totals) - logits[rows, labels])).sum())
        slope = powers / totals[:, None]
        slope[rows, labels] -= 1.0
        gradient = ((slope * shares[:, None]).astype(np.float32).T @ padded).astype(np.float64)
        value += 0.5 * strength * float((matrix[:, :-1] ** 2).sum())
        gradient[:, :-1] += strength * matrix[:, :-1]
        gradient[:, -1] += 1e-6 * matrix[:, -1]  # a class without samples has a bias of its own choice
        value += 0.5e-6 * float((matrix[:, -1] ** 2).sum())
        return value, gradient.ravel()

    begin = np.zeros(num_classes * width) if start is None else start.ravel()
    options = {"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-7, "gtol": 1e-5}
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64).reshape(num_classes, width)
